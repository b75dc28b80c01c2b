//go:build !linux

package storage

import "os"

// allocate gives an empty file real blocks for size bytes.
func allocate(f *os.File, size int64) error { return fill(f, size) }

// syncData makes the content of a file durable.
func syncData(f *os.File) error { return f.Sync() }
