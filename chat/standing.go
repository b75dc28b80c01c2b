package chat

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/binary"
	"fmt"
	"slices"
	"time"

	"google.golang.org/protobuf/encoding/protowire"

	roomsync "github.com/starling-chat/starling/chat/sync"
	"github.com/starling-chat/starling/chat/wire"
	"github.com/starling-chat/starling/storage"
)

// This file says how far an own message in a room has come: accepted, queued while nobody is there,
// sent once a neighbour was given it, stored once a member has signed that it holds it or a mirror's set
// was equal to ours, read once a member's front-end said so. Nothing here is assumed: each state follows
// from something another device said, and is kept so that it survives a restart.
// docs/spec/chat.md, section 5, specifies the frames.

// kinds of a standing frame.
const (
	standingHeld = 1 // the sender keeps the events, durably and with their text
	standingRead = 2 // its user has seen them
)

const (
	// holders is how many neighbours, about, sign for an author's events: the author needs one.
	holders = 4
	// receiptMembers is the largest room in which members say what they have read.
	receiptMembers = 50
	// maxOwed bounds the devices that wait to be told something.
	maxOwed = 256
	// standingRate bounds the frames of this kind that are looked at, a second and room: each costs the
	// check of a signature.
	standingRate = 50
	// confirmEvery is how often a mirror is asked whether it has what we said, at most.
	confirmEvery = 30 * time.Second
	// updatesShown bounds the messages whose change of state is announced one by one.
	updatesShown = 128
	// maxStanding bounds a standing frame in bytes.
	maxStanding = 160
)

// aloneReason is why a message is queued.
const aloneReason = "nobody else in the room is connected; it goes out when somebody is"

// standingFrame is a frame by which a member tells an author what became of events: From to To are device
// sequence numbers, both included. The topic's key signs it, so it comes from somebody in the room.
type standingFrame struct {
	Topic    wire.TopicKey
	Kind     uint8
	From, To uint64
	Proof    wire.Signature
}

// statement is what the proof signs.
func (s *standingFrame) statement(holder, author wire.DeviceID) []byte {
	b := append(make([]byte, 0, 128), s.Kind)
	b = append(append(append(b, s.Topic[:]...), holder[:]...), author[:]...)
	b = binary.BigEndian.AppendUint64(b, s.From)
	return binary.BigEndian.AppendUint64(b, s.To)
}

func (s *standingFrame) encode() []byte {
	b := append(make([]byte, 0, maxStanding), standingType)
	b = protowire.AppendTag(b, 1, protowire.BytesType)
	b = protowire.AppendBytes(b, s.Topic[:])
	for num, v := range []uint64{uint64(s.Kind), s.From, s.To} {
		b = protowire.AppendTag(b, protowire.Number(num+2), protowire.VarintType)
		b = protowire.AppendVarint(b, v)
	}
	b = protowire.AppendTag(b, 5, protowire.BytesType)
	return protowire.AppendBytes(b, s.Proof[:])
}

// parseStanding accepts exactly what encode writes.
func parseStanding(b []byte) (standingFrame, error) {
	var s standingFrame
	if len(b) < 1 || len(b) > maxStanding || b[0] != standingType {
		return s, errStanding
	}
	var numbers [3]uint64
	rest := b[1:]
	for num := protowire.Number(1); num <= 5; num++ {
		got, typ, n := protowire.ConsumeTag(rest)
		if n < 0 || got != num {
			return s, errStanding
		}
		rest = rest[n:]
		switch typ {
		case protowire.VarintType:
			v, n := protowire.ConsumeVarint(rest)
			if n < 0 || num < 2 || num > 4 {
				return s, errStanding
			}
			numbers[num-2], rest = v, rest[n:]
		case protowire.BytesType:
			v, n := protowire.ConsumeBytes(rest)
			switch {
			case n < 0:
				return s, errStanding
			case num == 1 && len(v) == len(s.Topic):
				copy(s.Topic[:], v)
			case num == 5 && len(v) == len(s.Proof):
				copy(s.Proof[:], v)
			default:
				return s, errStanding
			}
			rest = rest[n:]
		default:
			return s, errStanding
		}
	}
	s.Kind, s.From, s.To = uint8(min(numbers[0], 255)), numbers[1], numbers[2]
	if s.Kind != standingHeld && s.Kind != standingRead || s.From == 0 || s.From > s.To || !bytes.Equal(s.encode(), b) {
		return s, errStanding
	}
	return s, nil
}

