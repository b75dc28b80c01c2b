package plumtree

import (
	"fmt"
	"testing"
	"time"
)

// Everybody who is connected gets everything, once, soon, and with few copies.
func TestEverybodyGetsEverything(t *testing.T) {
	for seed := range uint64(12) {
		size := []int{2, 3, 9, 30, 60, 100}[seed%6]
		t.Run(fmt.Sprintf("%d nodes, seed %d", size, seed), func(t *testing.T) {
			n := newNetwork(t, seed, size, nil)
			n.connect(6)
			n.talk(5, 200*time.Millisecond)
			n.run(30 * time.Second)
			copies, late := n.talk(40, 200*time.Millisecond)
			if missing, due := n.missing(0); missing > 0 {
				t.Errorf("%d of %d deliveries missing", missing, due)
			}
			if copies > 1.5 {
				t.Errorf("%.2f copies", copies)
			}
			p99, most := late[len(late)*99/100], late[len(late)-1]
			if p99 > 500*time.Millisecond || most > time.Second {
				t.Errorf("p99 %s, most %s", p99, most)
			}
			t.Logf("%.2f copies, p50 %s, p99 %s, most %s", copies, late[len(late)/2], p99, most)
		})
	}
}

// In a room where all are connected, and as many as an author reaches, nobody hands on anything.
func TestSmallRoomHasOneCopy(t *testing.T) {
	n := newNetwork(t, 1, 9, nil)
	for i, a := range n.nodes {
		for _, b := range n.nodes[:i] {
			n.link(a, b)
		}
	}
	n.run(10 * time.Second)
	if copies, late := n.talk(30, 10*time.Millisecond); copies != 1 || late[len(late)-1] > 40*time.Millisecond {
		t.Errorf("%.2f copies, the last one after %s", copies, late[len(late)-1])
	}
}

// What is lost on the way is announced by somebody, and fetched within about a second.
func TestLostFramesAreRepaired(t *testing.T) {
	for seed := range uint64(6) {
		n := newNetwork(t, 100+seed, 40, nil)
		n.connect(6)
		n.talk(5, 200*time.Millisecond)
		n.loss = 0.03
		before := len(n.said)
		_, late := n.talk(60, 200*time.Millisecond)
		missing, due := n.missing(before)
		if missing*500 > due {
			t.Errorf("%d of %d deliveries missing", missing, due)
		}
		if p := late[len(late)*998/1000]; p > 1500*time.Millisecond {
			t.Errorf("two in a thousand take more than %s", p)
		}
		t.Logf("%d of %d missing, p99 %s, most %s", missing, due, late[len(late)*99/100], late[len(late)-1])
	}
}

// All speak at once, again and again, so that prunes cross each other on every link: nobody ends up without
// an eager link, and nothing is lost.
func TestCrossingPrunesIsolateNobody(t *testing.T) {
	for seed := range uint64(20) {
		size := 3 + int(seed)%8
		n := newNetwork(t, 200+seed, size, func(_ int, c *Config) { c.Cover = 0 })
		for i, a := range n.nodes {
			for _, b := range n.nodes[:i] {
				n.link(a, b)
			}
		}
		for range 20 {
			for _, l := range n.nodes {
				n.say(l)
			}
			n.run(time.Duration(n.random.Int64N(int64(300 * time.Millisecond))))
		}
		n.run(5 * time.Second)
		if missing, due := n.missing(0); missing > 0 {
			t.Errorf("%d of %d deliveries missing", missing, due)
		}
		for _, l := range n.nodes {
			if l.tree.Eager() == 0 {
				t.Errorf("%s has no eager link", l.name)
			}
		}
	}
}

