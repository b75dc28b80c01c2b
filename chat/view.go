package chat

import (
	"encoding/hex"
	"fmt"
	"time"

	"github.com/starling-chat/starling/chat/wire"
)

// This file is what a front-end sees. Everything in it is a copy: it may be kept, and changing it
// changes nothing here. Texts, nicks, topics and petnames may come from peers and are hostile:
// escape them before they reach a terminal.

// ConversationID names a conversation for front-ends: the room id, or the account id of the other
// side of a direct conversation.
type ConversationID [32]byte

// String returns the id in lower-case hexadecimal; [Conversation.IDString] gives the form in which
// front-ends show it.
func (id ConversationID) String() string { return hex.EncodeToString(id[:]) }

// MessageID names one shown message everywhere: the event id of a room's event, a digest of sender
// and message id for a direct message. The zero value means none.
type MessageID [32]byte

// String returns the id in lower-case hexadecimal, or "" for the zero value.
func (id MessageID) String() string {
	if id.IsZero() {
		return ""
	}
	return hex.EncodeToString(id[:])
}

// IsZero says whether the id is unset.
func (id MessageID) IsZero() bool { return id == MessageID{} }

// ParseMessageID reads the form that String writes; the empty text is the zero id.
func ParseMessageID(s string) (MessageID, error) {
	var id MessageID
	if s == "" {
		return id, nil
	}
	b, err := hex.DecodeString(s)
	if err != nil || len(b) != len(id) {
		return id, fmt.Errorf("%w: message id %.80q is not 64 characters of hexadecimal", ErrBadRequest, s)
	}
	return MessageID(b), nil
}

// Target is a resolved conversation: exactly one of the two is set.
type Target struct {
	Room    *wire.RoomID
	Account *wire.AccountID
}

// ID returns the conversation's id.
func (t Target) ID() ConversationID {
	switch {
	case t.Room != nil:
		return ConversationID(*t.Room)
	case t.Account != nil:
		return ConversationID(*t.Account)
	default:
		return ConversationID{}
	}
}

// IsZero says whether the target names nothing.
func (t Target) IsZero() bool { return t.Room == nil && t.Account == nil }

// Kinds of [Message]. The texts are those of the local API.
const (
	KindMessage = "message"
	KindJoin    = "join"
	KindLeave   = "leave"
	KindTopic   = "topic"
	KindProfile = "profile" // a nick was taken or changed; Text is the new nick
	KindMember  = "member"  // a membership change; Text says it
	KindNotice  = "notice"  // made by this node
	KindUnknown = "unknown" // needs a newer version
)

// State is how far an own message has come. A received one has [StateReceived].
type State string

// The states. An own message only moves forward through them, except that a failed one may be
// retried.
const (
	StateAccepted  State = "accepted"  // durable here
	StateQueued    State = "queued"    // waiting for a path
	StateSent      State = "sent"      // written to a live stream, or handed to a neighbour in the room
	StateStored    State = "stored"    // a mailbox, a mirror or another member of the room holds it
	StateDelivered State = "delivered" // the other device acknowledged after storing it
	StateRead      State = "read"      // the other's front-end said so
	StateFailed    State = "failed"    // given up; Reason says why
	StateReceived  State = "received"
)

// rank orders the states of an own message.
func (s State) rank() int {
	switch s {
	case StateQueued:
		return 1
	case StateSent:
		return 2
	case StateStored:
		return 3
	case StateDelivered:
		return 4
	case StateRead:
		return 5
	default:
		return 0
	}
}

// Message is one line of a conversation: a folded event of a room, or a direct message.
type Message struct {
	ID           MessageID
	ClientID     string // own messages that were sent with one
	Conversation ConversationID
	Target       string // "#lobby" or "@ada"; can be given back to [Service.Resolve]
	Room         string // name without '#'; empty for a direct message
	Account      wire.AccountID
	Device       wire.DeviceID
	Nick         string
	Fingerprint  string
	NickShared   bool // somebody else claims the same nick: show Fingerprint
	Own          bool
	Kind         string
	Text         string
	Style        Style // of a message

	ReplyTo   MessageID
	Edited    bool
	Redacted  bool
	Mention   bool // names this user
	BackDated bool // its clock is not after that of an event it answers to
	Reactions []Reaction

	SentAt     time.Time
	ReceivedAt time.Time
	Seq        uint64 // arrival number within the conversation; unread counts follow it
	State      State
	Reason     string // why State is queued or failed
	ReadBy     int    // room messages: how many members said that they have read it
	Path       Path   // how a direct message travelled, where known
}

