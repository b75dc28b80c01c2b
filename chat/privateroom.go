package chat

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"time"

	"github.com/starling-chat/starling/chat/wire"
	"github.com/starling-chat/starling/storage"
)

// Buckets of private rooms, and what their keys are.
const (
	bucketRoomLog = "roomlog" // room, event: the membership event
	bucketEpochs  = "epochs"  // room, topic key: epochRow
)

// epochRow is an epoch whose secret is held.
type epochRow struct {
	Version int              `json:"v"`
	Number  uint32           `json:"number"`
	Secret  wire.RoomSecret  `json:"secret"`
	Told    []wire.AccountID `json:"told,omitempty"` // whom this node gave it to
}

// loadPrivate reads a private room's membership events and secrets. A room that is being made has none.
func (r *room) loadPrivate(ctx context.Context) error {
	l := newLedger(r.id)
	for kv, err := range r.s.store.ScanBucket(ctx, bucketRoomLog, r.id[:]) {
		if err != nil {
			return err
		}
		ev, err := wire.ParseEvent(kv.Value)
		if err != nil {
			return fmt.Errorf("reading a stored membership event: %w: %w", storage.ErrCorrupt, err)
		}
		if e := memberEventOf(ev); e != nil {
			l.add(e)
		}
		r.s.people.device(ev.Header.Account(), ev.Header.Device())
	}
	var list []*epoch
	for kv, err := range r.s.store.ScanBucket(ctx, bucketEpochs, r.id[:]) {
		if err != nil {
			return err
		}
		row, err := decodeRow[epochRow]("room key", kv.Value)
		if err != nil {
			return err
		}
		keys, err := wire.DeriveRoomKeys(row.Secret)
		if err != nil {
			return err
		}
		e := r.epochOf(keys.Topic) // one that is known keeps its set
		if e == nil {
			e = &epoch{number: row.Number, keys: keys}
		}
		list = append(list, e)
	}
	r.mu.Lock()
	r.ledger = l
	r.mu.Unlock()
	r.arrange(list)
	return nil
}

// arrange puts the epochs that are held in order: the one that counts as the newest comes last.
func (r *room) arrange(list []*epoch) {
	newest := r.members().newest().Topic
	slices.SortFunc(list, func(a, b *epoch) int {
		if an, bn := a.keys.Topic == newest, b.keys.Topic == newest; an != bn {
			if an {
				return 1
			}
			return -1
		}
		if a.number != b.number {
			if a.number < b.number {
				return -1
			}
			return 1
		}
		return bytes.Compare(a.keys.Topic[:], b.keys.Topic[:])
	})
	r.ring.Store(&list)
}

// memberEventOf returns a membership event as the merge sees it, or nil if it is none that counts.
func memberEventOf(ev *wire.Event) *memberEvent {
	h := &ev.Header
	body, err := ev.Body()
	if err != nil || !h.Kind.Membership() {
		return nil
	}
	return &memberEvent{
		ID: ev.ID, HLC: h.HLC, Author: h.Account(), Device: h.Device(), Seq: h.DeviceSeq, Parents: slices.Clone(h.Parents), Body: body,
	}
}

// members returns what the membership events amount to. It must not be changed.
func (r *room) members() *membership {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.ledger.now()
}

// standsNow says how this user stands with a private room.
func (r *room) standsNow() string {
	m := r.members()
	switch {
	case m.role(r.s.self.account) == 0:
		return MembershipRemoved
	case r.epochOf(m.newest().Topic) == nil:
		return MembershipKeyless
	default:
		return MembershipMember
	}
}

// keyPatience is how long sending waits for a room's new key before it is refused.
const keyPatience = 5 * time.Second

// awaitKey says whether the room can be written now; it waits a little for a new key that is on its way.
func (r *room) awaitKey(ctx context.Context) error {
	if !r.private {
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, keyPatience)
	defer cancel()
	tick := time.NewTicker(keyPatience / 50)
	defer tick.Stop()
	for {
		err := r.writable()
		if !errors.Is(err, ErrConflict) {
			return err
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return err
		}
	}
}

// writable says why the room cannot be written now.
func (r *room) writable() error {
	if !r.private {
		return nil
	}
	switch r.standsNow() {
	case MembershipRemoved:
		return fmt.Errorf("%w: you are no member of #%s any more", ErrDenied, r.name())
	case MembershipKeyless:
		return fmt.Errorf("%w: the key of #%s was changed and has not come yet; it comes as soon as somebody who may admit members is met", ErrConflict, r.name())
	}
	return nil
}

// heads returns the newest membership events, which every event names first among its parents.
func (r *room) heads() (ids []wire.EventID, clocks []wire.HLC) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, id := range r.ledger.now().Heads {
		ids, clocks = append(ids, id), append(clocks, r.ledger.events[id].HLC)
	}
	return ids, clocks
}

