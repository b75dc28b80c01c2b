package apiserver

import (
	"errors"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/starling-chat/starling/node/api"
)

// runtimeDir is a directory whose path leaves room for a socket, unlike t.TempDir.
func runtimeDir(t *testing.T) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "srv")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	return dir
}

func mode(t *testing.T, path string) os.FileMode {
	t.Helper()
	info, err := os.Stat(path)
	if err != nil {
		t.Fatal(err)
	}
	return info.Mode().Perm()
}

func TestListenIsPrivate(t *testing.T) {
	dir := filepath.Join(runtimeDir(t), "run")
	ln, err := Listen(dir)
	if err != nil {
		t.Fatal(err)
	}
	if ln.Path() != api.FindSocket(dir) {
		t.Errorf("listens on %s, clients look at %s", ln.Path(), api.FindSocket(dir))
	}
	if m := mode(t, ln.Path()); m != 0o600 {
		t.Errorf("socket has mode %o", m)
	}
	if m := mode(t, dir); m != 0o700 {
		t.Errorf("directory has mode %o", m)
	}
	if err := ln.Close(); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(ln.Path()); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("the socket stays after Close: %v", err)
	}
	if err := ln.Close(); err != nil {
		t.Errorf("second Close: %v", err)
	}
}

func TestListenReplacesStaleSocket(t *testing.T) {
	dir := runtimeDir(t)
	stale, err := net.Listen("unix", filepath.Join(dir, api.SocketName))
	if err != nil {
		t.Fatal(err)
	}
	stale.(*net.UnixListener).SetUnlinkOnClose(false)
	stale.Close()
	ln, err := Listen(dir)
	if err != nil {
		t.Fatal(err)
	}
	ln.Close()
}

func TestListenRefusesLiveSocket(t *testing.T) {
	dir := runtimeDir(t)
	ln, err := Listen(dir)
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	if _, err := Listen(dir); !errors.Is(err, ErrInUse) {
		t.Errorf("second listen: %v, want ErrInUse", err)
	}
}

func TestListenLongPath(t *testing.T) {
	dir := filepath.Join(runtimeDir(t), strings.Repeat("d", api.MaxSocketPath))
	first, err := Listen(dir)
	if err != nil {
		t.Fatal(err)
	}
	if len(first.Path()) > api.MaxSocketPath || api.FindSocket(dir) != first.Path() {
		t.Errorf("listens on %s, clients look at %s", first.Path(), api.FindSocket(dir))
	}
	if m := mode(t, filepath.Dir(first.Path())); m != 0o700 {
		t.Errorf("directory has mode %o", m)
	}
	if _, err := Listen(dir); !errors.Is(err, ErrInUse) {
		t.Errorf("second listen: %v, want ErrInUse", err)
	}
	// As after a kill: the socket and its directory stay behind.
	first.Listener.(*net.UnixListener).SetUnlinkOnClose(false)
	first.Listener.Close()
	second, err := Listen(dir)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(filepath.Dir(first.Path())); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("the old directory stays: %v", err)
	}
	second.Close()
	for _, path := range []string{filepath.Dir(second.Path()), filepath.Join(dir, api.SocketPointer)} {
		if _, err := os.Stat(path); !errors.Is(err, os.ErrNotExist) {
			t.Errorf("%s stays after Close: %v", path, err)
		}
	}
	t.Setenv("TMPDIR", dir) // as long as the home; /tmp is the last resort
	third, err := Listen(dir)
	if err != nil {
		t.Fatal(err)
	}
	third.Close()
}

func TestListenSaysWhatFails(t *testing.T) {
	file := filepath.Join(runtimeDir(t), "file")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := Listen(filepath.Join(file, "run")); err == nil {
		t.Error("a directory below a file was made")
	}
}