// lost notes that an event of a device is here as an id only.
func (t *tracker) lost(dev wire.DeviceID, seq uint64) {
	if d := t.devices[dev]; d != nil {
		d.Gone = max(d.Gone, seq)
	}
}

// holding returns the newest numbers of a device that are here without a hole.
func (t *tracker) holding(dev wire.DeviceID) (from, to uint64, ok bool) {
	d := t.devices[dev]
	if d == nil || len(d.Spans) == 0 {
		return 0, 0, false
	}
	last := d.Spans[len(d.Spans)-1]
	from = max(last.From, d.Gone+1)
	return from, last.To, from <= last.To
}

// within says whether one of the intervals holds v.
func within(list []roomsync.Interval, v uint64) bool {
	return slices.ContainsFunc(list, func(i roomsync.Interval) bool { return v >= uint64(i.From) && v < uint64(i.To) })
}

// maxMarks bounds the intervals kept of one kind.
const maxMarks = 64

// mark adds an interval, both ends included. Where there are too many, the oldest is forgotten.
func mark(list []roomsync.Interval, from, to uint64) []roomsync.Interval {
	c := roomsync.NewComplete(list)
	c.Add(roomsync.Interval{From: roomsync.Time(from), To: roomsync.Time(to + 1)})
	out := c.Intervals()
	return out[max(0, len(out)-maxMarks):]
}

// standing returns how far an own event has come, and how many members have read it.
func (r *room) standing(topic wire.TopicKey, h *wire.Header, arrival uint64) (st State, reason string, readBy int) {
	r.mu.RLock()
	defer r.mu.RUnlock()
	if h.Device() != r.s.self.device {
		return StateStored, "", 0 // it came from there: both devices hold it
	}
	readBy = r.readers(h.DeviceSeq)
	switch {
	case readBy > 0:
		return StateRead, "", readBy
	case r.isStored(topic, h.DeviceSeq, h.HLC):
		return StateStored, "", 0
	case arrival <= r.state.Published && !within(r.state.Left, arrival), within(r.state.marks(topic).Handed, uint64(h.HLC)):
		return StateSent, "", 0
	case r.pub.alone.Load():
		return StateQueued, aloneReason, 0
	}
	return StateAccepted, "", 0
}

// readers counts the accounts that said they have read an own event. r.mu is held.
func (r *room) readers(seq uint64) int {
	if len(r.tracker.devices) > 4*receiptMembers {
		return 0 // it became a large room
	}
	var list []wire.AccountID
	for _, t := range r.tracker.devices {
		if t.Read >= seq && t.Account != r.s.self.account && !slices.Contains(list, t.Account) {
			list = append(list, t.Account)
		}
	}
	return len(list)
}

// isStored says whether somebody else provably holds an event of this device. r.mu is held.
func (r *room) isStored(topic wire.TopicKey, seq uint64, clock wire.HLC) bool {
	return within(r.state.Held, seq) || within(r.state.marks(topic).Mirrored, uint64(clock))
}

// marks returns what sync showed about the own events of one topic.
func (s *stateRow) marks(topic wire.TopicKey) syncedRow {
	for _, m := range s.Synced {
		if m.Topic == topic {
			return m
		}
	}
	return syncedRow{Topic: topic}
}

