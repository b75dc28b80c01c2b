package chat

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/starling-chat/starling/chat/wire"
	"github.com/starling-chat/starling/storage"
)

// warden looks after private rooms: it admits who brings an invite, hands over membership events and
// secrets, asks for those that are lacking, and changes keys when that is due. Its goroutine, run, waits
// for the owners of rooms and of direct messages, and neither ever waits for it: what comes for it in
// direct messages is stored in its inbox first.
type warden struct {
	s    *Service
	wake chan struct{} // capacity 1

	mu      sync.Mutex // guards pending
	pending map[wire.RoomID]*pendingRow

	// The rest belongs to the goroutine that runs.
	asked    map[wire.RoomID]time.Time // when something was asked for last
	lacking  map[wire.RoomID]time.Time // since when the newest key is lacking
	due      map[wire.RoomID]time.Time // since when a change of the key is due
	greetAt  time.Time
	askTurns map[wire.RoomID]int
	wants    map[wire.RoomID]*wanted
}

// pendingRow is an invite that was accepted here and waits for somebody to admit this user.
type pendingRow struct {
	Version int              `json:"v"`
	Link    string           `json:"link"`
	Name    string           `json:"name"` // local
	Inviter wire.AccountID   `json:"inviter"`
	Token   wire.InviteToken `json:"token"`
	Asked   time.Time        `json:"asked"`
	Expires time.Time        `json:"expires"`
	Doors   []wire.Door      `json:"doors,omitempty"`
	Refused wire.RefusalCode `json:"refused,omitempty"`
	NotBy   []wire.AccountID `json:"not_by,omitempty"` // who refused
	room    wire.RoomID
}

const (
	// bucketPending holds invites that wait: room: pendingRow.
	bucketPending = "pending"
	// bucketRoomMail is the warden's inbox: room, sender, message id: kind, body.
	bucketRoomMail = "roommail"
	// bucketSecrets holds secrets that cannot be checked yet: room, topic key: secretRow.
	bucketSecrets = "roomsecrets"

	wardenEvery = time.Second
	// askPause is the pause between two requests for what a room lacks.
	askPause    = 15 * time.Second
	maxAskPause = time.Hour
	// greetPause is the pause between two greetings of the devices that an invite names.
	greetPause = 20 * time.Second
	// turnPause is how long each admin leaves a due change of the key to those before.
	turnPause = 20 * time.Second
	// keyLife is when a key is changed anyway.
	keyLife = 30 * 24 * time.Hour
	// lostKey is how long an admin waits for a key that was announced before making another.
	lostKey = 2 * time.Minute
	// maxHanded bounds the secrets of a room that wait to be checked.
	maxHanded = 256
	// logChunk bounds the events in one handed-over log, in bytes.
	logChunk = 32 << 10
)

// secretRow is a secret that somebody handed over.
type secretRow struct {
	Version int             `json:"v"`
	Number  uint32          `json:"number"`
	Secret  wire.RoomSecret `json:"secret"`
	From    wire.AccountID  `json:"from"`
}

func newWarden(ctx context.Context, s *Service) (*warden, error) {
	w := &warden{
		s: s, wake: make(chan struct{}, 1), pending: make(map[wire.RoomID]*pendingRow),
		asked: make(map[wire.RoomID]time.Time), lacking: make(map[wire.RoomID]time.Time), due: make(map[wire.RoomID]time.Time),
		askTurns: make(map[wire.RoomID]int), wants: make(map[wire.RoomID]*wanted),
	}
	for kv, err := range s.store.ScanBucket(ctx, bucketPending, nil) {
		if err != nil {
			return nil, err
		}
		row, err := decodeRow[pendingRow]("accepted invite", kv.Value)
		if err != nil {
			return nil, err
		}
		row.room = wire.RoomID(kv.Key)
		w.pending[row.room] = &row
	}
	return w, nil
}

// poke makes the warden look now. It does not block.
func (w *warden) poke() {
	select {
	case w.wake <- struct{}{}:
	default:
	}
}

