//go:build unix

package api

import (
	"os"
	"syscall"
)

// sameOwner reports whether both files exist and belong to one user.
func sameOwner(a, b string) bool {
	ua, okA := owner(a)
	ub, okB := owner(b)
	return okA && okB && ua == ub
}

func owner(path string) (uint32, bool) {
	info, err := os.Lstat(path)
	if err != nil {
		return 0, false
	}
	st, ok := info.Sys().(*syscall.Stat_t)
	if !ok {
		return 0, false
	}
	return st.Uid, true
}
