package chat

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/starling-chat/starling/chat/wire"
	"github.com/starling-chat/starling/storage"
)

// arrival is one sealed event on its way into a room's set.
type arrival struct {
	sealed   *wire.Sealed
	event    *wire.Event // nil when it does not open
	body     wire.Body   // nil when redacted or of an unknown kind
	own      bool
	refused  bool // only this node refuses it: kept as a stub
	hidden   bool // it stays in the set and means nothing
	void     bool // its author was no member: likewise, until the membership events say otherwise
	clientID string
	again    bool   // it says a nick that is known
	synced   bool   // it came by sync
	old      bool   // it is no news: not unread, not announced
	stored   uint64 // its arrival number, when it is in the stream already (replay)
	from     wire.DeviceID

	number uint64 // its arrival number, once it is known
	record uint8  // flags of its record
	index  uint8  // flags of its index row
}

// at returns the event's place in the room.
func (a *arrival) at() stamp { return stamp{a.sealed.HLC, a.sealed.ID} }

// isText says whether the event is a message.
func (a *arrival) isText() bool { return a.event != nil && a.event.Header.Kind == wire.KindMessage }

// open decrypts a sealed event and looks at its form; signatures are not its business.
func (r *room) open(sealed *wire.Sealed) arrival {
	a := arrival{sealed: sealed}
	ev, err := r.unseal(sealed)
	if err != nil {
		a.hidden = true
		return a
	}
	a.event = ev
	a.own = ev.Header.Account() == r.s.self.account
	ours := ev.Header.Room == r.id || r.private && ev.Header.Kind == wire.KindCreate && wire.RoomID(ev.ID) == r.id
	if !ours || ev.Header.Epoch != r.epochOf(sealed.Topic).number {
		a.hidden = true
		return a
	}
	body, err := ev.Body()
	switch {
	case err == nil:
		a.body = body
	case errors.Is(err, wire.ErrRedacted), errors.Is(err, wire.ErrUnsupported):
	default:
		a.hidden = true
	}
	return a
}

// gatherTime is the least time between two batches of events: while events follow each other that
// closely, they share verification and transaction. The first one after a lull waits for nothing.
const gatherTime = 20 * time.Millisecond

// receive takes an event from the queue with whatever waits behind it.
func (r *room) receive(ctx context.Context, first incoming) {
	r.gather(ctx)
	batch := []incoming{first}
	size := len(first.sealed.Bytes())
	defer func() {
		r.waiting.Add(int64(-size))
		r.taken = time.Now()
	}()
	for len(batch) < batchEvents && size < batchBytes && len(r.incoming) > 0 {
		in := <-r.incoming // nobody else takes from it
		batch = append(batch, in)
		size += len(in.sealed.Bytes())
	}
	list, err := r.sift(ctx, batch)
	if err == nil {
		_, err = r.take(ctx, list, storage.Relaxed, nil)
	}
	if err != nil {
		// Nothing was taken in; what was lost here comes again by sync.
		r.dropped.Add(uint64(len(batch)))
		if ctx.Err() == nil {
			r.log.Warn("storing received events failed", "error", err, "events", len(batch))
		}
		return
	}
	r.pub.received(list)
}

// gather lets events wait in the queue, without a look at each, until gatherTime after the last batch or until
// there are enough.
func (r *room) gather(ctx context.Context) {
	rest := gatherTime - time.Since(r.taken)
	if rest <= 0 {
		return
	}
	select {
	case <-r.crowded: // said of a batch before
	default:
	}
	if len(r.incoming) >= r.crowd() {
		return
	}
	timer := time.NewTimer(rest)
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-r.crowded:
	case <-ctx.Done():
	}
}

// crowd is how many events in the queue are enough for a batch.
func (r *room) crowd() int { return min(batchEvents-1, max(1, cap(r.incoming)/2)) }