// setMarks replaces them; the newest topics' are kept.
func (s *stateRow) setMarks(m syncedRow) {
	list := slices.DeleteFunc(slices.Clone(s.Synced), func(o syncedRow) bool { return o.Topic == m.Topic })
	list = append(list, m)
	s.Synced = list[max(0, len(list)-maxActive):]
}

// storedByNow says whether somebody else provably holds an event that was published.
func (r *room) storedByNow(o outgoing) bool {
	r.mu.RLock()
	defer r.mu.RUnlock()
	return r.isStored(o.topic, o.seq, o.clock)
}

// takeStanding takes in what a member says of this device's events. It does not block.
func (s *Service) takeStanding(from wire.DeviceID, frame []byte) {
	st, err := parseStanding(frame)
	if err != nil {
		return
	}
	r := s.roomByTopic(st.Topic)
	if r == nil || !r.pub.admit() || !s.verifier.VerifyStanding(st.Topic, st.statement(from, s.self.device), st.Proof) {
		return
	}
	select {
	case r.calls <- func() { r.stand(from, st) }:
	default: // the owner is busy: they say it again with the next message
	}
}

// stand notes what a member said of own events. For the owner only.
func (r *room) stand(from wire.DeviceID, st standingFrame) {
	r.mu.Lock()
	st.To = min(st.To, r.state.Seq)
	var b storage.Batch
	changed := false
	switch d := r.tracker.devices[from]; {
	case st.From > st.To:
	case st.Kind == standingHeld:
		r.pub.signs(from, st.To)
		r.state.Held = mark(r.state.Held, st.From, st.To)
		changed = true
	case d != nil && st.To > d.Read:
		d.Read = st.To
		r.state.Held = mark(r.state.Held, st.From, st.To) // who has read it has it
		b.Put(bucketDevices, joinKey(r.id[:], from[:]), encodeRow(deviceRow{rowVersion, d.Account, d.Spans, d.Gone, d.Read}))
		changed = true
	}
	r.mu.Unlock()
	if !changed {
		return
	}
	r.putState(&b)
	ctx := context.Background() // bounded: one commit, and the store closes after the room has ended
	if _, err := r.s.store.Commit(ctx, &b, storage.Relaxed); err != nil {
		r.log.Debug("noting what a member holds failed", "error", err)
	}
	r.pub.settled(ctx, func(o outgoing) bool { return o.seq >= st.From && o.seq <= st.To }, st.Kind == standingRead)
}

// handed notes what a finished session says about own events: those with a clock reading in the
// window are with the peer, or were offered to it; when it is a mirror and both sets were equal, it has
// them. ownClock is the newest own reading when the session began. For the owner only.
func (r *room) handed(topic wire.TopicKey, report *roomsync.Report, ownClock wire.HLC, mirror bool) bool {
	to := min(uint64(report.Cut), uint64(ownClock)+1)
	if report.End != roomsync.EndFinished || report.Partial || ownClock == 0 || uint64(report.Floor) >= to {
		return false
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	covered := func(list []roomsync.Interval) bool {
		return roomsync.NewComplete(list).Covers(roomsync.Interval{From: report.Floor, To: roomsync.Time(to)})
	}
	m, changed := r.state.marks(topic), false
	if mirror && report.Equal && !covered(m.Mirrored) {
		m.Mirrored, changed = mark(m.Mirrored, uint64(report.Floor), to-1), true
	}
	if !covered(m.Handed) {
		m.Handed, changed = mark(m.Handed, uint64(report.Floor), to-1), true
	}
	if changed {
		r.state.setMarks(m)
	}
	return changed
}

// owe remembers whose events were taken in, so that their authors hear that they are kept.
func (p *publisher) owe(list []arrival) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for i := range list {
		a := &list[i]
		if a.hidden || a.own || a.refused || a.event == nil || len(p.owed) >= maxOwed {
			continue
		}
		p.owed[a.event.Header.Device()] = true
	}
}

