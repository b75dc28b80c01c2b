package discovery

import (
	"math/rand/v2"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"
	ma "github.com/multiformats/go-multiaddr"
)

// Back-off after a failed dial. Peers that the user configured or asked for are tried again soon
// and for ever; others rarely, and are forgotten after maxFailures.
const (
	keepBackoffMin  = time.Second
	keepBackoffMax  = 30 * time.Second
	otherBackoffMin = 5 * time.Second
	otherBackoffMax = 30 * time.Minute
	maxFailures     = 8
	// redialPause is how long a peer is left alone after a dial that succeeded and a connection
	// that then went away: a refusal by the other side shows as exactly that.
	redialPause = 10 * time.Second
	// yield is how long the peer with the larger id waits before it dials somebody it heard of on
	// the local network: both hear of each other at the same moment, and one connection is enough.
	yield = 250 * time.Millisecond
)

// candidate is one peer that could be dialled.
type candidate struct {
	id       peer.ID
	addrs    []ma.Multiaddr
	keep     bool // configured: tried again soon, for ever
	want     bool // asked for by name: tried again for ever
	lan      bool
	groups   map[Key]struct{}
	failures int
	next     time.Time // not before
	seen     time.Time // last offered
	dialling bool
}

// schedule decides who is dialled next. It does no I/O, keeps no clock and has no goroutine: the
// Finder owns it under its mutex.
type schedule struct {
	self   peer.ID
	limits Limits
	rand   *rand.Rand
	peers  map[peer.ID]*candidate
	active int // dials under way

	tokens float64 // of the dials-per-minute bucket
	filled time.Time
}

func newSchedule(self peer.ID, limits Limits, seed uint64) *schedule {
	return &schedule{
		self:   self,
		limits: limits,
		rand:   rand.New(rand.NewPCG(seed, 0x5741524c)),
		peers:  make(map[peer.ID]*candidate),
		tokens: float64(limits.ParallelDials * 2),
	}
}

// offer takes addresses of a peer, already filtered by policy. A wanted one may come without any:
// whoever dials then finds some.
func (s *schedule) offer(now time.Time, info peer.AddrInfo, source Source, group *Key, want bool) {
	if info.ID == s.self || info.ID == "" {
		return
	}
	c := s.peers[info.ID]
	if c == nil {
		if len(info.Addrs) == 0 && !want {
			return
		}
		if len(s.peers) >= s.limits.Peers && !s.evict() {
			return
		}
		c = &candidate{id: info.ID, groups: make(map[Key]struct{}), next: now}
		if source == SourceLAN && s.self > info.ID {
			c.next = now.Add(yield)
		}
		s.peers[info.ID] = c
	}
	fresh := source != SourceCache && hasNew(c.addrs, info.Addrs)
	if source == SourceCache {
		c.addrs = mergeAddrs(c.addrs, info.Addrs)
	} else {
		c.addrs = mergeAddrs(info.Addrs, c.addrs)
	}
	c.seen = now
	c.keep = c.keep || source == SourceBootstrap
	c.want = c.want || want
	c.lan = c.lan || source == SourceLAN
	if group != nil {
		c.groups[*group] = struct{}{}
	}
	// An address that was never tried deserves one attempt soon, whatever the old ones did.
	if fresh && c.failures > 0 {
		c.failures = 0
		if soon := now.Add(time.Second); c.next.After(soon) {
			c.next = soon
		}
	}
}

func hasNew(known, offered []ma.Multiaddr) bool {
	for _, o := range offered {
		found := false
		for _, k := range known {
			if k.Equal(o) {
				found = true
				break
			}
		}
		if !found {
			return true
		}
	}
	return false
}

// evict forgets the least useful candidate; false when all are kept.
func (s *schedule) evict() bool {
	var worst *candidate
	for _, c := range s.peers {
		if c.keep || c.want || c.dialling {
			continue
		}
		if worst == nil || c.failures > worst.failures || (c.failures == worst.failures && c.seen.Before(worst.seen)) {
			worst = c
		}
	}
	if worst == nil {
		return false
	}
	delete(s.peers, worst.id)
	return true
}

// release makes a wanted peer an ordinary candidate again.
func (s *schedule) release(p peer.ID) {
	if c := s.peers[p]; c != nil {
		c.want = false
	}
}

// dropGroup forgets a group; its members stay candidates of their other groups only.
func (s *schedule) dropGroup(name Key) {
	for id, c := range s.peers {
		if _, ok := c.groups[name]; !ok {
			continue
		}
		delete(c.groups, name)
		if len(c.groups) == 0 && !c.keep && !c.want && !c.lan && !c.dialling {
			delete(s.peers, id)
		}
	}
}