// sift drops what is known, puts aside what is early, and opens and verifies the rest.
func (r *room) sift(ctx context.Context, batch []incoming) ([]arrival, error) {
	now := r.s.cfg.Clock.Now()
	fresh := make([]incoming, 0, len(batch))
	ids := make([]storage.ID, 0, len(batch))
	r.mu.RLock()
	kept := r.state.Kept
	r.mu.RUnlock()
	for _, in := range batch {
		if uint64(in.sealed.HLC) < kept && !r.private {
			continue // it was removed for good, or would have been
		}
		switch in.sealed.HLC.Timeliness(now) {
		case wire.TooEarly:
			continue
		case wire.Early:
			if err := r.s.deferEvent(ctx, r.id, in.sealed); err != nil {
				return nil, err
			}
			continue
		}
		if id := storage.ID(in.sealed.ID); !slices.Contains(ids, id) {
			fresh, ids = append(fresh, in), append(ids, id)
		}
	}
	has, err := r.s.store.Has(ctx, ids)
	if err != nil {
		return nil, err
	}
	list := make([]arrival, 0, len(fresh))
	for i, in := range fresh {
		if has[i] {
			if err := r.fillBody(ctx, in.sealed); err != nil {
				return nil, err
			}
			continue
		}
		a := r.open(in.sealed)
		if uint64(in.sealed.HLC) < kept && !r.newMember(a.event) {
			continue // as above; but who may do what in a private room follows from all that was ever said about it
		}
		if a.sealed.Ephemeral {
			r.live(a)
			continue
		}
		a.from, a.old, a.synced = in.from, in.old, in.synced
		list = append(list, a)
	}
	r.verify(list, fresh)
	return list, nil
}

// verify checks the authors of what opened, and applies what only this node refuses.
func (r *room) verify(list []arrival, batch []incoming) {
	synced := make(map[wire.SealedID]bool)
	for _, in := range batch {
		if in.synced {
			synced[in.sealed.ID] = true
		}
	}
	events := make([]*wire.Event, 0, len(list))
	index := make([]int, 0, len(list))
	for i := range list {
		if !list[i].hidden {
			events, index = append(events, list[i].event), append(index, i)
		}
	}
	now := r.s.cfg.Clock.Now()
	r.limiter.set(r.pace(true))
	for k, err := range r.s.verifier.VerifyEvents(events) {
		a := &list[index[k]]
		author := a.event.Header.Account()
		switch {
		case err != nil:
			a.hidden = true
		case a.own:
		case r.s.people.blocked(author), r.s.people.revokedBy(a.event.Header.Device(), a.event.Header.HLC.Time()),
			!synced[a.sealed.ID] && !r.limiter.allow(author, len(a.sealed.Bytes()), now):
			a.refused = true
			r.refused.Add(1)
		}
		if !a.hidden {
			r.s.people.device(author, a.event.Header.Device())
		}
	}
}

// live shows an ephemeral event to whoever looks, and forgets it.
func (r *room) live(a arrival) {
	if a.hidden || a.own || r.s.verifier.VerifyEvent(a.event) != nil {
		return
	}
	author := a.event.Header.Account()
	if r.s.people.blocked(author) || r.s.people.revoked(a.event.Header.Device()) || !r.limiter.allow(author, len(a.sealed.Bytes()), r.s.cfg.Clock.Now()) {
		return
	}
	if b, ok := a.body.(*wire.TypingBody); ok && !b.Stopped {
		r.s.events.live(Event{Type: EventTyping, Typing: &Typing{
			Conversation: ConversationID(r.id), Account: author, Nick: r.nick(author).Nick,
		}})
	}
}

// intake is the work of putting a batch of arrivals into the store and the state.
type intake struct {
	r       *room
	now     time.Time
	list    []arrival
	batch   storage.Batch
	known   map[wire.EventID]wire.HLC
	targets map[wire.EventID]*target // messages whose modifiers changed, or that have some
	order   []wire.EventID           // keys of targets in the order they came up
	members map[wire.AccountID]bool
	devices map[wire.DeviceID]bool
	waits   map[wire.EventID]bool
	late    []wire.EventID
	changed map[wire.EventID]indexRow // stored rows that this batch replaces
	summary bool                      // the conversation as a whole changed
	shown   map[wire.EventID]Message

	// Of a private room.
	before    *membership      // before this batch
	continued []wire.AccountID // former members of whom more turned out to stand
}

