// Package chattest is an in-memory network of whole chat services in virtual time, for tests: gossip
// that loses, delays, repeats and is cut in two, streams that keep order, and clocks that disagree.
// It is meant to run inside a testing/synctest bubble. Everything random follows from a seed.
package chattest

import (
	"bytes"
	"context"
	"fmt"
	"math/rand/v2"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/starling-chat/starling/chat"
	"github.com/starling-chat/starling/chat/wire"
)

// Conditions are how well the network carries. The zero value is instant and perfect.
type Conditions struct {
	// Loss and Repeat are the chances from 0 to 1 that gossip loses or repeats a message for one receiver.
	Loss, Repeat float64
	// Delay and Jitter are how long everything takes: Delay plus up to Jitter.
	Delay, Jitter time.Duration
	// Rate is how many gossip messages a second a node can take in; what does not fit into its queue of
	// Queue messages is lost. 0 is no bound.
	Rate  int
	Queue int
}

// Network connects nodes. All methods may be called from any goroutine.
type Network struct {
	t testing.TB

	mu     sync.Mutex // guards everything below
	random *rand.Rand
	cond   Conditions
	nodes  map[wire.DeviceID]*Node
	order  []*Node                   // of nodes, so that what is random follows from the seed alone
	cut    map[[2]wire.DeviceID]bool // pairs that cannot reach each other, smaller first
	deaf   map[[2]wire.DeviceID]bool // pairs between which gossip does not pass, though streams do
	silent bool                      // what is said on streams comes nowhere
	found  map[[32]byte]map[wire.DeviceID]bool
	table  map[wire.RecordKey][]byte  // records left in the lookup table
	frames map[[2]wire.DeviceID]*line // what is on its way from one node to another on their stream
	gossip map[[2]wire.DeviceID]*line // the same for gossip
	relays []*Relay
	Stats  Stats

	watched   []string
	seen      []string
	recording bool
	record    []Recorded
}

// line carries things from one node to another in the order in which they were put on it, in real time too,
// where timers that end at about the same moment run in any order. Guarded by the network's mu.
type line struct {
	last    time.Time // when what was put on it last arrives
	waiting []func()
	due     int  // so many of them have arrived and wait for the one before
	busy    bool // one is being handed over
}

// Stats counts what the network did. Read it with [Network.Count].
type Stats struct {
	Published int // calls of Publish
	Carried   int // deliveries
	Lost      int // by chance
	Overrun   int // because a receiver's queue was full
	Frames    int // over direct streams
}

// New returns an empty network.
func New(t testing.TB, seed uint64) *Network {
	return &Network{
		t: t, random: rand.New(rand.NewPCG(seed, 0)),
		nodes: make(map[wire.DeviceID]*Node), cut: make(map[[2]wire.DeviceID]bool),
		found: make(map[[32]byte]map[wire.DeviceID]bool), table: make(map[wire.RecordKey][]byte),
		frames: make(map[[2]wire.DeviceID]*line), gossip: make(map[[2]wire.DeviceID]*line),
	}
}

// Set changes the conditions.
func (n *Network) Set(c Conditions) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.cond = c
}

// Count returns what the network did so far.
func (n *Network) Count() Stats {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.Stats
}

// Intn returns a number below max that follows from the seed.
func (n *Network) Intn(max int) int {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.random.IntN(max)
}

func pair(a, b wire.DeviceID) [2]wire.DeviceID {
	if string(a[:]) > string(b[:]) {
		a, b = b, a
	}
	return [2]wire.DeviceID{a, b}
}

// Partition lets only nodes of the same group reach each other.
func (n *Network) Partition(groups ...[]*Node) {
	n.Heal()
	var pairs [][2]*Node
	n.mu.Lock()
	for i, g := range groups {
		for _, other := range groups[i+1:] {
			for _, a := range g {
				for _, b := range other {
					n.cut[pair(a.id, b.id)] = true
					pairs = append(pairs, [2]*Node{a, b})
				}
			}
		}
	}
	n.mu.Unlock()
	for _, p := range pairs {
		p[0].noticed(p[1].id, chat.PathNone)
		p[1].noticed(p[0].id, chat.PathNone)
	}
}

