package wire

import "bytes"

// Role is what an account may do in a room. A higher number may do all that a
// lower one may.
type Role uint8

// Roles. A room's creator is its owner.
const (
	RoleMember    Role = 1
	RoleModerator Role = 2
	RoleAdmin     Role = 3
	RoleOwner     Role = 4
)

// String returns the role's name.
func (r Role) String() string {
	switch r {
	case RoleMember:
		return "member"
	case RoleModerator:
		return "moderator"
	case RoleAdmin:
		return "admin"
	case RoleOwner:
		return "owner"
	default:
		return "none"
	}
}

// PolicyBody is a room's policy; zero fields mean the default.
//
// Encoding: {1 rate per minute varint, 2 burst varint, 3 history days varint,
// 4 history events varint, 5 share history flag, 6 post role varint, 7 invite
// role varint, 8 expiry seconds varint, 100..127 extensions}.
type PolicyBody struct {
	RatePerMinute uint32 // events an author may make in a minute, at most 6000
	Burst         uint32 // events an author may make at once, at most 1000
	HistoryDays   uint32 // days of history kept and fetched by newcomers, at most 3650
	HistoryEvents uint32 // events of history fetched by newcomers, at most 1,000,000
	ShareHistory  bool   // newcomers are given the secrets of earlier epochs
	PostRole      Role   // lowest role that may post; zero: member
	InviteRole    Role   // lowest role that may add members; zero: admin
	ExpirySeconds uint32 // messages expire so long after being sent; zero: never
	Extensions    Extensions
}

// CreateBody begins a private room. The event's id becomes the room's id.
//
// Encoding: {1 name, 2 topic key of epoch 0, 3 policy, 4 network}.
type CreateBody struct {
	Name    string // for display
	Topic   TopicKey
	Policy  PolicyBody
	Network string
}

// AddBody makes an account a member.
//
// Encoding: {1 account 32, 2 role varint, 3 invite 16}.
type AddBody struct {
	Account AccountID
	Role    Role
	// Invite is the one-time token that was redeemed, so that it is not taken
	// twice; zero if the account was added without one, or by an invite that
	// may be used more than once.
	Invite InviteToken
}

// RemoveBody ends an account's membership and begins the next epoch, whose
// secret the removed never gets.
//
// Encoding: {1 account 32, 2 reason, 3 next epoch varint, 4 topic key 32, 5
// marks (repeated): {1 device 32, 2 sequence varint, 3 event 32}}.
type RemoveBody struct {
	Account AccountID
	Reason  string
	Epoch   uint32
	Topic   TopicKey
	// Marks say what of the removed account's events stands, in ascending order
	// of the devices.
	Marks []Mark
}

// Mark names the last event of a device that the author of a removal knew: it
// and what its previous leads to stand, what else the device made is void.
type Mark struct {
	Device DeviceID
	Seq    uint64
	Last   EventID
}

// RevokeBody makes an invite worthless.
//
// Encoding: {1 token 16}.
type RevokeBody struct{ Invite InviteToken }

// RoleBody gives a member another role.
//
// Encoding: {1 account 32, 2 role varint}.
type RoleBody struct {
	Account AccountID
	Role    Role
}

// EpochBody begins the next epoch without a removal: the regular rotation, or
// after a device was revoked.
//
// Encoding: {1 next epoch varint, 2 topic key 32}.
type EpochBody struct {
	Epoch uint32
	Topic TopicKey
}

// Bounds of PolicyBody.
const (
	MaxRatePerMinute = 6000 // events of an author
	MaxBurst         = 1000 // events of an author at once
	maxHistoryDays   = 3650
	maxHistoryEvents = 1_000_000
	maxExpirySeconds = 10 * 365 * 24 * 60 * 60
)

// maxPolicy bounds an encoded PolicyBody, in bytes.
const maxPolicy = MaxExtensions + 64

// EventKind implements Body.
func (*PolicyBody) EventKind() Kind { return KindPolicy }

// EventKind implements Body.
func (*CreateBody) EventKind() Kind { return KindCreate }

// EventKind implements Body.
func (*AddBody) EventKind() Kind { return KindAdd }

// EventKind implements Body.
func (*RemoveBody) EventKind() Kind { return KindRemove }