// take stores a batch of arrivals with the state that follows from them, in one transaction, and
// tells the subscribers. more, if not nil, adds operations to the transaction. On an error nothing has
// changed. The answer holds the lines that were added to the conversation.
func (r *room) take(ctx context.Context, list []arrival, d storage.Durability, more func(*storage.Batch)) (map[wire.EventID]Message, error) {
	if len(list) == 0 {
		return nil, nil
	}
	in := &intake{
		shown: make(map[wire.EventID]Message, len(list)),
		r:     r, now: r.s.cfg.Clock.Now(), list: list, known: make(map[wire.EventID]wire.HLC), targets: make(map[wire.EventID]*target),
		members: make(map[wire.AccountID]bool), devices: make(map[wire.DeviceID]bool), waits: make(map[wire.EventID]bool),
	}
	if err := in.resolve(ctx); err != nil {
		return nil, err
	}
	err := in.enroll(ctx)
	if err == nil {
		r.mu.Lock()
		in.apply()
		r.mu.Unlock()
		err = in.modify(ctx)
	}
	if err == nil {
		in.rows()
		if more != nil {
			more(&in.batch)
		}
		_, err = r.s.store.Commit(ctx, &in.batch, d)
	}
	if err != nil {
		// The state in memory has run ahead of the store: go back to what is stored.
		if lerr := r.load(context.WithoutCancel(ctx)); lerr != nil {
			r.log.Error("reading a room's state back failed", "error", lerr)
		}
		return nil, fmt.Errorf("storing events: %w", r.s.storeError(err))
	}
	r.enlist(list)
	if in.summary && r.missing() > 0 {
		r.s.syncer.gap(r)
	}
	r.index(ctx, list)
	in.settleMembers(ctx)
	in.announce(ctx)
	r.pub.owe(list)
	r.hear(list)
	return in.shown, nil
}

// missing counts the messages known to exist and not here.
func (r *room) missing() int {
	r.mu.RLock()
	defer r.mu.RUnlock()
	return r.tracker.missing()
}

// resolve looks up the clock readings of everything the arrivals name.
func (in *intake) resolve(ctx context.Context) error {
	own := make(map[wire.EventID]bool, len(in.list))
	for i := range in.list {
		if ev := in.list[i].event; ev != nil {
			own[ev.ID] = true
		}
	}
	look := func(id wire.EventID) error {
		if id.IsZero() || own[id] {
			return nil
		}
		if _, ok := in.known[id]; ok {
			return nil
		}
		if hlc, ok := in.r.recent.get(id); ok {
			in.known[id] = hlc
			return nil
		}
		if hlc, ok := in.r.inLog(id); ok {
			in.known[id] = hlc
			return nil
		}
		row, ok, err := in.r.lookup(ctx, id)
		if ok {
			in.known[id] = row.Clock
		}
		return err
	}
	for i := range in.list {
		ev := in.list[i].event
		if ev == nil || in.list[i].hidden {
			continue
		}
		if err := look(ev.Header.Previous); err != nil {
			return err
		}
		for _, p := range ev.Header.Parents {
			if err := look(p); err != nil {
				return err
			}
		}
	}
	return nil
}