// Reaction is one emoji or short text and who gave it, in the order of their nicks.
type Reaction struct {
	Text  string
	Nicks []string
	Own   bool
}

// Conversation is a joined room or a direct conversation.
type Conversation struct {
	ID       ConversationID
	Target   string
	Kind     string // "room" or "dm"
	Room     string
	Account  wire.AccountID // dm
	Topic    string
	Access   string // "public", "password", "private"; rooms only
	Members  int
	Peers    int // connected now
	Unread   int
	Mentions int
	ReadSeq  uint64
	LastSeq  uint64
	LastAt   time.Time
	Gaps     []Gap
	Split    *Split // members whom gossip does not reach; nil when all is well
	Muted    bool
	Trust    Trust // dm
	Request  bool  // dm with a stranger who waits for an answer
	Policy   string

	// The rest belongs to private rooms.
	Membership string // see [MembershipMember]
	Role       string // own
	History    string // [HistoryNone] or [HistoryAll]
	Post       string // the lowest role that may post
	Note       string // why Membership is not MembershipMember
}

// IDString returns the id as the local API shows it: hexadecimal for a room, the account's text
// for a direct conversation.
func (c Conversation) IDString() string {
	if c.Kind == ConversationDM {
		return c.Account.String()
	}
	return c.ID.String()
}

// Kinds of [Conversation].
const (
	ConversationRoom = "room"
	ConversationDM   = "dm"
)

// Ways into a room, as [Conversation.Access] says them.
const (
	AccessPublic   = "public"
	AccessPassword = "password"
	AccessPrivate  = "private"
)

// Gap is a hole: messages known to exist and not here.
type Gap struct {
	Account wire.AccountID // zero when only an id is known, not who wrote it
	Nick    string
	Count   int       // at most [MaxGapCount]
	After   MessageID // the author's last message before the hole; zero when unknown
}

// Member is one account seen in a room.
type Member struct {
	Account     wire.AccountID
	Devices     []wire.DeviceID
	Nick        string
	Fingerprint string
	NickShared  bool
	Petname     string
	Role        string
	Own         bool
	Online      bool
	Path        Path
	LastSeen    time.Time
}

// Trust says whether a contact's account key was compared with its owner.
type Trust string

// The states of trust.
const (
	TrustUnverified Trust = "unverified"
	TrustVerified   Trust = "verified"
	TrustChanged    Trust = "changed"
)

// ContactState says how somebody stands with this user.
type ContactState string

// The states of a contact.
const (
	ContactFriend  ContactState = "contact"
	ContactRequest ContactState = "request" // they ask
	ContactAsked   ContactState = "asked"   // we asked
	ContactBlocked ContactState = "blocked"
)

// Contact is somebody known by account.
type Contact struct {
	Account     wire.AccountID
	Devices     []wire.DeviceID
	Petname     string
	Nick        string
	Fingerprint string
	State       ContactState
	Trust       Trust
	Path        Path
	LastSeen    time.Time
	// With TrustChanged: the verified contact whose name this account uses, and the petname it gets when it is
	// accepted.
	Instead *wire.AccountID
	Wants   string
}

// Actions of [Service.SetContact].
const (
	ContactAccept  = "accept"
	ContactReject  = "reject" // drops the request and its messages; they may ask again
	ContactRename  = "rename"
	ContactBlock   = "block"
	ContactUnblock = "unblock"
	ContactRemove  = "remove"
)

// Verification is what two people compare.
type Verification struct {
	Account      wire.AccountID
	Nick         string
	SafetyNumber string // 60 digits in groups of five
	QR           string // text for a QR code
	Trust        Trust
}

// OutboxEntry is an own direct message that has not been acknowledged end to end.
type OutboxEntry struct {
	ID          MessageID
	Target      string
	Account     wire.AccountID
	State       State
	Attempts    int
	NextAttempt time.Time // zero when none is planned
	CreatedAt   time.Time
	Reason      string
}

// Actions of [Service.OutboxAction].
const (
	OutboxCancel = "cancel"
	OutboxRetry  = "retry"
)