// run looks after private rooms until ctx ends.
func (w *warden) run(ctx context.Context) {
	tick := time.NewTicker(wardenEvery)
	defer tick.Stop()
	for ctx.Err() == nil {
		select {
		case <-w.wake:
		case <-tick.C:
		case <-ctx.Done():
			return
		}
		if err := w.readMail(ctx); err != nil && ctx.Err() == nil {
			w.s.log.Warn("reading what came for private rooms failed; it is tried again", "error", err)
		}
		for _, r := range w.s.joinedRooms() {
			if !r.private {
				continue
			}
			if err := w.lookAfter(ctx, r); err != nil && ctx.Err() == nil && !errors.Is(err, ErrNotJoined) {
				w.s.log.Warn("looking after a private room failed; it is tried again", "error", err)
			}
		}
		for _, p := range w.waiting() {
			if err := w.tryEnter(ctx, p); err != nil && ctx.Err() == nil {
				w.s.log.Warn("entering a private room failed; it is tried again", "error", err)
			}
		}
		w.greetDoors()
	}
}

// waiting returns the invites that wait.
func (w *warden) waiting() []*pendingRow {
	w.mu.Lock()
	defer w.mu.Unlock()
	list := make([]*pendingRow, 0, len(w.pending))
	for _, p := range w.pending {
		c := *p
		list = append(list, &c)
	}
	slices.SortFunc(list, func(a, b *pendingRow) int { return slices.Compare(a.room[:], b.room[:]) })
	return list
}

// pendingRoom returns the invite into a room that waits, or nil.
func (w *warden) pendingRoom(id wire.RoomID) *pendingRow {
	w.mu.Lock()
	defer w.mu.Unlock()
	if p := w.pending[id]; p != nil {
		c := *p
		return &c
	}
	return nil
}

// pendingByName returns the invite that waits under a local name, or nil.
func (w *warden) pendingByName(name string) *pendingRow {
	for _, p := range w.waiting() {
		if p.Name == name {
			return p
		}
	}
	return nil
}

// put stores a waiting invite, or for nil forgets it, and shows it.
func (w *warden) put(ctx context.Context, room wire.RoomID, p *pendingRow) error {
	var b storage.Batch
	if p == nil {
		b.Delete(bucketPending, room[:])
	} else {
		b.Put(bucketPending, room[:], encodeRow(p))
	}
	if _, err := w.s.store.Commit(ctx, &b, storage.Durable); err != nil {
		return fmt.Errorf("storing an invite: %w", w.s.storeError(err))
	}
	w.mu.Lock()
	if p == nil {
		delete(w.pending, room)
	} else {
		c := *p
		w.pending[room] = &c
	}
	w.mu.Unlock()
	if p != nil {
		c := w.shown(p)
		w.s.events.publish(Event{Type: EventConversation, Conversation: &c})
	}
	return nil
}

// shown is how an invite that waits is listed among the conversations.
func (w *warden) shown(p *pendingRow) Conversation {
	c := Conversation{
		ID: ConversationID(p.room), Target: "#" + p.Name, Kind: ConversationRoom, Room: p.Name, Access: AccessPrivate,
		LastAt: p.Asked, Membership: MembershipPending,
		Note: "waiting to be admitted: " + w.s.nick(p.Inviter).Nick + ", or another member who may, lets you in as soon as you meet",
	}
	for _, a := range p.NotBy {
		c.Note += "; " + w.s.nick(a).Nick + " did not"
	}
	if p.Refused != 0 {
		c.Membership, c.Note = MembershipRemoved, refusalWords(p.Refused)+"; leave the room to take it off the list"
	} else if w.s.cfg.Clock.Now().After(p.Expires) {
		c.Note = "waiting to be admitted, but the invite has expired meanwhile: ask for another one"
	}
	return c
}

// refusalWords says why an invite was not taken and what to do.
func refusalWords(code wire.RefusalCode) string {
	switch code {
	case wire.RefusedExpired:
		return "the invite has expired: ask for another one"
	case wire.RefusedUsed:
		return "the invite was used already, and is good for one person: ask for another one"
	case wire.RefusedRevoked:
		return "the invite was taken back: ask for another one"
	case wire.RefusedInviter:
		return "who made the invite may not invite any more: ask somebody else for one"
	case wire.RefusedForged:
		return "the invite was not made by whom it names: ask for another one"
	default:
		return "you were not let in"
	}
}

// forget takes an invite that waits off the list, and says whether there was one.
func (w *warden) forget(ctx context.Context, t Target) (bool, error) {
	if t.Room == nil {
		return false, nil
	}
	p := w.pendingRoom(*t.Room)
	if p == nil {
		return false, nil
	}
	if r := w.s.roomByID(*t.Room); r != nil && r.joined() {
		return false, nil
	}
	if err := w.put(ctx, p.room, nil); err != nil {
		return true, err
	}
	w.s.dialogs.later(func() { w.s.dialogs.dropRequests(ctx, p) })
	c := w.shown(p)
	c.Membership = ""
	w.s.events.publish(Event{Type: EventConversation, Conversation: &c})
	return true, nil
}