// apply folds the arrivals into the state in memory and appends their records. r.mu is held.
func (in *intake) apply() {
	r := in.r
	for i := range in.list {
		a := &in.list[i]
		if a.hidden {
			a.record |= recordHidden
			in.append(a)
			continue
		}
		h := &a.event.Header
		s := r.tracker.see(a.event.ID, h, func(id wire.EventID) (wire.HLC, bool) {
			hlc, ok := in.known[id]
			return hlc, ok
		})
		in.known[a.event.ID] = h.HLC
		in.late = append(in.late, s.late...)
		if s.backDated {
			a.index |= indexBackDated
		}
		if s.device {
			in.devices[h.Device()] = true
		}
		if s.filled {
			in.waits[a.event.ID] = true
		}
		for _, id := range s.opened {
			in.waits[id] = true
		}
		in.summary = in.summary || s.gaps
		if a.void {
			a.index |= indexVoid
			if a.own {
				a.record |= recordOwn
			}
			in.append(a)
			continue
		}
		if a.refused {
			a.index |= indexRefused
			r.tracker.lost(h.Device(), h.DeviceSeq)
			in.append(a)
			continue
		}
		if p, ok := a.body.(*wire.ProfileBody); ok {
			m := r.roster.members[h.Account()]
			a.again = m != nil && m.Nick.Value == p.Nick
		}
		if a.body != nil || a.event.Redacted() {
			in.fold(a)
		}
		in.classify(a)
		in.append(a)
		in.count(a)
	}
	r.state.Heads = slices.Clone(r.tracker.heads)
}

// fold brings the roster up to date.
func (in *intake) fold(a *arrival) {
	c := in.r.roster.apply(a.at(), &a.event.Header, a.body)
	if c.member {
		in.members[a.event.Header.Account()] = true
	}
	if c.topic {
		in.r.state.Topic, in.r.state.TopicAt = in.r.roster.topic.Value, in.r.roster.topic.At
	}
	in.summary = in.summary || c.topic || c.joined
}

// introductions is up to which own event in a private room a nick is said because one has just come: behind
// the event that makes the room at most.
const introductions = 2

// classify sets the record's flags.
func (in *intake) classify(a *arrival) {
	if a.own {
		a.record |= recordOwn
	}
	if a.event.Redacted() {
		a.record |= recordBodily
	}
	switch a.event.Header.Kind {
	case wire.KindMessage:
		a.record |= recordShown | recordText
	case wire.KindProfile:
		// In a private room that somebody came is news; what they are called when they do is not, nor that
		// they say it again under a new key.
		if !in.r.private || a.event.Header.DeviceSeq > introductions && !a.again {
			a.record |= recordShown
		}
	case wire.KindJoin, wire.KindLeave, wire.KindTopic:
		a.record |= recordShown
	case wire.KindEdit, wire.KindRedact, wire.KindReact, wire.KindReadMarker, wire.KindEpoch, wire.KindRevoke:
	default:
		a.record |= recordShown // unknown here: shown as such
	}
}

// append adds the record and its index row to the batch.
func (in *intake) append(a *arrival) {
	r := in.r
	rec := storage.Record{
		Stream: r.stream, Time: uint64(a.sealed.HLC), ID: storage.ID(a.sealed.ID), Flags: a.record, Value: a.sealed.Bytes(),
	}
	switch {
	case a.refused:
		rec.Flags, rec.Value = storage.FlagStub, nil
	case a.stored != 0:
		a.number = a.stored
		r.state.Arrival = a.stored
	default:
		r.state.Arrival++
		a.number = r.state.Arrival
	}
	if a.stored == 0 {
		in.batch.Append(rec)
		if r.private {
			in.batch.Put(bucketTopics, joinKey(r.stream[:], rec.ID[:]), a.sealed.Topic[:])
		}
	}
	if a.hidden {
		return
	}
	in.batch.Put(bucketEvents, joinKey(r.stream[:], a.event.ID[:]), in.row(a).encode())
	in.touch(a)
}

// count keeps the unread numbers and, for events of this device, its chain.
func (in *intake) count(a *arrival) {
	st := &in.r.state
	if a.own && a.event.Header.Device() == in.r.s.self.device && a.event.Header.DeviceSeq > st.Seq {
		st.Seq, st.Previous = a.event.Header.DeviceSeq, a.event.ID
		st.Clock = max(st.Clock, a.event.Header.HLC)
	}
	if !a.isText() {
		return
	}
	if a.old {
		return
	}
	st.LastAt = in.now
	if a.own {
		return
	}
	st.Unread++
	if b, ok := a.body.(*wire.MessageBody); ok && in.r.s.mentions(b) {
		st.Mentions++
	}
}

