package node

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	pubsub "github.com/libp2p/go-libp2p-pubsub"
	"github.com/libp2p/go-libp2p/core/host"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/libp2p/go-libp2p/core/protocol"

	"github.com/starling-chat/starling/chat"
	"github.com/starling-chat/starling/chat/chattest"
	"github.com/starling-chat/starling/chat/wire"
)

// neighbour is a topic layer alone, ours or a stranger's, that counts what happens to it.
type neighbour struct {
	host   host.Host
	gossip *gossip       // nil: a stranger's
	topic  *pubsub.Topic // of a stranger
	heard  atomic.Int64
	grafts atomic.Int64 // by others or by itself; a stranger's only
	prunes atomic.Int64 // by others; a stranger's only

	mu    sync.Mutex // guards worst
	worst map[peer.ID]float64
}

// ours makes a neighbour that is as honest as we are.
func ours(t *testing.T, keys *wire.RoomKeys) *neighbour {
	t.Helper()
	cfg := loopback(t)
	cfg.Limits = LaptopLimits()
	p, err := cfg.check()
	if err != nil {
		t.Fatal(err)
	}
	n := &neighbour{host: tcpHost(t), worst: make(map[peer.ID]float64)}
	g := newGossip(p, n.host.ID())
	g.isRelay = func(peer.ID) bool { return false }
	g.hooks = roomHooks{joined: func(*wire.RoomKeys) {}, left: func(wire.TopicKey) {}, member: func(wire.TopicKey, peer.ID) {}}
	g.inspect = func(scores map[peer.ID]float64) {
		n.mu.Lock()
		defer n.mu.Unlock()
		for p, s := range scores {
			n.worst[p] = min(n.worst[p], s)
		}
	}
	n.gossip = g
	ctx, cancel := context.WithCancel(t.Context())
	ready, done := make(chan struct{}), make(chan error, 1)
	go func() { done <- g.run(ctx, n.host, func() { close(ready) }) }() // ends with cancel; the cleanup waits
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
	<-ready
	if err := g.Join(t.Context(), keys, func(chat.Incoming) { n.heard.Add(1) }); err != nil {
		t.Fatal(err)
	}
	return n
}

// strange makes a neighbour that speaks the protocol and obeys nothing else.
func strange(t *testing.T, keys *wire.RoomKeys) *neighbour {
	t.Helper()
	n := &neighbour{host: tcpHost(t)}
	ctx, cancel := context.WithCancel(t.Context())
	t.Cleanup(cancel)
	ps, err := pubsub.NewGossipSub(
		ctx, n.host, pubsub.WithMessageSignaturePolicy(pubsub.StrictNoSign), pubsub.WithNoAuthor(),
		pubsub.WithMessageIdFn(messageID), pubsub.WithFloodPublish(true), pubsub.WithRawTracer(&strangeTracer{n: n}),
	)
	if err != nil {
		t.Fatal(err)
	}
	if n.topic, err = ps.Join(wire.Topic(keys.Topic)); err != nil {
		t.Fatal(err)
	}
	if _, err := n.topic.Subscribe(); err != nil {
		t.Fatal(err)
	}
	return n
}

type strangeTracer struct {
	gossipCounters
	n *neighbour
}

func (s *strangeTracer) OnNewOutboundStream(peer.ID, protocol.ID) {}
func (s *strangeTracer) OnClosedOutboundStream(peer.ID)           {}
func (s *strangeTracer) Graft(peer.ID, string)                    { s.n.grafts.Add(1) }
func (s *strangeTracer) Prune(peer.ID, string)                    { s.n.prunes.Add(1) }

func (n *neighbour) meet(t *testing.T, other *neighbour) {
	t.Helper()
	if err := n.host.Connect(t.Context(), peer.AddrInfo{ID: other.host.ID(), Addrs: other.host.Addrs()}); err != nil {
		t.Fatal(err)
	}
	until(t, 10*time.Second, "both know that the other takes part", func() bool {
		return n.knows(other) && other.knows(n)
	})
}

func (n *neighbour) knows(other *neighbour) bool {
	if n.gossip != nil {
		n.gossip.mu.RLock()
		defer n.gossip.mu.RUnlock()
		for _, t := range n.gossip.topics {
			return slices.Contains(t.topic.ListPeers(), other.host.ID())
		}
	}
	return slices.Contains(n.topic.ListPeers(), other.host.ID())
}

