package chat

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/starling-chat/starling/chat/wire"
	"github.com/starling-chat/starling/storage"
)

// Join joins a public room by name or by link, with a password or without. It takes about a tenth of
// a second the first time, on purpose: that is what guessing names costs. Joining a joined room is no
// error.
func (s *Service) Join(ctx context.Context, name, password string) (Conversation, error) {
	name = pasted(name)
	if strings.HasPrefix(name, "starling:invite/") {
		return s.acceptInvite(ctx, name)
	}
	if strings.HasPrefix(name, "starling:") {
		var err error
		if name, err = s.followRoomLink(name, password); err != nil {
			return Conversation{}, err
		}
	}
	canonical, err := wire.CanonicalRoomName(name)
	if err != nil {
		return Conversation{}, fmt.Errorf("%w: %w", ErrBadName, err)
	}
	if err := s.waitStarted(ctx); err != nil {
		return Conversation{}, err
	}
	s.joinMu.Lock()
	defer s.joinMu.Unlock()
	if r := s.roomByName(canonical); r != nil && r.private && r.joined() {
		if password != "" {
			return Conversation{}, fmt.Errorf("%w: #%s is a private room here", ErrConflict, canonical)
		}
		return r.conversation(), nil
	}
	access := AccessPublic
	if password != "" {
		access = AccessPassword
	}
	if r := s.roomByName(canonical); r != nil && password == "" && r.access() == AccessPublic {
		return s.rejoin(ctx, r)
	}
	secret, err := s.cfg.RoomSecret(s.cfg.Network, canonical, password)
	if err != nil {
		return Conversation{}, fmt.Errorf("%w: %w", ErrBadName, err)
	}
	keys, err := wire.DeriveRoomKeys(secret)
	if err != nil {
		return Conversation{}, fmt.Errorf("joining: %w", err)
	}
	id := wire.PublicRoomID(keys.Topic)
	if r := s.roomByID(id); r != nil {
		return s.rejoin(ctx, r)
	}
	if r := s.roomByName(canonical); r != nil && r.joined() {
		return Conversation{}, fmt.Errorf("%w: a room named #%s with another password is joined; leave it first", ErrConflict, canonical)
	}
	row := roomRow{Version: rowVersion, Name: canonical, Access: access, Secret: secret}
	r, err := s.openRoom(ctx, id, row)
	if err != nil {
		return Conversation{}, err
	}
	s.mu.Lock()
	s.rooms[id] = r
	s.mu.Unlock()
	return s.rejoin(ctx, r)
}

// followRoomLink returns the name in a link to a public room, after telling the network the addresses
// it carries.
func (s *Service) followRoomLink(text, password string) (name string, err error) {
	link, err := wire.ParseLink(text)
	if err != nil {
		return "", fmt.Errorf("%w: %w", ErrBadRequest, err)
	}
	l, ok := link.(*wire.RoomLink)
	switch {
	case !ok:
		return "", fmt.Errorf("%w: the link is not one to a public room", ErrBadRequest)
	case l.Network != "" && l.Network != s.cfg.Network:
		return "", fmt.Errorf("%w: the link is for the network %q, this node is in %q", ErrConflict, l.Network, s.cfg.Network)
	case l.Password && password == "":
		return "", fmt.Errorf("%w: the room has a password, which the link does not carry", ErrDenied)
	}
	for _, addr := range l.Addresses {
		if at := strings.LastIndex(addr, "/p2p/"); at >= 0 {
			if dev, err := wire.ParseDeviceID(addr[at+len("/p2p/"):]); err == nil {
				s.cfg.Direct.Hint(dev, []string{addr})
			}
		}
	}
	return l.Name, nil
}

