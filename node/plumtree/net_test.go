package plumtree

import (
	"container/heap"
	"encoding/binary"
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"
	"time"
)

// testTopic is the topic of all tests.
var testTopic = [TopicSize]byte{7}

// network is trees that send each other frames in virtual time. All of it comes from a seed.
type network struct {
	t      *testing.T
	random *rand.Rand
	now    time.Time
	events queue
	order  int
	nodes  []*node
	loss   float64 // share of frames that find the queue full
	said   []utterance
	pushes int // messages that were sent
	broken map[string]int
}

type node struct {
	net    *network
	name   Peer
	tree   *Tree
	dead   bool
	due    time.Time
	got    map[ID]time.Time
	copies int
	peers  map[Peer]bool
	last   map[Peer]time.Time // when the last frame to a neighbour arrives: streams keep the order
	// mute says which frames a node of ill will does not send; nil: it is honest.
	mute func(to Peer, f Frame) bool
}

type utterance struct {
	id     ID
	author *node
	at     time.Time
}

type event struct {
	at    time.Time
	order int
	do    func()
}

type queue []event

func (q queue) Len() int { return len(q) }
func (q queue) Less(i, j int) bool {
	return q[i].at.Before(q[j].at) || q[i].at.Equal(q[j].at) && q[i].order < q[j].order
}
func (q queue) Swap(i, j int) { q[i], q[j] = q[j], q[i] }
func (q *queue) Push(x any)   { *q = append(*q, x.(event)) }
func (q *queue) Pop() any {
	e := (*q)[len(*q)-1]
	*q = (*q)[:len(*q)-1]
	return e
}

func newNetwork(t *testing.T, seed uint64, nodes int, change func(i int, c *Config)) *network {
	t.Helper()
	t.Logf("seed %d", seed)
	n := &network{t: t, random: rand.New(rand.NewPCG(seed, 1)), now: time.Unix(1e9, 0), broken: make(map[string]int)}
	for i := range nodes {
		c := Config{Cover: MaxCover, Random: rand.New(rand.NewPCG(seed, uint64(i)+2))}
		if change != nil {
			change(i, &c)
		}
		l := &node{net: n, name: Peer(fmt.Sprintf("node %d", i)), got: make(map[ID]time.Time), peers: make(map[Peer]bool), last: make(map[Peer]time.Time)}
		l.tree = New(c, l)
		n.nodes = append(n.nodes, l)
	}
	return n
}

// connect links nodes to some of those before them, one at least, and lets the tree settle.
func (n *network) connect(most int) {
	for i := 1; i < len(n.nodes); i++ {
		for _, j := range n.random.Perm(i)[:min(i, 1+n.random.IntN(most))] {
			n.link(n.nodes[i], n.nodes[j])
		}
	}
	n.run(10 * time.Second)
}

func (n *network) link(a, b *node) {
	a.peers[b.name], b.peers[a.name] = true, true
	a.do(func(now time.Time) { a.tree.AddPeer(now, b.name) })
	b.do(func(now time.Time) { b.tree.AddPeer(now, a.name) })
}

// at has something done later.
func (n *network) at(when time.Time, do func()) {
	n.order++
	heap.Push(&n.events, event{when, n.order, do})
}

func (n *network) run(d time.Duration) {
	end := n.now.Add(d)
	for len(n.events) > 0 && !n.events[0].at.After(end) {
		e := heap.Pop(&n.events).(event)
		n.now = e.at
		e.do()
	}
	n.now = end
}

func (n *network) node(p Peer) *node {
	for _, l := range n.nodes {
		if l.name == p {
			return l
		}
	}
	return nil
}

// do does something at a node and has it woken when it wants to be.
func (l *node) do(f func(now time.Time)) {
	if l.dead {
		return
	}
	f(l.net.now)
	next := l.tree.Next()
	if next.IsZero() || !l.due.IsZero() && !next.Before(l.due) {
		return
	}
	l.due = next
	if next.Before(l.net.now) {
		next = l.net.now
	}
	l.net.at(next, func() {
		l.due = time.Time{}
		l.do(func(now time.Time) {
			for _, p := range l.tree.Tick(now) {
				l.net.broken[string(p)]++
			}
		})
	})
}

// Message implements Out.
func (l *node) Message(to Peer, m *Message) bool {
	l.net.pushes++
	return l.send(to, m.Frame)
}

// Control implements Out.
func (l *node) Control(to Peer, kind Kind, ids []ID) bool {
	return l.send(to, ControlFrame(kind, testTopic, ids))
}

