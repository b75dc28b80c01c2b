package chat

import (
	"bytes"
	"context"
	"fmt"
	"slices"
	"strings"

	"github.com/starling-chat/starling/chat/wire"
	"github.com/starling-chat/starling/storage"
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
	Invite  string // the lowest role that may admit others
	Post    string // the lowest role that may post
	// Rate is how many events an author may make in a minute, and Burst how many at once; 0 is the default.
	// Without a burst it is what the rate gives for a minute.
	Rate, Burst *uint32
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

// CreateRoom makes a private room and joins it. Its name is for display here and in invites; nobody
// finds the room by it.
func (s *Service) CreateRoom(ctx context.Context, req CreateRequest) (Conversation, error) {
	name, err := wire.CanonicalRoomName(req.Name)
	if err != nil {
		return Conversation{}, fmt.Errorf("%w: %w", ErrBadName, err)
	}
	share, err := sharesHistory(req.History)
	if err != nil {
		return Conversation{}, err
	}
	if err := s.waitStarted(ctx); err != nil {
		return Conversation{}, err
	}
	s.joinMu.Lock()
	defer s.joinMu.Unlock()
	if s.nameTaken(name) {
		return Conversation{}, fmt.Errorf("%w: there is a room #%s already; take another name", ErrConflict, name)
	}
	if len(s.joinedRooms()) >= s.cfg.Limits.Rooms {
		return Conversation{}, fmt.Errorf("%w rooms are joined: at most %d", ErrTooMany, s.cfg.Limits.Rooms)
	}
	secret, keys, err := s.newSecret()
	if err != nil {
		return Conversation{}, err
	}
	now := s.cfg.Clock.Now()
	cert, err := s.certificate(now)
	if err != nil {
		return Conversation{}, err
	}
	content, err := wire.EncodeBody(&wire.CreateBody{
		Name: name, Topic: keys.Topic, Policy: wire.PolicyBody{ShareHistory: share}, Network: s.cfg.Network,
	})
	if err != nil {
		return Conversation{}, fmt.Errorf("%w: %w", ErrBadName, err)
	}
	ev, err := wire.NewEvent(wire.Header{Kind: wire.KindCreate, Certificate: cert, HLC: wire.Next(now, 0), DeviceSeq: 1},
		content, s.cfg.Device.PrivateKey(), s.cfg.Rand)
	if err != nil {
		return Conversation{}, err
	}
	sealed, err := keys.Seal(ev)
	if err != nil {
		return Conversation{}, err
	}
	row := roomRow{Version: rowVersion, Name: name, Access: AccessPrivate, Joined: true, JoinedAt: now}
	r, err := s.newPrivate(ctx, wire.RoomID(ev.ID), row)
	if err != nil {
		return Conversation{}, err
	}
	r.arrange([]*epoch{{keys: keys}})
	body, err := ev.Body()
	if err != nil {
		return Conversation{}, err
	}
	a := arrival{sealed: sealed, event: ev, body: body, own: true}
	if _, err := r.take(ctx, []arrival{a}, storage.Durable, func(b *storage.Batch) {
		b.Put(bucketRooms, r.id[:], encodeRow(row))
		b.Put(bucketEpochs, joinKey(r.id[:], keys.Topic[:]), encodeRow(epochRow{Version: rowVersion, Secret: secret, Told: []wire.AccountID{s.self.account}}))
		b.Guard()
	}); err != nil {
		return Conversation{}, err
	}
	return s.begin(ctx, r)
}

// newPrivate opens a private room of which nothing is stored yet. All of its history is wanted: what is
// not meant for this user is sealed under keys that this user does not get.
func (s *Service) newPrivate(ctx context.Context, id wire.RoomID, row roomRow) (*room, error) {
	r, err := s.openRoom(ctx, id, row)
	if err != nil {
		return nil, err
	}
	r.mu.Lock()
	r.state.Floor, r.state.Paged = 1<<16, true
	r.mu.Unlock()
	return r, nil
}

// begin starts a private room that is stored; joinMu is held.
func (s *Service) begin(ctx context.Context, r *room) (Conversation, error) {
	s.mu.Lock()
	if s.ctx == nil || s.ctx.Err() != nil {
		s.mu.Unlock()
		return Conversation{}, ErrStopped
	}
	s.rooms[r.id] = r
	s.startRoom(r)
	s.mu.Unlock()
	if err := r.introduce(ctx, false); err != nil {
		r.log.Warn("saying the own nick in a room failed; it is tried again", "error", err)
	}
	s.warden.poke()
	c := r.conversation()
	s.events.publish(Event{Type: EventConversation, Conversation: &c})
	return c, nil
}

// sharesHistory reads a history policy.
func sharesHistory(text string) (bool, error) {
	switch text {
	case "", HistoryNone:
		return false, nil
	case HistoryAll:
		return true, nil
	}
	return false, fmt.Errorf("%w: history is %q or %q, not %.40q", ErrBadRequest, HistoryNone, HistoryAll, text)
}

// nameTaken says whether a room of that name is known here.
func (s *Service) nameTaken(name string) bool {
	return s.roomByName(name) != nil || s.warden.pendingByName(name) != nil
}

// freeName returns a name that no room has here yet.
func (s *Service) freeName(name string) string {
	if canonical, err := wire.CanonicalRoomName(name); err == nil {
		name = canonical
	} else {
		name = "room"
	}
	free := name
	for n := 2; s.nameTaken(free); n++ {
		end := fmt.Sprintf("-%d", n)
		runes := []rune(name)
		free = string(runes[:min(len(runes), wire.MaxRoomName-len(end))]) + end
	}
	return free
}

// privateRoom returns a joined private room.
func (s *Service) privateRoom(t Target) (*room, error) {
	r, err := s.knownRoom(t)
	if err != nil {
		return nil, err
	}
	if !r.private {
		return nil, fmt.Errorf("%w: #%s is a public room, which has no roles", ErrBadRequest, r.name())
	}
	if !r.joined() {
		return nil, ErrNotJoined
	}
	return r, nil
}

// SetPolicy changes a private room's policy for everybody.
func (s *Service) SetPolicy(ctx context.Context, t Target, req PolicyRequest) error {
	r, err := s.privateRoom(t)
	if err != nil {
		return err
	}
	return r.do(ctx, func() error {
		m := r.members()
		if m.role(s.self.account) < wire.RoleAdmin {
			return fmt.Errorf("%w: only admins change a room's policy", ErrDenied)
		}
		policy := m.Policy
		if req.History != "" {
			if policy.ShareHistory, err = sharesHistory(req.History); err != nil {
				return err
			}
		}
		if req.Invite != "" {
			if policy.InviteRole, err = roleNamed(req.Invite); err != nil {
				return err
			}
		}
		if req.Post != "" {
			if policy.PostRole, err = roleNamed(req.Post); err != nil {
				return err
			}
		}
		if req.Rate != nil {
			policy.RatePerMinute = *req.Rate
		}
		if req.Burst != nil {
			policy.Burst = *req.Burst
		}
		if _, err := wire.EncodeBody(&policy); err != nil {
			return fmt.Errorf("%w: at most %d events a minute and %d at once can be set", ErrBadRequest, wire.MaxRatePerMinute, wire.MaxBurst)
		}
		_, err := r.act(ctx, &policy, nil)
		return err
	})
}

// roleNamed reads a role.
func roleNamed(text string) (wire.Role, error) {
	for role := wire.RoleMember; role <= wire.RoleOwner; role++ {
		if role.String() == text {
			return role, nil
		}
	}
	return 0, fmt.Errorf("%w: a role is member, moderator, admin or owner, not %.40q", ErrBadRequest, text)
}

// ChangeMember gives somebody in a private room another role, or removes, bans or unbans them.
func (s *Service) ChangeMember(ctx context.Context, t Target, req MemberChange) error {
	r, err := s.privateRoom(t)
	if err != nil {
		return err
	}
	account, err := s.personIn(r, req.Who)
	if err != nil {
		return err
	}
	return r.do(ctx, func() error { return r.changeMember(ctx, account, req) })
}

// personIn finds somebody by name among a room's members, or else anywhere.
func (s *Service) personIn(r *room, who string) (wire.AccountID, error) {
	who = strings.TrimPrefix(who, "@")
	var found []wire.AccountID
	for a := range r.members().Members {
		n := r.nick(a)
		if foldNick(n.Nick) == foldNick(who) || n.Fingerprint == who {
			found = append(found, a)
		}
	}
	if len(found) == 1 {
		return found[0], nil
	}
	return s.resolvePerson(who)
}

func (r *room) changeMember(ctx context.Context, account wire.AccountID, req MemberChange) error {
	m := r.members()
	own, theirs := m.role(r.s.self.account), m.role(account)
	name := r.nick(account).Nick
	switch req.Action {
	case MemberRole:
		role, err := roleNamed(req.Role)
		switch {
		case err != nil:
			return err
		case theirs == 0:
			return fmt.Errorf("%s is no member: %w", name, ErrNotFound)
		case own < wire.RoleAdmin || role > own || theirs >= own && account != r.s.self.account:
			return fmt.Errorf("%w: you are %s, %s is %s", ErrDenied, own, name, theirs)
		case role == theirs:
			return nil
		}
		_, err = r.act(ctx, &wire.RoleBody{Account: account, Role: role}, nil)
		return err
	case MemberRemove, MemberBan:
		return r.expel(ctx, m, account, req)
	case MemberUnban:
		if own < wire.RoleModerator {
			return fmt.Errorf("%w: only moderators take a ban back", ErrDenied)
		}
		if _, banned := m.Banned[account]; !banned {
			return fmt.Errorf("%w: %s is not banned", ErrConflict, name)
		}
		_, err := r.act(ctx, &wire.BanBody{Account: account, Lift: true}, nil)
		return err
	}
	return fmt.Errorf("%w: unknown action %.40q", ErrBadRequest, req.Action)
}

// expel takes somebody out, with a new key for those who remain, and bans them if that is asked for.
func (r *room) expel(ctx context.Context, m *membership, account wire.AccountID, req MemberChange) error {
	name := r.nick(account).Nick
	if account == r.s.self.account {
		return fmt.Errorf("%w: leave the room instead", ErrBadRequest)
	}
	member := m.Members[account] != nil
	switch {
	case !member && req.Action == MemberRemove:
		return fmt.Errorf("%s is no member: %w", name, ErrNotFound)
	case member && !m.mayRemove(r.s.self.account, account), !member && m.role(r.s.self.account) < wire.RoleModerator:
		return fmt.Errorf("%w: you are %s, %s is %s", ErrDenied, m.role(r.s.self.account), name, m.role(account))
	case len(req.Reason) > wire.MaxReason:
		return fmt.Errorf("reason of %d bytes, at most %d: %w", len(req.Reason), wire.MaxReason, ErrTooLarge)
	}
	if member {
		err := r.actWithKey(ctx, func(number uint32, topic wire.TopicKey) wire.Body {
			return &wire.RemoveBody{Account: account, Reason: req.Reason, Epoch: number, Topic: topic, Marks: r.marks(account)}
		})
		if err != nil {
			return err
		}
	}
	if _, banned := m.Banned[account]; req.Action == MemberBan && !banned {
		_, err := r.act(ctx, &wire.BanBody{Account: account, Reason: req.Reason}, nil)
		return err
	}
	return nil
}

// sayLeave tells the members of a private room that this user is none any more.
func (r *room) sayLeave(ctx context.Context) error {
	return r.do(ctx, func() error {
		if r.members().role(r.s.self.account) == 0 {
			return nil
		}
		_, err := r.act(ctx, &wire.LeaveBody{}, nil)
		return err
	})
}

// marks names the last event of each device of an account that is here.
func (r *room) marks(account wire.AccountID) []wire.Mark {
	r.mu.RLock()
	defer r.mu.RUnlock()
	var list []wire.Mark
	for dev, t := range r.tracker.devices {
		if t.Account == account && len(t.Spans) > 0 {
			last := t.Spans[len(t.Spans)-1]
			list = append(list, wire.Mark{Device: dev, Seq: last.To, Last: last.Last})
		}
	}
	slices.SortFunc(list, func(a, b wire.Mark) int { return bytes.Compare(a.Device[:], b.Device[:]) })
	return list[:min(len(list), wire.MaxMarks)]
}