// rejoin joins a known room; joinMu is held.
func (s *Service) rejoin(ctx context.Context, r *room) (Conversation, error) {
	if r.joined() {
		return r.conversation(), nil
	}
	if len(s.joinedRooms()) >= s.cfg.Limits.Rooms {
		return Conversation{}, fmt.Errorf("%w rooms are joined: at most %d", ErrTooMany, s.cfg.Limits.Rooms)
	}
	r.mu.RLock()
	row := r.row
	r.mu.RUnlock()
	row.Joined, row.JoinedAt = true, s.cfg.Clock.Now()
	if err := s.putRoom(ctx, r, row); err != nil {
		return Conversation{}, err
	}
	if err := r.setFloor(ctx); err != nil {
		return Conversation{}, err
	}
	s.mu.Lock()
	if s.ctx == nil || s.ctx.Err() != nil {
		s.mu.Unlock()
		return Conversation{}, ErrStopped
	}
	s.startRoom(r)
	s.mu.Unlock()
	if err := r.introduce(ctx, true); err != nil {
		return Conversation{}, fmt.Errorf("joining: %w", err)
	}
	c := r.conversation()
	s.events.publish(Event{Type: EventConversation, Conversation: &c})
	return c, nil
}

// setFloor says, when a room is joined for the first time, from when on its history is wanted.
func (r *room) setFloor(ctx context.Context) error {
	r.mu.Lock()
	if r.state.Floor != 0 {
		r.mu.Unlock()
		return nil
	}
	from := r.s.cfg.Clock.Now().Add(-r.s.cfg.Limits.HistoryAge)
	r.state.Floor = max(storage.DayStart(storage.Day(storage.ClockTime(from))), 1<<16)
	r.mu.Unlock()
	var b storage.Batch
	r.putState(&b)
	_, err := r.s.store.Commit(ctx, &b, storage.Relaxed)
	return r.s.storeError(err)
}

// putRoom stores a room's row and makes it effective.
func (s *Service) putRoom(ctx context.Context, r *room, row roomRow) error {
	var b storage.Batch
	b.Put(bucketRooms, r.id[:], encodeRow(row))
	if _, err := s.store.Commit(ctx, &b, storage.Durable); err != nil {
		return fmt.Errorf("storing a room: %w", s.storeError(err))
	}
	r.mu.Lock()
	r.row = row
	r.mu.Unlock()
	return nil
}

// introduce says who this user is in the room, and that they joined.
func (r *room) introduce(ctx context.Context, join bool) error {
	if r.private && r.standsNow() != MembershipMember {
		return nil // said once the key is here
	}
	var list []said
	if nick := r.s.nickNow(); nick != "" {
		one, err := encodeSaid(&wire.ProfileBody{Nick: nick}, wire.EventID{})
		if err != nil {
			return err
		}
		list = one
	}
	if join {
		one, err := encodeSaid(&wire.JoinBody{}, wire.EventID{})
		if err != nil {
			return err
		}
		list = append(list, one...)
	}
	if len(list) == 0 {
		return nil
	}
	return r.say(ctx, list)
}

// say puts own events into the room and waits until they are stored.
func (r *room) say(ctx context.Context, list []said) error {
	sub, err := r.submit(ctx, SendRequest{Action: ActionMessage}, list)
	if err == nil {
		_, err = sub.Wait(ctx)
	}
	return err
}

func (r *room) access() string {
	r.mu.RLock()
	defer r.mu.RUnlock()
	return r.row.Access
}

// Leave leaves a room and tells its members. What was said stays readable, and joining again goes on
// where it ended.
func (s *Service) Leave(ctx context.Context, t Target) error {
	if done, err := s.warden.forget(ctx, t); done || err != nil {
		return err
	}
	r, err := s.knownRoom(t)
	if err != nil {
		return err
	}
	s.joinMu.Lock()
	defer s.joinMu.Unlock()
	if !r.joined() {
		return ErrNotJoined
	}
	one, err := encodeSaid(&wire.LeaveBody{}, wire.EventID{})
	if err != nil {
		return err
	}
	if r.private {
		err = r.sayLeave(ctx)
	} else {
		err = r.say(ctx, one)
	}
	if err != nil && !errors.Is(err, ErrReadOnly) {
		return fmt.Errorf("leaving: %w", err)
	}
	r.pub.drain(ctx)
	r.mu.RLock()
	row := r.row
	r.mu.RUnlock()
	row.Joined = false
	if err := s.putRoom(ctx, r, row); err != nil {
		return err
	}
	s.mu.Lock()
	stop, ended := r.stop, r.ended
	r.stop, r.ended = nil, nil
	s.mu.Unlock()
	s.syncer.left(r)
	if stop != nil {
		stop()
		<-ended
	}
	c := r.conversation()
	s.events.publish(Event{Type: EventConversation, Conversation: &c})
	return nil
}

