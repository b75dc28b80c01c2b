//go:build unix

package node

import "syscall"

// fileDescriptors leaves a quarter of what the process may have to the store and the API.
func fileDescriptors(want int) int {
	var lim syscall.Rlimit
	if err := syscall.Getrlimit(syscall.RLIMIT_NOFILE, &lim); err != nil || lim.Cur == 0 {
		return want
	}
	return int(min(uint64(want), uint64(lim.Cur)*3/4))
}