func testRoom(t *testing.T) *wire.RoomKeys {
	t.Helper()
	keys, err := wire.DeriveRoomKeys(wire.RoomSecret{7})
	if err != nil {
		t.Fatal(err)
	}
	return keys
}

// Who sends what no honest node sends loses its place in the mesh with the first message, and is not heard
// at all after a few; who is honest never has a bad score, be it silent or talkative.
func TestScoreOfInvalidMessages(t *testing.T) {
	keys := testRoom(t)
	me, quiet, talker, bad := ours(t, keys), ours(t, keys), ours(t, keys), strange(t, keys)
	for _, n := range []*neighbour{quiet, talker, bad} {
		n.meet(t, me)
	}
	until(t, 10*time.Second, "the bad one is in the mesh", func() bool { return bad.grafts.Load() > 0 })
	speak := func(n *neighbour, texts int) {
		t.Helper()
		heard := me.heard.Load()
		for i := range texts {
			if err := n.gossip.Publish(t.Context(), keys.Topic, chattest.SealText(t, keys, time.Now(), fmt.Sprint(i)).Bytes()); err != nil {
				t.Fatal(err)
			}
		}
		until(t, 10*time.Second, "what an honest one says is heard", func() bool { return me.heard.Load() == heard+int64(texts) })
	}
	lie := func(i int) {
		t.Helper()
		if err := bad.topic.Publish(t.Context(), []byte(fmt.Sprint("no event ", i))); err != nil {
			t.Fatal(err)
		}
	}
	speak(talker, 20)
	lie(0)
	until(t, 10*time.Second, "the bad one is pruned", func() bool { return bad.prunes.Load() > 0 })
	rejected := &me.gossip.counters.rejected
	for i := 1; i < 3; i++ {
		lie(i)
		until(t, 10*time.Second, "the lie is counted", func() bool { return rejected.Load() >= uint64(i+1) })
	}
	// From now on it is not even read, whatever it says.
	heard := me.heard.Load()
	for i := range 5 {
		lie(100 + i)
		if err := bad.topic.Publish(t.Context(), chattest.SealText(t, keys, time.Now(), "for once the truth").Bytes()); err != nil {
			t.Fatal(err)
		}
	}
	speak(talker, 20)
	if got := me.heard.Load() - heard; got != 20 {
		t.Errorf("%d messages came through, want those 20 of the honest one", got)
	}
	if n := rejected.Load(); n != 3 {
		t.Errorf("%d invalid messages were looked at, want 3", n)
	}
	until(t, 10*time.Second, "the scores were looked at", func() bool {
		me.mu.Lock()
		defer me.mu.Unlock()
		return me.worst[bad.host.ID()] <= scoreGraylist
	})
	me.mu.Lock()
	defer me.mu.Unlock()
	for _, n := range []*neighbour{quiet, talker} {
		if w := me.worst[n.host.ID()]; w < 0 {
			t.Errorf("an honest one had a score of %v", w)
		}
	}
}

// Who never passes anything on makes room when a mesh is over its size, and those who did stay; none of them
// is punished for being one too many.
func TestScoreOfTheSilent(t *testing.T) {
	keys := testRoom(t)
	me, silent := ours(t, keys), strange(t, keys)
	silent.meet(t, me)
	until(t, 10*time.Second, "the silent one is in the mesh", func() bool { return silent.grafts.Load() > 0 })
	high := pubsub.DefaultGossipSubParams().Dhi
	var honest []*neighbour
	for i := range high + 2 {
		n := strange(t, keys)
		n.meet(t, me)
		honest = append(honest, n)
		if err := n.topic.Publish(t.Context(), chattest.SealText(t, keys, time.Now(), "hello").Bytes()); err != nil {
			t.Fatal(err)
		}
		until(t, 10*time.Second, "it is heard", func() bool { return me.heard.Load() == int64(i+1) })
	}
	until(t, 20*time.Second, "the silent one makes room", func() bool { return silent.prunes.Load() > 0 })
	me.mu.Lock()
	defer me.mu.Unlock()
	for id, w := range maps.All(me.worst) {
		if w < 0 {
			t.Errorf("%s had a score of %v", id, w)
		}
	}
	if len(honest) < high {
		t.Fatal("the mesh was never over its size")
	}
}
