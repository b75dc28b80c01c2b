package node

import (
	"bufio"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"maps"
	"math/rand/v2"
	"time"

	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/libp2p/go-libp2p/core/protocol"
	"golang.org/x/time/rate"

	"github.com/starling-chat/starling/chat"
	"github.com/starling-chat/starling/chat/wire"
	"github.com/starling-chat/starling/node/plumtree"
)

// treeProtocol carries what is said in topics: docs/spec/tree.md. Each side writes on a stream of its own.
const treeProtocol protocol.ID = "/starling/tree/1"

const (
	treeService = "starling.tree"
	// treeBuffer is what is read at once from a neighbour, in bytes.
	treeBuffer = 8 << 10
	// controlRate and controlBurst bound the frames without a message that a neighbour may send, a second and
	// at once, on however many streams; what exceeds them is ignored.
	controlRate  = 100
	controlBurst = 400
)

var errGraylisted = errors.New("peer sent invalid messages: not read for a while")

// newTree makes the state machine of a topic.
func (g *gossip) newTree(t *gossipTopic) *plumtree.Tree {
	c := plumtree.Config{
		Eager:   g.limits.Fanout,
		Cover:   plumtree.MaxCover,
		Random:  rand.New(rand.NewPCG(rand.Uint64(), rand.Uint64())),
		Trusted: func(p plumtree.Peer) bool { return g.scores.score(peer.ID(p), time.Now()) >= 0 },
	}
	if g.hub {
		// A leaf that hears nothing by its other relay must learn it from this one.
		c.MaxEager, c.Announce, c.Cover = g.limits.Fanout, g.limits.Fanout, 0
	}
	return plumtree.New(c, treeOut{g, t})
}

// treeOut is the way from a topic's state machine to the streams. Its methods are called with the topic's
// lock held.
type treeOut struct {
	g *gossip
	t *gossipTopic
}

var _ plumtree.Out = treeOut{}

// Message implements plumtree.Out.
func (o treeOut) Message(to plumtree.Peer, m *plumtree.Message) bool { return o.g.push(to, m.Frame) }

// Control implements plumtree.Out.
func (o treeOut) Control(to plumtree.Peer, kind plumtree.Kind, ids []plumtree.ID) bool {
	return o.g.push(to, plumtree.ControlFrame(kind, o.t.key, ids))
}

// messageID names a message by its topic and all of its bytes, not by the sealed id: that one covers neither
// the signature nor whether the body is still there, and ids are remembered before anything is verified. So
// anybody on the way could spoil a copy and have the true one dropped as a duplicate.
func (t *gossipTopic) messageID(sealed []byte) plumtree.ID {
	h := wire.GossipID(t.name, sealed)
	return plumtree.ID(h[:plumtree.IDSize])
}

// schedule sees to it that the state machine is woken when it wants to be. The caller holds the topic's lock.
func (g *gossip) schedule(t *gossipTopic) {
	next := t.tree.Next()
	if t.closed || next.IsZero() || (!t.due.IsZero() && !next.Before(t.due)) {
		return
	}
	t.due = next
	if t.timer == nil {
		t.timer = time.AfterFunc(time.Until(next), func() { g.tick(t) }) // stopped with the topic
		return
	}
	t.timer.Reset(time.Until(next))
}

func (g *gossip) tick(t *gossipTopic) {
	t.mu.Lock()
	if t.closed {
		t.mu.Unlock()
		return
	}
	now := time.Now()
	t.due = time.Time{}
	broken := t.tree.Tick(now)
	g.schedule(t)
	t.mu.Unlock()
	for _, p := range broken {
		g.scores.broken(peer.ID(p), now)
		g.log.Debug("a neighbour did not deliver what it announced", "peer", peer.ID(p))
	}
}

// inbound is what a neighbour writes on.
type inbound struct {
	stream  network.Stream // nil: none at the moment
	control *rate.Limiter  // outlives streams until it is full again, so that a new one is no fresh start
}

