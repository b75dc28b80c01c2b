package api

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func TestFindSocket(t *testing.T) {
	if got := FindSocket("/run/x"); got != "/run/x/"+SocketName {
		t.Errorf("short directory: %s", got)
	}
	long := filepath.Join(t.TempDir(), strings.Repeat("d", MaxSocketPath))
	if err := os.MkdirAll(long, 0o700); err != nil {
		t.Fatal(err)
	}
	direct := filepath.Join(long, SocketName)
	if got := FindSocket(long); got != direct {
		t.Errorf("no pointer: %s", got)
	}
	point := func(to string) {
		if err := os.WriteFile(filepath.Join(long, SocketPointer), []byte(to+"\n"), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	short := shortSocket(t)
	point(short)
	if got := FindSocket(long); got != short {
		t.Errorf("pointer to own directory: %s, want %s", got, short)
	}
	point("/nonexistent-dir/api.sock")
	if got := FindSocket(long); got != direct {
		t.Errorf("pointer into nothing: %s", got)
	}
	if os.Getuid() != 0 {
		point("/usr/" + SocketName)
		if got := FindSocket(long); got != direct {
			t.Errorf("pointer into somebody else's directory: %s", got)
		}
		return
	}
	foreign := t.TempDir()
	if err := os.Chown(foreign, 12345, 12345); err != nil {
		t.Fatal(err)
	}
	point(filepath.Join(foreign, SocketName))
	if got := FindSocket(long); got != direct {
		t.Errorf("pointer into somebody else's directory: %s", got)
	}
}