// next returns the peer to dial now, or how long to wait before asking again. connected tells
// who needs no dial.
func (s *schedule) next(now time.Time, connected func(peer.ID) bool) (peer.AddrInfo, time.Duration, bool) {
	const idle = time.Minute
	s.refill(now)
	if s.active >= s.limits.ParallelDials {
		return peer.AddrInfo{}, idle, false
	}
	perGroup, lan := s.count(connected)
	wait := idle
	var best *candidate
	for _, c := range s.peers {
		if c.dialling || !s.wanted(c, perGroup, lan) || connected(c.id) {
			continue
		}
		if d := c.next.Sub(now); d > 0 {
			wait = min(wait, d)
			continue
		}
		if best == nil || better(c, best) {
			best = c
		}
	}
	if best == nil {
		return peer.AddrInfo{}, wait, false
	}
	if s.tokens < 1 {
		missing := (1 - s.tokens) * float64(time.Minute) / float64(s.limits.DialsPerMinute)
		return peer.AddrInfo{}, time.Duration(missing) + time.Millisecond, false
	}
	s.tokens--
	s.active++
	best.dialling = true
	return peer.AddrInfo{ID: best.id, Addrs: best.addrs}, 0, true
}

func (s *schedule) refill(now time.Time) {
	if s.filled.IsZero() || now.Before(s.filled) {
		s.filled = now
		return
	}
	gained := now.Sub(s.filled).Minutes() * float64(s.limits.DialsPerMinute)
	s.tokens = min(s.tokens+gained, max(float64(s.limits.DialsPerMinute)/4, float64(s.limits.ParallelDials*2)))
	s.filled = now
}

// count says how many members of each group and of the local network are connected.
func (s *schedule) count(connected func(peer.ID) bool) (map[Key]int, int) {
	perGroup, lan := make(map[Key]int), 0
	for id, c := range s.peers {
		if (len(c.groups) == 0 && !c.lan) || !connected(id) {
			continue
		}
		for g := range c.groups {
			perGroup[g]++
		}
		if c.lan {
			lan++
		}
	}
	return perGroup, lan
}

func (s *schedule) wanted(c *candidate, perGroup map[Key]int, lan int) bool {
	if c.keep || c.want || (c.lan && lan < s.limits.LANPeers) {
		return true
	}
	for g := range c.groups {
		if perGroup[g] < s.limits.GroupPeers {
			return true
		}
	}
	return false
}

// better orders candidates that are due: the user's own first, then the local network, then who
// failed least, then who has waited longest.
func better(a, b *candidate) bool {
	switch {
	case a.keep != b.keep:
		return a.keep
	case a.lan != b.lan:
		return a.lan
	case a.want != b.want:
		return a.want
	case a.failures != b.failures:
		return a.failures < b.failures
	case !a.next.Equal(b.next):
		return a.next.Before(b.next)
	}
	return a.id < b.id
}

// done takes the result of a dial.
func (s *schedule) done(now time.Time, p peer.ID, failed bool) {
	s.active--
	c := s.peers[p]
	if c == nil {
		return
	}
	c.dialling = false
	if !failed {
		c.failures = 0
		c.next = now.Add(s.jitter(redialPause))
		return
	}
	c.failures++
	if !c.keep && !c.want && c.failures >= maxFailures {
		delete(s.peers, p)
		return
	}
	first, most := otherBackoffMin, otherBackoffMax
	if c.keep {
		first, most = keepBackoffMin, keepBackoffMax
	}
	wait := first
	for i := 1; i < c.failures && wait < most; i++ {
		wait *= 2
	}
	c.next = now.Add(s.jitter(min(wait, most)))
}

// lost says that a connection to the peer ended: a kept one is dialled again at once, unless it
// was dialled just now.
func (s *schedule) lost(now time.Time, p peer.ID) {
	c := s.peers[p]
	if c == nil || c.dialling || c.failures > 0 {
		return
	}
	if c.next.Before(now) {
		c.next = now.Add(s.jitter(keepBackoffMin))
	}
}

// reset makes everybody due again: the network changed, so what failed may work now.
func (s *schedule) reset(now time.Time) {
	for _, c := range s.peers {
		c.failures = 0
		c.next = now.Add(time.Duration(s.rand.Int64N(int64(time.Second))))
	}
}

// jitter spreads a wait by a fifth to either side, so that peers that lost the same relay do not
// come back in the same instant.
func (s *schedule) jitter(d time.Duration) time.Duration {
	return d*4/5 + time.Duration(s.rand.Int64N(int64(d)*2/5+1))
}