// EventKind implements Body.
func (*RoleBody) EventKind() Kind { return KindRole }

// EventKind implements Body.
func (*EpochBody) EventKind() Kind { return KindEpoch }

// EventKind implements Body.
func (*RevokeBody) EventKind() Kind { return KindRevoke }

func (b *RevokeBody) encodeBody(e *encoder) { e.id(1, b.Invite[:]) }

func (b *RevokeBody) decodeBody(d *decoder) {
	if d.num != 1 {
		d.unknown()
		return
	}
	d.id(b.Invite[:])
}

func (b *RevokeBody) checkBody() error {
	if b.Invite == (InviteToken{}) {
		return invalidf("revocation of no invite")
	}
	return nil
}

func (b *PolicyBody) encodeBody(e *encoder) {
	e.uint(1, uint64(b.RatePerMinute))
	e.uint(2, uint64(b.Burst))
	e.uint(3, uint64(b.HistoryDays))
	e.uint(4, uint64(b.HistoryEvents))
	e.flag(5, b.ShareHistory)
	e.uint(6, uint64(b.PostRole))
	e.uint(7, uint64(b.InviteRole))
	e.uint(8, uint64(b.ExpirySeconds))
	e.raw(b.Extensions)
}

func (b *PolicyBody) decodeBody(d *decoder) {
	switch d.num {
	case 1:
		b.RatePerMinute = uint32(d.uint(MaxRatePerMinute))
	case 2:
		b.Burst = uint32(d.uint(MaxBurst))
	case 3:
		b.HistoryDays = uint32(d.uint(maxHistoryDays))
	case 4:
		b.HistoryEvents = uint32(d.uint(maxHistoryEvents))
	case 5:
		b.ShareHistory = d.flag()
	case 6:
		b.PostRole = Role(d.uint(uint64(RoleOwner)))
	case 7:
		b.InviteRole = Role(d.uint(uint64(RoleOwner)))
	case 8:
		b.ExpirySeconds = uint32(d.uint(maxExpirySeconds))
	default:
		d.extension(&b.Extensions)
	}
}

func (b *PolicyBody) checkBody() error {
	switch {
	case b.RatePerMinute > MaxRatePerMinute, b.Burst > MaxBurst:
		return invalidf("rate over %d a minute or burst over %d", MaxRatePerMinute, MaxBurst)
	case b.HistoryDays > maxHistoryDays, b.HistoryEvents > maxHistoryEvents:
		return invalidf("history over %d days or %d events", maxHistoryDays, maxHistoryEvents)
	case b.PostRole > RoleOwner, b.InviteRole > RoleOwner:
		return invalidf("no such role")
	case b.ExpirySeconds > maxExpirySeconds:
		return invalidf("expiry over %d seconds", maxExpirySeconds)
	}
	return checkExtensions(b.Extensions)
}

func (b *CreateBody) encodeBody(e *encoder) {
	e.string(1, b.Name)
	e.id(2, b.Topic[:])
	var policy encoder
	b.Policy.encodeBody(&policy)
	e.bytes(3, policy.b)
	e.string(4, b.Network)
}

func (b *CreateBody) decodeBody(d *decoder) {
	switch d.num {
	case 1:
		b.Name = d.string(MaxPrivateName)
	case 2:
		d.id(b.Topic[:])
	case 3:
		in := newDecoder("policy", d.bytes(maxPolicy), maxPolicy)
		for d.err == nil && in.next() {
			b.Policy.decodeBody(in)
		}
		d.check(in.finish())
	case 4:
		b.Network = d.string(MaxNetworkName)
	default:
		d.unknown()
	}
}

func (b *CreateBody) checkBody() error {
	if b.Name == "" {
		return invalidf("room without a name")
	}
	if err := checkLine("room name", b.Name, MaxPrivateName); err != nil {
		return err
	}
	if b.Topic.IsZero() {
		return invalidf("room without a topic key")
	}
	if err := CheckNetworkName(b.Network); err != nil {
		return err
	}
	return b.Policy.checkBody()
}

func (b *AddBody) encodeBody(e *encoder) {
	e.id(1, b.Account[:])
	e.uint(2, uint64(b.Role))
	e.id(3, b.Invite[:])
}

