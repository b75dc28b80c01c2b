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
	"github.com/libp2p/go-libp2p/core/network"

	"github.com/starling-chat/starling/chat"
	"github.com/starling-chat/starling/chat/chattest"
	"github.com/starling-chat/starling/chat/wire"
	"github.com/starling-chat/starling/node/plumtree"
)

// What has another form than the protocol's ends the stream and counts as a fault; what comes too often, or is
// for a topic that nobody here has, or of a kind to come, is ignored.
func TestTreeStreamOfAStranger(t *testing.T) {
	keys := testRoom(t)
	me, talker := ours(t, keys), ours(t, keys)
	talker.meet(t, me)
	odd := strange(t, keys, me)
	other := wire.TopicKey{1}
	unknown := plumtree.ControlFrame(99, keys.Topic, nil)
	odd.write(t, unknown, plumtree.MessageFrame(other, 0, nil, []byte("x")), plumtree.ControlFrame(plumtree.KindPrune, other, nil), odd.truth(t, "heard"))
	until(t, 10*time.Second, "what follows is heard", func() bool { return me.heard.Load() == 1 })
	// A new stream is no fresh start.
	began := time.Now()
	const flood = 4 * controlBurst
	for i := range 3 {
		for range flood {
			odd.write(t, plumtree.ControlFrame(plumtree.KindGraft, keys.Topic, nil))
		}
		odd.write(t, odd.truth(t, fmt.Sprint("heard too ", i)))
		until(t, 10*time.Second, "what follows a flood of control is heard", func() bool { return me.heard.Load() == int64(i)+2 })
		_ = odd.out.Close()
		odd.out = nil
	}
	heeded := 3*flood - float64(me.gossip.counters.rateLimitDrops.Load())
	if most := controlBurst + 1 + controlRate*time.Since(began).Seconds(); heeded > most {
		t.Errorf("%v frames of control were heeded, at most %v should be", heeded, most)
	}
	if s := me.gossip.scores.score(odd.host.ID(), time.Now()); s != 0 {
		t.Errorf("what may be ignored costs %v", s)
	}
	odd.write(t, []byte{0xff, 0xff, 0xff, 0xff})
	odd.refused(t)
	odd.write(t, plumtree.ControlFrame(plumtree.KindHave, keys.Topic, nil))
	odd.refused(t)
	if s := me.gossip.scores.score(odd.host.ID(), time.Now()); s >= 0 {
		t.Error("a malformed frame costs nothing")
	}
	talker.say(t, keys, "still here", me)
}

// A copy with another outcome than accepted is neither delivered nor passed on; what may come from an honest
// node costs nothing.
func TestTreeVerdicts(t *testing.T) {
	keys := testRoom(t)
	me, next := ours(t, keys), ours(t, keys)
	next.meet(t, me)
	odd := strange(t, keys, me)
	early := chattest.SealText(t, keys, time.Now().Add(time.Hour), "early")
	stub := chattest.SealText(t, keys, time.Now(), "stub").Redacted()
	odd.write(t, odd.message(early.Bytes()), odd.message(stub.Bytes()), odd.truth(t, "true"))
	until(t, 10*time.Second, "the true one is passed on", func() bool { return next.heard.Load() == 1 })
	c := &me.gossip.counters
	if c.ignored.Load() != 2 || c.rejected.Load() != 0 || c.delivered.Load() != 1 || me.heard.Load() != 1 {
		t.Errorf("ignored %d, rejected %d, delivered %d, heard %d", c.ignored.Load(), c.rejected.Load(), c.delivered.Load(), me.heard.Load())
	}
	if s := me.gossip.scores.score(odd.host.ID(), time.Now()); s != 0 {
		t.Errorf("what is to be ignored costs %v", s)
	}
	// A spoilt copy does not make the true one a known one.
	truth := chattest.SealText(t, keys, time.Now(), "spoilt on the way").Bytes()
	spoilt := append([]byte(nil), truth...)
	spoilt[len(spoilt)-1] ^= 1
	odd.write(t, odd.message(spoilt), odd.message(truth), odd.message(truth))
	until(t, 10*time.Second, "the true one is passed on", func() bool { return next.heard.Load() == 2 })
	until(t, 10*time.Second, "the second copy is counted", func() bool { return c.duplicates.Load() == 1 })
	if c.rejected.Load() != 1 {
		t.Errorf("%d rejected, want the spoilt one", c.rejected.Load())
	}
}

// The subscription stream carries no messages: the library's own way of passing them on is closed.
func TestGossipsubMessagesAreNotTaken(t *testing.T) {
	keys := testRoom(t)
	me, talker := ours(t, keys), ours(t, keys)
	talker.meet(t, me)
	h := tcpHost(t)
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	ps, err := pubsub.NewGossipSub(ctx, h, pubsub.WithMessageSignaturePolicy(pubsub.StrictNoSign), pubsub.WithNoAuthor(), pubsub.WithFloodPublish(true))
	if err != nil {
		t.Fatal(err)
	}
	topic, err := ps.Join(wire.Topic(keys.Topic))
	if err != nil {
		t.Fatal(err)
	}
	connect(t, h, me.host)
	until(t, 10*time.Second, "it sees us", func() bool { return len(topic.ListPeers()) == 1 })
	for i := range 20 {
		if err := topic.Publish(ctx, chattest.SealText(t, keys, time.Now(), fmt.Sprint(i)).Bytes()); err != nil {
			t.Fatal(err)
		}
	}
	talker.say(t, keys, "by the tree", me)
	if n := me.heard.Load(); n != 1 {
		t.Errorf("heard %d messages, want the tree's alone", n)
	}
}

