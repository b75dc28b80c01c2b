package chat

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"time"

	"github.com/starling-chat/starling/chat/wire"
	"github.com/starling-chat/starling/storage"
)

// This file is how invites to private rooms are made, accepted and redeemed.

// inviteRoom makes an invite into a private room.
func (s *Service) inviteRoom(ctx context.Context, r *room, req InviteRequest) (Invite, error) {
	if err := r.writable(); err != nil {
		return Invite{}, err
	}
	m := r.members()
	if !m.mayAdd(s.self.account) {
		return Invite{}, fmt.Errorf("%w: inviting into #%s takes the role %s, you are %s", ErrDenied, r.name(), m.inviteRole(), m.role(s.self.account))
	}
	cert, err := s.certificate(s.cfg.Clock.Now())
	if err != nil {
		return Invite{}, err
	}
	link := &wire.InviteLink{
		Room: r.id, Inviter: cert, Expires: s.cfg.Clock.Now().Add(req.Expiry), Name: m.Name,
		Addresses: linkAddresses(s.cfg.Addrs()), Reusable: !req.OneTime, Doors: r.doors(m),
	}
	if _, err := io.ReadFull(s.cfg.Rand, link.Token[:]); err != nil {
		return Invite{}, fmt.Errorf("reading randomness for an invite: %w", err)
	}
	if err := link.Sign(s.cfg.Device.PrivateKey()); err != nil {
		return Invite{}, err
	}
	row := inviteRow{Version: rowVersion, Expires: link.Expires, Target: "#" + r.name(), Room: r.id, Token: link.Token, OneTime: req.OneTime}
	if row.Link, err = link.Text(); err != nil {
		return Invite{}, fmt.Errorf("making an invite: %w", err)
	}
	var b storage.Batch
	b.Put(bucketInvites, link.Token[:8], encodeRow(row))
	if _, err := s.store.Commit(ctx, &b, storage.Durable); err != nil {
		return Invite{}, fmt.Errorf("storing an invite: %w", s.storeError(err))
	}
	return s.inviteView(link.Token[:8], row), nil
}

// inviteView returns a stored link as it is listed.
func (s *Service) inviteView(key []byte, row inviteRow) Invite {
	v := Invite{ID: fmt.Sprintf("%x", key), Link: row.Link, Target: row.Target, ExpiresAt: row.Expires, OneTime: row.OneTime}
	if r := s.roomByID(row.Room); r != nil && r.private && row.OneTime {
		_, v.Used = r.members().Spent[row.Token]
	}
	return v
}

// doors names other members who may admit, those connected first.
func (r *room) doors(m *membership) []wire.Door {
	var list []wire.Door
	for a := range m.Members {
		if a == r.s.self.account || !m.mayAdd(a) {
			continue
		}
		if devices := r.s.people.devicesOf(a); len(devices) > 0 {
			list = append(list, wire.Door{Account: a, Device: devices[0]})
		}
	}
	slices.SortFunc(list, func(a, b wire.Door) int {
		if x, y := r.s.people.online(a.Device) != PathNone, r.s.people.online(b.Device) != PathNone; x != y {
			if x {
				return -1
			}
			return 1
		}
		return slices.Compare(a.Account[:], b.Account[:])
	})
	return list[:min(len(list), wire.MaxDoors)]
}

// revokeRoomInvite makes an invite worthless with every member.
func (s *Service) revokeRoomInvite(ctx context.Context, row inviteRow) error {
	r := s.roomByID(row.Room)
	if r == nil || !r.joined() || s.cfg.Clock.Now().After(row.Expires) {
		return nil // nobody can be let in by it
	}
	return r.do(ctx, func() error {
		m := r.members()
		if _, spent := m.Spent[row.Token]; spent || m.Revoked[row.Token] || !m.mayAdd(s.self.account) {
			return nil // who may not invite any more has no invites that count
		}
		_, err := r.act(ctx, &wire.RevokeBody{Invite: row.Token}, nil)
		return err
	})
}