// A quarter of the nodes dies at once and nobody notices: who lives and is connected has nearly everything
// within a second all the same, and everything that is said later.
func TestDeathIsRepaired(t *testing.T) {
	for seed := range uint64(6) {
		n := newNetwork(t, 300+seed, 60, nil)
		for i := 1; i < len(n.nodes); i++ {
			for _, j := range n.random.Perm(i)[:min(i, 6)] {
				n.link(n.nodes[i], n.nodes[j])
			}
		}
		n.run(10 * time.Second)
		n.talk(10, 200*time.Millisecond)
		for _, i := range n.random.Perm(60)[:15] {
			n.kill(n.nodes[i], 30*time.Second)
		}
		before := len(n.said)
		_, late := n.talk(20, 200*time.Millisecond)
		missing, due := n.missing(before)
		if missing*200 > due {
			t.Errorf("%d of %d deliveries missing while nobody noticed", missing, due)
		}
		if p := late[len(late)*99/100]; p > time.Second {
			t.Errorf("one in a hundred takes more than %s", p)
		}
		n.run(40 * time.Second)
		before = len(n.said)
		copies, after := n.talk(20, 200*time.Millisecond)
		if missing, due := n.missing(before); missing > 0 {
			t.Errorf("%d of %d deliveries missing after it was noticed", missing, due)
		}
		t.Logf("%d of %d missing, p99 %s, then %s at %.2f copies", missing, due, late[len(late)*99/100], after[len(after)*99/100], copies)
	}
}

// Nodes come and go all the time.
func TestChurn(t *testing.T) {
	for seed := range uint64(4) {
		n := newNetwork(t, 400+seed, 40, nil)
		for i := 1; i < 20; i++ {
			for _, j := range n.random.Perm(i)[:min(i, 5)] {
				n.link(n.nodes[i], n.nodes[j])
			}
		}
		for i := 20; i < 40; i++ {
			n.nodes[i].dead = true // not there yet
		}
		n.run(10 * time.Second)
		for i := 20; i < 40; i++ {
			gone := n.nodes[i-20]
			n.kill(gone, 100*time.Millisecond)
			come := n.nodes[i]
			come.dead = false
			for _, j := range n.random.Perm(i - 1) {
				if other := n.nodes[j]; !other.dead && len(come.peers) < 5 {
					n.link(come, other)
				}
			}
			n.run(2 * time.Second)
			// What a newcomer missed is no concern of the tree's.
			before := len(n.said)
			_, late := n.talk(3, 200*time.Millisecond)
			if missing, due := n.missing(before); missing > 0 || late[len(late)-1] > 1500*time.Millisecond {
				t.Errorf("%d of %d deliveries missing, the last after %s", missing, due, late[len(late)-1])
			}
		}
	}
}

// A neighbour that passes nothing on delays what goes through it, once; then its place is another one's.
func TestSilentNeighbour(t *testing.T) {
	n := newNetwork(t, 500, 30, nil)
	n.connect(6)
	for _, l := range n.nodes[3:6] {
		l.mute = func(_ Peer, f Frame) bool { return f.Kind == KindMessage }
	}
	n.talk(5, 200*time.Millisecond)
	before := len(n.said)
	_, late := n.talk(40, 200*time.Millisecond)
	missing, due := n.missing(before)
	if missing*500 > due {
		t.Errorf("%d of %d deliveries missing", missing, due)
	}
	if p := late[len(late)*99/100]; p > time.Second {
		t.Errorf("one in a hundred takes more than %s", p)
	}
}

// Who announces what it does not deliver is asked once for each, is told on, and keeps nobody from getting it.
func TestLiarBreaksPromises(t *testing.T) {
	n := newNetwork(t, 600, 3, func(_ int, c *Config) { c.Cover = 0 })
	victim, liar, honest := n.nodes[0], n.nodes[1], n.nodes[2]
	n.link(victim, liar)
	n.link(victim, honest)
	liar.mute = func(Peer, Frame) bool { return true }
	victim.do(func(now time.Time) { victim.tree.Prune(now, honest.name) })
	honest.do(func(now time.Time) { honest.tree.Prune(now, victim.name) })
	id := ID{9}
	victim.do(func(now time.Time) {
		victim.tree.Have(now, liar.name, []ID{id, {10}})
		victim.tree.Have(now, honest.name, []ID{id})
	})
	honest.do(func(now time.Time) {
		honest.got[id] = now
		honest.tree.Publish(now, id, testTopic, append(id[:], "text"...))
	})
	n.run(2 * time.Second)
	if _, ok := victim.got[id]; !ok {
		t.Error("what two announced, of whom one lies, did not come")
	}
	if n.broken[string(liar.name)] == 0 || n.broken[string(honest.name)] != 0 {
		t.Errorf("broken promises %v", n.broken)
	}
	if victim.tree.byPeer[liar.name].eager || victim.tree.byPeer[liar.name].promises != 0 || len(victim.tree.missing) != 0 {
		t.Errorf("after it: %+v, %d missing", victim.tree.byPeer[liar.name], len(victim.tree.missing))
	}
}