// A stream that breaks while the connection stands is opened again, and what was written is written again.
func TestTreeStreamIsReopened(t *testing.T) {
	keys := testRoom(t)
	a, b := ours(t, keys), ours(t, keys)
	a.meet(t, b)
	a.say(t, keys, "one", b)
	for i := range 3 {
		b.gossip.linkMu.Lock()
		in := b.gossip.in[a.host.ID()].stream
		b.gossip.linkMu.Unlock()
		if err := in.Reset(); err != nil {
			t.Fatal(err)
		}
		until(t, 10*time.Second, "the stream is gone", func() bool {
			b.gossip.linkMu.Lock()
			defer b.gossip.linkMu.Unlock()
			return b.gossip.in[a.host.ID()].stream != in
		})
		// Until the reset has arrived, what is written is lost, and nobody else is there to announce it.
		before := b.heard.Load()
		until(t, 10*time.Second, "a message arrives", func() bool {
			if err := a.gossip.Publish(t.Context(), keys.Topic, chattest.SealText(t, keys, time.Now(), fmt.Sprint("again ", i)).Bytes()); err != nil {
				t.Fatal(err)
			}
			return b.heard.Load() > before
		})
	}
}

// A neighbour that reads nothing costs no more than its queue, and keeps nobody else waiting.
func TestTreeQueueIsBounded(t *testing.T) {
	keys := testRoom(t)
	me, other := ours(t, keys), ours(t, keys)
	other.meet(t, me)
	deaf := strange(t, keys, me)
	deaf.host.SetStreamHandler(treeProtocol, func(s network.Stream) { <-t.Context().Done(); _ = s.Reset() })
	// The stream that stands is replaced by one that is not read.
	me.gossip.linkMu.Lock()
	l := me.gossip.links[deaf.host.ID()]
	me.gossip.linkMu.Unlock()
	l.reset()
	filler := plumtree.MessageFrame(keys.Topic, 0, nil, make([]byte, plumtree.MaxMessage))
	until(t, 20*time.Second, "the queue is full", func() bool { return !l.push(filler) })
	for l.push(filler[:100]) {
		// until nothing fits any more
	}
	l.mu.Lock()
	bytes, frames := l.bytes, len(l.queue)
	l.mu.Unlock()
	if bytes > treeQueueBytes || frames > me.gossip.limits.Queue {
		t.Errorf("%d bytes in %d frames wait for one neighbour", bytes, frames)
	}
	for i := range 20 {
		me.say(t, keys, fmt.Sprint(i), other)
	}
	if me.gossip.counters.dropped() == 0 {
		t.Error("what was lost is not counted")
	}
}

// After Leave nothing is delivered, and joining again works.
func TestLeaveAndJoinAgain(t *testing.T) {
	keys := testRoom(t)
	a, b := ours(t, keys), ours(t, keys)
	a.meet(t, b)
	a.say(t, keys, "one", b)
	b.gossip.Leave(keys.Topic)
	b.gossip.Leave(keys.Topic)
	until(t, 10*time.Second, "the other has noticed", func() bool { return len(a.gossip.Peers(keys.Topic)) == 0 })
	if err := a.gossip.Publish(t.Context(), keys.Topic, []byte("x")); err == nil {
		t.Error("published to nobody")
	}
	if err := b.gossip.Publish(t.Context(), keys.Topic, []byte("x")); err == nil {
		t.Error("published in a topic that was left")
	}
	if err := b.gossip.Join(t.Context(), keys, func(chat.Incoming) { b.heard.Add(1) }); err != nil {
		t.Fatal(err)
	}
	until(t, 10*time.Second, "they have met again", func() bool { return a.knows(b.host) && b.knows(a.host) })
	a.say(t, keys, "two", b)
	b.say(t, keys, "three", a)
}

// A member to whom no stream can be opened has no place in the tree: what is said to it alone is said to
// nobody. It is tried again.
func TestMemberThatDoesNotSpeakTheTree(t *testing.T) {
	keys := testRoom(t)
	me := ours(t, keys)
	h := tcpHost(t)
	subscribe(t, h, keys)
	connect(t, h, me.host)
	until(t, 10*time.Second, "it is known as a member", func() bool { return len(me.gossip.Peers(keys.Topic)) == 1 })
	publish := func() error {
		return me.gossip.Publish(t.Context(), keys.Topic, chattest.SealText(t, keys, time.Now(), "hello").Bytes())
	}
	until(t, 10*time.Second, "it is known not to listen", func() bool { return errors.Is(publish(), chat.ErrUnreachable) })
	if me.knows(h) {
		t.Error("whoever cannot be written to counts as handed what passes")
	}
	var came atomic.Int64
	h.SetStreamHandler(treeProtocol, func(s network.Stream) {
		defer s.Close()
		if _, err := readTreeFrame(s, bufio.NewReader(s)); err == nil {
			came.Add(1)
		}
	})
	until(t, 20*time.Second, "it is reached once it listens", func() bool { return publish() == nil && came.Load() > 0 })
}