// acceptInvite remembers an invite and asks those whom it names to let this user in.
func (s *Service) acceptInvite(ctx context.Context, text string) (Conversation, error) {
	parsed, err := wire.ParseLink(text)
	if err != nil {
		if errors.Is(err, wire.ErrUnsupported) {
			return Conversation{}, fmt.Errorf("%w: the invite was made by a newer version of starling: %w", ErrBadRequest, err)
		}
		return Conversation{}, fmt.Errorf("%w: %w", ErrBadRequest, err)
	}
	link, ok := parsed.(*wire.InviteLink)
	if !ok {
		return Conversation{}, fmt.Errorf("%w: the link is no invite", ErrBadRequest)
	}
	if err := link.Verify(); err != nil {
		return Conversation{}, fmt.Errorf("%w: %s: %w", ErrBadRequest, refusalWords(wire.RefusedForged), err)
	}
	now := s.cfg.Clock.Now()
	if err := s.waitStarted(ctx); err != nil {
		return Conversation{}, err
	}
	s.joinMu.Lock()
	defer s.joinMu.Unlock()
	if r := s.roomByID(link.Room); r != nil && r.joined() && r.members().role(s.self.account) != 0 {
		return r.conversation(), nil
	}
	if now.After(link.Expires) {
		return Conversation{}, fmt.Errorf("%w: %s", ErrDenied, refusalWords(wire.RefusedExpired))
	}
	if link.Inviter.Account == s.self.account {
		return Conversation{}, fmt.Errorf("%w: the invite is your own", ErrBadRequest)
	}
	if old := s.warden.pendingRoom(link.Room); old != nil && old.Token == link.Token && old.Refused == 0 {
		return s.warden.shown(old), nil
	}
	if len(s.joinedRooms())+len(s.warden.waiting()) >= s.cfg.Limits.Rooms {
		return Conversation{}, fmt.Errorf("%w rooms are joined: at most %d", ErrTooMany, s.cfg.Limits.Rooms)
	}
	p := &pendingRow{
		Version: rowVersion, Link: text, Inviter: link.Inviter.Account, Token: link.Token, Asked: now,
		Expires: link.Expires, Doors: link.Doors, room: link.Room,
	}
	if r := s.roomByID(link.Room); r != nil {
		p.Name = r.name()
	} else if old := s.warden.pendingRoom(link.Room); old != nil {
		p.Name = old.Name
	} else {
		p.Name = s.freeName(link.Name)
	}
	payload, err := link.Payload()
	if err != nil {
		return Conversation{}, err
	}
	if err := s.warden.put(ctx, link.Room, p); err != nil {
		return Conversation{}, err
	}
	s.people.device(link.Inviter.Account, link.Inviter.Device)
	s.cfg.Direct.Hint(link.Inviter.Device, link.Addresses)
	body := &wire.JoinRequestBody{Invite: payload}
	to := []wire.AccountID{link.Inviter.Account}
	for _, d := range link.Doors {
		if d.Account != s.self.account && !slices.Contains(to, d.Account) {
			to = append(to, d.Account)
		}
	}
	for _, a := range to {
		if err := s.warden.send(ctx, a, body); err != nil {
			return Conversation{}, err
		}
	}
	s.warden.poke()
	return s.warden.shown(p), nil
}

// redeem answers a join request.
func (w *warden) redeem(ctx context.Context, r *room, from wire.AccountID, payload []byte) error {
	m := r.members()
	if !m.mayAdd(w.s.self.account) || r.epochOf(m.newest().Topic) == nil {
		return nil // others may let them in
	}
	link, err := wire.ParseInvite(payload)
	if err != nil || link.Room != r.id {
		return err
	}
	if m.role(from) == 0 {
		if code := w.checkInvite(m, from, link); code != 0 {
			return w.send(ctx, from, &wire.RoomRefusedBody{Room: r.id, Token: link.Token, Code: code})
		}
		if err := w.admit(ctx, r, from, link); err != nil {
			return err
		}
	}
	if err := r.renewFor(ctx, from); err != nil {
		return err
	}
	m = r.members()
	if m.role(from) == 0 {
		return w.send(ctx, from, &wire.RoomRefusedBody{Room: r.id, Token: link.Token, Code: wire.RefusedDenied})
	}
	return w.welcome(ctx, r, m, from)
}

// welcome gives a member all that it takes to be one.
func (w *warden) welcome(ctx context.Context, r *room, m *membership, to wire.AccountID) error {
	r.mu.Lock()
	events := r.ledger.after()
	r.mu.Unlock()
	if err := w.handLog(ctx, r, to, events); err != nil {
		return err
	}
	if err := w.handSecrets(ctx, r, m, to); err != nil {
		return err
	}
	return w.handNicks(ctx, r, to)
}

// checkInvite says why an invite is not taken; 0 if it is.
func (w *warden) checkInvite(m *membership, from wire.AccountID, link *wire.InviteLink) wire.RefusalCode {
	_, spent := m.Spent[link.Token]
	now := w.s.cfg.Clock.Now()
	switch {
	case link.Verify() != nil:
		return wire.RefusedForged
	case now.After(link.Expires):
		return wire.RefusedExpired
	case m.Revoked[link.Token]:
		return wire.RefusedRevoked
	case spent:
		return wire.RefusedUsed
	case !m.mayAdd(link.Inviter.Account):
		return wire.RefusedInviter
	case m.banned(from, wire.HLCFromTime(now)):
		return wire.RefusedDenied
	}
	return 0
}