// A hub hands everything to each of its leaves at once, and one copy only; a leaf that knows only the hub is
// never cut off.
func TestHub(t *testing.T) {
	n := newNetwork(t, 700, 32, func(i int, c *Config) {
		if i == 0 {
			c.Eager, c.MaxEager, c.Announce, c.Cover = 1024, 1024, 1024, 0
		}
	})
	for _, leaf := range n.nodes[1:] {
		n.link(n.nodes[0], leaf)
	}
	n.run(time.Second)
	for range 30 {
		for range 5 { // at once
			n.say(n.nodes[1+n.random.IntN(31)])
		}
		n.run(50 * time.Millisecond)
	}
	copies, late := n.talk(30, 20*time.Millisecond)
	if missing, due := n.missing(0); missing > 0 {
		t.Errorf("%d of %d deliveries missing", missing, due)
	}
	if copies != 1 || late[len(late)-1] > 80*time.Millisecond {
		t.Errorf("%.2f copies, the last one after %s", copies, late[len(late)-1])
	}
}

// With two hubs each leaf gets one copy from one of them; when that one falls silent, it is announced by the
// other.
func TestTwoHubs(t *testing.T) {
	n := newNetwork(t, 701, 22, func(i int, c *Config) {
		if i < 2 {
			c.Eager, c.MaxEager, c.Announce, c.Cover = 1024, 1024, 1024, 0
		}
	})
	for _, leaf := range n.nodes[2:] {
		n.link(n.nodes[0], leaf)
		n.link(n.nodes[1], leaf)
	}
	n.run(10 * time.Second)
	n.talk(10, 200*time.Millisecond)
	copies, _ := n.talk(40, 200*time.Millisecond)
	if copies > 1.5 {
		t.Errorf("%.2f copies with two hubs", copies)
	}
	n.nodes[0].dead = true // frozen: nobody notices
	before := len(n.said)
	_, late := n.talk(20, 200*time.Millisecond)
	if missing, due := n.missing(before); missing > 0 || late[len(late)-1] > time.Second {
		t.Errorf("%d of %d deliveries missing, the last one after %s", missing, due, late[len(late)-1])
	}
}

// Nothing a neighbour sends makes a tree keep more than its bounds, or give out more.
func TestBounds(t *testing.T) {
	n := newNetwork(t, 800, 3, nil)
	me, greedy := n.nodes[0], n.nodes[1]
	n.link(me, greedy)
	n.link(me, n.nodes[2])
	number := 0
	ids := func(count int) []ID {
		out := make([]ID, count)
		for i := range out {
			number++
			out[i] = ID{byte(number), byte(number >> 8), byte(number >> 16), 1}
		}
		return out
	}
	for range 100 {
		me.do(func(now time.Time) { me.tree.Have(now, greedy.name, ids(MaxHave)) })
	}
	if l := len(me.tree.missing); l > maxPromises {
		t.Errorf("%d announced messages are waited for", l)
	}
	n.run(3 * time.Second)
	if l := len(me.tree.missing) + len(me.tree.first) + len(me.tree.again); l != 0 {
		t.Errorf("%d are still waited for", l)
	}
	var said []ID
	for i := range MaxKept + 100 {
		id := ID{1, byte(i), byte(i >> 8)}
		said = append(said, id)
		me.do(func(now time.Time) { me.tree.Publish(now, id, testTopic, append(id[:], make([]byte, 2000)...)) })
	}
	if l := len(me.tree.kept.list); l > MaxKept || me.tree.kept.bytes > MaxKeptBytes {
		t.Errorf("%d messages of %d bytes are kept", l, me.tree.kept.bytes)
	}
	n.run(time.Second)
	pushes := n.pushes
	for range 100 {
		me.do(func(now time.Time) { me.tree.Graft(now, greedy.name, said[len(said)-MaxGraft:]) })
	}
	if got := n.pushes - pushes; got < MaxGraft || got > answerBurst {
		t.Errorf("%d messages were given out to one neighbour", got)
	}
	for range 3 * MaxSeen {
		me.tree.seen.add(ids(1)[0])
	}
	if l := len(me.tree.seen.young) + len(me.tree.seen.old); l > 2*MaxSeen {
		t.Errorf("%d ids are remembered", l)
	}
	n.run(2 * SeenFor)
	n.run(SeenFor)
	if !me.tree.seen.empty() || len(me.tree.kept.list) != 0 || !me.tree.Next().IsZero() {
		t.Errorf("an idle tree keeps %d ids, %d messages, and wants to be woken at %s", len(me.tree.seen.young), len(me.tree.kept.list), me.tree.Next())
	}
}