// enroll takes the membership events of a batch into the log, and says of the others which were not said
// by members. For the owner, before the batch is folded.
func (in *intake) enroll(ctx context.Context) error {
	r := in.r
	if !r.private {
		return nil
	}
	in.before = r.members()
	for i := range in.list {
		a := &in.list[i]
		if a.hidden || !a.event.Header.Kind.Membership() {
			continue
		}
		e := memberEventOf(a.event)
		if e == nil {
			a.void = true
			continue
		}
		r.mu.Lock()
		fresh := r.ledger.add(e)
		known := r.ledger.events[e.ID] != nil
		r.mu.Unlock()
		a.void = !known
		if fresh {
			in.batch.Put(bucketRoomLog, joinKey(r.id[:], e.ID[:]), a.event.Bytes())
		}
	}
	m := r.members()
	j := r.judge(m, in.list)
	for i := range in.list {
		a := &in.list[i]
		if a.hidden || a.event.Header.Kind.Membership() {
			continue
		}
		ok, chained, err := j.allows(ctx, a.event)
		if err != nil {
			return err
		}
		a.void = !ok || !m.mayPost(a.event.Header.Account(), a.event.Header.Kind, a.event.Header.HLC)
		if chained && ok {
			in.continued = append(in.continued, a.event.Header.Account())
		}
	}
	return nil
}

// judge decides which events were said by members.
type judge struct {
	r      *room
	m      *membership
	batch  map[wire.EventID]*wire.Event
	stands map[wire.AccountID]map[wire.EventID]bool
}

func (r *room) judge(m *membership, list []arrival) *judge {
	j := &judge{r: r, m: m, batch: make(map[wire.EventID]*wire.Event), stands: make(map[wire.AccountID]map[wire.EventID]bool)}
	for i := range list {
		if ev := list[i].event; ev != nil && !list[i].hidden {
			j.batch[ev.ID] = ev
		}
	}
	return j
}

// allows says whether an event counts. chained says that its place in its author's chain decided.
func (j *judge) allows(ctx context.Context, ev *wire.Event) (ok, chained bool, err error) {
	account := ev.Header.Account()
	always, marks := j.m.allowed(account, ev.Header.Epoch)
	if always || len(marks) == 0 {
		return always, false, nil
	}
	stands := j.stands[account]
	if stands == nil {
		stands = make(map[wire.EventID]bool)
		for _, mark := range marks {
			if err := j.follow(ctx, mark.Last, stands); err != nil {
				return false, true, err
			}
		}
		j.stands[account] = stands
	}
	return stands[ev.ID], true, nil
}

// follow walks from an event to those that its previous leads to, as far as they are here.
func (j *judge) follow(ctx context.Context, id wire.EventID, stands map[wire.EventID]bool) error {
	for !id.IsZero() && !stands[id] {
		ev := j.batch[id]
		if ev == nil {
			var err error
			if ev, err = j.r.eventByID(ctx, id); err != nil {
				return err
			}
		}
		stands[id] = true
		if ev == nil {
			return nil
		}
		id = ev.Header.Previous
	}
	return nil
}