// Digest says what a conversation holds; equal on converged nodes.
type Digest struct {
	Count  int
	SHA256 [32]byte // over the sorted ids of the shown messages
	Gaps   int      // messages known to exist and not here
}

// Invite is a link that lets somebody in.
type Invite struct {
	ID        string
	Link      string
	Target    string
	ExpiresAt time.Time
	OneTime   bool
	Used      bool
}

// InviteRequest asks for a link into a room, or, with a zero target, for a contact link.
type InviteRequest struct {
	Target  Target
	Expiry  time.Duration // 0 is 7 days
	OneTime bool
}

// Me is who this device is.
type Me struct {
	Account     wire.AccountID
	Device      wire.DeviceID
	Nick        string
	Fingerprint string
	Link        string // contact link with addresses
	Addrs       []string
}

// Style says how a message is to be read.
type Style string

// The styles; the empty one is ordinary speech.
const (
	StyleAction Style = "action" // told in the third person: "ada waves"
	StyleNotice Style = "notice" // by a program; programs do not answer it
)

// wire gives the style as it travels.
func (s Style) wire() (wire.Style, error) {
	switch s {
	case "":
		return wire.StylePlain, nil
	case StyleAction:
		return wire.StyleAction, nil
	case StyleNotice:
		return wire.StyleNotice, nil
	}
	return 0, fmt.Errorf("%w: unknown style %.40q", ErrBadRequest, string(s))
}

func styleOf(b *wire.MessageBody) Style {
	switch b.Style {
	case wire.StyleAction:
		return StyleAction
	case wire.StyleNotice:
		return StyleNotice
	}
	return ""
}

// SendAction says what a [SendRequest] does.
type SendAction string

// The actions; the empty one is ActionMessage.
const (
	ActionMessage SendAction = "message"
	ActionEdit    SendAction = "edit"   // Ref is the own message whose text is replaced
	ActionRedact  SendAction = "redact" // Ref is the message to delete
	ActionReact   SendAction = "react"  // Ref is the message, Text the reaction; empty Text takes it back
)

// SendRequest asks for one message. The same ClientID in the same conversation never makes a
// second message, across crashes too; the empty one is never remembered.
type SendRequest struct {
	Target   Target
	Text     string
	ClientID string
	Action   SendAction
	Ref      MessageID
	ReplyTo  MessageID
	Style    Style // of a new message; an edit keeps that of the message
}

// HistoryQuery selects a page of a conversation, oldest first in the answer. Before, After and
// Since combine; without After the page ends at the newest message.
type HistoryQuery struct {
	Target Target
	N      int // at most 1000; 0 is 50
	Before MessageID
	After  MessageID
	Since  time.Time
	// Local asks for what is here and nothing else. Otherwise members are asked for older history when
	// a page before a message goes back further than what was fetched.
	Local bool
}

// SearchQuery selects messages whose text holds every word of Query, newest first.
type SearchQuery struct {
	Query string
	In    Target         // zero: all conversations
	From  wire.AccountID // zero: anybody
	N     int            // at most 200; 0 is 50
}

// Types of [Event].
const (
	EventMessage      = "message"
	EventUpdate       = "update"
	EventConversation = "conversation"
	EventContact      = "contact"
	EventTyping       = "typing"
	EventReset        = "reset"
)

// Event is one change, in the order in which it was made. Cursor rises and can be given to
// [Service.Events]; live events, which are never replayed, have cursor 0.
type Event struct {
	Cursor       uint64
	Type         string
	Message      *Message
	Conversation *Conversation
	Contact      *Contact
	Typing       *Typing
}

// Typing says that somebody writes in a conversation.
type Typing struct {
	Conversation ConversationID
	Account      wire.AccountID
	Nick         string
}

// Stats counts what the service holds.
type Stats struct {
	Rooms        int
	Outbox       int      // direct messages not acknowledged yet
	Unpublished  int      // own room messages no member is known to have
	Gaps         int      // messages known to exist and not here
	Split        []string // targets of rooms some of whose members are reached by sync alone
	Unread       int
	Messages     int // records in all conversations
	StorageState string
	FreeBytes    uint64
	Bytes        int64
	Dropped      uint64 // incoming events that found a queue full; sync repairs them
	Refused      uint64 // incoming events over an author's rate or of a blocked author
}