// After a change the eager links are laid anew, by one number even if several nodes begin: both ends of a link
// agree, and they are a tree of everybody. When nothing changes, nothing is laid.
func TestShapeIsATree(t *testing.T) {
	for seed := range uint64(10) {
		n := newNetwork(t, 1000+seed, 50, nil)
		n.connect(8)
		n.run(ShapeEvery + 3*ShapeAfter)
		links := 0
		for _, l := range n.nodes {
			links += l.tree.Eager()
			for _, p := range l.tree.peers {
				if o := n.node(p.peer).tree.byPeer[l.name]; o.eager != p.eager {
					t.Errorf("%s and %s do not agree on their link", l.name, p.peer)
				}
			}
		}
		if links != 2*49 {
			t.Errorf("%d eager links between 50 nodes", links/2)
		}
		reached := map[Peer]bool{n.nodes[0].name: true}
		for list := []*node{n.nodes[0]}; len(list) > 0; list = list[1:] {
			for _, p := range list[0].tree.peers {
				if p.eager && !reached[p.peer] {
					reached[p.peer] = true
					list = append(list, n.node(p.peer))
				}
			}
		}
		if len(reached) != 50 {
			t.Errorf("%d of 50 nodes hang together", len(reached))
		}
		before := n.nodes[0].tree.shape.number
		n.run(10 * time.Minute)
		if n.nodes[0].tree.shape.number != before {
			t.Error("the tree was laid anew though nothing changed")
		}
	}
}

// A neighbour that sends one number after the other has a few of them followed, and no more.
func TestShapesAreBounded(t *testing.T) {
	n := newNetwork(t, 1100, 2, nil)
	me, busy := n.nodes[0], n.nodes[1]
	n.link(me, busy)
	n.run(ShapeEvery)
	taken := 0
	for i := range 200 {
		before := me.tree.shape.number
		me.do(func(now time.Time) { me.tree.Shape(now, busy.name, ID{byte(250 - i)}) })
		if me.tree.shape.number != before {
			taken++
		}
	}
	if taken == 0 || taken > maxShapes {
		t.Errorf("%d numbers were followed at once, want 1 to %d", taken, maxShapes)
	}
}

// What is refused costs one look for each copy's bytes, and an untrusted neighbour has no eager link.
func TestRefusedAndDistrusted(t *testing.T) {
	trusted := true
	n := newNetwork(t, 900, 2, func(_ int, c *Config) { c.Trusted = func(Peer) bool { return trusted } })
	me, bad := n.nodes[0], n.nodes[1]
	n.link(me, bad)
	id := ID{1}
	if !me.tree.Arrived(n.now, bad.name, id, 0, false) {
		t.Fatal("a new message is known")
	}
	me.tree.Refuse(id)
	if me.tree.Arrived(n.now, bad.name, id, 0, false) {
		t.Error("the same bytes are looked at again")
	}
	trusted = false
	me.do(func(now time.Time) { me.tree.Distrust(now, bad.name) })
	me.do(func(now time.Time) { me.tree.Graft(now, bad.name, nil) })
	me.do(func(now time.Time) { me.tree.Shape(now, bad.name, ID{1}) })
	n.run(time.Second)
	if me.tree.Eager() != 0 {
		t.Error("who is not trusted has an eager link")
	}
}
