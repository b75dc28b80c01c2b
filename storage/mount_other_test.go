//go:build !linux

package storage

import (
	"context"
	"time"
)

// childModes are modes of the child process that one system only knows.
var childModes map[string]func(ctx context.Context, dir string) error

// cpuTime is not measured here.
func cpuTime() time.Duration { return 0 }