// admit makes somebody a member.
func (w *warden) admit(ctx context.Context, r *room, account wire.AccountID, link *wire.InviteLink) error {
	return r.do(ctx, func() error {
		add := &wire.AddBody{Account: account, Role: wire.RoleMember}
		if !link.Reusable {
			add.Invite = link.Token
		}
		_, err := r.act(ctx, add, nil)
		return err
	})
}

// renewFor changes the key for the sake of a newcomer who is to read nothing of before, if that was not
// done yet.
func (r *room) renewFor(ctx context.Context, account wire.AccountID) error {
	return r.do(ctx, func() error {
		m := r.members()
		r.mu.Lock()
		knows := r.ledger.past(m.newest().Event).role(account) != 0
		r.mu.Unlock()
		if knows || m.Policy.ShareHistory || m.role(account) == 0 {
			return nil
		}
		return r.actWithKey(ctx, func(number uint32, topic wire.TopicKey) wire.Body {
			return &wire.EpochBody{Epoch: number, Topic: topic}
		})
	})
}

// tryEnter makes an invite that waits a joined room, as soon as the log and a secret are here.
func (w *warden) tryEnter(ctx context.Context, p *pendingRow) error {
	if p.Refused != 0 {
		return nil
	}
	s := w.s
	s.joinMu.Lock()
	defer s.joinMu.Unlock()
	known := s.roomByID(p.room)
	if known != nil && known.joined() {
		return w.put(ctx, p.room, nil)
	}
	l := newLedger(p.room)
	for kv, err := range s.store.ScanBucket(ctx, bucketRoomLog, p.room[:]) {
		if err != nil {
			return err
		}
		if ev, err := wire.ParseEvent(kv.Value); err == nil {
			if e := memberEventOf(ev); e != nil {
				l.add(e)
			}
		}
	}
	m := l.now()
	if m.role(s.self.account) == 0 {
		return nil
	}
	handed, err := w.handed(ctx, p.room)
	if err != nil {
		return err
	}
	var b storage.Batch
	newest := false
	for topic, row := range handed {
		if fits(m, topic, row) {
			b.Put(bucketEpochs, joinKey(p.room[:], topic[:]), encodeRow(epochRow{Version: rowVersion, Number: row.Number, Secret: row.Secret}))
			b.Delete(bucketSecrets, joinKey(p.room[:], topic[:]))
			newest = newest || topic == m.newest().Topic
		}
	}
	if !newest {
		return nil
	}
	row := roomRow{Version: rowVersion, Name: p.Name, Access: AccessPrivate, Joined: true, JoinedAt: s.cfg.Clock.Now()}
	b.Put(bucketRooms, p.room[:], encodeRow(row))
	b.Delete(bucketPending, p.room[:])
	if _, err := s.store.Commit(ctx, &b, storage.Durable); err != nil {
		return s.storeError(err)
	}
	w.mu.Lock()
	delete(w.pending, p.room)
	w.mu.Unlock()
	s.dialogs.later(func() { s.dialogs.dropRequests(ctx, p) })
	r, err := s.newPrivate(ctx, p.room, row)
	if err != nil {
		return err
	}
	_, err = s.begin(ctx, r)
	return err
}

// fits says whether a secret that was handed over is that of an announced epoch, and came from somebody
// with the right to hand it over.
func fits(m *membership, topic wire.TopicKey, row secretRow) bool {
	a, ok := m.Announced[topic]
	return ok && a.Number == row.Number && (m.mayAdd(row.From) || m.role(row.From) != 0 && a.Author == row.From)
}

// handed reads the secrets of a room that wait to be checked.
func (w *warden) handed(ctx context.Context, room wire.RoomID) (map[wire.TopicKey]secretRow, error) {
	list := make(map[wire.TopicKey]secretRow)
	for kv, err := range w.s.store.ScanBucket(ctx, bucketSecrets, room[:]) {
		if err != nil {
			return nil, err
		}
		row, err := decodeRow[secretRow]("handed-over key", kv.Value)
		if err != nil {
			return nil, err
		}
		list[wire.TopicKey(kv.Key[len(room):])] = row
	}
	return list, nil
}

