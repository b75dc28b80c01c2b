package chat

import (
	"context"
	"errors"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	roomsync "github.com/starling-chat/starling/chat/sync"
	"github.com/starling-chat/starling/chat/wire"
	"github.com/starling-chat/starling/storage"
)

// publisher hands a room's own events to gossip, no faster than the neighbours take them in. Gossip
// says nothing about what it loses when a queue is full, so neighbours that got events straight from
// their author report how far they came (see progress), and the publisher keeps a bounded window open
// beyond the slowest of them. Neighbours that report nothing, such as relays, are served at a fixed
// rate. What is waiting here is already durable: memory holds positions, not texts.
type publisher struct {
	r      *room
	signal chan struct{} // something changed; capacity 1

	alone atomic.Bool // nobody else takes part at the moment

	// What an earlier run stored after from, up to to, by arrival, may be unpublished: see restore. Set before
	// run, and owned by it.
	from, to uint64

	mu     sync.Mutex // guards everything below
	unread int        // arrivals of an earlier run that were not looked at yet
	queue  []outgoing
	sent   []outgoing // published and not shown as sent yet, the newest
	recent []outgoing // published lately, oldest first, for neighbours that come late
	flight []outgoing // published and not yet passed by the slowest reporting neighbour
	bytes  int        // of flight
	acked  map[wire.DeviceID]*progressOf
	heard  map[wire.DeviceID]*reportTo

	// See standing.go.
	unstored  []outgoing                // published, and nobody is known to keep them yet; oldest first
	owed      map[wire.DeviceID]bool    // authors to be told what is kept of theirs
	told      map[wire.DeviceID]stretch // the numbers they were told of last
	signed    map[wire.DeviceID]uint64  // the newest own number that a neighbour signed for
	confirmed time.Time                 // when a mirror was last asked
	looks     float64                   // frames that may be looked at
	looked    time.Time
}

// outgoing is an own event to be published.
type outgoing struct {
	id      storage.ID
	topic   wire.TopicKey
	seq     uint64 // device sequence number
	arrival uint64
	size    int
	at      time.Time
	event   wire.EventID
	clock   wire.HLC
}

// progressOf is what a neighbour reported.
type progressOf struct {
	seq uint64
	at  time.Time
}

// reportTo counts what came straight from an author since the last report to it.
type reportTo struct {
	seq    uint64
	events int
	bytes  int
}

const (
	// reportEvents and reportBytes are how much a receiver takes in between two reports to the author;
	// a lull sends none.
	reportEvents = 64
	reportBytes  = 256 << 10
	// windowBytes bounds the bytes on their way besides the number of events.
	windowBytes = 4 << 20
	// reportPatience is how long a full window waits for a report before the neighbours that owe one are
	// left out: they may have got the events by another way, or not at all.
	reportPatience = time.Second
	// publishRetry is the pause after gossip refused an event.
	publishRetry = time.Second
	// aloneRetry is the pause while nobody else is connected; somebody who comes ends it.
	aloneRetry = 2 * time.Second
	// aloneKept is how many own events, the newest, wait for somebody to come. Older ones are left to
	// sync, by which whoever comes fetches what it misses anyway.
	aloneKept = recentEventsKept
	// restoreLooked is how many of the last arrivals of a room are looked at after a start for own ones that
	// were not published.
	restoreLooked = 4 * aloneKept
	// restoreDelay is how long that waits for somebody to be there.
	restoreDelay = time.Second
	// maxUnstored bounds the own events that are followed until somebody has them.
	maxUnstored = 256
	// publishTimeout bounds one call of gossip.
	publishTimeout = 10 * time.Second
	// recentEventsKept and recentAge bound what is sent straight to a neighbour that comes late. Older
	// events come by sync at once.
	recentEventsKept = 64
	recentAge        = 30 * time.Second
	// maxReporting bounds the neighbours whose reports are kept.
	maxReporting = 256
)

func newPublisher(r *room) *publisher {
	return &publisher{
		r: r, signal: make(chan struct{}, 1),
		acked: make(map[wire.DeviceID]*progressOf), heard: make(map[wire.DeviceID]*reportTo),
		owed: make(map[wire.DeviceID]bool), told: make(map[wire.DeviceID]stretch),
		signed: make(map[wire.DeviceID]uint64),
	}
}

func (p *publisher) wake() {
	select {
	case p.signal <- struct{}{}:
	default:
	}
}