func (b *AddBody) decodeBody(d *decoder) {
	switch d.num {
	case 1:
		d.id(b.Account[:])
	case 2:
		b.Role = Role(d.uint(uint64(RoleOwner)))
	case 3:
		d.id(b.Invite[:])
	default:
		d.unknown()
	}
}

func (b *AddBody) checkBody() error { return checkRole(b.Account, b.Role) }

func (b *RemoveBody) encodeBody(e *encoder) {
	e.id(1, b.Account[:])
	e.string(2, b.Reason)
	e.uint(3, uint64(b.Epoch))
	e.id(4, b.Topic[:])
	for i := range b.Marks {
		m := &b.Marks[i]
		var in encoder
		in.id(1, m.Device[:])
		in.uint(2, m.Seq)
		in.id(3, m.Last[:])
		e.bytes(5, in.b)
	}
}

// maxMark bounds an encoded Mark, in bytes.
const maxMark = 96

func (d *decoder) mark(list []Mark) []Mark {
	in := newDecoder("mark", d.item(maxMark, len(list), MaxMarks), maxMark)
	var m Mark
	for d.err == nil && in.next() {
		switch in.num {
		case 1:
			in.id(m.Device[:])
		case 2:
			m.Seq = in.uint(1<<63 - 1)
		case 3:
			in.id(m.Last[:])
		default:
			in.unknown()
		}
	}
	d.check(in.finish())
	return append(list, m)
}

func checkMarks(list []Mark) error {
	if len(list) > MaxMarks {
		return invalidf("%d marks, at most %d", len(list), MaxMarks)
	}
	for i := range list {
		m := &list[i]
		if m.Device == (DeviceID{}) || m.Seq == 0 || m.Seq > 1<<63-1 || m.Last.IsZero() {
			return invalidf("mark without a device, number or event")
		}
		if i > 0 && bytes.Compare(list[i-1].Device[:], m.Device[:]) >= 0 {
			return invalidf("marks not ascending")
		}
	}
	return nil
}

func (b *RemoveBody) decodeBody(d *decoder) {
	switch d.num {
	case 1:
		d.id(b.Account[:])
	case 2:
		b.Reason = d.string(MaxReason)
	case 3:
		b.Epoch = uint32(d.uint(1<<32 - 1))
	case 4:
		d.id(b.Topic[:])
	case 5:
		b.Marks = d.mark(b.Marks)
	default:
		d.unknown()
	}
}

func (b *RemoveBody) checkBody() error {
	if b.Account.IsZero() {
		return invalidf("removal of nobody")
	}
	if b.Epoch == 0 || b.Topic.IsZero() {
		return invalidf("removal without the next epoch")
	}
	if err := checkMarks(b.Marks); err != nil {
		return err
	}
	return checkText("reason", b.Reason, MaxReason)
}

func (b *RoleBody) encodeBody(e *encoder) {
	e.id(1, b.Account[:])
	e.uint(2, uint64(b.Role))
}

func (b *RoleBody) decodeBody(d *decoder) {
	switch d.num {
	case 1:
		d.id(b.Account[:])
	case 2:
		b.Role = Role(d.uint(uint64(RoleOwner)))
	default:
		d.unknown()
	}
}

func (b *RoleBody) checkBody() error { return checkRole(b.Account, b.Role) }

func (b *EpochBody) encodeBody(e *encoder) {
	e.uint(1, uint64(b.Epoch))
	e.id(2, b.Topic[:])
}

func (b *EpochBody) decodeBody(d *decoder) {
	switch d.num {
	case 1:
		b.Epoch = uint32(d.uint(1<<32 - 1))
	case 2:
		d.id(b.Topic[:])
	default:
		d.unknown()
	}
}

func (b *EpochBody) checkBody() error {
	if b.Epoch == 0 || b.Topic.IsZero() {
		return invalidf("epoch without a number or topic key")
	}
	return nil
}

func checkRole(a AccountID, r Role) error {
	switch {
	case a.IsZero():
		return invalidf("role for nobody")
	case r < RoleMember || r > RoleOwner:
		return invalidf("no such role")
	}
	return nil
}
