package sync

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"
)

var (
	day0     = time.Date(2026, 3, 1, 0, 0, 0, 0, time.UTC)
	roomA    = Topic{1}
	roomB    = Topic{2}
	finished = Report{End: EndFinished}
)

// clockwork drives a schedule: it advances its time, and keeps what was started.
type clockwork struct {
	t   *testing.T
	s   *Schedule
	now time.Time
	// wake is what Next said last.
	wake time.Time
}

func newClockwork(t *testing.T, peers ...PeerID) *clockwork {
	c := &clockwork{t: t, s: NewSchedule(DefaultScheduleConfig("m"), rand.New(rand.NewPCG(1, 2))), now: day0}
	c.s.Join(roomA, c.now)
	for _, p := range peers {
		c.s.AddPeer(roomA, p)
	}
	return c
}

// next returns the peers that are begun with now in room A, ascending.
func (c *clockwork) next() []PeerID {
	c.t.Helper()
	starts, wake := c.s.Next(c.now)
	c.wake = wake
	var peers []PeerID
	for _, s := range starts {
		if s.Topic == roomA {
			peers = append(peers, s.Peer)
		}
	}
	slices.Sort(peers)
	return peers
}

func (c *clockwork) pass(d time.Duration) { c.now = c.now.Add(d) }

func (c *clockwork) end(report *Report, peers ...PeerID) {
	for _, p := range peers {
		c.s.Ended(roomA, p, false, report, c.now)
	}
}

// settle finishes everything that is due now.
func (c *clockwork) settle() {
	for peers := c.next(); len(peers) > 0; peers = c.next() {
		c.end(&finished, peers...)
	}
}

func (c *clockwork) want(what string, got []PeerID, want ...PeerID) {
	c.t.Helper()
	if !slices.Equal(got, want) {
		c.t.Errorf("%s: begins with %q, want %q", what, got, want)
	}
}

// Each row is a trigger after a quiet start with peers a, b, c, d, and what follows at once.
func TestTriggers(t *testing.T) {
	for _, c := range []struct {
		name    string
		trigger func(c *clockwork)
		starts  int    // how many sessions begin
		with    PeerID // one of them is with this peer, if not empty
	}{
		{"nothing", func(*clockwork) {}, 0, ""},
		{"join again", func(c *clockwork) { c.s.Join(roomA, c.now) }, 2, ""},
		{"resume", func(c *clockwork) { c.s.Resume(c.now) }, 2, ""},
		{"gap", func(c *clockwork) { c.s.Gap(roomA) }, 2, ""},
		{"new mesh peer", func(c *clockwork) { c.s.MeshPeer(roomA, "e", c.now) }, 2, "e"},
		{"old mesh peer", func(c *clockwork) { c.s.MeshPeer(roomA, "a", c.now) }, 0, ""},
		{"two new mesh peers", func(c *clockwork) { c.s.MeshPeer(roomA, "e", c.now); c.s.MeshPeer(roomA, "f", c.now) }, 3, "f"},
		{"new member outside the mesh", func(c *clockwork) { c.s.AddPeer(roomA, "e") }, 0, ""},
		{"heads differ", func(c *clockwork) { c.s.Heads(roomA, "a", true, c.now) }, 0, ""},
		{"heads differ for 29 s", func(c *clockwork) {
			c.s.Heads(roomA, "a", true, c.now)
			c.pass(29 * time.Second)
		}, 0, ""},
		{"heads differ for 30 s", func(c *clockwork) {
			c.s.Heads(roomA, "a", true, c.now)
			c.pass(15 * time.Second)
			c.s.Heads(roomA, "a", true, c.now)
			c.pass(15 * time.Second)
		}, 2, "a"},
		{"heads differed for a moment", func(c *clockwork) {
			c.s.Heads(roomA, "a", true, c.now)
			c.pass(15 * time.Second)
			c.s.Heads(roomA, "a", false, c.now)
			c.pass(15 * time.Second)
		}, 0, ""},
		{"four minutes", func(c *clockwork) { c.pass(4*time.Minute - 2*time.Minute - time.Second) }, 0, ""},
		{"six minutes", func(c *clockwork) { c.pass(6 * time.Minute) }, 2, ""},
		{"other room", func(c *clockwork) { c.s.Gap(roomB) }, 0, ""},
		{"left", func(c *clockwork) { c.s.Leave(roomA); c.s.Gap(roomA) }, 0, ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			w := newClockwork(t, "a", "b", "c", "d")
			for range 3 { // until everybody was synced with
				w.s.Join(roomA, w.now)
				w.settle()
				w.pass(time.Minute)
				for _, p := range []PeerID{"a", "b", "c", "d"} {
					w.s.MeshPeer(roomA, p, w.now)
				}
				w.settle()
				w.pass(time.Minute)
			}
			w.s.Join(roomA, w.now)
			w.settle()
			w.pass(2 * time.Minute)
			w.next()
			c.trigger(w)
			got := w.next()
			if len(got) != c.starts || c.with != "" && !slices.Contains(got, c.with) {
				t.Errorf("begins with %q; want %d, among them %q", got, c.starts, c.with)
			}
			if len(slices.Compact(slices.Clone(got))) != len(got) {
				t.Errorf("begins twice with one peer: %q", got)
			}
		})
	}
}

