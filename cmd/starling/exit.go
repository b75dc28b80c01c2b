package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"strings"
	"syscall"

	"github.com/starling-chat/starling/chat/backup"
	"github.com/starling-chat/starling/chat/identity"
	"github.com/starling-chat/starling/node"
	"github.com/starling-chat/starling/node/api"
)

// Exit codes; `starling help exit-codes` explains them. Codes only get appended.
const (
	exitOK          = 0
	exitFailure     = 1
	exitUsage       = 2
	exitNotRunning  = 3
	exitUnreachable = 4
	exitNotFound    = 5
	exitDenied      = 6
	exitInterrupted = 130
)

// usageError is a command line that makes no sense; its text says what to type instead.
type usageError struct{ message string }

func (e *usageError) Error() string { return e.message }

func usagef(format string, args ...any) error {
	return &usageError{message: fmt.Sprintf(format, args...)}
}

// silentError ends the program with a code after everything was said already.
type silentError struct{ code int }

func (e *silentError) Error() string { return fmt.Sprintf("exit code %d", e.code) }

// verdict is what a failed command says and how it exits: the one switch from errors to both.
func verdict(err error) (say *api.Error, code int) {
	var usage *usageError
	var silent *silentError
	var remote *api.Error
	switch {
	case err == nil:
		return nil, exitOK
	case errors.As(err, &silent):
		return nil, silent.code
	case errors.As(err, &usage):
		return &api.Error{Code: api.CodeBadRequest, Message: usage.message}, exitUsage
	case errors.As(err, &remote):
		return remote, exitFor(remote.Code)
	case errors.Is(err, context.Canceled):
		return nil, exitInterrupted
	case errors.Is(err, context.DeadlineExceeded):
		return &api.Error{Code: api.CodeTimeout, Message: "not done in the time allowed", Hint: "try again with a longer --timeout"}, exitUnreachable
	case errors.Is(err, identity.ErrPassphraseNeeded), errors.Is(err, identity.ErrWrongPassphrase), errors.Is(err, identity.ErrKeysPermissions):
		return &api.Error{Code: api.CodeDenied, Message: err.Error()}, exitDenied
	case errors.Is(err, backup.ErrWrongKey):
		return &api.Error{Code: api.CodeDenied, Message: err.Error()}, exitDenied
	case errors.Is(err, backup.ErrNotBackup), errors.Is(err, backup.ErrDamaged), errors.Is(err, backup.ErrTruncated), errors.Is(err, backup.ErrNewer):
		return &api.Error{Code: api.CodeBadRequest, Message: err.Error()}, exitFailure
	case errors.Is(err, node.ErrLocked), errors.Is(err, node.ErrInUse):
		return &api.Error{Code: api.CodeConflict, Message: "another node runs on this home", Hint: "use it (other commands reach it by themselves), stop it with `starling stop`, or choose another --home"}, exitFailure
	case errors.Is(err, node.ErrNoSpace):
		return &api.Error{Code: api.CodeReadOnly, Message: "the disk is full: " + err.Error(), Hint: "or choose another disk with --home"}, exitFailure
	case errors.Is(err, node.ErrWrongKey):
		return &api.Error{Code: api.CodeDenied, Message: err.Error(), Hint: "the keys file beside it is another account's or device's: put the one back that the store was made with, or move the store away"}, exitDenied
	case errors.Is(err, node.ErrNotWritable):
		return &api.Error{Code: api.CodeReadOnly, Message: err.Error(), Hint: "make the directory writable, or choose another with --home"}, exitFailure
	case errors.Is(err, syscall.EADDRINUSE):
		return &api.Error{Code: api.CodeConflict, Message: err.Error(), Hint: "another program listens there; choose another --listen, or leave it out for a free port"}, exitFailure
	case errors.Is(err, syscall.EROFS), errors.Is(err, fs.ErrPermission):
		return &api.Error{Code: api.CodeReadOnly, Message: err.Error(), Hint: "make the directory writable, or choose another with --home"}, exitFailure
	case errors.Is(err, syscall.ENOSPC):
		return &api.Error{Code: api.CodeReadOnly, Message: err.Error(), Hint: "the disk is full; free some space and try again"}, exitFailure
	}
	return &api.Error{Code: api.CodeInternal, Message: err.Error()}, exitFailure
}

func exitFor(code api.Code) int {
	switch code {
	case api.CodeBadRequest, api.CodeTooLarge:
		return exitUsage
	case api.CodeNotRunning:
		return exitNotRunning
	case api.CodeTimeout, api.CodeUnreachable:
		return exitUnreachable
	case api.CodeNotFound, api.CodeAmbiguous:
		return exitNotFound
	case api.CodeDenied:
		return exitDenied
	default:
		return exitFailure
	}
}

// fail prints what went wrong on one line (and the candidates of an ambiguous name below it) and
// gives the exit code.
func (a *app) fail(err error) int {
	say, code := verdict(err)
	if say == nil {
		return code
	}
	if a.global.json {
		b, jsonErr := json.Marshal(say)
		if jsonErr == nil {
			fmt.Fprintf(a.stderr, "%s\n", b)
			return code
		}
	}
	fmt.Fprintf(a.stderr, "starling: %s\n", api.Escape(strings.TrimSpace(say.Error())))
	for _, c := range say.Candidates {
		fmt.Fprintf(a.stderr, "  @%s  %s  %s\n", api.Escape(c.Account), api.EscapeNick(c.Nick), api.Escape(c.Fingerprint))
	}
	return code
}

// warn prints one line about something that did not end the command.
func (a *app) warn(err error) {
	if say, _ := verdict(err); say != nil {
		fmt.Fprintf(a.stderr, "starling: %s\n", api.Escape(say.Error()))
	}
}

// note prints one line for people, which --quiet leaves out.
func (a *app) note(format string, args ...any) {
	if !a.global.quiet {
		fmt.Fprintf(a.stderr, format+"\n", args...)
	}
}
