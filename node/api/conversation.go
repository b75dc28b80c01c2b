package api

// Conversation is a joined room or a direct conversation, as the list at a UI's left shows it.
type Conversation struct {
	ID       string `json:"id"`
	Target   string `json:"target"`
	Kind     string `json:"kind"` // room, dm
	Room     string `json:"room,omitempty"`
	Account  string `json:"account,omitempty"` // dm
	Topic    string `json:"topic,omitempty"`
	Access   string `json:"access,omitempty"` // public, password, private
	Members  int    `json:"members"`
	Peers    int    `json:"peers"` // connected now
	Unread   int    `json:"unread"`
	Mentions int    `json:"mentions"`
	ReadSeq  uint64 `json:"read_seq"`
	LastSeq  uint64 `json:"last_seq"`
	LastAt   Time   `json:"last_at,omitzero"`
	Gaps     []Gap  `json:"gaps,omitempty"`
	Split    *Split `json:"split,omitempty"` // members whom gossip does not reach; absent when all is well
	Muted    bool   `json:"muted,omitempty"`
	Trust    string `json:"trust,omitempty"` // dm: unverified, verified, changed
	Request  bool   `json:"request,omitempty"`
	Policy   string `json:"policy,omitempty"` // what newcomers see, in words

	// The rest belongs to private rooms.

	Membership string `json:"membership,omitempty"` // member, pending, keyless, removed; see the constants
	Role       string `json:"role,omitempty"`       // own: member, moderator, admin, owner
	History    string `json:"history,omitempty"`    // what newcomers get of what was said before: none, all
	Post       string `json:"post,omitempty"`       // the lowest role that may post
	Note       string `json:"note,omitempty"`       // why Membership is not member, in words
}

// How this user stands with a private room.
const (
	// MembershipMember may read and write as the role allows.
	MembershipMember = "member"
	// MembershipPending waits to be admitted: the invite is shown to each member with the right as soon
	// as one is met.
	MembershipPending = "pending"
	// MembershipKeyless is a member who waits for the room's new key: what is sent meanwhile is refused,
	// since the old key may be in the hands of somebody who was removed.
	MembershipKeyless = "keyless"
	// MembershipRemoved was removed, or refused: what was said before stays readable.
	MembershipRemoved = "removed"
)

// What newcomers to a private room get of what was said before they came.
const (
	HistoryNone = "none" // nothing: the room's key is changed whenever somebody is admitted
	HistoryAll  = "all"  // everything that the members still hold
)

// CreateRoomRequest makes a private room. Its name is local display only: nobody finds it by name.
type CreateRoomRequest struct {
	Name    string `json:"name"`
	History string `json:"history,omitempty"` // none (the default) or all
}

// PolicyRequest changes a private room's policy. An empty field leaves as it is what it names.
type PolicyRequest struct {
	Target  string `json:"target"`
	History string `json:"history,omitempty"` // none or all
	Invite  string `json:"invite,omitempty"`  // the lowest role that may admit others
	Post    string `json:"post,omitempty"`    // the lowest role that may post
	// Rate is how many events an author may make in a minute, at most 6000, and Burst how many at once, at most
	// 1000; 0 is the default. Without a burst it is what the rate gives for a minute.
	Rate  *uint32 `json:"rate_per_minute,omitempty"`
	Burst *uint32 `json:"burst,omitempty"`
}

// Actions of a [MemberChange].
const (
	MemberRole   = "role"   // give Role
	MemberRemove = "remove" // take out, and change the key
	MemberBan    = "ban"    // remove, and let nobody admit the account again
	MemberUnban  = "unban"
)

// MemberChange does one thing to somebody in a private room. Who is a person as in a target.
type MemberChange struct {
	Target string `json:"target"`
	Who    string `json:"who"`
	Action string `json:"action"`
	Role   string `json:"role,omitempty"`   // with role: member, moderator, admin, owner
	Reason string `json:"reason,omitempty"` // with remove and ban
}