// eventByID reads an event of the room; nil if it is not here.
func (r *room) eventByID(ctx context.Context, id wire.EventID) (*wire.Event, error) {
	row, ok, err := r.lookup(ctx, id)
	if err != nil || !ok {
		return nil, err
	}
	rec, err := r.s.store.Get(ctx, storage.ID(row.Sealed))
	if errors.Is(err, storage.ErrNotFound) || err == nil && rec.Flags&storage.FlagStub != 0 {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	sealed, err := r.parse(ctx, rec)
	if err != nil {
		return nil, err
	}
	ev, err := r.unseal(sealed)
	if err != nil {
		return nil, nil //nolint:nilerr // what does not open is not here
	}
	return ev, nil
}

// settleMembers does what follows from a changed log, once it is stored.
func (in *intake) settleMembers(ctx context.Context) {
	r := in.r
	if !r.private {
		return
	}
	r.changed(ctx, in.before, in.continued)
}

// changed does what follows when the membership changed from what it was.
func (r *room) changed(ctx context.Context, before *membership, continued []wire.AccountID) {
	m := r.members()
	again := make(map[wire.AccountID]bool)
	for _, a := range continued {
		again[a] = true
	}
	if m != before {
		for a := range m.Spells {
			if !m.judgesAlike(before, a) && r.heardOf(a) {
				again[a] = true
			}
		}
		r.arrange(slices.Clone(r.epochs()))
		r.s.warden.poke()
	}
	if len(again) > 0 {
		if err := r.reconsider(ctx, again); err != nil && ctx.Err() == nil {
			r.log.Error("deciding anew what members said failed", "error", err)
		}
	}
	if m != before || len(again) > 0 {
		if err := r.redactAgain(ctx); err != nil && ctx.Err() == nil {
			r.log.Error("deleting what moderators deleted failed", "error", err)
		}
	}
	if m != before {
		c := r.conversation()
		r.s.events.publish(Event{Type: EventConversation, Conversation: &c})
	}
}

// judgesAlike says whether what an account said counts as before.
func (m *membership) judgesAlike(before *membership, a wire.AccountID) bool {
	if !sameSpells(m.Spells[a], before.Spells[a]) {
		return false
	}
	return !m.restricted() && !before.restricted() ||
		slices.Equal(m.Posting, before.Posting) && slices.Equal(m.Roles[a], before.Roles[a])
}

func sameSpells(a, b []spell) bool {
	return slices.EqualFunc(a, b, func(x, y spell) bool {
		return x.From == y.From && x.Ended == y.Ended && slices.Equal(x.Marks, y.Marks)
	})
}

// heardOf says whether anything by an account is here.
func (r *room) heardOf(a wire.AccountID) bool {
	r.mu.RLock()
	defer r.mu.RUnlock()
	for _, t := range r.tracker.devices {
		if t.Account == a {
			return true
		}
	}
	return false
}

// reconsider decides anew which events by some accounts count, and makes the room as if it had known
// from the start: the roster is folded again.
func (r *room) reconsider(ctx context.Context, accounts map[wire.AccountID]bool) error {
	j := r.judge(r.members(), nil)
	ros := newRoster()
	var b storage.Batch
	commit := func() error {
		_, err := r.s.store.Commit(ctx, &b, storage.Relaxed)
		b = storage.Batch{}
		return err
	}
	for rec, err := range r.s.store.ScanArrival(ctx, r.stream, 0, 0) {
		if err != nil {
			return err
		}
		if rec.Flags&(recordHidden|storage.FlagStub) != 0 {
			continue
		}
		sealed, err := r.parse(ctx, rec)
		if err != nil {
			return err
		}
		a := r.open(sealed)
		if a.hidden {
			continue
		}
		row, ok, err := r.lookup(ctx, a.event.ID)
		if err != nil || !ok {
			return err
		}
		void := row.Flags&indexVoid != 0
		if accounts[a.event.Header.Account()] && !a.event.Header.Kind.Membership() {
			allowed, _, err := j.allows(ctx, a.event)
			if err != nil {
				return err
			}
			allowed = allowed && j.m.mayPost(a.event.Header.Account(), a.event.Header.Kind, a.event.Header.HLC)
			if void == allowed {
				void = !allowed
				r.turn(&b, &a, rec, row, void)
				if b.Len() >= batchEvents {
					if err := commit(); err != nil {
						return err
					}
				}
			}
		}
		if !void {
			ros.apply(a.at(), &a.event.Header, a.body)
		}
	}
	r.mu.Lock()
	for account, m := range r.roster.members { // nicks that were handed over, said under keys that are not held
		if now := ros.members[account]; r.ledger.now().role(account) != 0 && m.Nick.Value != "" && (now == nil || now.Nick.Value == "") {
			ros.put(account, m)
		}
	}
	r.roster = ros
	r.state.Topic, r.state.TopicAt = ros.topic.Value, ros.topic.At
	for account, m := range ros.members {
		b.Put(bucketMembers, joinKey(r.id[:], account[:]), encodeRow(rowOfMember(m)))
	}
	r.mu.Unlock()
	r.putState(&b)
	if err := commit(); err != nil {
		return err
	}
	return r.recount(ctx)
}

// turn makes an event count, or not count any more.
func (r *room) turn(b *storage.Batch, a *arrival, rec storage.Record, row indexRow, void bool) {
	in := &intake{r: r}
	a.record = rec.Flags & recordBodily
	row.Flags &^= indexVoid
	if void {
		row.Flags |= indexVoid
		if a.own {
			a.record |= recordOwn
		}
	} else {
		in.classify(a)
	}
	row.Record = a.record
	b.Replace(rec.ID, a.record, rec.Value)
	b.Put(bucketEvents, joinKey(r.stream[:], a.event.ID[:]), row.encode())
	ref := a.event.Header.Ref
	if a.body == nil || ref.IsZero() {
		return
	}
	if m, ok := modifierOf(a.at(), a.event.ID, a.event.Header.Account(), a.body, r.s.self.account); ok {
		if void {
			b.Delete(bucketModifier, m.key(r.stream, ref))
			return
		}
		b.Put(bucketModifier, m.key(r.stream, ref), m.encode())
		r.mu.Lock()
		r.modded[ref] = struct{}{}
		r.mu.Unlock()
	}
}

// act makes a membership event. more adds to the transaction that stores it. For the owner.
func (r *room) act(ctx context.Context, body wire.Body, more func(*storage.Batch)) (wire.EventID, error) {
	list, err := encodeSaid(body, wire.EventID{})
	if err != nil {
		return wire.EventID{}, err
	}
	chain := r.chain()
	a, err := r.compose(&chain, list[0], r.s.cfg.Clock.Now())
	if err != nil {
		return wire.EventID{}, err
	}
	arrivals := []arrival{a}
	if _, err := r.take(ctx, arrivals, storage.Durable, func(b *storage.Batch) {
		if more != nil {
			more(b)
		}
		b.Guard()
	}); err != nil {
		return wire.EventID{}, err
	}
	r.pub.add(arrivals)
	return a.event.ID, nil
}

// newSecret draws an epoch's secret.
func (s *Service) newSecret() (secret wire.RoomSecret, keys *wire.RoomKeys, err error) {
	if _, err = io.ReadFull(s.cfg.Rand, secret[:]); err != nil {
		return secret, nil, fmt.Errorf("reading randomness for a room's key: %w", err)
	}
	keys, err = wire.DeriveRoomKeys(secret)
	return secret, keys, err
}

// actWithKey makes a membership event that announces an epoch, whose secret is stored with it. For the owner.
func (r *room) actWithKey(ctx context.Context, body func(number uint32, topic wire.TopicKey) wire.Body) error {
	secret, keys, err := r.s.newSecret()
	if err != nil {
		return err
	}
	number := r.members().newest().Number + 1
	row := epochRow{Version: rowVersion, Number: number, Secret: secret, Told: []wire.AccountID{r.s.self.account}}
	if _, err := r.act(ctx, body(number, keys.Topic), func(b *storage.Batch) {
		b.Put(bucketEpochs, joinKey(r.id[:], keys.Topic[:]), encodeRow(row))
	}); err != nil {
		return err
	}
	r.adopt(ctx, number, keys)
	return nil
}

// adopt takes an epoch into use whose secret is stored. For the owner of a joined room.
func (r *room) adopt(ctx context.Context, number uint32, keys *wire.RoomKeys) {
	if r.epochOf(keys.Topic) == nil {
		r.arrange(append(slices.Clone(r.epochs()), &epoch{number: number, keys: keys}))
	}
	if wait := r.joinTopics(ctx, 0); wait != nil {
		r.log.Warn("joining the topic of a room's new key failed; it is tried again")
	}
	r.s.syncer.joined(r)
	r.s.warden.poke()
	c := r.conversation()
	r.s.events.publish(Event{Type: EventConversation, Conversation: &c})
}

// takeSecret keeps an epoch's secret that somebody with the right handed over. For the owner.
func (r *room) takeSecret(ctx context.Context, number uint32, secret wire.RoomSecret) error {
	keys, err := wire.DeriveRoomKeys(secret)
	if err != nil || r.epochOf(keys.Topic) != nil {
		return err
	}
	var b storage.Batch
	b.Put(bucketEpochs, joinKey(r.id[:], keys.Topic[:]), encodeRow(epochRow{Version: rowVersion, Number: number, Secret: secret}))
	if _, err := r.s.store.Commit(ctx, &b, storage.Durable); err != nil {
		return r.s.storeError(err)
	}
	r.adopt(ctx, number, keys)
	return nil
}

// takeLog takes in membership events that somebody handed over whole, and nicks. For the owner.
func (r *room) takeLog(ctx context.Context, events []*wire.Event) error {
	before := r.members()
	var b storage.Batch
	for _, ev := range events {
		if !ev.Header.Kind.Membership() {
			r.learnNick(ev, &b)
			continue
		}
		e := memberEventOf(ev)
		if e == nil {
			continue
		}
		r.mu.Lock()
		fresh := r.ledger.add(e)
		r.mu.Unlock()
		if fresh {
			b.Put(bucketRoomLog, joinKey(r.id[:], e.ID[:]), ev.Bytes())
		}
	}
	if b.Len() == 0 {
		return nil
	}
	if _, err := r.s.store.Commit(ctx, &b, storage.Durable); err != nil {
		return errors.Join(r.s.storeError(err), r.loadPrivate(context.WithoutCancel(ctx)))
	}
	r.changed(ctx, before, nil)
	return nil
}

// learnNick takes the nick of a member from a profile event that was said under a key that is not held.
// It adds the member's row to the batch.
func (r *room) learnNick(ev *wire.Event, b *storage.Batch) {
	body, err := ev.Body()
	if err != nil || ev.Header.Kind != wire.KindProfile || r.members().role(ev.Header.Account()) == 0 {
		return
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if account := ev.Header.Account(); r.roster.apply(stamp{HLC: ev.Header.HLC}, &ev.Header, body).member {
		b.Put(bucketMembers, joinKey(r.id[:], account[:]), encodeRow(rowOfMember(r.roster.members[account])))
	}
}