func TestJoinAsksTwoPeersAndWaitsForTheSecond(t *testing.T) {
	w := newClockwork(t, "a")
	w.want("one peer known", w.next(), "a")
	w.end(&finished, "a")
	w.pass(time.Minute)
	w.want("still one", w.next())
	w.s.AddPeer(roomA, "b")
	w.want("another appears", w.next(), "b")
	w.end(&finished, "b")
	w.pass(time.Minute)
	w.s.AddPeer(roomA, "c")
	w.want("two are enough", w.next())
}

func TestPeersThatFailAreReplaced(t *testing.T) {
	for _, c := range []struct {
		name   string
		report *Report
		pause  time.Duration // until the same peer is tried again
	}{
		{"unreachable", nil, 10 * time.Second},
		{"busy", &Report{End: EndBusy}, 10 * time.Second},
		{"cut with nothing", &Report{End: EndCut}, 10 * time.Second},
		{"refused", &Report{End: EndRefused}, 5 * time.Minute},
	} {
		t.Run(c.name, func(t *testing.T) {
			w := newClockwork(t, "a", "b")
			w.want("join", w.next(), "a", "b")
			w.end(&finished, "b")
			w.end(c.report, "a")
			w.want("at once", w.next())
			w.s.AddPeer(roomA, "c")
			w.want("somebody else", w.next(), "c")
			w.end(nil, "c")
			w.pass(9 * time.Second)
			w.want("too early", w.next())
			w.pass(time.Second)
			got := w.next()
			if len(got) == 0 || slices.Contains(got, "b") || c.pause > 10*time.Second && slices.Contains(got, "a") {
				t.Errorf("after 10 s begins with %q", got)
			}
		})
	}
	w := newClockwork(t, "a")
	last := time.Duration(0)
	for range 4 {
		w.want("try", w.next(), "a")
		w.end(nil, "a")
		w.next()
		wait := w.wake.Sub(w.now)
		if wait <= last {
			t.Errorf("waits %v, then %v", last, wait)
		}
		last = wait
		w.pass(wait)
	}
}

func TestPartialSessionsGoOn(t *testing.T) {
	for _, report := range []*Report{{End: EndFinished, Partial: true, Accepted: 5}, {End: EndCut, Accepted: 5}} {
		w := newClockwork(t, "a", "b", "c")
		got := w.next()
		w.end(report, got[0])
		w.end(&finished, got[1])
		w.want("at once", w.next())
		if wait := w.wake.Sub(w.now); wait != 10*time.Second {
			t.Errorf("wakes after %v", wait)
		}
		w.pass(10 * time.Second)
		w.want("after 10 s", w.next(), got[0])
	}
}

func TestFourSessionsAtOnceAndRoomsInTurn(t *testing.T) {
	w := newClockwork(t, "a", "b", "c")
	var rooms []Topic
	for i := range 6 {
		topic := Topic{byte(i + 10)}
		rooms = append(rooms, topic)
		w.s.Join(topic, w.now)
		for _, p := range []PeerID{"a", "b", "c"} {
			w.s.AddPeer(topic, p)
		}
	}
	served := map[Topic]int{}
	running := 0
	for round := range 20 {
		starts, _ := w.s.Next(w.now)
		if running += len(starts); running > 4 || running < 4 && round == 0 {
			t.Fatalf("%d sessions at once", running)
		}
		for _, s := range starts {
			served[s.Topic]++
			w.s.Ended(s.Topic, s.Peer, false, &finished, w.now)
			running--
		}
		if round == 1 && len(served) != 7 {
			t.Errorf("after 8 sessions %d of 7 rooms had one", len(served))
		}
	}
	for _, topic := range append(rooms, roomA) {
		if served[topic] != 2 {
			t.Errorf("room %d had %d sessions", topic[0], served[topic])
		}
	}
}