// unstash takes secrets into use that the log has come to announce.
func (w *warden) unstash(ctx context.Context, r *room) error {
	handed, err := w.handed(ctx, r.id)
	if err != nil || len(handed) == 0 {
		return err
	}
	m := r.members()
	for topic, row := range handed {
		held := r.epochOf(topic) != nil
		if !held && !fits(m, topic, row) {
			continue
		}
		if !held {
			if err := r.do(ctx, func() error { return r.takeSecret(ctx, row.Number, row.Secret) }); err != nil {
				return err
			}
		}
		var b storage.Batch
		b.Delete(bucketSecrets, joinKey(r.id[:], topic[:]))
		if _, err := w.s.store.Commit(ctx, &b, storage.Relaxed); err != nil {
			return w.s.storeError(err)
		}
	}
	return nil
}

// refusedBy notes that somebody did not take an invite. It is given up once all whom it names refused, or
// at once for a reason that nobody's log can make better: forged, expired, used, revoked. Whether the
// inviter may invite, and who is banned, a log that is behind may have wrong.
func (w *warden) refusedBy(ctx context.Context, from wire.AccountID, b *wire.RoomRefusedBody) error {
	p := w.pendingRoom(b.Room)
	if p == nil || p.Token != b.Token || p.Refused != 0 || !p.names(from) {
		return nil
	}
	if !slices.Contains(p.NotBy, from) {
		p.NotBy = append(slices.Clone(p.NotBy), from)
	}
	refused := func(a wire.AccountID) bool { return slices.Contains(p.NotBy, a) || a == w.s.self.account }
	final := b.Code != wire.RefusedInviter && b.Code != wire.RefusedDenied
	if final || refused(p.Inviter) && !slices.ContainsFunc(p.Doors, func(d wire.Door) bool { return !refused(d.Account) }) {
		p.Refused = b.Code
	}
	if err := w.put(ctx, p.room, p); err != nil || p.Refused == 0 {
		return err
	}
	w.s.dialogs.later(func() { w.s.dialogs.dropRequests(ctx, p) })
	return nil
}

// names says whether the invite names an account as one who may admit.
func (p *pendingRow) names(a wire.AccountID) bool {
	return p.Inviter == a || slices.ContainsFunc(p.Doors, func(d wire.Door) bool { return d.Account == a })
}

// readMail does what the messages in the inbox ask for, in the order of their rooms. What fails for a
// reason that may pass stays.
func (w *warden) readMail(ctx context.Context) error {
	type mail struct {
		key []byte
		row roomMailRow
	}
	var list []mail
	for kv, err := range w.s.store.ScanBucket(ctx, bucketRoomMail, nil) {
		if err != nil {
			return err
		}
		row, err := decodeRow[roomMailRow]("room mail", kv.Value)
		if err != nil {
			return err
		}
		list = append(list, mail{slices.Clone(kv.Key), row})
	}
	slices.SortStableFunc(list, func(a, b mail) int { return a.row.At.Compare(b.row.At) })
	var errs []error
	for _, m := range list {
		if err := w.readOne(ctx, m.row); err != nil {
			if errors.Is(err, ErrReadOnly) || errors.Is(err, ErrStopped) || ctx.Err() != nil {
				return err
			}
			w.s.log.Debug("room mail was not taken", "error", err)
		}
		var b storage.Batch
		b.Delete(bucketRoomMail, m.key)
		if _, err := w.s.store.Commit(ctx, &b, storage.Relaxed); err != nil {
			errs = append(errs, w.s.storeError(err))
		}
	}
	return errors.Join(errs...)
}

// roomMailRow is a direct message for the warden.
type roomMailRow struct {
	Version int            `json:"v"`
	From    wire.AccountID `json:"from"`
	Kind    wire.DMKind    `json:"kind"`
	Body    []byte         `json:"body"`
	At      time.Time      `json:"at"`
}

func (w *warden) readOne(ctx context.Context, row roomMailRow) error {
	parsed, err := wire.ParseDMBody(row.Kind, row.Body)
	if err != nil {
		return err
	}
	switch b := parsed.(type) {
	case *wire.JoinRequestBody:
		link, err := wire.ParseInvite(b.Invite)
		if err != nil {
			return err
		}
		if r := w.s.roomByID(link.Room); r != nil && r.private && r.joined() {
			return w.redeem(ctx, r, row.From, b.Invite)
		}
	case *wire.RoomLogBody:
		return w.readLog(ctx, row.From, b)
	case *wire.RoomSecretBody:
		return w.stash(ctx, row.From, b)
	case *wire.RoomWantedBody:
		return w.answer(ctx, row.From, b)
	case *wire.RoomRefusedBody:
		return w.refusedBy(ctx, row.From, b)
	}
	return nil
}