// send carries a frame: 20 to 40 ms, in order. False: there was no room for it.
func (l *node) send(to Peer, raw []byte) bool {
	n := l.net
	f, err := ParseFrame(raw[Prefix:])
	if err != nil {
		n.t.Fatalf("a frame that cannot be read: %v", err)
	}
	if l.mute != nil && l.mute(to, f) {
		return true
	}
	if n.loss > 0 && n.random.Float64() < n.loss {
		return false
	}
	at := n.now.Add(20*time.Millisecond + time.Duration(n.random.Int64N(int64(20*time.Millisecond))))
	if at.Before(l.last[to]) {
		at = l.last[to]
	}
	l.last[to] = at
	other := n.node(to)
	raw = slices.Clone(raw)
	n.at(at, func() {
		if !other.dead && other.peers[l.name] {
			other.do(func(now time.Time) { other.take(now, l.name, raw) })
		}
	})
	return true
}

// take handles a frame as a node does that finds everything valid.
func (l *node) take(now time.Time, from Peer, raw []byte) {
	f, err := ParseFrame(raw[Prefix:])
	if err != nil {
		l.net.t.Fatal(err)
	}
	switch f.Kind {
	case KindMessage:
		id := ID(f.Data)
		l.copies++
		if !l.tree.Arrived(now, from, id, f.Wave, len(f.Cover) > 0) {
			return
		}
		if _, again := l.got[id]; again {
			l.net.t.Errorf("%s delivers a message twice", l.name)
		}
		l.got[id] = now
		l.tree.Accept(now, from, &Message{ID: id, Wave: f.Wave, Frame: Uncovered(raw)}, f.Cover)
	case KindHave:
		l.tree.Have(now, from, f.IDs)
	case KindGraft:
		l.tree.Graft(now, from, f.IDs)
	case KindPrune:
		l.tree.Prune(now, from)
	case KindShape:
		l.tree.Shape(now, from, f.IDs[0])
	}
}

// say has a node publish something.
func (n *network) say(l *node) {
	var id ID
	binary.BigEndian.PutUint64(id[:], uint64(len(n.said)+1)*0x9e3779b97f4a7c15)
	n.said = append(n.said, utterance{id, l, n.now})
	l.do(func(now time.Time) {
		l.got[id] = now
		if !l.tree.Publish(now, id, testTopic, append(id[:], "text"...)) {
			n.t.Error("what is new counts as said")
		}
	})
}

// talk has living nodes say something, and returns how often a node received each message, and the latencies.
func (n *network) talk(messages int, pause time.Duration) (copies float64, late []time.Duration) {
	n.t.Helper()
	n.run(time.Second) // nothing is under way
	before := len(n.said)
	for _, l := range n.nodes {
		l.copies = 0
	}
	for range messages {
		l := n.nodes[n.random.IntN(len(n.nodes))]
		for l.dead || l.mute != nil {
			l = n.nodes[n.random.IntN(len(n.nodes))]
		}
		n.say(l)
		n.run(pause)
	}
	n.run(5 * time.Second)
	got, all := 0, 0
	for _, l := range n.nodes {
		if l.dead || l.mute != nil {
			continue
		}
		all += l.copies
		for _, u := range n.said[before:] {
			if at, ok := l.got[u.id]; u.author != l && ok {
				got++
				late = append(late, at.Sub(u.at))
			}
		}
	}
	slices.Sort(late)
	return float64(all) / float64(max(got, 1)), late
}

// missing counts what honest living nodes did not get of those they are connected with, through such nodes.
func (n *network) missing(since int) (missing, due int) {
	for _, u := range n.said[since:] {
		for _, l := range n.reach(u.author) {
			if _, ok := l.got[u.id]; !ok {
				missing++
			}
			due++
		}
	}
	return missing, due
}

func (n *network) reach(from *node) []*node {
	out, seen := []*node{from}, map[Peer]bool{from.name: true}
	for i := 0; i < len(out); i++ {
		for p := range out[i].peers {
			if o := n.node(p); !seen[p] && !o.dead && o.mute == nil {
				seen[p] = true
				out = append(out, o)
			}
		}
	}
	return out
}

// kill ends a node; its neighbours notice after a while, as they do when nobody says farewell.
func (n *network) kill(l *node, noticed time.Duration) {
	l.dead = true
	n.at(n.now.Add(noticed), func() {
		for p := range l.peers {
			o := n.node(p)
			o.do(func(now time.Time) { o.tree.RemovePeer(now, l.name) })
		}
	})
}
