package storage

import (
	"errors"
	"os"

	"golang.org/x/sys/unix"
)

// allocate gives an empty file real blocks for size bytes.
func allocate(f *os.File, size int64) error {
	err := unix.Fallocate(int(f.Fd()), 0, 0, size)
	if errors.Is(err, unix.EOPNOTSUPP) {
		return fill(f, size)
	}
	return err
}

// syncData makes the content of a file durable, and of its metadata what is
// needed to read it: less than an fsync where nothing grew.
func syncData(f *os.File) error {
	for {
		err := unix.Fdatasync(int(f.Fd()))
		if !errors.Is(err, unix.EINTR) {
			return err
		}
	}
}