// readLog takes in a log that somebody handed over.
func (w *warden) readLog(ctx context.Context, from wire.AccountID, b *wire.RoomLogBody) error {
	events := make([]*wire.Event, 0, len(b.Events))
	for _, raw := range b.Events {
		ev, err := wire.ParseEvent(raw)
		if err != nil {
			return err
		}
		mine := ev.Header.Room == b.Room || ev.Header.Kind == wire.KindCreate && wire.RoomID(ev.ID) == b.Room
		if !mine || !ev.Header.Kind.Membership() && ev.Header.Kind != wire.KindProfile {
			return errors.New("a handed-over log holds something else")
		}
		if err := w.s.verifier.VerifyEvent(ev); err != nil {
			return err
		}
		w.s.people.device(ev.Header.Account(), ev.Header.Device())
		events = append(events, ev)
	}
	if r := w.s.roomByID(b.Room); r != nil && r.joined() {
		if r.members().role(from) == 0 {
			return errors.New("a log from somebody who is no member")
		}
		return r.do(ctx, func() error { return r.takeLog(ctx, events) })
	}
	if w.pendingRoom(b.Room) == nil {
		return nil
	}
	n := 0
	for _, err := range w.s.store.ScanBucket(ctx, bucketRoomLog, b.Room[:]) {
		if err != nil {
			return err
		}
		n++
	}
	var batch storage.Batch
	for _, ev := range events {
		if n++; ev.Header.Kind.Membership() && n <= wire.MaxMembershipEvents {
			batch.Put(bucketRoomLog, joinKey(b.Room[:], ev.ID[:]), ev.Bytes())
		}
	}
	_, err := w.s.store.Commit(ctx, &batch, storage.Durable)
	return w.s.storeError(err)
}

// stash keeps a secret until the log says whether it is one.
func (w *warden) stash(ctx context.Context, from wire.AccountID, b *wire.RoomSecretBody) error {
	keys, err := wire.DeriveRoomKeys(b.Secret)
	if err != nil {
		return err
	}
	r := w.s.roomByID(b.Room)
	if r != nil && r.joined() {
		if r.epochOf(keys.Topic) != nil {
			return nil
		}
	} else if w.pendingRoom(b.Room) == nil {
		return nil
	}
	handed, err := w.handed(ctx, b.Room)
	if err != nil {
		return err
	}
	if old, ok := handed[keys.Topic]; ok && old.From != from {
		// Two said the same: who has the right is not known yet, so the newer replaces only an unfit one.
		if r != nil && r.joined() && fits(r.members(), keys.Topic, old) {
			return nil
		}
	}
	var batch storage.Batch
	if _, ok := handed[keys.Topic]; !ok && len(handed) >= maxHanded {
		for topic := range handed { // nobody with the right hands over so many that do not fit
			batch.Delete(bucketSecrets, joinKey(b.Room[:], topic[:]))
			break
		}
	}
	batch.Put(bucketSecrets, joinKey(b.Room[:], keys.Topic[:]), encodeRow(secretRow{Version: rowVersion, Number: b.Epoch, Secret: b.Secret, From: from}))
	_, err = w.s.store.Commit(ctx, &batch, storage.Durable)
	return w.s.storeError(err)
}

// answer gives a member what it asks for.
func (w *warden) answer(ctx context.Context, from wire.AccountID, b *wire.RoomWantedBody) error {
	r := w.s.roomByID(b.Room)
	if r == nil || !r.private || !r.joined() {
		return nil
	}
	m := r.members()
	if m.role(from) == 0 || m.role(w.s.self.account) == 0 {
		return nil
	}
	var events []*memberEvent
	r.mu.Lock()
	if len(b.IDs) > 0 {
		for _, id := range b.IDs {
			if r.ledger.events[id] != nil {
				before := r.ledger.before(id)
				before[id] = true
				for _, e := range r.ledger.line(before) {
					if !slices.Contains(events, e) {
						events = append(events, e)
					}
				}
			}
		}
	} else if n := len(m.Epochs); n > 1 {
		events = r.ledger.after(m.Epochs[n-2].Event)
	}
	r.mu.Unlock()
	if err := w.handLog(ctx, r, from, events); err != nil {
		return err
	}
	if !b.Secrets || !m.mayAdd(w.s.self.account) && m.newest().Author != w.s.self.account {
		return nil
	}
	if err := r.renewFor(ctx, from); err != nil {
		return err
	}
	return w.handSecrets(ctx, r, r.members(), from)
}
