package api

// Bodies of the requests that are no object of their own.

// NickRequest sets the own nick.
type NickRequest struct {
	Nick string `json:"nick"`
}

// PingRequest names whom to ping: a peer id, a multiaddr with one, or a person as in a target.
type PingRequest struct {
	Peer string `json:"peer"`
}

// TargetRequest names a conversation.
type TargetRequest struct {
	Target string `json:"target"`
}

// TopicRequest sets a room's topic; an empty one removes it.
type TopicRequest struct {
	Target string `json:"target"`
	Topic  string `json:"topic"`
}

// ReadRequest marks everything up to and with arrival number Seq as read.
type ReadRequest struct {
	Target string `json:"target"`
	Seq    uint64 `json:"seq"`
}

// MuteRequest says whether a conversation may notify.
type MuteRequest struct {
	Target string `json:"target"`
	Muted  bool   `json:"muted"`
}

// Actions of a [ContactChange].
const (
	ContactAccept  = "accept"
	ContactReject  = "reject"
	ContactRename  = "rename"
	ContactBlock   = "block"
	ContactUnblock = "unblock"
	ContactRemove  = "remove"
)

// ContactChange does one thing to a contact; Petname goes with rename, an empty one takes it back.
type ContactChange struct {
	Who     string `json:"who"`
	Action  string `json:"action"`
	Petname string `json:"petname,omitempty"`
}

// States of trust.
const (
	TrustUnverified = "unverified"
	TrustVerified   = "verified"
	TrustChanged    = "changed" // set by the node only
)

// TrustRequest records the result of comparing safety numbers.
type TrustRequest struct {
	Who   string `json:"who"`
	Trust string `json:"trust"` // verified, unverified
}

// Actions of an [OutboxChange].
const (
	OutboxCancel = "cancel"
	OutboxRetry  = "retry"
)

// OutboxChange cancels an entry, or retries it now.
type OutboxChange struct {
	ID     string `json:"id"`
	Action string `json:"action"`
}

// Setting is one small piece of front-end state that the node keeps: a draft, a theme, a language.
// Keys have at most 64 bytes, values at most 64 KiB.
type Setting struct {
	Key   string `json:"key"`
	Value string `json:"value"`
}

// CheckReport says what a verification of the store found.
type CheckReport struct {
	OK       bool     `json:"ok"`
	Checked  int      `json:"checked"`  // values whose seal was opened
	Streams  int      `json:"streams"`  // conversations whose counts, indexes and digests were compared with their records
	Records  int      `json:"records"`  // in them
	Problems []string `json:"problems"` // what was damaged and is gone here, one sentence each
	Repaired []string `json:"repaired"` // what was put right, one sentence each
}