// rows adds the changed rows to the batch.
func (in *intake) rows() {
	in.r.mu.RLock()
	in.rosterRows()
	in.r.mu.RUnlock()
	in.r.putState(&in.batch)
}

// rosterRows adds the rows of members, devices and missing events. r.mu is held.
func (in *intake) rosterRows() {
	r := in.r
	for account := range in.members {
		in.batch.Put(bucketMembers, joinKey(r.id[:], account[:]), encodeRow(rowOfMember(r.roster.members[account])))
	}
	for dev := range in.devices {
		t := r.tracker.devices[dev]
		in.batch.Put(bucketDevices, joinKey(r.id[:], dev[:]), encodeRow(deviceRow{rowVersion, t.Account, t.Spans, t.Gone, t.Read}))
	}
	for id := range in.waits {
		r.waitingRow(&in.batch, id)
	}
}

// waitingRow adds the row of an event that is waited for, or no more, to a batch. r.mu is held.
func (r *room) waitingRow(b *storage.Batch, id wire.EventID) {
	key := joinKey(r.id[:], id[:])
	if w := r.tracker.waiting[id]; w != nil {
		b.Put(bucketWaiting, key, encodeRow(waitingRow{rowVersion, w.Account, w.Counted, w.Children}))
	} else {
		b.Delete(bucketWaiting, key)
	}
}

// putState adds the state row to a batch; the caller owns the room.
func (r *room) putState(b *storage.Batch) {
	r.mu.RLock()
	defer r.mu.RUnlock()
	b.Put(bucketState, r.id[:], encodeRow(r.state))
}

func rowOfMember(m *member) memberRow {
	row := memberRow{
		Version: rowVersion, Nick: m.Nick.Value, NickAt: m.Nick.At, Present: m.Present.Value, At: m.Present.At, Seen: m.Seen,
	}
	for d := range m.Devices {
		row.Devices = append(row.Devices, d)
	}
	slices.SortFunc(row.Devices, func(a, b wire.DeviceID) int { return slices.Compare(a[:], b[:]) })
	return row
}

// announce remembers what was taken in and tells the subscribers, in the order of arrival.
func (in *intake) announce(ctx context.Context) {
	r := in.r
	changed := make(map[wire.EventID]bool, len(in.order))
	events := make([]Event, 0, len(in.list)+1)
	unread := false
	for i := range in.list {
		a := &in.list[i]
		if a.hidden {
			continue
		}
		r.recent.put(a.event.ID, a.event.Header.HLC)
		if a.refused || a.old || a.void || a.record&recordShown == 0 || !r.hadEffect(a.event) {
			continue
		}
		m, err := r.message(ctx, view{
			sealed: a.sealed, event: a.event, body: a.body, arrival: a.number, index: a.index,
			received: in.now.UTC().Truncate(time.Millisecond), clientID: a.clientID,
		})
		if err != nil {
			r.log.Error("showing an event failed", "error", err)
			continue
		}
		changed[a.event.ID] = true
		in.shown[a.event.ID] = m
		unread = unread || a.isText()
		events = append(events, Event{Type: EventMessage, Message: &m})
	}
	for _, id := range append(slices.Clone(in.order), in.late...) {
		if changed[id] {
			continue
		}
		changed[id] = true
		if m, err := r.byID(ctx, id); err == nil && m.Kind == KindMessage {
			events = append(events, Event{Type: EventUpdate, Message: &m})
		}
	}
	if in.summary || unread {
		c := r.conversation()
		events = append(events, Event{Type: EventConversation, Conversation: &c})
	}
	r.s.events.publish(events...)
}