// roommate says whether room mail of an account is to be taken: it is in a private room with this user,
// or an invite that waits names it.
func (s *Service) roommate(account wire.AccountID) bool {
	for _, p := range s.warden.waiting() {
		if p.Refused == 0 && p.names(account) {
			return true
		}
	}
	for _, r := range s.joinedRooms() {
		if r.private && r.members().role(account) != 0 && r.members().role(s.self.account) != 0 {
			return true
		}
	}
	return false
}

// lookAfter does what a room needs.
func (w *warden) lookAfter(ctx context.Context, r *room) error {
	m := r.members()
	self := w.s.self.account
	if m.role(self) == 0 {
		return nil
	}
	if err := w.unstash(ctx, r); err != nil {
		return err
	}
	m = r.members()
	newest := m.newest()
	now := time.Now()
	held := r.epochOf(newest.Topic) != nil
	if held {
		delete(w.lacking, r.id)
		if err := w.handOut(ctx, r, m); err != nil {
			return err
		}
		if err := w.sayNick(ctx, r); err != nil {
			return err
		}
	} else if w.lacking[r.id].IsZero() {
		w.lacking[r.id] = now
	}
	if err := w.ask(ctx, r, m, held); err != nil {
		return err
	}
	return w.changeKey(ctx, r, m, held)
}

// sayNick says the own nick under a new key if it is not known to the room.
func (w *warden) sayNick(ctx context.Context, r *room) error {
	r.mu.RLock()
	own := r.roster.members[w.s.self.account]
	said := own != nil && own.Nick.Value == w.s.nickNow()
	r.mu.RUnlock()
	if said || w.s.nickNow() == "" {
		return nil
	}
	return r.introduce(ctx, false)
}

// changeKey makes the next epoch if that is due and nobody who comes before this user did.
func (w *warden) changeKey(ctx context.Context, r *room, m *membership, held bool) error {
	now := time.Now()
	if m.role(w.s.self.account) < wire.RoleAdmin {
		return nil
	}
	r.mu.Lock()
	made := r.ledger.events[m.newest().Event].HLC.Time()
	due := r.ledger.changeDue() || w.s.cfg.Clock.Now().Sub(made) > keyLife
	r.mu.Unlock()
	// A device that was revoked holds the secret of the newest epoch.
	due = due || w.s.people.lostSince(made, func(a wire.AccountID) bool { return m.role(a) != 0 })
	pause := time.Duration(m.turn(w.s.self.account)) * turnPause
	if !held {
		// Whoever announced the newest key may never come back to hand it over.
		if since := w.lacking[r.id]; now.Sub(since) < lostKey+3*pause {
			return nil
		}
		due = true
	}
	if !due {
		delete(w.due, r.id)
		return nil
	}
	if w.due[r.id].IsZero() {
		w.due[r.id] = now
	}
	if held && now.Sub(w.due[r.id]) < pause {
		return nil
	}
	delete(w.due, r.id)
	delete(w.lacking, r.id)
	return r.do(ctx, func() error {
		if r.members() != m {
			return nil // decided anew in a moment
		}
		return r.actWithKey(ctx, func(number uint32, topic wire.TopicKey) wire.Body {
			return &wire.EpochBody{Epoch: number, Topic: topic}
		})
	})
}

// turn returns an account's place among the admins, the most senior first.
func (m *membership) turn(a wire.AccountID) int {
	own, n := m.Members[a], 0
	for _, s := range m.Members {
		if s.Role >= wire.RoleAdmin && (s.Role > own.Role || s.Role == own.Role && s.place < own.place) {
			n++
		}
	}
	return n
}

// handOut gives the newest secret, and what of the log goes with it, to the members who were not given
// it by this node, if that is its business: it announced the epoch, or one that does not count.
func (w *warden) handOut(ctx context.Context, r *room, m *membership) error {
	self := w.s.self.account
	newest := m.newest()
	mine := false
	for _, a := range m.Announced {
		mine = mine || a.Author == self && (a.Topic == newest.Topic || a.Number >= newest.Number && r.epochOf(a.Topic) != nil)
	}
	if !mine || newest.Number == 0 {
		return nil
	}
	row, err := r.epochRow(ctx, newest.Topic)
	if err != nil {
		return err
	}
	var known []wire.EventID
	if n := len(m.Epochs); n > 1 {
		known = append(known, m.Epochs[n-2].Event)
	}
	for a := range m.Members {
		if slices.Contains(row.Told, a) {
			continue
		}
		r.mu.Lock()
		events := r.ledger.after(known...)
		r.mu.Unlock()
		if err := w.handLog(ctx, r, a, events); err != nil {
			return err
		}
		if err := w.handSecret(ctx, r, a, newest.Number, row.Secret); err != nil {
			return err
		}
		if err := w.told(ctx, r, newest.Topic, a); err != nil {
			return err
		}
		row.Told = append(row.Told, a)
	}
	return nil
}

