package api

import (
	"os"
	"path/filepath"
	"strings"
)

const (
	// SocketName is the name of the socket in a node's runtime directory.
	SocketName = "api.sock"
	// SocketPointer is the name of the file that holds the socket's real path when the one in the
	// runtime directory would be longer than the system allows.
	SocketPointer = "api.sock.path"
	// MaxSocketPath is the longest path of a unix socket that every supported system takes:
	// sun_path has 104 bytes on the BSDs and macOS, 108 on Linux, one of them for the final zero.
	MaxSocketPath = 103 // bytes
)

// FindSocket returns the path of the socket of the node whose runtime directory is dir, whether or
// not a node serves it now.
func FindSocket(dir string) string {
	direct := filepath.Join(dir, SocketName)
	if len(direct) <= MaxSocketPath {
		return direct
	}
	pointer := filepath.Join(dir, SocketPointer)
	b, err := os.ReadFile(pointer)
	if err != nil {
		return direct // does not exist, and dialling it says so
	}
	socket := strings.TrimSpace(string(b))
	// The pointer may outlive the directory it leads to, and in the temporary directory anybody
	// could then make one of that name and serve there.
	if len(socket) > MaxSocketPath || !sameOwner(pointer, filepath.Dir(socket)) {
		return direct
	}
	return socket
}
