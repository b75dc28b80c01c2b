package node

import (
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"

	"github.com/starling-chat/starling/chat/wire"
	"github.com/starling-chat/starling/node/api"
)

const (
	// skewApart and skewAgree say when two events of a neighbour show its clock: they came at different
	// times and are off by the same. One event alone may merely be late.
	skewApart = 10 * time.Second
	skewAgree = 5 * time.Second
	// skewLife is how long an observation counts, and skewPeers how many neighbours are remembered.
	skewLife  = time.Hour
	skewPeers = 64
	// skewWorthTelling is how far clocks may differ before the user should know: messages further ahead
	// wait at the others.
	skewWorthTelling = 2 * time.Minute
)

// skewMeter compares this machine's clock with the times in what neighbours hand over.
type skewMeter struct {
	mu    sync.Mutex // guards peers
	peers map[peer.ID]*skewOf
}

// skewOf is what one neighbour's events show; offsets are its time less ours.
type skewOf struct {
	last   time.Duration // of the last event taken as a sample
	at     time.Time     // when it came; the zero value: none yet
	offset time.Duration // confirmed
	known  time.Time     // when it was confirmed last; the zero value: never
}

// observe takes the time in an event that a neighbour handed over.
func (m *skewMeter) observe(p peer.ID, event, now time.Time) {
	offset := event.Sub(now)
	m.mu.Lock()
	defer m.mu.Unlock()
	s := m.peers[p]
	if s == nil {
		if len(m.peers) >= skewPeers {
			m.forget(now)
		}
		if m.peers == nil {
			m.peers = make(map[peer.ID]*skewOf)
		}
		s = &skewOf{}
		m.peers[p] = s
	}
	switch {
	case offset > wire.MaxAhead:
		s.offset, s.known = offset, now // nothing is late by a time to come
	case s.at.IsZero() || now.Before(s.at):
	case now.Sub(s.at) < skewApart:
		return
	case (offset - s.last).Abs() <= skewAgree:
		s.offset, s.known = offset, now
	}
	s.last, s.at = offset, now
}

// forget drops the neighbour that was heard of longest ago. The caller holds mu.
func (m *skewMeter) forget(now time.Time) {
	var oldest peer.ID
	at := now
	for p, s := range m.peers {
		if oldest == "" || s.at.Before(at) {
			oldest, at = p, s.at
		}
	}
	delete(m.peers, oldest)
}

// ahead returns by how much this machine's clock is ahead of the others' (behind, if negative): the median
// over neighbours, so that one liar among several changes nothing.
func (m *skewMeter) ahead(now time.Time) time.Duration {
	m.mu.Lock()
	defer m.mu.Unlock()
	var all []time.Duration
	for _, s := range m.peers {
		if age := now.Sub(s.known); !s.known.IsZero() && age.Abs() < skewLife {
			all = append(all, s.offset)
		}
	}
	if len(all) == 0 {
		return 0
	}
	slices.Sort(all)
	return -all[len(all)/2]
}

// checkClock is the doctor's word on the clock.
func checkClock(ahead time.Duration) api.Check {
	c := api.Check{Name: "clock", Status: checkOK, Detail: "no difference from others worth telling"}
	if ahead.Abs() <= skewWorthTelling {
		return c
	}
	way := "ahead of"
	if ahead < 0 {
		way = "behind"
	}
	c.Status = checkFail
	c.Detail = fmt.Sprintf("your clock or theirs is wrong by about %s: yours is %s others'", ahead.Abs().Round(time.Minute), way)
	c.Hint = "set the clock (timedatectl set-ntp true); until then messages wait or are shown out of order"
	return c
}