// add queues own events that were stored.
func (p *publisher) add(list []arrival) {
	p.mu.Lock()
	for i := range list {
		a := &list[i]
		p.queue = append(p.queue, outgoing{
			id: storage.ID(a.sealed.ID), topic: a.sealed.Topic, seq: a.event.Header.DeviceSeq, arrival: a.number,
			size: len(a.sealed.Bytes()), event: a.event.ID, clock: a.sealed.HLC,
		})
	}
	p.mu.Unlock()
	p.wake()
}

// waiting counts the events that were not published yet, and what may be one of them.
func (p *publisher) waiting() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return len(p.queue) + p.unread
}

// drainTimeout bounds how long leaving a room waits for the last words to be published.
const drainTimeout = 2 * time.Second

// drain waits until everything queued was published, for a short time.
func (p *publisher) drain(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, drainTimeout)
	defer cancel()
	tick := time.NewTicker(drainTimeout / 100)
	defer tick.Stop()
	for p.waiting() > 0 {
		select {
		case <-tick.C:
		case <-ctx.Done():
			return
		}
	}
}

// resume says what an earlier run has left: whatever arrived after the last event that was published. Nobody
// is connected yet. Called before run.
func (p *publisher) resume() {
	st := &p.r.state
	if p.from, p.to = st.Published, st.Arrival; p.from < p.to {
		p.unread = int(min(p.to-p.from, restoreLooked))
		p.alone.Store(true)
	}
}

// restore queues the own events that an earlier run stored and did not publish, before what was queued since:
// the newest, and leaves those to sync that wait would leave to it anyway.
func (p *publisher) restore(ctx context.Context) error {
	if p.from >= p.to {
		return nil
	}
	r, after := p.r, p.from
	if p.to-after > restoreLooked {
		r.mu.Lock()
		r.state.Left = markLeft(r.state.Left, after+1, p.to-restoreLooked)
		r.mu.Unlock()
		after = p.to - restoreLooked
	}
	var list []outgoing
	for rec, err := range r.s.store.ScanArrival(ctx, r.stream, after, 0) {
		if err != nil {
			return err
		}
		if rec.Arrival > p.to {
			break // queued by this run
		}
		if rec.Flags&recordOwn == 0 {
			continue
		}
		sealed, err := r.parse(ctx, rec)
		if err != nil {
			return err
		}
		if a := r.open(sealed); a.event != nil && a.event.Header.Device() == r.s.self.device {
			list = append(list, outgoing{
				id: rec.ID, topic: sealed.Topic, seq: a.event.Header.DeviceSeq, arrival: rec.Arrival, size: len(rec.Value), event: a.event.ID, clock: sealed.HLC,
			})
		}
	}
	passed := p.to
	if len(list) > 0 {
		passed = list[0].arrival - 1
	}
	r.mu.Lock()
	r.state.Published = max(r.state.Published, passed)
	r.mu.Unlock()
	p.mu.Lock()
	p.queue, p.unread = append(list, p.queue...), 0
	p.mu.Unlock()
	if passed-p.from >= aloneKept {
		p.keepState(ctx) // or the next start looks at all of them again
	}
	p.from = p.to
	return nil
}

// run publishes until ctx ends.
func (p *publisher) run(ctx context.Context) {
	if p.from < p.to {
		p.pause(ctx, restoreDelay) // nobody is connected at the start, unless a signal says so
	}
	if err := p.restore(ctx); err != nil && ctx.Err() == nil {
		p.r.log.Error("reading unpublished messages failed", "error", err)
	}
	var allowed float64 // events that may go to neighbours that do not report
	last := time.Now()
	for ctx.Err() == nil {
		next, state := p.next()
		switch state {
		case publishIdle:
			p.pause(ctx, 0)
			continue
		case publishFull:
			if !p.pause(ctx, reportPatience) {
				p.leaveOut()
			}
			continue
		case publishBlind:
			now := time.Now()
			rate := float64(p.r.s.cfg.Limits.PublishRate)
			allowed = min(allowed+now.Sub(last).Seconds()*rate, float64(p.r.s.cfg.Limits.PublishWindow))
			last = now
			if allowed < 1 {
				p.pause(ctx, time.Duration(float64(time.Second)/rate))
				continue
			}
			allowed--
		}
		switch err := p.publish(ctx, next); {
		case errors.Is(err, ErrUnreachable):
			p.wait(ctx)
			p.pause(ctx, aloneRetry)
		case err != nil:
			p.pause(ctx, publishRetry)
		}
	}
}