func TestThreeStrikes(t *testing.T) {
	strike := &Report{End: EndCut, Unserved: 5}
	for _, c := range []struct {
		name    string
		reports []*Report
		banned  bool
	}{
		{"two", []*Report{strike, strike}, false},
		{"three", []*Report{strike, strike, strike}, true},
		{"not in a row", []*Report{strike, strike, &finished, strike}, false},
		{"unreachable does not count", []*Report{strike, nil, strike, nil}, false},
		{"violation", []*Report{{End: EndViolation, Fault: misbehave(InvalidRecord, "x")}}, true},
	} {
		t.Run(c.name, func(t *testing.T) {
			w := newClockwork(t, "a")
			for _, r := range c.reports {
				w.s.Join(roomA, w.now)
				w.want("join", w.next(), "a")
				w.end(r, "a")
				w.pass(6 * time.Minute)
			}
			if w.s.Banned("a", w.now) != c.banned {
				t.Fatalf("banned %v", !c.banned)
			}
			if !c.banned {
				return
			}
			w.s.Join(roomA, w.now)
			w.s.MeshPeer(roomA, "a", w.now)
			w.want("banned", w.next())
			if w.s.Admit(roomA, "a", w.now) {
				t.Error("answers a banned peer")
			}
			w.pass(time.Hour)
			w.s.Join(roomA, w.now)
			w.want("an hour later", w.next(), "a")
		})
	}
}

func TestGapsThatStayFireEverMoreRarely(t *testing.T) {
	w := newClockwork(t, "a", "b", "c")
	w.settle()
	var fired []time.Duration
	start := w.now
	for w.now.Sub(start) < 4*time.Minute-time.Second {
		w.s.Gap(roomA)
		if got := w.next(); len(got) > 0 {
			fired = append(fired, w.now.Sub(start))
			w.end(&finished, got...)
		}
		w.pass(time.Second)
	}
	distinct := slices.Compact(fired)
	if n := len(distinct); n < 4 || n > 8 {
		t.Errorf("sessions at %v", fired)
	}
	// A session that brings something makes the next gap urgent again.
	w.s.Gap(roomA)
	if !w.s.Admit(roomA, "guest", w.now) {
		t.Fatal("does not answer")
	}
	w.s.Ended(roomA, "guest", true, &Report{End: EndFinished, Accepted: 1}, w.now)
	w.pass(11 * time.Second)
	if got := w.next(); len(got) != 2 {
		t.Errorf("after success a gap begins %q", got)
	}
}

func TestAdmission(t *testing.T) {
	w := newClockwork(t, "a", "z")
	for i := range 6 {
		w.s.AddPeer(roomA, PeerID(fmt.Sprint("p", i)))
	}
	if w.s.Admit(roomB, "a", w.now) {
		t.Error("answers for an unknown room")
	}
	if !w.s.Admit(roomA, "a", w.now) || w.s.Admit(roomA, "a", w.now) {
		t.Error("one session for each peer and room")
	}
	for range 20 {
		if slices.Contains(w.next(), "a") {
			t.Error("begins with a peer that has begun")
		}
	}
	w.s.Ended(roomA, "a", true, &finished, w.now)
	w.pass(8 * time.Second)
	if w.s.Admit(roomA, "a", w.now) {
		t.Error("admits again after 8 s")
	}
	w.pass(2 * time.Second)
	for i, p := range []PeerID{"a", "s1", "s2", "s3", "s4"} {
		if w.s.Admit(roomA, p, w.now) != (i < 4) {
			t.Errorf("answer to the %d. at once is wrong", i+1)
		}
	}
}

// When both begin at once, exactly one of the two sessions goes on.
func TestCrossingSessions(t *testing.T) {
	for _, pair := range [][2]PeerID{{"a", "b"}, {"b", "a"}, {"a", "aa"}} {
		var sides [2]*Schedule
		for i := range sides {
			sides[i] = NewSchedule(DefaultScheduleConfig(pair[i]), rand.New(rand.NewPCG(1, 2)))
			sides[i].Join(roomA, day0)
			sides[i].AddPeer(roomA, pair[1-i])
			if starts, _ := sides[i].Next(day0); len(starts) != 1 {
				t.Fatalf("starts %v", starts)
			}
		}
		admitted := 0
		for i := range sides {
			if sides[i].Admit(roomA, pair[1-i], day0) {
				admitted++
				if pair[1-i] > pair[i] {
					t.Error("the higher peer id won")
				}
			}
		}
		if admitted != 1 {
			t.Errorf("%v: %d sessions go on", pair, admitted)
		}
	}
}

func TestASecondSessionIsNotACrossingOne(t *testing.T) {
	s := NewSchedule(DefaultScheduleConfig("b"), rand.New(rand.NewPCG(1, 2)))
	s.Join(roomA, day0)
	s.AddPeer(roomA, "a")
	s.Next(day0)
	if s.Admit(roomA, "a", day0.Add(time.Minute)) {
		t.Error("answers a peer with which a session runs")
	}
}