// told notes that an account was given a secret.
func (w *warden) told(ctx context.Context, r *room, topic wire.TopicKey, a wire.AccountID) error {
	row, err := r.epochRow(ctx, topic)
	if err != nil || slices.Contains(row.Told, a) {
		return err
	}
	row.Told = append(row.Told, a)
	var b storage.Batch
	b.Put(bucketEpochs, joinKey(r.id[:], topic[:]), encodeRow(row))
	_, err = w.s.store.Commit(ctx, &b, storage.Relaxed)
	return w.s.storeError(err)
}

// epochRow reads the stored secret of an epoch.
func (r *room) epochRow(ctx context.Context, topic wire.TopicKey) (epochRow, error) {
	b, err := r.s.store.GetBucket(ctx, bucketEpochs, joinKey(r.id[:], topic[:]))
	if err != nil {
		return epochRow{}, err
	}
	return decodeRow[epochRow]("room key", b)
}

// handLog gives membership events to somebody, and the members' nicks.
func (w *warden) handLog(ctx context.Context, r *room, to wire.AccountID, events []*memberEvent) error {
	var chunk [][]byte
	size := 0
	flush := func() error {
		if len(chunk) == 0 {
			return nil
		}
		body := &wire.RoomLogBody{Room: r.id, Events: chunk}
		chunk, size = nil, 0
		return w.send(ctx, to, body)
	}
	add := func(raw []byte) error {
		if size+len(raw) > logChunk || len(chunk) == wire.MaxRoomLogEvents {
			if err := flush(); err != nil {
				return err
			}
		}
		chunk, size = append(chunk, raw), size+len(raw)
		return nil
	}
	for _, e := range events {
		raw, err := w.s.store.GetBucket(ctx, bucketRoomLog, joinKey(r.id[:], e.ID[:]))
		if err != nil {
			return err
		}
		if err := add(raw); err != nil {
			return err
		}
	}
	return flush()
}

// nicks returns the newest profile event of each member that is here, for somebody who cannot read it.
func (r *room) nicks(ctx context.Context) []*wire.Event {
	var list []*wire.Event
	var at []wire.SealedID
	m := r.members()
	r.mu.RLock()
	for a, p := range r.roster.members {
		if m.role(a) != 0 && p.Nick.At.Sealed != (wire.SealedID{}) {
			at = append(at, p.Nick.At.Sealed)
		}
	}
	r.mu.RUnlock()
	for _, id := range at {
		rec, err := r.s.store.Get(ctx, storage.ID(id))
		if err != nil || rec.Flags&storage.FlagStub != 0 {
			continue
		}
		sealed, err := r.parse(ctx, rec)
		if err != nil {
			continue
		}
		if ev, err := r.unseal(sealed); err == nil && !ev.Redacted() {
			list = append(list, ev)
		}
	}
	return list
}

func (w *warden) handNicks(ctx context.Context, r *room, to wire.AccountID) error {
	var chunk [][]byte
	size := 0
	for _, ev := range r.nicks(ctx) {
		if size+len(ev.Bytes()) > logChunk || len(chunk) == wire.MaxRoomLogEvents {
			if err := w.send(ctx, to, &wire.RoomLogBody{Room: r.id, Events: chunk}); err != nil {
				return err
			}
			chunk, size = nil, 0
		}
		chunk, size = append(chunk, ev.Bytes()), size+len(ev.Bytes())
	}
	if len(chunk) == 0 {
		return nil
	}
	return w.send(ctx, to, &wire.RoomLogBody{Room: r.id, Events: chunk})
}

func (w *warden) handSecret(ctx context.Context, r *room, to wire.AccountID, number uint32, secret wire.RoomSecret) error {
	return w.send(ctx, to, &wire.RoomSecretBody{Room: r.id, Epoch: number, Secret: secret})
}