// Split says that a room's members are in several islands: messages of these come through a relay's mirror or
// by comparing now and then, and the node works on joining them.
type Split struct {
	Since Time     `json:"since"`
	Nicks []string `json:"nicks"` // hostile, as in [Message]
}

// Gap is a hole that sync has not filled yet.
type Gap struct {
	Account string `json:"account"`
	Nick    string `json:"nick"`
	Count   int    `json:"count"`
	After   string `json:"after,omitempty"` // id of the last message before the hole
}

// JoinRequest names a room or carries a link. Joining a joined room is no error. An invite to a private
// room is answered with a conversation whose membership is pending until somebody admits this user.
type JoinRequest struct {
	Room     string `json:"room"`
	Password string `json:"password,omitempty"`
}

// Member is one account seen in a room.
type Member struct {
	Account     string   `json:"account"`
	Devices     []string `json:"devices"`
	Nick        string   `json:"nick"`
	Fingerprint string   `json:"fingerprint"`
	NickShared  bool     `json:"nick_shared,omitempty"`
	Petname     string   `json:"petname,omitempty"`
	Role        string   `json:"role,omitempty"`
	Own         bool     `json:"own,omitempty"`
	Online      bool     `json:"online"`
	Path        string   `json:"path,omitempty"`
	LastSeen    Time     `json:"last_seen,omitzero"`
}

// Device is one of this user's account.
type Device struct {
	ID      string `json:"id"`
	Here    bool   `json:"here,omitempty"`    // the one this is
	Revoked bool   `json:"revoked,omitempty"` // it speaks for nobody any more
	Path    string `json:"path,omitempty"`
}

// Contact is somebody known by account.
type Contact struct {
	Account     string   `json:"account"`
	Devices     []string `json:"devices"`
	Petname     string   `json:"petname,omitempty"`
	Nick        string   `json:"nick"`
	Fingerprint string   `json:"fingerprint"`
	State       string   `json:"state"` // contact, request (they ask), asked (we asked), blocked
	Trust       string   `json:"trust"` // unverified, verified, changed
	Path        string   `json:"path,omitempty"`
	LastSeen    Time     `json:"last_seen,omitzero"`
	// With trust "changed": the verified contact whose name this account uses, if that is what came into
	// question, and the petname it gets when it is accepted.
	Instead string `json:"instead,omitempty"`
	Wants   string `json:"wants,omitempty"`
}

// ContactRequest adds somebody: an account id, or a starling: contact link.
type ContactRequest struct {
	Who     string `json:"who"`
	Petname string `json:"petname,omitempty"`
}

// Verification is what two people compare.
type Verification struct {
	Account      string `json:"account"`
	Nick         string `json:"nick"`
	SafetyNumber string `json:"safety_number"` // 60 digits in groups of five
	QR           string `json:"qr"`            // text for a QR code
	Trust        string `json:"trust"`
}

// OutboxEntry is an own message that has not been acknowledged end to end.
type OutboxEntry struct {
	ID          string `json:"id"`
	Target      string `json:"target"`
	Account     string `json:"account"`
	State       string `json:"state"`
	Attempts    int    `json:"attempts"`
	NextAttempt Time   `json:"next_attempt,omitzero"`
	CreatedAt   Time   `json:"created_at"`
	Reason      string `json:"reason,omitempty"`
}

// Invite is a link that lets somebody in.
type Invite struct {
	ID        string `json:"id"`
	Link      string `json:"link"`
	Target    string `json:"target,omitempty"`
	ExpiresAt Time   `json:"expires_at,omitzero"`
	OneTime   bool   `json:"one_time,omitempty"`
	Used      bool   `json:"used,omitempty"`
}

// InviteRequest asks for a link into a room, or, with an empty target, for a contact link.
type InviteRequest struct {
	Target   string `json:"target,omitempty"`
	ExpiryMS int64  `json:"expiry_ms,omitempty"` // 0 is 7 days
	OneTime  bool   `json:"one_time,omitempty"`
}
