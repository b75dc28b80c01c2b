package chat

import (
	"context"
	"fmt"
)

// How this user stands with a private room; see [Conversation].
const (
	MembershipMember  = "member"
	MembershipPending = "pending" // waiting to be admitted
	MembershipKeyless = "keyless" // a member who waits for the room's new key
	MembershipRemoved = "removed" // removed, or refused
)

// What newcomers to a private room get of what was said before they came.
const (
	HistoryNone = "none" // nothing: the key changes whenever somebody is admitted
	HistoryAll  = "all"  // everything that the members still hold
)

// CreateRequest makes a private room.
type CreateRequest struct {
	Name    string // as of a public room; for display
	History string // HistoryNone (also "") or HistoryAll
}

// PolicyRequest changes a private room's policy; empty fields leave what they name.
type PolicyRequest struct {
	History string
	Post    string // the lowest role that may write
	Invite  string // the lowest role that may admit others
}

// Actions of a [MemberChange].
const (
	MemberRole   = "role"
	MemberRemove = "remove"
	MemberBan    = "ban"
	MemberUnban  = "unban"
)

// MemberChange does one thing to somebody in a private room.
type MemberChange struct {
	Who    string // a person as in [Service.Resolve], with or without '@'
	Action string
	Role   string
	Reason string
}

// errNoPrivate says that private rooms are not in this version.
var errNoPrivate = fmt.Errorf("%w: this version has no private rooms yet", ErrConflict)

// CreateRoom makes a private room and joins it.
func (s *Service) CreateRoom(context.Context, CreateRequest) (Conversation, error) {
	return Conversation{}, errNoPrivate
}

// SetPolicy changes a private room's policy.
func (s *Service) SetPolicy(context.Context, Target, PolicyRequest) error { return errNoPrivate }

// ChangeMember gives somebody another role, or removes, bans or unbans them.
func (s *Service) ChangeMember(context.Context, Target, MemberChange) error { return errNoPrivate }
