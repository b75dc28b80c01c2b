//go:build !linux

package storage

import "os"

// Elsewhere nothing stands between Badger and its mapped files: the thresholds
// of SpaceLimits have to do.

func (g *roomGate) register()   {}
func (g *roomGate) unregister() {}

func reserve(*os.File, int64) error { return nil }

// reserves tells whether reserve does anything here.
const reserves = false
