package api

// Schema is the version of the JSON shapes in this package.
const Schema = 1

// Kinds of [Message].
const (
	KindMessage = "message"
	KindJoin    = "join"
	KindLeave   = "leave"
	KindTopic   = "topic"
	KindProfile = "profile" // a nick was taken or changed; Text is the new nick
	KindMember  = "member"  // a membership change in a private room; Text says it
	KindNotice  = "notice"  // made by this node, e.g. a session restart or a changed key
	KindUnknown = "unknown" // needs a newer version
)

// States of an own message; a received one has state "received".
const (
	StateAccepted  = "accepted"  // durable here
	StateQueued    = "queued"    // waiting for a path
	StateSent      = "sent"      // written to a live stream, or handed to a neighbour in the room
	StateStored    = "stored"    // a mailbox, a mirror or another member of the room holds it
	StateDelivered = "delivered" // the other device acknowledged after storing it
	StateRead      = "read"      // the other's front-end said so
	StateFailed    = "failed"    // given up; Reason says why
	StateReceived  = "received"
)

// Styles of a [Message] of kind message.
const (
	StyleAction = "action" // told in the third person, as /me does: "ada waves"; Text is "waves"
	StyleNotice = "notice" // by a program; programs do not answer it
)

// Message is one line of a conversation as a front-end shows it: a folded event of a room or a
// direct message. Text, Nick and Topic come from peers and are hostile: pass them through
// [Escape] or [EscapeNick] before they reach a terminal.
type Message struct {
	Schema       int    `json:"schema"`
	ID           string `json:"id"`
	ClientID     string `json:"client_id,omitempty"`
	Target       string `json:"target"`       // "#lobby" or "@ada": can be given back as TARGET
	Conversation string `json:"conversation"` // stable id: the room id or the other account's id
	Room         string `json:"room,omitempty"`
	Account      string `json:"account"`
	Device       string `json:"device"`
	Nick         string `json:"nick"`
	Fingerprint  string `json:"fingerprint"`
	NickShared   bool   `json:"nick_shared,omitempty"` // somebody else claims the same nick: show Fingerprint
	Own          bool   `json:"own,omitempty"`
	Kind         string `json:"kind"`
	Text         string `json:"text"`
	Style        string `json:"style,omitempty"` // see StyleAction; empty is ordinary speech

	ReplyTo   string     `json:"reply_to,omitempty"` // id of the message answered
	Edited    bool       `json:"edited,omitempty"`
	Redacted  bool       `json:"redacted,omitempty"`
	Mention   bool       `json:"mention,omitempty"` // names this user
	Reactions []Reaction `json:"reactions,omitempty"`

	SentAt     Time   `json:"sent_at"`
	ReceivedAt Time   `json:"received_at"`
	Seq        uint64 `json:"seq"` // order of arrival here; unread counts follow it
	State      string `json:"state"`
	Reason     string `json:"reason,omitempty"`  // why State is queued or failed
	ReadBy     int    `json:"read_by,omitempty"` // own messages in rooms: how many members said they have read it
	Path       string `json:"path,omitempty"`    // lan, direct, punched, relayed: how a DM travelled
	BackDated  bool   `json:"back_dated,omitempty"`
}

// Reaction is one emoji or short text and who gave it.
type Reaction struct {
	Text  string   `json:"text"`
	Nicks []string `json:"nicks"`
	Own   bool     `json:"own,omitempty"`
}

// Actions of a [SendRequest].
const (
	ActionMessage = "message" // the default
	ActionEdit    = "edit"    // Ref is the own message to replace the text of
	ActionRedact  = "redact"  // Ref is the message to delete
	ActionReact   = "react"   // Ref is the message, Text the reaction; empty Text takes it back
)

// SendRequest asks for one message to be accepted. The same ClientID never makes a second message.
type SendRequest struct {
	Target   string `json:"target"`
	Text     string `json:"text,omitempty"`
	ClientID string `json:"client_id,omitempty"`
	Action   string `json:"action,omitempty"`
	Ref      string `json:"ref,omitempty"`
	ReplyTo  string `json:"reply_to,omitempty"`
	// Style is that of a new message, see StyleAction; an edit keeps the message's own.
	Style string `json:"style,omitempty"`
	// Wait is the state to wait for: accepted (default), stored or delivered.
	Wait string `json:"wait,omitempty"`
	// TimeoutMS bounds the wait, in milliseconds; 0 is 30 s. The message stays accepted after a time-out.
	TimeoutMS int64 `json:"timeout_ms,omitempty"`
}

// SendResult answers a [SendRequest]; an answer with state accepted or later means durable.
type SendResult struct {
	ClientID string `json:"client_id,omitempty"`
	ID       string `json:"id,omitempty"`
	State    string `json:"state"`            // failed when Error is set
	Reason   string `json:"reason,omitempty"` // why it got no further
	Error    *Error `json:"error,omitempty"`
}

// BatchItem is one input line of a batch: NDJSON, answered by one [SendResult] line each, in order.
type BatchItem struct {
	ClientID string `json:"client_id"`
	Text     string `json:"text"`
}

// HistoryQuery selects a page of a conversation, oldest first in the answer.
type HistoryQuery struct {
	Target string // required
	N      int    // at most 1000; 0 is 50
	Before string // id: the page that ends just before it
	After  string // id: the page that starts just after it
	Since  Time   // not older than this
}

// SearchQuery selects messages whose text holds every word of Query, newest first.
type SearchQuery struct {
	Query string
	In    string // target, or all conversations
	From  string // author
	N     int    // at most 200; 0 is 50
}

// Digest says what a conversation holds; equal on converged nodes.
type Digest struct {
	Count  int    `json:"count"`
	SHA256 string `json:"sha256"` // over the sorted ids of the shown messages
	Gaps   int    `json:"gaps"`   // messages known to exist and not here
}
