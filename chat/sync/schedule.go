package sync

import (
	"bytes"
	"maps"
	"math/rand/v2"
	"slices"
	"time"
)

// ScheduleConfig says how often to sync. [DefaultScheduleConfig] is what the specification names.
type ScheduleConfig struct {
	Self PeerID // breaks the tie when two peers begin with each other at once
	// Outgoing and Incoming are how many sessions run at once, begun and answered. Each may hold a few
	// megabytes. They are counted apart so that peers cannot use up what this side needs itself.
	Outgoing, Incoming int
	Apart              time.Duration // between two sessions with the same peer in the same room
	Period             time.Duration // between two checks of a quiet room, with a random member
	Jitter             float64       // the part of Period by which it varies, so that nodes do not march in step
	HeadsDiffer        time.Duration // how long a neighbour's heads may differ before that is a trigger
	Strikes            int           // strikes in a row until a peer is left alone
	Penalty            time.Duration // for how long
}

// DefaultScheduleConfig returns the intervals of docs/spec/sync.md for a node with a peer id.
func DefaultScheduleConfig(self PeerID) ScheduleConfig {
	return ScheduleConfig{
		Self: self, Outgoing: 4, Incoming: 4, Apart: 10 * time.Second, Period: 5 * time.Minute, Jitter: 0.2,
		HeadsDiffer: 30 * time.Second, Strikes: 3, Penalty: time.Hour,
	}
}

// Start is a session to begin.
type Start struct {
	Topic Topic
	Peer  PeerID
}

// Schedule decides when to sync which room with whom. It is a state machine as well: events go in with
// the time at which they happened, [Schedule.Next] says what to begin and when to ask again. The
// same events, times and random source give the same decisions.
//
// Whatever the trigger, at least one session goes to a random peer beside the one that the trigger
// names, or two to random ones: who hides something is found out by asking somebody else.
type Schedule struct {
	cfg      ScheduleConfig
	rand     *rand.Rand
	plans    map[Topic]*plan
	order    []Topic // of plans, ascending, so that decisions do not depend on a map's order
	turn     int     // which of them is first the next time
	records  map[PeerID]*record
	outgoing int
	incoming int
}

// plan is what is due in one room.
type plan struct {
	partners map[PeerID]*partner
	targets  []PeerID // to sync with by name, in this order
	random   int      // sessions due with random peers
	used     map[PeerID]bool
	periodic time.Time
	gap      backoff
	gapSeen  bool // a gap waits for its pause to pass
}

// backoff spaces repeated triggers that bring nothing.
type backoff struct {
	next  time.Time
	pause time.Duration
}

// fire notes that the trigger fired: the next pause is twice as long, up to limit.
func (b *backoff) fire(now time.Time, first, limit time.Duration) {
	b.pause = min(max(b.pause*2, first), limit)
	b.next = now.Add(b.pause)
}

// NewSchedule returns an empty schedule.
func NewSchedule(cfg ScheduleConfig, random *rand.Rand) *Schedule {
	return &Schedule{cfg: cfg, rand: random, plans: map[Topic]*plan{}, records: map[PeerID]*record{}}
}

// Join notes that a room was joined, or joined again: two peers are due.
func (s *Schedule) Join(topic Topic, now time.Time) {
	p := s.plans[topic]
	if p == nil {
		p = &plan{partners: map[PeerID]*partner{}}
		s.plans[topic] = p
		at, _ := slices.BinarySearchFunc(s.order, topic, compareTopics)
		s.order = slices.Insert(s.order, at, topic)
	}
	s.due(p, now)
}

// Leave forgets a room. Sessions that run in it are still to be reported to [Schedule.Ended].
func (s *Schedule) Leave(topic Topic) {
	delete(s.plans, topic)
	s.order = slices.DeleteFunc(s.order, func(t Topic) bool { return t == topic })
}

// AddPeer notes that a member (or mirror) of a room can be reached. It is idempotent.
func (s *Schedule) AddPeer(topic Topic, peer PeerID) {
	if p := s.plans[topic]; p != nil {
		p.partner(peer).present = true
	}
}

// MeshPeer notes a new neighbour in a room's mesh: it is due, unless it was synced with lately.
func (s *Schedule) MeshPeer(topic Topic, peer PeerID, now time.Time) {
	p := s.plans[topic]
	if p == nil {
		return
	}
	t := p.partner(peer)
	t.present = true
	if t.synced.IsZero() || now.Sub(t.synced) >= s.cfg.Period {
		p.target(peer)
	}
}

// RemovePeer notes that a peer can no longer be reached.
func (s *Schedule) RemovePeer(topic Topic, peer PeerID) {
	if p := s.plans[topic]; p != nil {
		p.partner(peer).present = false
	}
}

// Confirm asks for one session with a peer: to learn whether it holds what was said here.
func (s *Schedule) Confirm(topic Topic, peer PeerID) {
	if p := s.plans[topic]; p != nil && !slices.Contains(p.targets, peer) {
		p.targets = append(p.targets, peer)
	}
}

// Heads notes whether a neighbour's heads differ from the own ones. Told so for long enough, the neighbour
// is due.
func (s *Schedule) Heads(topic Topic, peer PeerID, differ bool, now time.Time) {
	p := s.plans[topic]
	if p == nil {
		return
	}
	t := p.partner(peer)
	switch {
	case !differ:
		t.differ, t.differs = backoff{}, false
	case !t.differs:
		t.differs = true
		t.differ.fire(now, s.cfg.HeadsDiffer, s.cfg.Period)
	}
}

