package discovery

import (
	"fmt"
	"testing"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"
	"pgregory.net/rapid"
)

func testSchedule(t testing.TB) (*schedule, time.Time) {
	l := DefaultLimits()
	l.Peers = 8
	return newSchedule(newPeer(t), l, 1), time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
}

func nobody(peer.ID) bool { return false }

// drain takes everything that is due now.
func drain(s *schedule, now time.Time, connected func(peer.ID) bool) []peer.ID {
	var out []peer.ID
	for {
		info, _, ok := s.next(now, connected)
		if !ok {
			return out
		}
		out = append(out, info.ID)
	}
}

func TestScheduleBacksOff(t *testing.T) {
	s, now := testSchedule(t)
	room := Key{1}
	boot, member, wanted := newPeer(t), newPeer(t), newPeer(t)
	s.offer(now, at(t, boot, "/ip4/8.8.8.8/tcp/1"), SourceBootstrap, nil, false)
	s.offer(now, at(t, member, "/ip4/8.8.4.4/tcp/1"), SourceDHT, &room, false)
	s.offer(now, peer.AddrInfo{ID: wanted}, SourceHint, nil, true)
	tries := map[peer.ID]int{}
	end := now.Add(2 * time.Hour)
	for now.Before(end) {
		for _, p := range drain(s, now, nobody) {
			tries[p]++
			s.done(now, p, true)
		}
		now = now.Add(500 * time.Millisecond)
	}
	// 1, 2, 4 ... 30 s: about 240 tries in two hours.
	if n := tries[boot]; n < 200 || n > 300 {
		t.Errorf("bootstrap tried %d times in two hours, want about 240", n)
	}
	if n := tries[member]; n != maxFailures {
		t.Errorf("member tried %d times, want %d and then forgotten", n, maxFailures)
	}
	if _, ok := s.peers[member]; ok {
		t.Error("member is still remembered")
	}
	// 5, 10, 20 s ... 30 min.
	if n := tries[wanted]; n < 10 || n > 14 {
		t.Errorf("wanted peer tried %d times in two hours, want about 12", n)
	}
	// A fresh address of a peer that failed is tried at once.
	s.offer(now, at(t, wanted, "/ip4/8.8.4.4/tcp/9"), SourceHint, nil, false)
	if got := drain(s, now.Add(2*time.Second), nobody); len(got) == 0 || !contains(got, wanted) {
		t.Errorf("a new address did not make the peer due: %v", got)
	}
}

func contains(list []peer.ID, p peer.ID) bool {
	for _, q := range list {
		if p == q {
			return true
		}
	}
	return false
}

func TestScheduleCapsDialsPerMinute(t *testing.T) {
	l := DefaultLimits()
	s := newSchedule(newPeer(t), l, 1)
	now := time.Unix(1e9, 0)
	room := Key{1}
	for i := range 500 {
		s.offer(now, at(t, newPeer(t), fmt.Sprintf("/ip4/8.8.8.8/tcp/%d", i+1)), SourceDHT, &room, false)
	}
	dials := 0
	for range 10 * 600 { // ten minutes in steps of 100 ms
		for _, p := range drain(s, now, nobody) {
			dials++
			s.done(now, p, true)
		}
		now = now.Add(100 * time.Millisecond)
	}
	most := 10*l.DialsPerMinute + 2*l.ParallelDials
	if dials > most || dials < most*8/10 {
		t.Errorf("%d dials in ten minutes, want about %d", dials, most)
	}
}

func TestScheduleStopsWhenAGroupHasEnough(t *testing.T) {
	s, now := testSchedule(t)
	s.limits.GroupPeers, s.limits.Peers = 2, 100
	room, other := Key{1}, Key{2}
	up := map[peer.ID]bool{}
	for i := range 3 {
		p := newPeer(t)
		s.offer(now, at(t, p, fmt.Sprintf("/ip4/8.8.8.8/tcp/%d", i+1)), SourceDHT, &room, false)
		up[p] = true
	}
	late := newPeer(t)
	s.offer(now, at(t, late, "/ip4/8.8.8.8/tcp/9"), SourceDHT, &room, false)
	connected := func(p peer.ID) bool { return up[p] }
	if got := drain(s, now, connected); len(got) != 0 {
		t.Errorf("a full group still dials %v", got)
	}
	s.offer(now, at(t, late, "/ip4/8.8.8.8/tcp/9"), SourceDHT, &other, false)
	if got := drain(s, now, connected); len(got) != 1 || got[0] != late {
		t.Errorf("the other group's member was not dialled: %v", got)
	}
	s.done(now, late, false)
	s.dropGroup(other)
	s.dropGroup(room)
	if len(s.peers) != 0 {
		t.Errorf("%d candidates outlive their groups", len(s.peers))
	}
}