// Deafen keeps gossip, and nothing else, from passing between nodes of different groups, as when the only path
// between them is a relayed connection. No groups let it pass everywhere.
func (n *Network) Deafen(groups ...[]*Node) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.deaf = make(map[[2]wire.DeviceID]bool)
	for i, g := range groups {
		for _, other := range groups[i+1:] {
			for _, a := range g {
				for _, b := range other {
					n.deaf[pair(a.id, b.id)] = true
				}
			}
		}
	}
}

// Silence makes the nodes' streams open and stay silent, as over a connection whose other end has vanished.
func (n *Network) Silence(on bool) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.silent = on
}

// Heal lets every node reach every other one.
func (n *Network) Heal() {
	n.mu.Lock()
	cut := n.cut
	n.cut = make(map[[2]wire.DeviceID]bool)
	nodes := n.nodes
	n.mu.Unlock()
	for p := range cut {
		if a, b := nodes[p[0]], nodes[p[1]]; a.up() && b.up() {
			a.noticed(b.id, chat.PathLAN)
			b.noticed(a.id, chat.PathLAN)
		}
	}
}

// reachable says whether frames pass between two nodes; mu is held.
func (n *Network) reachable(a, b wire.DeviceID) bool {
	x, y := n.nodes[a], n.nodes[b]
	return x != nil && y != nil && x.running && y.running && !n.cut[pair(a, b)]
}

// delay returns how long the next thing takes; mu is held.
func (n *Network) delay() time.Duration {
	d := n.cond.Delay
	if n.cond.Jitter > 0 {
		d += time.Duration(n.random.Int64N(int64(n.cond.Jitter)))
	}
	return d
}

// Watch looks for texts in everything that travels from now on; see Seen.
func (n *Network) Watch(texts ...string) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.watched = texts
}

// Recorded is an event as it was published.
type Recorded struct {
	Topic  wire.TopicKey
	Sealed []byte
}

// Record keeps every event that is published from now on.
func (n *Network) Record() {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.recording = true
}

// Recording returns what was published since Record.
func (n *Network) Recording() []Recorded {
	n.mu.Lock()
	defer n.mu.Unlock()
	return slices.Clone(n.record)
}

// Seen returns the watched texts that travelled in clear.
func (n *Network) Seen() []string {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.seen
}

// watch looks for watched texts; mu is held.
func (n *Network) watch(b []byte) {
	for _, text := range n.watched {
		if bytes.Contains(b, []byte(text)) {
			n.seen = append(n.seen, text)
		}
	}
}

// carry runs fn after a delay, and after everything that was put on the same line before. mu is held.
func (n *Network) carry(lines map[[2]wire.DeviceID]*line, from, to wire.DeviceID, d time.Duration, fn func()) {
	key := [2]wire.DeviceID{from, to}
	l := lines[key]
	if l == nil {
		l = new(line)
		lines[key] = l
	}
	at := time.Now().Add(max(d, 1)) // never inside the caller
	if !at.After(l.last) {
		at = l.last.Add(1)
	}
	l.last = at
	l.waiting = append(l.waiting, fn)
	time.AfterFunc(time.Until(at), func() { n.arrive(l) })
}

// arrive hands over the first thing on a line. If one is being handed over at this moment, that goroutine does
// it, so that nobody waits in a way that virtual time would not see.
func (n *Network) arrive(l *line) {
	n.mu.Lock()
	defer n.mu.Unlock()
	l.due++
	if l.busy {
		return
	}
	l.busy = true
	for l.due > 0 {
		fn := l.waiting[0]
		l.waiting, l.due = l.waiting[1:], l.due-1
		n.mu.Unlock()
		fn()
		n.mu.Lock()
	}
	l.busy = false
}

