package chat

import (
	"errors"
	"fmt"
	"strings"

	"github.com/starling-chat/starling/chat/wire"
)

// Errors that callers branch on. Each may come wrapped with what exactly is wrong.
var (
	// ErrNotFound says that no conversation, message, contact or entry has that name or id.
	ErrNotFound = errors.New("not found")
	// ErrBadRequest says that an argument is malformed.
	ErrBadRequest = errors.New("bad request")
	// ErrBadName says that a room name, password, nick or petname cannot be used.
	ErrBadName = errors.New("bad name")
	// ErrInvalidUTF8 says that a text is not UTF-8 or holds a NUL.
	ErrInvalidUTF8 = errors.New("text is not valid UTF-8")
	// ErrTooLarge says that a text is over its limit.
	ErrTooLarge = errors.New("too large")
	// ErrEmpty says that a message has no text.
	ErrEmpty = errors.New("message is empty")
	// ErrNotJoined says that the room is not joined.
	ErrNotJoined = errors.New("room is not joined")
	// ErrBlocked says that the account is blocked by this user.
	ErrBlocked = errors.New("account is blocked")
	// ErrKeyChanged says that a contact's key is in question, and that nothing is sent until it is accepted.
	ErrKeyChanged = errors.New("the contact's key has changed")
	// ErrDenied says that the action is not allowed, such as editing another's message.
	ErrDenied = errors.New("not allowed")
	// ErrConflict says that the state does not allow the action, such as retrying a delivered message.
	ErrConflict = errors.New("conflict")
	// ErrReadOnly says that the store accepts nothing, because the disk is full or not writable.
	ErrReadOnly = errors.New("store is read-only")
	// ErrStopped says that the service does not run.
	ErrStopped = errors.New("service is stopped")
	// ErrTooMany says that a bound of this node is reached, such as joined rooms or queued messages.
	ErrTooMany = errors.New("too many")
)

// AmbiguousError says that a nick or petname stands for several accounts.
type AmbiguousError struct {
	Name       string
	Candidates []Candidate
}

// Candidate is one account that an ambiguous name could mean.
type Candidate struct {
	Account     wire.AccountID
	Nick        string
	Fingerprint string
}

// Error lists the candidates by fingerprint.
func (e *AmbiguousError) Error() string {
	prints := make([]string, len(e.Candidates))
	for i, c := range e.Candidates {
		prints[i] = c.Fingerprint
	}
	return fmt.Sprintf("%q is claimed by %d accounts (%s)", e.Name, len(e.Candidates), strings.Join(prints, ", "))
}
