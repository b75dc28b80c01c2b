package ratchet

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"slices"
	"testing"
)

// The model: two nodes with what a chat keeps beside the ratchet (an outbox with the plaintext, an
// inbox by message id, a dedupe row per Sealed DM) and a network that delays, drops, duplicates,
// reorders, replays and corrupts. Nodes stop and start, lose their state, go back to an old one,
// and begin sessions at any time. Whatever happens:
//
//   - a message that does not open changes no byte of state;
//   - an altered message never opens, and a Sealed DM opens at most once (unless the state itself
//     went back to before it was opened);
//   - once the network is kind again, every message sent has been shown, exactly once;
//   - both nodes seal on the same session;
//   - and in the calm half of the seeds, where no state is lost, every Sealed DM that arrives
//     unaltered opens, however late and in whatever order.

const (
	modelSteps   = 600
	restartEvery = 25 // steps between restarts of one node: the model's hour
	resealAfter  = 3  // retries of the same bytes before a message is sealed again
)

type packet struct {
	serial int
	to     *modelNode
	sealed []byte
	id     uint32 // message inside; 0 for acknowledgements only
}

type outgoing struct {
	session SessionID
	packet  packet
	retries int
}

type modelNode struct {
	*side
	peer    *modelNode
	network *model

	outbox  map[uint32]*outgoing
	shown   map[uint32]int
	sent    int
	acks    []uint32       // owed to the peer
	dedupe  map[int]uint32 // serial -> message id, of what was opened
	history []int          // serials opened, in order; a rollback cuts it
	saved   []savedState
	restart int // step before which no restart is allowed
}

type savedState struct {
	bytes  []byte
	opened int // length of history then
}

type model struct {
	t        *testing.T
	seed     uint64
	calm     bool // no lost or rolled-back states, no sessions beyond the first two
	rand     *rand.Rand
	step     int
	nodes    [2]*modelNode
	flying   []packet
	archive  []packet // delivered once at least
	serial   int
	messages uint32
	counts   map[string]int
}

func newModel(t *testing.T, seed uint64, devices [2]*device) *model {
	m := &model{t: t, seed: seed, calm: seed%2 == 0, rand: rand.New(rand.NewPCG(seed, 1)), counts: map[string]int{}}
	random := seeded(seed)
	for i := range m.nodes {
		d := *devices[i]
		d.random = random
		m.nodes[i] = &modelNode{
			side:    &side{&d, NewSet(d.party, devices[1-i].party), t},
			network: m, outbox: map[uint32]*outgoing{}, shown: map[uint32]int{}, dedupe: map[int]uint32{},
		}
	}
	m.nodes[0].peer, m.nodes[1].peer = m.nodes[1], m.nodes[0]
	return m
}

func (m *model) fatalf(format string, args ...any) {
	m.t.Helper()
	m.t.Fatalf("seed %d, step %d: %s", m.seed, m.step, fmt.Sprintf(format, args...))
}

func TestModel(t *testing.T) {
	seeds := uint64(1000)
	switch {
	case os.Getenv("STARLING_FULL") != "":
		seeds = 10000
	case testing.Short():
		seeds = 60
	}
	devices := [2]*device{newDevice(70), newDevice(71)} // making ML-KEM keys costs the most
	const shards = 4
	totals := make([]map[string]int, shards)
	t.Run("seeds", func(t *testing.T) {
		for shard := range uint64(shards) {
			t.Run(fmt.Sprintf("shard %d", shard), func(t *testing.T) {
				t.Parallel()
				totals[shard] = map[string]int{}
				for seed := shard; seed < seeds; seed += shards {
					m := newModel(t, seed, devices)
					m.run()
					for what, n := range m.counts {
						totals[shard][what] += n
					}
				}
			})
		}
	})
	if t.Failed() {
		return
	}
	sum := map[string]int{}
	for _, c := range totals {
		for what, n := range c {
			sum[what] += n
		}
	}
	t.Logf("%d seeds x %d steps: %v", seeds, modelSteps, sum)
	// A model in which something never happens proves nothing about it.
	for _, what := range []string{
		"shown", "late", "duplicate", "fresh", "replay refused", "corrupt refused", "reloaded", "rolled back", "state lost",
		"crossed initiation", "restart", "resealed", "session replaced", "unknown session", "undecryptable",
	} {
		if sum[what] == 0 {
			t.Errorf("%q never happened in %d seeds", what, seeds)
		}
	}
}