// conversation returns the room as a list of conversations shows it.
func (r *room) conversation() Conversation {
	c := r.summary()
	r.describe(&c)
	return c
}

func (r *room) summary() Conversation {
	peers := len(r.s.cfg.Gossip.Peers(r.keys().Topic))
	split := r.split()
	r.mu.RLock()
	defer r.mu.RUnlock()
	c := Conversation{
		ID: ConversationID(r.id), Target: "#" + r.row.Name, Kind: ConversationRoom, Room: r.row.Name,
		Topic: r.roster.topic.Value, Access: r.row.Access, Members: r.roster.present(), Peers: peers,
		Unread: r.state.Unread, Mentions: r.state.Mentions, ReadSeq: r.state.Read, LastSeq: r.state.Arrival,
		LastAt: r.state.LastAt, Muted: r.row.Muted, Policy: r.s.policyText(), Split: split,
	}
	if !r.row.Joined {
		c.Members, c.Peers = 0, 0
	}
	for _, g := range r.tracker.gaps() {
		shown := Gap{Account: g.Account, Count: g.Count, After: MessageID(g.After)}
		if m := r.roster.members[g.Account]; m != nil {
			shown.Nick = m.Nick.Value
		}
		if shown.Nick == "" && !g.Account.IsZero() {
			shown.Nick = wire.Fingerprint(g.Account)
		}
		c.Gaps = append(c.Gaps, shown)
	}
	return c
}

// policyText says what a newcomer sees of a room.
func (s *Service) policyText() string {
	return fmt.Sprintf("newcomers are offered the last %d days or %d events, whichever is less",
		s.cfg.Limits.HistoryAge/(24*time.Hour), s.cfg.Limits.HistoryEvents)
}

// Members lists the accounts seen in a room that have not left, those connected first, then by nick.
func (s *Service) Members(_ context.Context, t Target) ([]Member, error) {
	r, err := s.knownRoom(t)
	if err != nil {
		return nil, err
	}
	roles := r.listed()
	r.mu.RLock()
	list := make([]Member, 0, len(roles))
	for id, role := range roles {
		shown := Member{Account: id, Own: id == s.self.account, Role: role.String()}
		if m := r.roster.members[id]; m != nil {
			shown.LastSeen = m.Seen.Time()
			for d := range m.Devices {
				shown.Devices = append(shown.Devices, d)
			}
		}
		list = append(list, shown)
	}
	r.mu.RUnlock()
	for i := range list {
		m := &list[i]
		n := r.nick(m.Account)
		m.Nick, m.Fingerprint, m.NickShared, m.Petname = n.Nick, n.Fingerprint, n.Shared, s.people.petname(m.Account)
		slices.SortFunc(m.Devices, func(a, b wire.DeviceID) int { return bytes.Compare(a[:], b[:]) })
		for _, d := range m.Devices {
			if p := s.people.online(d); pathRank(p) > pathRank(m.Path) {
				m.Path = p
			}
		}
		m.Online = m.Own || m.Path != PathNone
	}
	slices.SortFunc(list, compareMembers)
	return list, nil
}

func compareMembers(a, b Member) int {
	if a.Online != b.Online {
		if a.Online {
			return -1
		}
		return 1
	}
	if an, bn := foldNick(a.Nick), foldNick(b.Nick); an != bn {
		if an < bn {
			return -1
		}
		return 1
	}
	return bytes.Compare(a.Account[:], b.Account[:])
}

