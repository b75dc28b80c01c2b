package node

import (
	"github.com/starling-chat/starling/node/apiserver"
	"github.com/starling-chat/starling/storage"
)

// Errors of New that a command turns into words of its own; they come wrapped. They are those of
// the packages below, given here so that a command need not know these.
var (
	// ErrLocked says that another process has the store open.
	ErrLocked = storage.ErrLocked
	// ErrInUse says that another process serves the socket of the local API.
	ErrInUse = apiserver.ErrInUse
	// ErrNoSpace says that the disk is too full to open the store.
	ErrNoSpace = storage.ErrNoSpace
	// ErrWrongKey says that the store was made with another keys file.
	ErrWrongKey = storage.ErrWrongKey
	// ErrNotWritable says that the store's directory cannot be written.
	ErrNotWritable = storage.ErrNotWritable
)
