//go:build unix

package identity

import (
	"os"
	"syscall"
	"testing"
)

func TestKeysFileUnderUmask000(t *testing.T) {
	old := syscall.Umask(0)
	defer syscall.Umask(old)
	_, path := newKeys(t, NoPassphrase())
	if info, err := os.Stat(path); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("mode %v: %v", info.Mode(), err)
	}
}