// publish carries a gossip message to everybody in the topic.
func (n *Network) publish(from *Node, topic wire.TopicKey, sealed []byte) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.Stats.Published++
	n.watch(sealed)
	if n.recording {
		n.record = append(n.record, Recorded{topic, sealed})
	}
	n.mirror(from, topic, sealed)
	for _, to := range n.order {
		if to == from || to.topics[topic] == nil || !n.reachable(from.id, to.id) || n.deaf[pair(from.id, to.id)] {
			continue
		}
		copies := 1
		if n.random.Float64() < n.cond.Repeat {
			copies = 2
		}
		for range copies {
			if n.random.Float64() < n.cond.Loss {
				n.Stats.Lost++
				continue
			}
			behind, ok := to.queue(n.cond)
			if !ok {
				n.Stats.Overrun++
				continue
			}
			n.Stats.Carried++
			d := n.delay() + behind
			if deliver := func() { to.deliver(topic, from.id, sealed) }; n.cond.Jitter > 0 {
				n.later(d, deliver) // gossip takes many ways: one message overtakes another
			} else {
				n.carry(n.gossip, from.id, to.id, d, deliver)
			}
		}
	}
}

// neighbour says whether anybody else takes part in a topic who can be reached, relays included.
func (n *Network) neighbour(from *Node, topic wire.TopicKey) bool {
	n.mu.Lock()
	relays := n.relays
	n.mu.Unlock()
	for _, r := range relays {
		if r.isUp() {
			return true
		}
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	for id, other := range n.nodes {
		if other != from && other.topics[topic] != nil && n.reachable(from.id, id) {
			return true
		}
	}
	return false
}

// mirror offers a gossip message to the relays; mu is held.
func (n *Network) mirror(from *Node, topic wire.TopicKey, raw []byte) {
	for _, r := range n.relays {
		if n.random.Float64() < n.cond.Loss {
			n.Stats.Lost++
			continue
		}
		if sealed, err := from.check.CheckSealed(topic, raw); err == nil {
			n.later(n.delay(), func() { r.keep(sealed) })
		}
	}
}

// later runs fn after a delay.
func (n *Network) later(d time.Duration, fn func()) {
	if d == 0 {
		d = 1 // a nanosecond: never inside the caller
	}
	time.AfterFunc(d, fn)
}

// send carries a frame in order.
func (n *Network) send(from *Node, to wire.DeviceID, frame []byte) error {
	n.mu.Lock()
	defer n.mu.Unlock()
	if !n.reachable(from.id, to) {
		return fmt.Errorf("sending to %s: %w", to, chat.ErrUnreachable)
	}
	n.Stats.Frames++
	n.watch(frame)
	node := n.nodes[to]
	n.carry(n.frames, from.id, to, n.delay(), func() { node.frame(from.id, frame) })
	return nil
}

// queue puts a gossip message into the node's queue, which drains at the given rate. It returns how long
// the message waits there, or false when the queue is full. The network's mu is held.
func (nd *Node) queue(c Conditions) (behind time.Duration, ok bool) {
	if c.Rate == 0 {
		return 0, true
	}
	now := time.Now()
	nd.queued = max(0, nd.queued-now.Sub(nd.drained).Seconds()*float64(c.Rate))
	nd.drained = now
	if nd.queued+1 > float64(c.Queue) {
		return 0, false
	}
	nd.queued++
	return time.Duration(nd.queued / float64(c.Rate) * float64(time.Second)), true
}

// announce makes a device findable until ctx ends.
func (n *Network) announce(ctx context.Context, key [32]byte, dev wire.DeviceID) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.found[key] == nil {
		n.found[key] = make(map[wire.DeviceID]bool)
	}
	n.found[key][dev] = true
	context.AfterFunc(ctx, func() {
		n.mu.Lock()
		defer n.mu.Unlock()
		delete(n.found[key], dev)
	})
}

// TableRecord returns what lies in the lookup table under a key.
func (n *Network) TableRecord(key wire.RecordKey) []byte {
	n.mu.Lock()
	defer n.mu.Unlock()
	return slices.Clone(n.table[key])
}

// SetTableRecord puts anything into the lookup table, as whoever keeps it could.
func (n *Network) SetTableRecord(key wire.RecordKey, value []byte) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.table[key] = slices.Clone(value)
}