// pause waits for a signal, at most d unless that is 0. It says whether a signal came.
func (p *publisher) pause(ctx context.Context, d time.Duration) bool {
	var timeout <-chan time.Time
	if d > 0 {
		t := time.NewTimer(d)
		defer t.Stop()
		timeout = t.C
	}
	select {
	case <-p.signal:
		return true
	case <-timeout:
		return false
	case <-ctx.Done():
		return true
	}
}

type publishState int

const (
	publishIdle  publishState = iota // nothing to do
	publishFull                      // the window is full: wait for a report
	publishOpen                      // publish now
	publishBlind                     // publish at the fixed rate: the window is full and nobody reports
)

// next returns the next event and how it may be published.
func (p *publisher) next() (outgoing, publishState) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if len(p.queue) == 0 {
		return outgoing{}, publishIdle
	}
	p.trim()
	if len(p.flight) < p.r.s.cfg.Limits.PublishWindow && p.bytes < windowBytes {
		return p.queue[0], publishOpen
	}
	if len(p.acked) == 0 {
		return p.queue[0], publishBlind
	}
	return p.queue[0], publishFull
}

// trim drops from flight what every reporting neighbour has passed; mu is held. Without any, flight
// drains with time, at the fixed rate.
func (p *publisher) trim() {
	passed := 0
	if len(p.acked) > 0 {
		slowest := ^uint64(0)
		for _, a := range p.acked {
			slowest = min(slowest, a.seq)
		}
		for passed < len(p.flight) && p.flight[passed].seq <= slowest {
			passed++
		}
	}
	old := time.Now().Add(-10 * reportPatience)
	for passed < len(p.flight) && p.flight[passed].at.Before(old) {
		passed++
	}
	for _, o := range p.flight[:passed] {
		p.bytes -= o.size
	}
	p.flight = slices.Delete(p.flight, 0, passed)
}

// leaveOut forgets the neighbours that hold the window up, until they report again.
func (p *publisher) leaveOut() {
	p.mu.Lock()
	defer p.mu.Unlock()
	limit := time.Now().Add(-reportPatience)
	for dev, a := range p.acked {
		if len(p.flight) > 0 && a.seq < p.flight[0].seq && a.at.Before(limit) {
			delete(p.acked, dev)
		}
	}
}

// wait notes that nobody else is connected: what waits is shown as queued, and all but the newest of it is
// left to sync.
func (p *publisher) wait(ctx context.Context) {
	first := !p.alone.Swap(true)
	p.mu.Lock()
	old := p.queue[:max(0, len(p.queue)-aloneKept)]
	if len(old) > 0 {
		from, to := old[0].arrival, old[len(old)-1].arrival
		p.r.mu.Lock()
		p.r.state.Left = markLeft(p.r.state.Left, from, to)
		p.r.state.Published = max(p.r.state.Published, to)
		p.r.mu.Unlock()
		p.queue = slices.Clone(p.queue[len(old):])
	}
	waiting := slices.Clone(p.queue)
	p.mu.Unlock()
	if len(old) > 0 {
		p.keepState(ctx) // or the next start looks at all of them again
	}
	if first {
		p.announce(ctx, waiting)
	}
}

// markLeft adds arrivals that are left to sync. Where there are too many stretches the two oldest become
// one: what lies between is said to be queued though it was sent, never the other way round.
func markLeft(list []roomsync.Interval, from, to uint64) []roomsync.Interval {
	c := roomsync.NewComplete(list)
	c.Add(roomsync.Interval{From: roomsync.Time(from), To: roomsync.Time(to + 1)})
	out := c.Intervals()
	for len(out) > maxMarks {
		out[1].From = out[0].From
		out = out[1:]
	}
	return out
}

