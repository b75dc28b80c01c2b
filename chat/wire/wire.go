// Package wire defines and validates every chat byte sequence of starling:
// identifiers, certificates, room events, sealed events, direct-message and
// relay frames, links and signed records, with their limits in limits.go.
//
// It holds no state besides caches a caller creates (Verifier), does no I/O
// besides reading and writing frames on streams it is handed, knows nothing of
// libp2p or storage, and imports nothing else of ours. Formats are specified in
// docs/spec/rooms.md and docs/spec/identity.md.
//
// Everything on the wire is the protobuf wire format in one canonical form (see
// codec.go), so a value has exactly one encoding; what is signed is still
// hashed and verified over the bytes as they were received.
//
// All functions are safe for concurrent use. Values returned by the parsers
// alias their input: a caller that reuses a buffer must copy it first.
package wire

import (
	"errors"
	"fmt"
)

var (
	// ErrInvalid marks input that no honest node produces: malformed, over a
	// limit, or with a signature that does not hold. Whoever sent it may be
	// scored for it.
	ErrInvalid = errors.New("invalid")
	// ErrUnsupported marks input that a newer version may well produce: an
	// unknown version, flag, kind or frame type. It is ignored, never scored.
	ErrUnsupported = errors.New("needs a newer version of starling")
	// ErrSignature marks a signature that does not hold; errors with it also
	// match ErrInvalid.
	ErrSignature = invalidf("signature does not hold")
)

// verdict is an error with a message of its own that also matches one of the
// sentinels above, so that what a person reads does not begin with "invalid".
type verdict struct {
	class error
	cause error
}

func (v *verdict) Error() string   { return v.cause.Error() }
func (v *verdict) Unwrap() []error { return []error{v.class, v.cause} }

// invalidf returns an error that matches ErrInvalid.
func invalidf(format string, args ...any) error {
	return &verdict{class: ErrInvalid, cause: fmt.Errorf(format, args...)}
}

// unsupportedf returns an error that matches ErrUnsupported.
func unsupportedf(format string, args ...any) error {
	return &verdict{class: ErrUnsupported, cause: fmt.Errorf(format+": %w", append(args, ErrUnsupported)...)}
}