// spent says whether anything is left to be remembered. The caller holds linkMu.
func (i *inbound) spent() bool { return i.stream == nil && i.control.Tokens() >= controlBurst }

// takeIn notes a neighbour's new stream, and returns the old one, or nil.
func (g *gossip) takeIn(p peer.ID, s network.Stream) (i *inbound, old network.Stream) {
	g.linkMu.Lock()
	defer g.linkMu.Unlock()
	if i = g.in[p]; i == nil {
		maps.DeleteFunc(g.in, func(_ peer.ID, other *inbound) bool { return other.spent() })
		i = &inbound{control: rate.NewLimiter(controlRate, controlBurst)}
		g.in[p] = i
	}
	old, i.stream = i.stream, s
	return i, old
}

// serveTree reads a neighbour's stream until it ends.
func (g *gossip) serveTree(ctx context.Context, s network.Stream) {
	p := s.Conn().RemotePeer()
	i, old := g.takeIn(p, s)
	if old != nil {
		_ = old.Reset() // it writes on one at a time
	}
	end := context.AfterFunc(ctx, func() { _ = s.Reset() })
	err := g.readTree(s, i.control)
	end()
	g.linkMu.Lock()
	if i.stream == s {
		i.stream = nil
	}
	g.linkMu.Unlock()
	if err != nil {
		g.log.Debug("tree stream ended", "peer", p, "err", err)
		_ = s.Reset()
		return
	}
	_ = s.Close()
}

func (g *gossip) readTree(s network.Stream, control *rate.Limiter) error {
	if err := s.Scope().SetService(treeService); err != nil {
		return err
	}
	if err := s.Scope().ReserveMemory(plumtree.MaxFrame+treeBuffer, network.ReservationPriorityMedium); err != nil {
		return err
	}
	from := s.Conn().RemotePeer()
	in := bufio.NewReaderSize(s, treeBuffer)
	for {
		frame, err := readTreeFrame(s, in)
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err == nil {
			err = g.handleFrame(from, frame, control)
		}
		if err != nil {
			return err
		}
	}
}

// readTreeFrame reads one frame with its prefix. A stream may be silent for weeks between frames, not
// within one.
func readTreeFrame(s network.Stream, in *bufio.Reader) ([]byte, error) {
	prefix, err := in.Peek(plumtree.Prefix)
	if err != nil {
		if errors.Is(err, io.EOF) && len(prefix) > 0 {
			err = io.ErrUnexpectedEOF
		}
		return nil, err
	}
	size := binary.BigEndian.Uint32(prefix)
	if err := plumtree.CheckSize(size); err != nil {
		return nil, err
	}
	frame := make([]byte, plumtree.Prefix+size)
	if in.Buffered() >= len(frame) {
		_, err := io.ReadFull(in, frame)
		return frame, err
	}
	if err := s.SetReadDeadline(time.Now().Add(frameTimeout)); err != nil {
		return nil, err
	}
	if _, err := io.ReadFull(in, frame); err != nil {
		return nil, fmt.Errorf("in the middle of a frame: %w", err)
	}
	return frame, s.SetReadDeadline(time.Time{})
}

// handleFrame takes one frame with its prefix. An error means that the stream is no use any more.
func (g *gossip) handleFrame(from peer.ID, raw []byte, control *rate.Limiter) error {
	now := time.Now()
	if g.scores.score(from, now) <= scoreGraylist {
		return errGraylisted
	}
	f, err := plumtree.ParseFrame(raw[plumtree.Prefix:])
	if err != nil {
		g.fault(from, now)
		return err
	}
	if f.Kind != plumtree.KindMessage && !control.AllowN(now, 1) {
		g.counters.rateLimitDrops.Add(1)
		return nil
	}
	t := g.topic(f.Topic)
	if t == nil {
		return nil // left a moment ago, or never joined
	}
	if f.Kind == plumtree.KindMessage {
		g.receive(t, from, &f, raw)
		return nil
	}
	p := plumtree.Peer(from)
	t.mu.Lock()
	defer t.mu.Unlock()
	switch f.Kind {
	case plumtree.KindHave:
		t.tree.Have(now, p, f.IDs)
	case plumtree.KindGraft:
		t.tree.Graft(now, p, f.IDs)
	case plumtree.KindPrune:
		t.tree.Prune(now, p)
	case plumtree.KindShape:
		t.tree.Shape(now, p, f.IDs[0])
	}
	g.schedule(t)
	return nil
}

