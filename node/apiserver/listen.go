package apiserver

import (
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"sync"
	"time"

	"golang.org/x/net/netutil"

	"github.com/starling-chat/starling/node/api"
)

// ErrInUse says that another process answers on the socket.
var ErrInUse = errors.New("another node serves this home")

// probeTimeout bounds the question whether somebody answers on a socket that exists; a local
// process accepts at once or not at all.
const probeTimeout = time.Second

// Listener is a unix socket that only its owner may use.
type Listener struct {
	net.Listener
	path    string
	closing sync.Once
	cleanup []string // removed on Close, in this order
}

// Listen opens the socket of the node whose runtime directory is dir, and makes dir (0700) if need
// be. A socket that a killed process left is replaced; one that answers gives ErrInUse. When the
// path is longer than the system takes, the socket lies in a directory of its own (0700) in the
// temporary directory and a file in dir says where: [api.FindSocket] reads it.
func Listen(dir string) (*Listener, error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, fmt.Errorf("making the runtime directory: %w", err)
	}
	if old := api.FindSocket(dir); answers(old) {
		return nil, fmt.Errorf("listening on %s: %w", old, ErrInUse)
	}
	path := filepath.Join(dir, api.SocketName)
	l := &Listener{path: path}
	if len(path) > api.MaxSocketPath {
		if err := l.moveToTemp(dir); err != nil {
			return nil, err
		}
	} else if err := os.Remove(path); err != nil && !errors.Is(err, os.ErrNotExist) {
		return nil, fmt.Errorf("removing a stale socket: %w", err)
	}
	ln, err := net.Listen("unix", l.path)
	if err != nil {
		l.remove()
		return nil, fmt.Errorf("listening on the api socket: %w", err)
	}
	l.Listener = ln
	if err := os.Chmod(l.path, 0o600); err != nil {
		l.Close()
		return nil, fmt.Errorf("protecting the api socket: %w", err)
	}
	return l, nil
}

// Path is where the socket lies.
func (l *Listener) Path() string { return l.path }

// Close stops listening and removes the socket. It is idempotent.
func (l *Listener) Close() error {
	var err error
	l.closing.Do(func() {
		err = l.Listener.Close() // unlinks the socket
		l.remove()
	})
	return err
}

func (l *Listener) remove() {
	for _, p := range l.cleanup {
		os.Remove(p)
	}
}

// moveToTemp chooses a short path and leaves a pointer to it in dir.
func (l *Listener) moveToTemp(dir string) error {
	pointer := filepath.Join(dir, api.SocketPointer)
	if old := api.FindSocket(dir); old != l.path { // of a killed process
		os.Remove(old)
		os.Remove(filepath.Dir(old))
	}
	for _, tmp := range []string{os.TempDir(), "/tmp"} {
		short, err := os.MkdirTemp(tmp, "starling-")
		if err != nil {
			continue
		}
		path := filepath.Join(short, api.SocketName)
		if len(path) > api.MaxSocketPath {
			os.Remove(short)
			continue
		}
		if err := replaceFile(pointer, path+"\n"); err != nil {
			os.Remove(short)
			return fmt.Errorf("writing where the api socket lies: %w", err)
		}
		l.path, l.cleanup = path, []string{pointer, short}
		return nil
	}
	return fmt.Errorf("the path of the api socket %s has %d bytes and the system takes %d: choose a shorter --home, or a shorter TMPDIR", l.path, len(l.path), api.MaxSocketPath)
}

func replaceFile(path, content string) error {
	if err := os.WriteFile(path+".new", []byte(content), 0o600); err != nil {
		return err
	}
	return os.Rename(path+".new", path)
}

func answers(path string) bool {
	conn, err := net.DialTimeout("unix", path, probeTimeout)
	if err != nil {
		return false
	}
	conn.Close()
	return true
}

// limit makes further connections wait while n are open.
func limit(ln net.Listener, n int) net.Listener { return netutil.LimitListener(ln, n) }