func (m *model) run() {
	if m.rand.IntN(2) == 0 { // both begin before either hears of it
		m.nodes[0].send()
		m.nodes[1].send()
		m.counts["crossed initiation"]++
	}
	for m.step = range modelSteps {
		m.act(m.nodes[m.rand.IntN(2)])
	}
	m.drain()
	m.agree()
	for _, n := range m.nodes {
		if len(n.shown) != n.peer.sent {
			m.fatalf("%d of %d messages were shown", len(n.shown), n.peer.sent)
		}
		for id, times := range n.shown {
			if times != 1 {
				m.fatalf("message %d was shown %d times", id, times)
			}
		}
	}
}

// act does one random thing, mostly at n.
func (m *model) act(n *modelNode) {
	switch p := m.rand.IntN(1000); {
	case p < 200:
		n.send()
	case p < 560:
		if k, ok := m.pick(); ok {
			m.take(k)
		}
	case p < 640: // duplicate: it stays in flight
		if k, ok := m.pick(); ok {
			m.flying[k].to.receive(m.flying[k])
		}
	case p < 690:
		if k, ok := m.pick(); ok {
			m.flying = slices.Delete(m.flying, k, k+1)
		}
	case p < 750:
		m.corrupt()
	case p < 810:
		m.replay()
	case p < 880:
		n.retry()
	case p < 940:
		n.flush()
	case p < 980:
		n.saved = append(n.saved, savedState{n.Marshal(), len(n.history)})
		n.reload()
		m.counts["reloaded"]++
	case m.calm:
	case p < 983:
		n.rollBack()
	case p < 985:
		n.Set = NewSet(n.self, n.Set.peer)
		n.forget(0)
		m.counts["state lost"]++
	case p < 992: // a session for no reason, on both sides at once now and then
		n.initiate()
		if m.rand.IntN(3) == 0 {
			n.peer.initiate()
			m.counts["crossed initiation"]++
		}
	default:
		n.restartIfDue()
	}
}

func (m *model) pick() (int, bool) {
	if len(m.flying) == 0 {
		return 0, false
	}
	return m.rand.IntN(len(m.flying)), true
}

// take delivers a packet in flight.
func (m *model) take(k int) {
	p := m.flying[k]
	m.flying = slices.Delete(m.flying, k, k+1)
	if k > 0 {
		m.counts["late"]++
	}
	p.to.receive(p)
	m.archive = append(m.archive, p)
}

func (m *model) corrupt() {
	k, ok := m.pick()
	if !ok {
		return
	}
	p := m.flying[k]
	bad := bytes.Clone(p.sealed)
	bad[m.rand.IntN(len(bad))] ^= 1 << m.rand.IntN(8)
	if m.rand.IntN(10) == 0 {
		bad = bad[:m.rand.IntN(len(bad))]
	}
	if _, err := p.to.tryOpen(bad); err == nil {
		m.fatalf("an altered message opened")
	}
	m.counts["corrupt refused"]++
}

func (m *model) replay() {
	if len(m.archive) == 0 {
		return
	}
	p := m.archive[m.rand.IntN(len(m.archive))]
	_, before := p.to.dedupe[p.serial]
	p.to.receive(p) // which fails the test if it opens a second time
	if before {
		m.counts["replay refused"]++
	}
}

// tryOpen opens a Sealed DM and checks that a failure changes nothing.
func (n *modelNode) tryOpen(sealed []byte) (Opened, error) {
	before := n.Marshal()
	opened, err := n.Open(n.secrets, sealed, nil)
	if err != nil {
		if !bytes.Equal(n.Marshal(), before) {
			n.network.fatalf("a message that did not open (%v) changed the state", err)
		}
		for what, why := range map[string]error{"unknown session": ErrUnknownSession, "undecryptable": ErrUndecryptable, "too far ahead": ErrTooFarAhead} {
			if errors.Is(err, why) {
				n.network.counts[what]++
			}
		}
	}
	return opened, err
}

func (n *modelNode) receive(p packet) {
	fresh := n.Fresh(p.sealed)
	opened, err := n.tryOpen(p.sealed)
	id, before := n.dedupe[p.serial]
	if fresh {
		n.network.counts["fresh"]++
	}
	switch {
	case fresh && (before || err != nil):
		n.network.fatalf("a Sealed DM was called fresh that was opened before (%v) or does not open: %v", before, err)
	case err != nil && before:
		n.owe(id) // the acknowledgement was lost
		n.network.counts["duplicate"]++
		return
	case err != nil:
		if n.network.calm {
			n.network.fatalf("message %d did not open: %v", p.id, err)
		}
		return
	case before:
		n.network.fatalf("a Sealed DM opened twice")
	}
	n.dedupe[p.serial] = p.id
	n.history = append(n.history, p.serial)
	for _, replaced := range opened.Replaced {
		n.network.counts["session replaced"]++
		for _, o := range n.outbox {
			if o.session == replaced {
				o.retries = resealAfter
			}
		}
	}
	b := opened.Content
	if id := binary.BigEndian.Uint32(b); id != 0 {
		n.owe(id)
		if n.shown[id] == 0 { // the inbox knows ids: sealed twice is shown once
			n.shown[id]++
			n.network.counts["shown"]++
		}
	}
	for b = b[4:]; len(b) > 0; b = b[4:] {
		delete(n.outbox, binary.BigEndian.Uint32(b))
	}
}

