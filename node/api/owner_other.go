//go:build !unix

package api

import "os"

// sameOwner only checks that both exist: here the temporary directory is each user's own.
func sameOwner(a, b string) bool {
	_, errA := os.Lstat(a)
	_, errB := os.Lstat(b)
	return errA == nil && errB == nil
}
