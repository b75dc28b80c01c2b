package node

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"sync/atomic"
	"testing"
	"time"

	pubsub "github.com/libp2p/go-libp2p-pubsub"
	"github.com/libp2p/go-libp2p/core/host"
	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"

	"github.com/starling-chat/starling/chat"
	"github.com/starling-chat/starling/chat/chattest"
	"github.com/starling-chat/starling/chat/wire"
	"github.com/starling-chat/starling/node/plumtree"
)

// neighbour is our topic layer alone, on a host of its own.
type neighbour struct {
	host   host.Host
	gossip *gossip
	heard  atomic.Int64
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
	n := &neighbour{host: tcpHost(t)}
	g := newGossip(p, n.host.ID())
	g.isRelay = func(peer.ID) bool { return false }
	g.hooks = roomHooks{joined: func(*wire.RoomKeys) {}, left: func(wire.TopicKey) {}, member: func(wire.TopicKey, peer.ID) {}}
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

// say has an honest neighbour publish something, and returns once others have heard it.
func (n *neighbour) say(t *testing.T, keys *wire.RoomKeys, text string, others ...*neighbour) {
	t.Helper()
	var before []int64
	for _, o := range others {
		before = append(before, o.heard.Load())
	}
	if err := n.gossip.Publish(t.Context(), keys.Topic, chattest.SealText(t, keys, time.Now(), text).Bytes()); err != nil {
		t.Fatal(err)
	}
	for i, o := range others {
		until(t, 10*time.Second, "what an honest one says is heard", func() bool { return o.heard.Load() == before[i]+1 })
	}
}

func (n *neighbour) meet(t *testing.T, other *neighbour) {
	t.Helper()
	connect(t, n.host, other.host)
	until(t, 10*time.Second, "both know that the other takes part", func() bool {
		return n.knows(other.host) && other.knows(n.host)
	})
}

func connect(t *testing.T, a, b host.Host) {
	t.Helper()
	if err := a.Connect(t.Context(), peer.AddrInfo{ID: b.ID(), Addrs: b.Addrs()}); err != nil {
		t.Fatal(err)
	}
}

// knows says whether a stream to a member stands.
func (n *neighbour) knows(other host.Host) bool {
	for _, topic := range n.gossip.joined() {
		return n.gossip.Subscribed(topic, other.ID())
	}
	return false
}

// stranger speaks the protocol and obeys nothing.
type stranger struct {
	host host.Host
	to   *neighbour
	keys *wire.RoomKeys
	out  network.Stream
	got  [8]atomic.Int64 // frames by kind
}

// strange makes a stranger that takes part in a room beside an honest node.
func strange(t *testing.T, keys *wire.RoomKeys, to *neighbour) *stranger {
	t.Helper()
	s := &stranger{host: tcpHost(t), to: to, keys: keys}
	s.host.SetStreamHandler(treeProtocol, func(st network.Stream) {
		defer st.Close()
		for in := bufio.NewReader(st); ; {
			raw, err := readTreeFrame(st, in)
			if err != nil {
				return
			}
			if f, err := plumtree.ParseFrame(raw[plumtree.Prefix:]); err == nil {
				s.got[f.Kind].Add(1)
			}
		}
	})
	subscribe(t, s.host, keys)
	connect(t, s.host, to.host)
	until(t, 10*time.Second, "the stranger is taken in", func() bool { return to.knows(s.host) })
	return s
}

// subscribe makes a host say that it takes part in a room.
func subscribe(t *testing.T, h host.Host, keys *wire.RoomKeys) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	t.Cleanup(cancel)
	ps, err := pubsub.NewPubSub(ctx, h, subscriptions{newTopicFilter(8)}, pubsub.WithMessageSignaturePolicy(pubsub.StrictNoSign), pubsub.WithNoAuthor())
	if err != nil {
		t.Fatal(err)
	}
	topic, err := ps.Join(wire.Topic(keys.Topic))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := topic.Relay(); err != nil {
		t.Fatal(err)
	}
}

// write sends frames on one stream, a new one if there is none.
func (s *stranger) write(t *testing.T, frames ...[]byte) {
	t.Helper()
	var err error
	if s.out == nil {
		if s.out, err = s.host.NewStream(t.Context(), s.to.host.ID(), treeProtocol); err != nil {
			t.Fatal(err)
		}
	}
	for _, f := range frames {
		if _, err := s.out.Write(f); err != nil {
			return // it is not read any more
		}
	}
}

// refused waits until the stream is cut off.
func (s *stranger) refused(t *testing.T) {
	t.Helper()
	if err := s.out.SetReadDeadline(time.Now().Add(10 * time.Second)); err != nil {
		t.Fatal(err)
	}
	if _, err := s.out.Read(make([]byte, 1)); !errors.Is(err, network.ErrReset) {
		t.Fatalf("the stream ended with %v, want a reset", err)
	}
	s.out = nil
}