// oweDevice has a device told what is kept of it.
func (p *publisher) oweDevice(dev wire.DeviceID) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if len(p.owed) < maxOwed {
		p.owed[dev] = true
	}
}

// stretch is device sequence numbers, both included.
type stretch struct{ from, to uint64 }

// settle tells authors that are connected what of theirs is kept here. It runs once a second.
func (p *publisher) settle(around map[wire.DeviceID]bool) {
	r := p.r
	p.mu.Lock()
	owed := p.owed
	p.owed = make(map[wire.DeviceID]bool)
	p.mu.Unlock()
	for dev := range owed {
		if !around[dev] && r.s.people.online(dev) == PathNone || !chosenHolder(dev, r.s.self.device, len(around)) {
			continue
		}
		r.mu.RLock()
		from, to, ok := r.tracker.holding(dev)
		var author wire.AccountID
		if ok {
			author = r.tracker.devices[dev].Account
		}
		r.mu.RUnlock()
		p.mu.Lock()
		again := p.told[dev] == stretch{from, to} // older ones may have come since, by sync
		if ok && !again && len(p.told) < maxReporting {
			p.told[dev] = stretch{from, to}
		}
		p.mu.Unlock()
		if ok && !again && !r.s.people.blocked(author) {
			p.say(dev, standingHeld, from, to)
		}
	}
}

// say sends a standing frame, once what it says is on the disk.
func (p *publisher) say(dev wire.DeviceID, kind uint8, from, to uint64) {
	ctx := context.Background() // bounded: one sync, and the store closes after the room has ended
	if err := p.r.s.store.Sync(ctx); err != nil {
		p.r.log.Debug("what others are told is kept could not be synced; they are not told", "error", err)
		return
	}
	keys := p.r.keys()
	st := standingFrame{Topic: keys.Topic, Kind: kind, From: from, To: to}
	st.Proof = keys.ProveStanding(st.statement(p.r.s.self.device, dev))
	p.r.s.links.send(dev, st.encode(), nil)
}

// chosenHolder says whether a neighbour is one of those, about four, that sign for an author's events.
// Everybody can work it out without asking, and it differs from author to author.
func chosenHolder(author, holder wire.DeviceID, neighbours int) bool {
	if neighbours <= holders {
		return true
	}
	h := sha256.New()
	h.Write([]byte("starling/holder/1"))
	h.Write(author[:])
	h.Write(holder[:])
	return binary.BigEndian.Uint64(h.Sum(nil))%uint64(neighbours) < holders
}

// admit says whether another standing frame may be looked at.
func (p *publisher) admit() bool {
	now := time.Now()
	p.mu.Lock()
	defer p.mu.Unlock()
	p.looks = min(standingRate, p.looks+now.Sub(p.looked).Seconds()*standingRate)
	p.looked = now
	if p.looks < 1 {
		return false
	}
	p.looks--
	return true
}

// unconfirmed says whether a mirror should be asked for what we said a while ago and nobody signed for.
func (p *publisher) unconfirmed(now time.Time) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	if len(p.unstored) == 0 || now.Sub(p.unstored[0].at) < settleAfter || now.Sub(p.confirmed) < confirmEvery {
		return false
	}
	p.confirmed = now
	return true
}

// signs notes how far a neighbour has signed for own events.
func (p *publisher) signs(dev wire.DeviceID, to uint64) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if _, known := p.signed[dev]; known || len(p.signed) < maxReporting {
		p.signed[dev] = max(p.signed[dev], to)
	}
}

// compared notes that a session with a neighbour is over: up to the cut it has what was said here. If it lacked
// nothing though it had not signed, it is not one that signs any more: it was chosen when there were fewer of them.
func (p *publisher) compared(dev wire.DeviceID, cut wire.HLC, served int) {
	p.mu.Lock()
	defer p.mu.Unlock()
	to, signs := p.signed[dev]
	newest, known := p.newestBefore(time.Now())
	switch {
	case !signs:
	case known && to < newest && served == 0:
		delete(p.signed, dev)
	default:
		for _, o := range p.recent {
			if o.clock < cut {
				p.signed[dev] = max(p.signed[dev], o.seq)
			}
		}
	}
}