// receive takes a message: what is known is dropped before anything is verified, and what is verified is
// passed on before chat has it. It runs in the goroutine that reads the neighbour's stream, so that a
// verification keeps only that neighbour waiting.
func (g *gossip) receive(t *gossipTopic, from peer.ID, f *plumtree.Frame, raw []byte) {
	id := t.messageID(f.Data)
	t.mu.Lock()
	first := !t.closed && t.tree.Arrived(time.Now(), plumtree.Peer(from), id, f.Wave, len(f.Cover) > 0)
	g.schedule(t)
	t.mu.Unlock()
	if !first {
		g.counters.duplicates.Add(1)
		return
	}
	event, verdict := g.validate(from, t.key, f.Data)
	if verdict != accepted {
		t.mu.Lock()
		t.tree.Refuse(id)
		t.mu.Unlock()
		if verdict == ignored {
			g.counters.ignored.Add(1)
			return
		}
		g.counters.rejected.Add(1)
		g.fault(from, time.Now())
		return
	}
	g.counters.took(string(id[:]), from)
	dev, err := wire.DeviceFromPeerID([]byte(from))
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.closed {
		return
	}
	m := &plumtree.Message{ID: id, Wave: f.Wave, Frame: plumtree.Uncovered(raw)}
	t.tree.Accept(time.Now(), plumtree.Peer(from), m, f.Cover)
	g.schedule(t)
	// Under the lock, so that the order of arrival is the order of delivery.
	if t.deliver != nil && err == nil {
		t.deliver(chat.Incoming{Sealed: event, From: dev})
	}
}

// fault holds against a peer that it sent what no honest node sends.
func (g *gossip) fault(p peer.ID, now time.Time) {
	g.scores.invalid(p, now)
	for _, t := range g.all() {
		t.mu.Lock()
		t.tree.Distrust(now, plumtree.Peer(p))
		g.schedule(t)
		t.mu.Unlock()
	}
}

// all lists the topics that are joined or forwarded.
func (g *gossip) all() []*gossipTopic {
	g.mu.RLock()
	defer g.mu.RUnlock()
	out := make([]*gossipTopic, 0, len(g.topics))
	for _, t := range g.topics {
		out = append(out, t)
	}
	return out
}

// verdict is what a message is worth.
type verdict uint8

const (
	accepted verdict = iota
	ignored          // it may come from an honest node
	rejected         // no honest node sends it, and it costs the forwarder score
)

// validate decides about one message. CPU only.
func (g *gossip) validate(from peer.ID, topic wire.TopicKey, data []byte) (*wire.Sealed, verdict) {
	if len(data) > wire.MaxSealed {
		return nil, rejected
	}
	if g.admit != nil && !g.admit(topic, len(data)) {
		g.counters.rateLimitDrops.Add(1)
		return nil, ignored
	}
	sealed, err := g.verifier.CheckSealed(topic, data)
	switch {
	case errors.Is(err, wire.ErrUnsupported):
		return nil, ignored
	case err != nil:
		return nil, rejected
	case sealed.IsStub():
		// Somebody cut the body off on the way; sync alone carries stubs.
		return nil, ignored
	}
	g.skew.observe(from, sealed.HLC.Time(), g.clock.Now())
	if sealed.HLC.Time().After(g.clock.Now().Add(wire.MaxAhead)) {
		return nil, ignored
	}
	if g.keep != nil {
		if dev, err := wire.DeviceFromPeerID([]byte(from)); err == nil {
			g.keep(sealed, dev)
		}
	}
	return sealed, accepted
}