func (s *stranger) message(data []byte) []byte {
	return plumtree.MessageFrame(s.keys.Topic, 0, nil, data)
}

func (s *stranger) truth(t *testing.T, text string) []byte {
	return s.message(chattest.SealText(t, s.keys, time.Now(), text).Bytes())
}

func testRoom(t *testing.T) *wire.RoomKeys {
	t.Helper()
	keys, err := wire.DeriveRoomKeys(wire.RoomSecret{7})
	if err != nil {
		t.Fatal(err)
	}
	return keys
}

// Who sends what no honest node sends loses its eager link with the first message, and is not heard at all
// after a few; who is honest never has a bad score, be it silent or talkative.
func TestScoreOfInvalidMessages(t *testing.T) {
	keys := testRoom(t)
	me, quiet, talker := ours(t, keys), ours(t, keys), ours(t, keys)
	quiet.meet(t, me)
	talker.meet(t, me)
	bad := strange(t, keys, me)
	for i := range 20 {
		talker.say(t, keys, fmt.Sprint(i), me, quiet)
	}
	lie := func(i int) []byte { return bad.message([]byte(fmt.Sprint("no event ", i))) }
	bad.write(t, lie(0))
	until(t, 10*time.Second, "the bad one is pruned", func() bool { return bad.got[plumtree.KindPrune].Load() > 0 })
	bad.write(t, plumtree.ControlFrame(plumtree.KindGraft, keys.Topic, nil))
	until(t, 10*time.Second, "its graft is refused", func() bool { return bad.got[plumtree.KindPrune].Load() > 1 })
	bad.write(t, bad.truth(t, "for once the truth"))
	until(t, 10*time.Second, "what is true is heard even so", func() bool { return me.heard.Load() == 21 })
	bad.write(t, lie(1), lie(2), bad.truth(t, "too late"))
	bad.refused(t)
	// From now on it is not even read, whatever it says.
	for i := range 3 {
		bad.write(t, lie(100+i), bad.truth(t, "for once the truth"))
		bad.refused(t)
	}
	for i := range 20 {
		talker.say(t, keys, fmt.Sprint(100+i), me, quiet)
	}
	if got := me.heard.Load(); got != 41 {
		t.Errorf("%d messages came through, want 40 of the honest one and one of the other", got)
	}
	if n := me.gossip.counters.rejected.Load(); n != 3 {
		t.Errorf("%d invalid messages were looked at, want 3", n)
	}
	now := time.Now()
	if s := me.gossip.scores.score(bad.host.ID(), now); s > scoreGraylist {
		t.Errorf("the bad one has a score of %v", s)
	}
	for _, n := range []*neighbour{quiet, talker} {
		if s := me.gossip.scores.score(n.host.ID(), now); s != 0 {
			t.Errorf("an honest one has a score of %v", s)
		}
	}
}

// Scores fall off with time, are kept across a reconnect, and are bounded; who breaks promises loses its
// eager links and is heard all the same.
func TestStandings(t *testing.T) {
	var s standings
	now := time.Unix(1e9, 0)
	s.invalid("bad", now)
	if v := s.score("bad", now); v >= 0 || v <= scoreGraylist {
		t.Errorf("one invalid message makes %v", v)
	}
	s.invalid("bad", now)
	s.invalid("bad", now)
	if v := s.score("bad", now); v > scoreGraylist {
		t.Errorf("three invalid messages make %v", v)
	}
	if v := s.score("bad", now.Add(scoreForgive)); v <= -1 {
		t.Errorf("after ten quiet minutes %v is left", v)
	}
	if v := s.score("bad", now.Add(scoreRetain)); v != 0 || len(s.peers) != 0 {
		t.Errorf("%v is never forgotten", v)
	}
	for i := range 100 {
		s.broken("liar", now.Add(time.Duration(i)*10*time.Millisecond))
	}
	if v := s.score("liar", now); v != 0 {
		t.Errorf("a second of congestion costs %v", v)
	}
	for i := range 1000 {
		now = now.Add(promisePause)
		s.broken("liar", now)
		if v := s.score("liar", now); v <= scoreGraylist {
			t.Fatalf("%d broken promises make %v: nothing it sends is read", i, v)
		}
	}
	if v := s.score("liar", now); v >= 0 {
		t.Errorf("a thousand broken promises cost %v", v)
	}
	for i := range 2 * scorePeers {
		s.invalid(peer.ID(fmt.Sprint(i)), now.Add(time.Duration(i)))
	}
	if len(s.peers) != scorePeers {
		t.Errorf("%d peers are remembered", len(s.peers))
	}
	if v := s.score(peer.ID(fmt.Sprint(2*scorePeers-1)), now.Add(time.Minute)); v >= 0 {
		t.Error("the latest fault was forgotten")
	}
}