// SetTopic sets a room's topic line; empty clears it.
func (s *Service) SetTopic(ctx context.Context, t Target, topic string) error {
	r, err := s.knownRoom(t)
	if err != nil {
		return err
	}
	if len(topic) > wire.MaxTopicText {
		return fmt.Errorf("topic of %d bytes, at most %d: %w", len(topic), wire.MaxTopicText, ErrTooLarge)
	}
	list, err := encodeSaid(&wire.TopicBody{Text: topic}, wire.EventID{})
	if err != nil {
		return fmt.Errorf("%w: %w", ErrInvalidUTF8, err)
	}
	if !r.joined() {
		return ErrNotJoined
	}
	return r.say(ctx, list)
}

// SetNick changes the own nick here and in every joined room.
func (s *Service) SetNick(ctx context.Context, nick string) error {
	if err := wire.CheckNick(nick); err != nil {
		return fmt.Errorf("%w: %w", ErrBadName, err)
	}
	if nick[0] == '@' || nick[0] == '#' {
		return fmt.Errorf("%w: a nick does not begin with @ or #", ErrBadName)
	}
	if nick == s.nickNow() {
		return nil
	}
	var b storage.Batch
	b.Put(bucketProfile, []byte(profileNick), []byte(nick))
	if _, err := s.store.Commit(ctx, &b, storage.Durable); err != nil {
		return fmt.Errorf("storing the nick: %w", s.storeError(err))
	}
	s.nickMu.Lock()
	s.own = nick
	s.nickMu.Unlock()
	var errs []error
	for _, r := range s.joinedRooms() {
		if err := r.introduce(ctx, false); err != nil && !errors.Is(err, ErrNotJoined) {
			errs = append(errs, err)
		}
	}
	return errors.Join(errs...)
}

// lookAround notices neighbours that came to the room's topic or left it, and renews the own profile
// when it has become old.
func (r *room) lookAround(ctx context.Context) {
	r.s.mu.Lock()
	ended := r.ended
	r.s.mu.Unlock()
	topic := r.keys().Topic
	r.lookAtOlder(ended != r.aroundIn)
	if ended != r.aroundIn || topic != r.aroundOf { // it was left and joined again, or has a new key: everybody is new
		r.around, r.aroundIn, r.aroundOf = nil, ended, topic
	}
	var came, went []wire.DeviceID
	now := make(map[wire.DeviceID]bool)
	for _, d := range r.s.cfg.Gossip.Peers(topic) {
		if now[d] = true; !r.around[d] {
			came = append(came, d)
		}
	}
	for d := range r.around {
		if !now[d] {
			went = append(went, d)
		}
	}
	r.around = now
	if len(came)+len(went) > 0 {
		r.s.syncer.around(topic, came, went)
		c := r.conversation()
		r.s.events.publish(Event{Type: EventConversation, Conversation: &c})
	}
	for _, d := range came {
		r.pub.greet(d)
	}
	if len(came) > 0 {
		r.pub.wake()
	}
	r.pub.settle(now)
	r.s.syncer.heads(r.keys().Topic, r.pub.behind(time.Now()))
	if r.pub.unconfirmed(time.Now()) {
		r.s.syncer.confirm(r)
	}
	r.watchIslands(ctx, now)
	r.renewProfile()
}

// renewProfile says the own nick again once the last time lies half the room's history ago, if the
// user has been active since, so that newcomers learn it.
func (r *room) renewProfile() {
	nick := r.s.nickNow()
	r.mu.RLock()
	m := r.roster.members[r.s.self.account]
	due := m != nil && nick != "" && m.Nick.Value != "" && m.Seen > m.Nick.At.HLC &&
		m.Seen.Time().Sub(m.Nick.At.HLC.Time()) > r.s.cfg.Limits.HistoryAge/2
	r.mu.RUnlock()
	if !due {
		return
	}
	list, err := encodeSaid(&wire.ProfileBody{Nick: nick}, wire.EventID{})
	if err != nil {
		return
	}
	sub := newSubmission(SendRequest{Action: ActionMessage}, nil)
	sub.said = list
	select {
	case r.submits <- sub: // its answer changes nothing: it is tried again with the next message
	default:
	}
}