// Gap notes that something is known to be missing in a room: two random peers are due. Repeated, it fires
// ever more rarely until a session brings something.
func (s *Schedule) Gap(topic Topic) {
	if p := s.plans[topic]; p != nil {
		p.gapSeen = true
	}
}

// Resume notes that the machine slept or changed its network: all rooms are due.
func (s *Schedule) Resume(now time.Time) {
	for _, p := range s.plans {
		s.due(p, now)
	}
}

// Next returns the sessions to begin now; each must be reported to [Schedule.Ended]. Call it again at wake
// (zero: no need), and after every other call.
func (s *Schedule) Next(now time.Time) (starts []Start, wake time.Time) {
	for _, topic := range s.order {
		s.fire(s.plans[topic], now)
	}
	for more := true; more; { // one session a room in turn, so that a busy room does not starve the others
		more = false
		first := s.turn
		for i := range s.order {
			topic := s.order[(first+i)%len(s.order)]
			if s.outgoing >= s.cfg.Outgoing {
				break
			}
			if peer, ok := s.pick(s.plans[topic], now); ok {
				starts = append(starts, Start{topic, peer})
				s.turn, more = first+i+1, true
			}
		}
	}
	for _, p := range s.plans {
		wake = earlier(wake, s.wake(p, now))
	}
	s.forget(now)
	return starts, wake
}

// due asks for two sessions with random peers and begins the period anew.
func (s *Schedule) due(p *plan, now time.Time) {
	p.random, p.used = 2, nil
	spread := (s.rand.Float64()*2 - 1) * s.cfg.Jitter
	p.periodic = now.Add(time.Duration(float64(s.cfg.Period) * (1 + spread)))
}

// target asks for a session with one peer, and one with somebody else.
func (p *plan) target(peer PeerID) {
	if !slices.Contains(p.targets, peer) {
		p.targets = append(p.targets, peer)
	}
	p.random, p.used = max(p.random, 1), nil
}

// fire turns timers that are over into sessions that are due.
func (s *Schedule) fire(p *plan, now time.Time) {
	if !now.Before(p.periodic) {
		s.due(p, now)
	}
	if p.gapSeen && !now.Before(p.gap.next) {
		p.gapSeen = false
		p.gap.fire(now, s.cfg.Apart, s.cfg.Period)
		p.random, p.used = 2, nil
	}
	for _, peer := range p.sorted() {
		if t := p.partners[peer]; t.differs && !now.Before(t.differ.next) {
			t.differ.fire(now, s.cfg.HeadsDiffer, s.cfg.Period)
			p.target(peer)
		}
	}
}

// pick begins one session that is due, if a peer for it is free.
func (s *Schedule) pick(p *plan, now time.Time) (PeerID, bool) {
	p.targets = slices.DeleteFunc(p.targets, func(peer PeerID) bool {
		t := p.partners[peer]
		return t == nil || !t.present || s.Banned(peer, now)
	})
	for i, peer := range p.targets {
		if p.free(peer, now) {
			p.targets = slices.Delete(p.targets, i, i+1)
			s.start(p, peer, now)
			return peer, true
		}
	}
	if p.random == 0 {
		return "", false
	}
	var candidates []PeerID
	for _, peer := range p.sorted() {
		if s.candidate(p, peer, now) && p.free(peer, now) {
			candidates = append(candidates, peer)
		}
	}
	if len(candidates) == 0 {
		return "", false
	}
	peer := candidates[s.rand.IntN(len(candidates))]
	p.random--
	s.start(p, peer, now)
	return peer, true
}

// candidate reports whether a random session may go to a peer, now or later.
func (s *Schedule) candidate(p *plan, peer PeerID, now time.Time) bool {
	return p.partners[peer].present && !p.used[peer] && !slices.Contains(p.targets, peer) && !s.Banned(peer, now)
}

func (s *Schedule) start(p *plan, peer PeerID, now time.Time) {
	t := p.partners[peer]
	t.outgoing, t.started = true, now
	if p.used == nil {
		p.used = map[PeerID]bool{}
	}
	p.used[peer] = true
	s.outgoing++
}

// wake returns when something in a room falls due.
func (s *Schedule) wake(p *plan, now time.Time) time.Time {
	wake := p.periodic
	if p.gapSeen {
		wake = earlier(wake, p.gap.next)
	}
	for peer, t := range p.partners {
		if t.differs {
			wake = earlier(wake, t.differ.next)
		}
		wanted := slices.Contains(p.targets, peer) || p.random > 0 && s.candidate(p, peer, now)
		if wanted && t.present && !t.outgoing && !t.incoming && t.notBefore.After(now) {
			wake = earlier(wake, t.notBefore)
		}
	}
	return wake
}

// earlier returns the earlier of two times; zero stands for never.
func earlier(a, b time.Time) time.Time {
	if a.IsZero() || !b.IsZero() && b.Before(a) {
		return b
	}
	return a
}

func (p *plan) sorted() []PeerID { return slices.Sorted(maps.Keys(p.partners)) }

func compareTopics(a, b Topic) int { return bytes.Compare(a[:], b[:]) }