func TestScheduleEvictsTheLeastUseful(t *testing.T) {
	s, now := testSchedule(t)
	room := Key{1}
	boot := newPeer(t)
	s.offer(now, at(t, boot, "/ip4/8.8.8.8/tcp/1"), SourceBootstrap, nil, false)
	for i := range 50 {
		s.offer(now.Add(time.Duration(i)), at(t, newPeer(t), fmt.Sprintf("/ip4/8.8.8.8/tcp/%d", i+2)), SourceDHT, &room, false)
	}
	if len(s.peers) != s.limits.Peers {
		t.Errorf("%d candidates, want %d", len(s.peers), s.limits.Peers)
	}
	if _, ok := s.peers[boot]; !ok {
		t.Error("the bootstrap was evicted")
	}
}

// Whatever happens, a peer is never dialled twice at once, nor more peers at once than allowed, and
// nobody is dialled before its back-off ended.
func TestScheduleInvariants(t *testing.T) {
	ids := make([]peer.ID, 12)
	for i := range ids {
		ids[i] = newPeer(t)
	}
	rapid.Check(t, func(t *rapid.T) {
		l := DefaultLimits()
		l.ParallelDials, l.Peers = 3, 10
		s := newSchedule(ids[0], l, 7)
		now := time.Unix(1e9, 0)
		dialling := map[peer.ID]bool{}
		notBefore := map[peer.ID]time.Time{}
		up := map[peer.ID]bool{}
		groups := []Key{{1}, {2}}
		for range rapid.IntRange(1, 200).Draw(t, "steps") {
			p := rapid.SampledFrom(ids).Draw(t, "peer")
			switch rapid.IntRange(0, 6).Draw(t, "step") {
			case 0:
				g := rapid.SampledFrom(groups).Draw(t, "group")
				src := rapid.SampledFrom(sources[:]).Draw(t, "source")
				info := peer.AddrInfo{ID: p}
				if rapid.Bool().Draw(t, "address") {
					info.Addrs = policyAddr
				}
				s.offer(now, info, src, &g, rapid.Bool().Draw(t, "want"))
				delete(notBefore, p) // a new address may shorten the wait
			case 1, 2:
				info, wait, ok := s.next(now, func(p peer.ID) bool { return up[p] })
				if !ok {
					if wait <= 0 {
						t.Fatalf("nothing due and a wait of %s", wait)
					}
					continue
				}
				if info.ID == ids[0] || dialling[info.ID] || up[info.ID] || len(dialling) >= l.ParallelDials {
					t.Fatalf("dialled %v while %v dial", info.ID, dialling)
				}
				if b, ok := notBefore[info.ID]; ok && now.Before(b) {
					t.Fatalf("dialled %s too early", b.Sub(now))
				}
				dialling[info.ID] = true
			case 3:
				if dialling[p] {
					delete(dialling, p)
					failed := rapid.Bool().Draw(t, "failed")
					s.done(now, p, failed)
					up[p] = !failed
					if failed {
						notBefore[p] = now.Add(keepBackoffMin * 4 / 5)
					}
				}
			case 4:
				if up[p] {
					delete(up, p)
					s.lost(now, p)
				}
			case 5:
				now = now.Add(time.Duration(rapid.IntRange(1, 60_000).Draw(t, "ms")) * time.Millisecond)
			case 6:
				s.dropGroup(rapid.SampledFrom(groups).Draw(t, "drop"))
			}
			if s.active != len(dialling) {
				t.Fatalf("%d dials counted, %d under way", s.active, len(dialling))
			}
			if len(s.peers) > l.Peers+len(ids) {
				t.Fatalf("%d candidates", len(s.peers))
			}
		}
	})
}
