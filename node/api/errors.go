package api

import "fmt"

// Code classifies an [Error]. Codes are part of the contract and only get appended.
type Code string

// The codes, with the HTTP status that carries them.
const (
	CodeBadRequest  Code = "bad_request" // 400: malformed or out of limits
	CodeNotFound    Code = "not_found"   // 404
	CodeAmbiguous   Code = "ambiguous"   // 409: a nick that several people claim
	CodeConflict    Code = "conflict"    // 409: the state does not allow it
	CodeDenied      Code = "denied"      // 403: blocked, unverified, not a member, not allowed
	CodeTooLarge    Code = "too_large"   // 413
	CodeTimeout     Code = "timeout"     // 504: not reached in the time allowed
	CodeUnreachable Code = "unreachable" // 502: no path to the peer
	CodeReadOnly    Code = "read_only"   // 507: the disk is full or not writable; nothing was accepted
	CodeNotRunning  Code = "not_running" // made by the client: no node answers
	CodeInternal    Code = "internal"    // 500: a defect; the node's log says more
)

// Error is the only error that a person gets to see: what failed, in one line, and what to type next.
type Error struct {
	Code       Code        `json:"code"`
	Message    string      `json:"message"`
	Hint       string      `json:"hint,omitempty"`
	Candidates []Candidate `json:"candidates,omitempty"` // with CodeAmbiguous
}

// Candidate is one of several people that a target could mean.
type Candidate struct {
	Account     string `json:"account"`
	Nick        string `json:"nick"`
	Fingerprint string `json:"fingerprint"`
}

func (e *Error) Error() string {
	if e.Hint == "" {
		return e.Message
	}
	return fmt.Sprintf("%s; %s", e.Message, e.Hint)
}