// Whatever happens: never more sessions than allowed, never two with one peer in one room, never sooner than
// 10 s, never with a banned or absent peer; and as long as there are peers, a quiet room is synced with
// two of them within 6 minutes.
func TestScheduleKeepsItsPromises(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		s := NewSchedule(DefaultScheduleConfig("m"), rand.New(rand.NewPCG(rapid.Uint64().Draw(t, "seed"), 0)))
		now := day0
		topics := []Topic{roomA, roomB}
		peers := []PeerID{"a", "b", "c", "d", "x"}
		type pair struct {
			topic Topic
			peer  PeerID
		}
		running, ended, present := map[pair]bool{}, map[pair]time.Time{}, map[pair]bool{}
		for _, topic := range topics {
			s.Join(topic, now)
		}
		var log strings.Builder
		for range rapid.IntRange(1, 120).Draw(t, "steps") {
			p := pair{rapid.SampledFrom(topics).Draw(t, "room"), rapid.SampledFrom(peers).Draw(t, "peer")}
			switch rapid.IntRange(0, 10).Draw(t, "step") {
			case 0:
				s.AddPeer(p.topic, p.peer)
				present[p] = true
			case 1:
				s.MeshPeer(p.topic, p.peer, now)
				present[p] = true
			case 2:
				s.RemovePeer(p.topic, p.peer)
				present[p] = false
			case 3:
				s.Heads(p.topic, p.peer, rapid.Bool().Draw(t, "differ"), now)
			case 4:
				s.Gap(p.topic)
			case 5:
				s.Resume(now)
			case 6, 7:
				if running[p] {
					report := rapid.SampledFrom([]*Report{
						nil, &finished,
						{End: EndCut, Unserved: 3},
						{End: EndFinished, Partial: true},
						{End: EndBusy},
						{End: EndRefused},
						{End: EndCut, Accepted: 1},
						{End: EndAccused},
					}).Draw(t, "report")
					s.Ended(p.topic, p.peer, false, report, now)
					delete(running, p)
					ended[p] = now
				}
			default:
				now = now.Add(time.Duration(rapid.IntRange(1, 200).Draw(t, "seconds")) * time.Second)
			}
			starts, wake := s.Next(now)
			if !wake.IsZero() && wake.Before(now) {
				t.Fatalf("wakes in the past: %v\n%s", now.Sub(wake), log.String())
			}
			for _, start := range starts {
				q := pair{start.Topic, start.Peer}
				if running[q] || !present[q] || s.Banned(q.peer, now) || !ended[q].IsZero() && now.Sub(ended[q]) < 10*time.Second {
					t.Fatalf("begins with %q: running %v, present %v, ended %v ago", q.peer, running[q], present[q], now.Sub(ended[q]))
				}
				running[q] = true
			}
			if len(running) > 4 {
				t.Fatalf("%d sessions at once", len(running))
			}
		}
		quietRoom(t, s, now)
	})
}

// quietRoom lets everything end well and checks the period.
func quietRoom(t *rapid.T, s *Schedule, now time.Time) {
	for _, p := range []PeerID{"y", "z"} {
		s.AddPeer(roomA, p)
	}
	for topic, p := range s.plans {
		for peer, partner := range p.partners {
			if partner.outgoing {
				s.Ended(topic, peer, false, &finished, now)
			}
		}
	}
	met := map[PeerID]bool{}
	for end := now.Add(6 * time.Minute); now.Before(end); {
		starts, wake := s.Next(now)
		for _, start := range starts {
			if start.Topic == roomA {
				met[start.Peer] = true
			}
			s.Ended(start.Topic, start.Peer, false, &finished, now)
		}
		if !wake.After(now) {
			wake = now.Add(time.Second)
		}
		now = wake
	}
	if len(met) < 2 {
		t.Fatalf("within 6 minutes synced with %d peers", len(met))
	}
}

func TestScheduleForgetsWhoCameAndWent(t *testing.T) {
	w := newClockwork(t)
	for i := range 1000 {
		p := PeerID(fmt.Sprint("guest", i))
		w.s.AddPeer(roomA, p)
		w.end(&Report{End: EndCut, Unserved: 1}, w.next()...)
		w.s.RemovePeer(roomA, p)
		w.pass(time.Minute)
	}
	w.pass(2 * time.Hour)
	w.next()
	if n, m := len(w.s.plans[roomA].partners), len(w.s.records); n > 0 || m > 0 {
		t.Errorf("remembers %d partners and %d records", n, m)
	}
}
