//go:build !linux

package storage

import "context"

// childModes are modes of the child process that one system only knows.
var childModes map[string]func(ctx context.Context, dir string) error