// publish hands one event to gossip; after an error it is to be tried again later.
func (p *publisher) publish(ctx context.Context, o outgoing) error {
	r := p.r
	rec, err := r.s.store.Get(ctx, o.id)
	if err == nil {
		pctx, cancel := context.WithTimeout(ctx, publishTimeout)
		err = r.s.cfg.Gossip.Publish(pctx, o.topic, rec.Value)
		cancel()
		if err != nil && ctx.Err() == nil && o.topic != r.keys().Topic {
			err = nil // nobody listens to an older key any more: sync and the hand-over of the new one bring it
		}
	}
	if err != nil {
		if ctx.Err() == nil {
			r.log.Debug("publishing an event failed; it is kept and tried again", "error", err)
		}
		return err
	}
	p.alone.Store(false)
	o.at = time.Now()
	p.mu.Lock()
	p.unstored = append(p.unstored, o)
	p.unstored = slices.Delete(p.unstored, 0, max(0, len(p.unstored)-maxUnstored))
	p.sent = append(p.sent, o)
	p.sent = slices.Delete(p.sent, 0, max(0, len(p.sent)-updatesShown))
	p.queue = p.queue[1:]
	last := len(p.queue) == 0
	p.flight, p.bytes = append(p.flight, o), p.bytes+o.size
	if over := len(p.flight) - 4*r.s.cfg.Limits.PublishWindow; over > 0 {
		for _, f := range p.flight[:over] {
			p.bytes -= f.size
		}
		p.flight = slices.Delete(p.flight, 0, over)
	}
	p.recent = append(p.recent, o)
	p.recent = slices.Delete(p.recent, 0, max(0, len(p.recent)-recentEventsKept))
	p.mu.Unlock()
	r.mu.Lock()
	r.state.Published = max(r.state.Published, o.arrival)
	r.mu.Unlock()
	if last {
		p.done(ctx)
	}
	return nil
}

// keepState has the room's owner store what was published and what is left to sync.
func (p *publisher) keepState(ctx context.Context) {
	r := p.r
	select {
	case r.calls <- func() {
		var b storage.Batch
		r.putState(&b)
		if _, err := r.s.store.Commit(ctx, &b, storage.Relaxed); err != nil && ctx.Err() == nil {
			r.log.Warn("noting that messages were published failed", "error", err)
		}
	}:
	default: // the owner is busy: its next commit says so too
	}
}

// done makes it durable that everything was published, and shows the newest events as sent.
func (p *publisher) done(ctx context.Context) {
	p.keepState(ctx)
	p.mu.Lock()
	sent := p.sent
	p.sent = nil
	p.mu.Unlock()
	p.announce(ctx, sent)
}

// greet sends what was published lately straight to a neighbour that has just appeared: gossip offers
// nothing twice, and sync leaves out what is younger than its cut.
func (p *publisher) greet(dev wire.DeviceID) {
	p.mu.Lock()
	limit := time.Now().Add(-recentAge)
	list := slices.DeleteFunc(slices.Clone(p.recent), func(o outgoing) bool { return o.at.Before(limit) })
	p.mu.Unlock()
	for _, o := range list {
		rec, err := p.r.s.store.Get(context.Background(), o.id) // bounded: one look at the store
		if err != nil {
			continue
		}
		if frame := eventFrame(o.topic, rec.Value); frame != nil {
			p.r.s.links.send(dev, frame, nil)
		}
	}
}

// reported takes a neighbour's report in.
func (p *publisher) reported(from wire.DeviceID, seq uint64) {
	p.mu.Lock()
	a := p.acked[from]
	if a == nil {
		if len(p.acked) >= maxReporting {
			p.mu.Unlock()
			return
		}
		a = &progressOf{}
		p.acked[from] = a
	}
	a.seq, a.at = max(a.seq, seq), time.Now()
	p.mu.Unlock()
	p.wake()
}

// gone forgets a neighbour that is not connected any more.
func (p *publisher) gone(dev wire.DeviceID) {
	p.mu.Lock()
	delete(p.acked, dev)
	delete(p.heard, dev)
	delete(p.told, dev)
	delete(p.signed, dev)
	p.mu.Unlock()
	p.wake()
}

// received counts what came straight from its author, and reports now and then.
func (p *publisher) received(list []arrival) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for i := range list {
		a := &list[i]
		if a.hidden || a.own || a.from != a.event.Header.Device() {
			continue
		}
		h := p.heard[a.from]
		if h == nil {
			if len(p.heard) >= maxReporting {
				continue
			}
			h = &reportTo{}
			p.heard[a.from] = h
		}
		h.seq = max(h.seq, a.event.Header.DeviceSeq)
		h.events++
		h.bytes += len(a.sealed.Bytes())
		if h.events >= reportEvents || h.bytes >= reportBytes {
			h.events, h.bytes = 0, 0
			p.r.s.links.send(a.from, progress{Topic: a.sealed.Topic, Seq: h.seq}.encode(), nil)
		}
	}
}
