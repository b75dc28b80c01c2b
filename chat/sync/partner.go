package sync

import "time"

// apartSlack is how much sooner a peer may come back than [ScheduleConfig.Apart] says: the two sides do not
// see a session end at the same moment.
const apartSlack = time.Second

// partner is one peer in one room.
type partner struct {
	present   bool // can be reached
	outgoing  bool // a session that this side began runs
	incoming  bool // one that the peer began runs
	started   time.Time
	synced    time.Time // the end of the last session that went through
	ended     time.Time // the end of the last session
	notBefore time.Time // when the next one may begin
	failures  int       // in a row
	differs   bool      // its heads differ
	differ    backoff
}

// record is what is known of a peer in all rooms.
type record struct {
	strikes int       // in a row
	last    time.Time // the last one
	until   time.Time // left alone until then
}

func (p *plan) partner(peer PeerID) *partner {
	t := p.partners[peer]
	if t == nil {
		t = new(partner)
		p.partners[peer] = t
	}
	return t
}

// free reports whether a session with a peer may begin now.
func (p *plan) free(peer PeerID, now time.Time) bool {
	t := p.partners[peer]
	return t.present && !t.outgoing && !t.incoming && !now.Before(t.notBefore)
}

// Admit reports whether to answer a session that a peer began; if so, it must be reported to
// [Schedule.Ended]. Answer [ReasonBusy] otherwise. Sessions that peers begin never count for those
// that are due here: else a liar could crowd out the others by calling often.
func (s *Schedule) Admit(topic Topic, peer PeerID, now time.Time) bool {
	p := s.plans[topic]
	if p == nil || s.incoming >= s.cfg.Incoming || s.Banned(peer, now) {
		return false
	}
	t := p.partner(peer)
	if t.incoming || !t.ended.IsZero() && now.Before(t.ended.Add(s.cfg.Apart-apartSlack)) {
		return false
	}
	// Both began at once: the session of the lower peer id goes on, and both sides know which that is.
	if t.outgoing && (s.cfg.Self < peer || now.Sub(t.started) > s.cfg.Apart) {
		return false
	}
	t.incoming = true
	s.incoming++
	return true
}

// Ended notes the end of a session that [Schedule.Next] or [Schedule.Admit] began. report is nil when the peer
// could not be reached.
func (s *Schedule) Ended(topic Topic, peer PeerID, incoming bool, report *Report, now time.Time) {
	if incoming {
		s.incoming--
	} else {
		s.outgoing--
	}
	if report != nil {
		s.judge(peer, report, now)
	}
	p := s.plans[topic]
	if p == nil {
		return
	}
	t := p.partner(peer)
	t.ended, t.notBefore = now, now.Add(s.cfg.Apart)
	if incoming {
		t.incoming = false
	} else {
		t.outgoing = false
	}
	if report != nil && report.Accepted > 0 {
		p.gap, t.differ.pause = backoff{}, 0
	}
	switch {
	case report != nil && report.End == EndFinished:
		t.synced, t.failures = now, 0
		if report.Partial {
			p.again(peer)
		}
	case report != nil && report.End == EndCut && report.Accepted > 0:
		t.failures = 0
		p.again(peer)
	case !incoming:
		s.failed(p, peer, report, now)
	}
}

// again asks for another session with a peer that still has something.
func (p *plan) again(peer PeerID) {
	random, used := p.random, p.used
	p.target(peer)
	p.random, p.used = random, used
}

// failed asks for another peer in place of one that did not answer, and leaves that one alone for longer
// each time.
func (s *Schedule) failed(p *plan, peer PeerID, report *Report, now time.Time) {
	t := p.partners[peer]
	pause := min(s.cfg.Apart<<min(t.failures, 16), s.cfg.Period)
	if report != nil && report.End == EndRefused {
		pause = s.cfg.Period
	}
	t.failures++
	t.notBefore = now.Add(pause)
	delete(p.used, peer)
	p.random = min(p.random+1, 2)
}

// judge counts strikes: three in a row, or one proof of misbehaviour, and the peer is left alone.
func (s *Schedule) judge(peer PeerID, report *Report, now time.Time) {
	r := s.records[peer]
	switch {
	case report.End == EndViolation || report.Strike():
		if r == nil {
			r = new(record)
			s.records[peer] = r
		}
		r.last = now
		if r.strikes++; report.End == EndViolation || r.strikes >= s.cfg.Strikes {
			*r = record{last: now, until: now.Add(s.cfg.Penalty)}
		}
	case report.End == EndFinished && !s.Banned(peer, now):
		delete(s.records, peer)
	}
}

// Blame notes what came of a session that this schedule did not begin, if the peer broke the protocol in it.
func (s *Schedule) Blame(peer PeerID, report *Report, now time.Time) {
	if report.End == EndViolation {
		s.judge(peer, report, now)
	}
}

// Banned reports whether a peer is being left alone for what it did.
func (s *Schedule) Banned(peer PeerID, now time.Time) bool {
	r := s.records[peer]
	return r != nil && now.Before(r.until)
}

// forget drops what is no longer of use, so that peers which come and go take no memory.
func (s *Schedule) forget(now time.Time) {
	for _, p := range s.plans {
		for peer, t := range p.partners {
			if !t.present && !t.outgoing && !t.incoming && !now.Before(t.notBefore) {
				delete(p.partners, peer)
				delete(p.used, peer)
			}
		}
	}
	for peer, r := range s.records {
		if now.Sub(r.last) >= s.cfg.Penalty {
			delete(s.records, peer)
		}
	}
}