// handSecrets gives a member the newest secret that is held, and those before it that the member may have.
func (w *warden) handSecrets(ctx context.Context, r *room, m *membership, to wire.AccountID) error {
	if m.role(to) == 0 {
		return nil
	}
	for _, e := range slices.Backward(r.active()) {
		r.mu.Lock()
		may := r.ledger.mayHold(m, to, e.keys.Topic)
		r.mu.Unlock()
		if !may {
			continue
		}
		row, err := r.epochRow(ctx, e.keys.Topic)
		if err != nil {
			return err
		}
		if err := w.handSecret(ctx, r, to, e.number, row.Secret); err != nil {
			return err
		}
		if e.keys.Topic == m.newest().Topic {
			if err := w.told(ctx, r, e.keys.Topic, to); err != nil {
				return err
			}
		}
	}
	return nil
}

// mayHold says whether a member may be given the secret of an epoch: if the room shares its history, any;
// otherwise those by whose announcement it was a member.
func (l *ledger) mayHold(m *membership, a wire.AccountID, topic wire.TopicKey) bool {
	e, ok := m.Announced[topic]
	return ok && m.role(a) != 0 && (m.Policy.ShareHistory || l.past(e.Event).role(a) != 0)
}

// wanted is what a room lacks of the secrets that this user may hold, as of a membership.
type wanted struct {
	of     *membership
	held   int
	topics int
	tries  int
}

// lacks counts the secrets that this user may hold and does not. It is worked out anew only when
// something changed.
func (w *warden) lacks(r *room, m *membership) *wanted {
	old := w.wants[r.id]
	if old != nil && old.of == m && old.held == len(r.epochs()) {
		return old
	}
	n := &wanted{of: m, held: len(r.epochs())}
	if old != nil && old.held == n.held {
		n.tries = old.tries
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	for topic, a := range m.Announced {
		if newest := m.newest().Number; a.Number+maxActive > newest && r.epochOf(topic) == nil && r.ledger.mayHold(m, w.s.self.account, topic) {
			n.topics++
		}
	}
	w.wants[r.id] = n
	return n
}

// send queues a message that only the other node sees; it is repeated until it is acknowledged.
func (w *warden) send(ctx context.Context, to wire.AccountID, body wire.DMBody) error {
	content, err := wire.EncodeDMBody(body)
	if err != nil {
		return err
	}
	return w.s.dialogs.do(ctx, func() error { return w.s.dialogs.whisperBody(ctx, to, body.DMKind(), content) })
}

// ask asks members with the right for what the room lacks, one after the other; for what is not urgent
// ever more rarely, since nobody may have it.
func (w *warden) ask(ctx context.Context, r *room, m *membership, held bool) error {
	now := time.Now()
	lack := w.lacks(r, m)
	if held && len(m.Missing) == 0 && lack.topics == 0 {
		return nil
	}
	pause := askPause
	if held && len(m.Missing) == 0 {
		pause = min(askPause<<min(lack.tries, 10), maxAskPause)
	}
	if now.Sub(w.asked[r.id]) < pause {
		return nil
	}
	var helpers []wire.AccountID
	for a := range m.Members {
		if a != w.s.self.account && (m.mayAdd(a) || m.newest().Author == a) && w.s.people.pathTo(a) != PathNone {
			helpers = append(helpers, a)
		}
	}
	if len(helpers) == 0 {
		return nil
	}
	slices.SortFunc(helpers, func(a, b wire.AccountID) int { return slices.Compare(a[:], b[:]) })
	w.askTurns[r.id]++
	to := helpers[w.askTurns[r.id]%len(helpers)]
	w.asked[r.id] = now
	lack.tries++
	body := &wire.RoomWantedBody{Room: r.id, IDs: m.Missing[:min(len(m.Missing), wire.MaxRoomLogEvents)], Secrets: lack.topics > 0}
	if !body.Secrets && len(body.IDs) == 0 {
		return nil
	}
	return w.send(ctx, to, body)
}

// greetDoors greets the devices that invites name, so that they prove whose they are.
func (w *warden) greetDoors() {
	now := time.Now()
	if now.Sub(w.greetAt) < greetPause {
		return
	}
	list := w.waiting()
	if len(list) == 0 {
		return
	}
	w.greetAt = now
	greeting := w.s.Greeting()
	for _, p := range list {
		if p.Refused != 0 {
			continue
		}
		for _, d := range p.Doors {
			if w.s.people.pathTo(d.Account) == PathNone {
				w.s.links.send(d.Device, greeting, nil)
			}
		}
	}
}