// behind says of each neighbour that signs for own events whether it has not signed for the newest one that it
// should have: its heads differ from ours, as far as we can know.
func (p *publisher) behind(now time.Time) map[wire.DeviceID]bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	newest, known := p.newestBefore(now)
	if !known || len(p.signed) == 0 {
		return nil
	}
	list := make(map[wire.DeviceID]bool, len(p.signed))
	for dev, to := range p.signed {
		list[dev] = to < newest
	}
	return list
}

// newestBefore returns the number of the newest own event that neighbours have had the time to sign for; mu is
// held.
func (p *publisher) newestBefore(now time.Time) (seq uint64, known bool) {
	for i := len(p.recent) - 1; i >= 0; i-- {
		if o := &p.recent[i]; now.Sub(o.at) >= settleAfter {
			return o.seq, true
		}
	}
	return 0, false
}

// settled announces own messages whose state changed. Those that are stored need no more looking after.
func (p *publisher) settled(ctx context.Context, which func(outgoing) bool, read bool) {
	p.mu.Lock()
	var changed []outgoing
	for _, o := range p.unstored {
		if which(o) {
			changed = append(changed, o)
		}
	}
	p.unstored = slices.DeleteFunc(p.unstored, which)
	if read {
		for _, o := range p.recent {
			if which(o) && !slices.ContainsFunc(changed, func(c outgoing) bool { return c.event == o.event }) {
				changed = append(changed, o)
			}
		}
	}
	p.mu.Unlock()
	p.announce(ctx, changed)
}

// announce shows own messages anew, the newest ones of many.
func (p *publisher) announce(ctx context.Context, list []outgoing) {
	var events []Event
	for _, o := range list[max(0, len(list)-updatesShown):] {
		if m, err := p.r.byID(ctx, o.event); err == nil && m.Kind == KindMessage {
			events = append(events, Event{Type: EventUpdate, Message: &m})
		}
	}
	p.r.s.events.publish(events...)
}

// tellRead tells the authors that are connected that what they said was read, up to an arrival number. Not in
// large rooms, and not if the user keeps it to themselves. For the owner only.
func (r *room) tellRead(ctx context.Context, from, to uint64) error {
	off, err := r.s.Setting(ctx, settingReceipts)
	r.mu.RLock()
	members := r.roster.present()
	r.mu.RUnlock()
	if err != nil || off == "off" || members > receiptMembers {
		return err
	}
	around := make(map[wire.DeviceID]bool)
	for _, dev := range r.s.cfg.Gossip.Peers(r.keys().Topic) {
		around[dev] = true
	}
	if len(around) == 0 {
		return nil
	}
	newest := make(map[wire.DeviceID]uint64)
	for rec, err := range r.s.store.ScanArrival(ctx, r.stream, from, 0) {
		if err != nil {
			return fmt.Errorf("looking for what was read: %w", err)
		}
		if rec.Arrival > to {
			break
		}
		if rec.Flags&(recordText|recordOwn|storage.FlagStub) != recordText {
			continue
		}
		sealed, err := r.parse(ctx, rec)
		if err != nil {
			return err
		}
		if a := r.open(sealed); a.event != nil && around[a.event.Header.Device()] && !r.s.people.blocked(a.event.Header.Account()) {
			h := &a.event.Header
			newest[h.Device()] = max(newest[h.Device()], h.DeviceSeq)
		}
	}
	for dev, seq := range newest {
		r.mu.RLock()
		first, last, ok := r.tracker.holding(dev)
		r.mu.RUnlock()
		if ok && first <= seq {
			r.pub.say(dev, standingRead, first, min(seq, last))
		}
	}
	return nil
}
