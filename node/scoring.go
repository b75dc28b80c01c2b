package node

import (
	"math"
	"sync"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"
)

// Scores decide whom the topic layer listens to. What they punish is only what is provably wrong, since an
// honest peer can be silent for weeks (a quiet room), can never be the first to deliver (a leaf behind a
// hub), and shares its address with a whole office.
const (
	// Below zero a peer gets no eager link. At scoreGraylist and below, nothing it sends is read.
	scoreGraylist = -100

	// An invalid message counts -20 times the square of their number: one ends the eager link, three the
	// connection's use, and ten quiet minutes forgive most of it.
	invalidWeight = -20
	// Announcing what is not delivered when it is asked for costs the square of what exceeds six times; at
	// most once a second, since one congestion breaks many promises, and never so much that nothing is read.
	brokenWeight    = -1
	brokenThreshold = 6
	brokenMost      = 14
	promisePause    = time.Second

	// scoreForgive is the time in which a count falls to scoreRest of itself.
	scoreForgive = 10 * time.Minute
	scoreRest    = 0.01
	// scoreRetain is how long a peer is remembered after its last fault: a reconnect does not wash it off.
	scoreRetain = 30 * time.Minute
	// scorePeers bounds the peers with faults that are remembered.
	scorePeers = 4096
)

// standings are the faults of peers. The zero value has none. Safe for concurrent use.
type standings struct {
	mu    sync.Mutex // guards all below
	peers map[peer.ID]*standing
}

type standing struct {
	invalid, broken float64 // decayed until at
	at              time.Time
	fault           time.Time // the last one
	brokenAt        time.Time // the last broken promise that counted
}

// decay brings the counts up to date.
func (s *standing) decay(now time.Time) {
	f := math.Pow(scoreRest, now.Sub(s.at).Seconds()/scoreForgive.Seconds())
	s.invalid, s.broken, s.at = s.invalid*f, s.broken*f, now
}

func (s *standing) score() float64 {
	over := max(0, s.broken-brokenThreshold)
	return invalidWeight*s.invalid*s.invalid + brokenWeight*over*over
}

// score returns a peer's score: zero or less.
func (s *standings) score(p peer.ID, now time.Time) float64 {
	s.mu.Lock()
	defer s.mu.Unlock()
	st := s.peers[p]
	if st == nil {
		return 0
	}
	if now.Sub(st.fault) >= scoreRetain {
		delete(s.peers, p)
		return 0
	}
	st.decay(now)
	if st.score() > -scoreRest {
		return 0 // as good as forgiven
	}
	return st.score()
}

// invalid counts a message that no honest node sends.
func (s *standings) invalid(p peer.ID, now time.Time) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.of(p, now).invalid++
}

// broken counts that a peer did not deliver what it had announced.
func (s *standings) broken(p peer.ID, now time.Time) {
	s.mu.Lock()
	defer s.mu.Unlock()
	st := s.of(p, now)
	if now.Sub(st.brokenAt) >= promisePause {
		st.broken = min(st.broken+1, brokenMost)
		st.brokenAt = now
	}
}

// of returns a peer's standing, up to date. The caller holds mu.
func (s *standings) of(p peer.ID, now time.Time) *standing {
	st := s.peers[p]
	if st == nil {
		if s.peers == nil {
			s.peers = make(map[peer.ID]*standing)
		}
		if len(s.peers) >= scorePeers {
			s.forget()
		}
		st = &standing{at: now}
		s.peers[p] = st
	}
	st.decay(now)
	st.fault = now
	return st
}

// forget drops the peer whose last fault was longest ago. The caller holds mu.
func (s *standings) forget() {
	var oldest peer.ID
	var at time.Time
	for p, st := range s.peers {
		if oldest == "" || st.fault.Before(at) {
			oldest, at = p, st.fault
		}
	}
	delete(s.peers, oldest)
}
