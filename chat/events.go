package chat

import (
	"context"
	"sync"
)

// eventLog keeps the newest events in a ring that all subscribers share: a subscriber is a place in
// it, so a slow one costs nothing and finds out, by a reset, once its place is gone.
type eventLog struct {
	mu    sync.Mutex // guards everything below
	ring  []Event    // grows up to size
	sizes []int
	size  int
	head  int    // index of the oldest event
	count int    // events in the ring
	bytes int    // sum of sizes
	next  uint64 // cursor of the next event
	most  int    // bound on bytes
	wake  chan struct{}
	subs  map[*Subscription]struct{}
	ended bool
}

// liveQueue is how many live signals (typing) wait for one subscriber; the oldest gives way.
const liveQueue = 16

// newEventLog returns a log of at most size events and most bytes; cursors start above first.
func newEventLog(first uint64, size, most int) *eventLog {
	return &eventLog{size: size, next: first + 1, most: most, subs: make(map[*Subscription]struct{})}
}

// eventRing is the size that the ring begins with: a quiet node needs no more.
const eventRing = 64

// grow doubles the ring, up to its size.
func (l *eventLog) grow() {
	n := min(max(2*len(l.ring), eventRing), l.size)
	ring, sizes := make([]Event, n), make([]int, n)
	for i := range l.count {
		at := (l.head + i) % len(l.ring)
		ring[i], sizes[i] = l.ring[at], l.sizes[at]
	}
	l.ring, l.sizes, l.head = ring, sizes, 0
}

// eventSize estimates the memory of an event in bytes.
func eventSize(e *Event) int {
	n := 256
	if m := e.Message; m != nil {
		n += 512 + len(m.Text) + len(m.Nick) + len(m.ClientID) + 128*len(m.Reactions)
	}
	if c := e.Conversation; c != nil {
		n += 512 + len(c.Topic) + 128*len(c.Gaps)
	}
	return n
}

// publish appends events, in order, and wakes the subscribers.
func (l *eventLog) publish(events ...Event) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, e := range events {
		e.Cursor = l.next
		l.next++
		size := eventSize(&e)
		if l.count == len(l.ring) && len(l.ring) < l.size {
			l.grow()
		}
		for l.count == len(l.ring) || l.count > 0 && l.bytes+size > l.most {
			l.bytes -= l.sizes[l.head]
			l.ring[l.head] = Event{}
			l.head = (l.head + 1) % len(l.ring)
			l.count--
		}
		at := (l.head + l.count) % len(l.ring)
		l.ring[at], l.sizes[at] = e, size
		l.count++
		l.bytes += size
	}
	l.signal()
}

// live hands an event to the present subscribers only.
func (l *eventLog) live(e Event) {
	l.mu.Lock()
	defer l.mu.Unlock()
	e.Cursor = 0
	for s := range l.subs {
		if len(s.live) >= liveQueue {
			s.live = s.live[1:]
		}
		s.live = append(s.live, e)
	}
	l.signal()
}

// signal wakes whoever waits; mu is held.
func (l *eventLog) signal() {
	if l.wake != nil {
		close(l.wake)
		l.wake = nil
	}
}

// close ends all subscriptions.
func (l *eventLog) close() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.ended = true
	l.signal()
}

// subscribe returns a subscription to what follows the event with cursor since; 0 means from now on.
func (l *eventLog) subscribe(since uint64) *Subscription {
	l.mu.Lock()
	defer l.mu.Unlock()
	s := &Subscription{log: l, at: since + 1}
	switch {
	case since == 0:
		s.at = l.next
	case since >= l.next: // a cursor that was never given out
		s.at = 0
	}
	l.subs[s] = struct{}{}
	return s
}

// Subscription is one reader of the event stream. It belongs to one goroutine. Close it when done.
type Subscription struct {
	log  *eventLog
	at   uint64  // cursor of the next event to give; 0 is a place that is gone
	live []Event // guarded by log.mu
}

// Next returns the next event, waiting for it if need be. When the place of the subscription is no
// longer in the log, because its cursor was too old or it read too slowly, one event of type
// [EventReset] says so, and what follows continues after it: reload everything. It returns ctx's
// error, or [ErrStopped] after the service has stopped and everything was read.
func (s *Subscription) Next(ctx context.Context) (Event, error) {
	for {
		e, wait, err := s.poll()
		if wait == nil {
			return e, err
		}
		select {
		case <-wait:
		case <-ctx.Done():
			return Event{}, ctx.Err()
		}
	}
}

// poll returns an event or an error, or a channel to wait on.
func (s *Subscription) poll() (Event, <-chan struct{}, error) {
	l := s.log
	l.mu.Lock()
	defer l.mu.Unlock()
	if len(s.live) > 0 {
		e := s.live[0]
		s.live = s.live[1:]
		return e, nil, nil
	}
	oldest := l.next - uint64(l.count)
	switch {
	case s.at < oldest:
		s.at = l.next
		return Event{Type: EventReset, Cursor: l.next - 1}, nil, nil
	case s.at < l.next:
		e := l.ring[(l.head+int(s.at-oldest))%len(l.ring)]
		s.at++
		return e, nil, nil
	case l.ended:
		return Event{}, nil, ErrStopped
	}
	if l.wake == nil {
		l.wake = make(chan struct{})
	}
	return Event{}, l.wake, nil
}

// Close ends the subscription. It is idempotent.
func (s *Subscription) Close() {
	s.log.mu.Lock()
	defer s.log.mu.Unlock()
	delete(s.log.subs, s)
}