func (n *modelNode) owe(id uint32) {
	if id != 0 && !slices.Contains(n.acks, id) {
		n.acks = append(n.acks, id)
	}
}

// seal makes a packet of a message id (0: none) and the acknowledgements owed, and lets it fly.
func (n *modelNode) seal(id uint32) (packet, SessionID) {
	if n.sealing() == nil {
		n.initiate()
	}
	content := binary.BigEndian.AppendUint32(nil, id)
	for _, ack := range n.acks {
		content = binary.BigEndian.AppendUint32(content, ack)
	}
	n.acks = nil
	seal := n.Seal
	if id == 0 {
		seal = n.SealReceipt
	}
	sealed, session, err := seal(n.random, content, nil)
	if err != nil {
		n.network.fatalf("sealing: %v", err)
	}
	m := n.network
	m.serial++
	p := packet{m.serial, n.peer, sealed, id}
	m.flying = append(m.flying, p)
	return p, session
}

func (n *modelNode) send() {
	n.network.messages++
	n.sent++
	id := n.network.messages
	p, session := n.seal(id)
	n.outbox[id] = &outgoing{session, p, 0}
}

// flush sends the acknowledgements owed.
func (n *modelNode) flush() {
	if len(n.acks) > 0 {
		n.seal(0)
	}
}

// retry sends one message of the outbox again: the same bytes, or sealed anew if they cannot
// open any more or have had their chances.
func (n *modelNode) retry() {
	if len(n.outbox) == 0 {
		return
	}
	ids := make([]uint32, 0, len(n.outbox))
	for id := range n.outbox {
		ids = append(ids, id)
	}
	slices.Sort(ids)
	id := ids[n.network.rand.IntN(len(ids))]
	o := n.outbox[id]
	if o.retries >= resealAfter || !n.Holds(o.session) {
		o.packet, o.session = n.seal(id)
		o.retries = 0
		n.network.counts["resealed"]++
		return
	}
	o.retries++
	n.network.flying = append(n.network.flying, o.packet)
}

func (n *modelNode) initiate() {
	if _, err := n.Set.initiate(n.random, derandomized(n.random), n.secrets, n.peer.bundle()); err != nil {
		n.network.fatalf("initiating: %v", err)
	}
}

func (n *modelNode) restartIfDue() {
	if n.network.calm || !n.NeedsRestart() || n.network.step < n.restart {
		return
	}
	n.restart = n.network.step + restartEvery
	n.initiate()
	n.seal(0)
	n.network.counts["restart"]++
}

// rollBack puts an old state in place of the current one; outbox and inbox stay, as after a
// damaged store that kept some rows.
func (n *modelNode) rollBack() {
	if len(n.saved) == 0 {
		return
	}
	old := n.saved[n.network.rand.IntN(len(n.saved))]
	n.restore(old.bytes)
	n.forget(old.opened)
	n.network.counts["rolled back"]++
}

// forget allows what was opened later to open again: the state does not know of it any more.
func (n *modelNode) forget(opened int) {
	for _, serial := range n.history[min(opened, len(n.history)):] {
		delete(n.dedupe, serial)
	}
	n.history = n.history[:min(opened, len(n.history))]
	n.saved = slices.DeleteFunc(n.saved, func(s savedState) bool { return s.opened > opened })
}

// drain is the network turned kind: everything arrives, in any order, and is tried again until
// all is acknowledged.
func (m *model) drain() {
	for range 40 {
		for len(m.flying) > 0 {
			m.take(m.rand.IntN(len(m.flying)))
		}
		m.step += restartEvery
		pending := 0
		for _, n := range m.nodes {
			n.restartIfDue()
			n.flush()
			for range len(n.outbox) {
				n.retry()
			}
			pending += len(n.outbox)
		}
		if pending == 0 && len(m.flying) == 0 {
			return
		}
	}
	m.fatalf("%d and %d messages were never acknowledged", len(m.nodes[0].outbox), len(m.nodes[1].outbox))
}

// agree checks that more exchanges bring both to one session.
func (m *model) agree() {
	a, b := m.nodes[0], m.nodes[1]
	for range AstrayBeforeRestart + 10 {
		a.seal(0)
		b.seal(0)
		m.drain()
		if a.sealing().id() == b.sealing().id() {
			return
		}
		m.counts["apart"]++
	}
	m.fatalf("the nodes seal on different sessions")
}
