package node

import (
	"context"
	"encoding/binary"
	"errors"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/libp2p/go-libp2p/core/control"
	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"
	ma "github.com/multiformats/go-multiaddr"

	"github.com/starling-chat/starling/chat"
	"github.com/starling-chat/starling/chat/wire"
)

// door is a wall that can be opened.
type door struct {
	wall
	open atomic.Bool
}

func (d *door) InterceptAddrDial(p peer.ID, a ma.Multiaddr) bool {
	return d.open.Load() || d.wall.InterceptAddrDial(p, a)
}

func (d *door) InterceptSecured(dir network.Direction, p peer.ID, c network.ConnMultiaddrs) bool {
	return d.open.Load() || d.wall.InterceptSecured(dir, p, c)
}

func (d *door) InterceptUpgraded(network.Conn) (bool, control.DisconnectReason) { return true, 0 }

// collector takes frames in place of the chat service.
type collector struct {
	mu     sync.Mutex
	frames []uint64
	paths  map[chat.Path]int
}

func (c *collector) handle(_ wire.DeviceID, path chat.Path, frame []byte) {
	if len(frame) < 9 || frame[0] != 0xff {
		return // a greeting or something of chat's
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.frames = append(c.frames, binary.BigEndian.Uint64(frame[1:]))
	c.paths[path]++
}

func (c *collector) count() int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return len(c.frames)
}

func numbered(i uint64, size int) []byte {
	b := make([]byte, max(size, 9))
	b[0] = 0xff
	binary.BigEndian.PutUint64(b[1:], i)
	return b
}

// pair starts two nodes behind one relay whose direct connections a door keeps away.
func pair(t *testing.T) (a, b *Node, got *collector, door1 *door) {
	t.Helper()
	r, _ := start(t, relayConfig(t))
	door1 = &door{wall: wall{only: r.id}}
	cfgA, cfgB := behind(t, r), behind(t, r)
	cfgA.gater, cfgB.gater = door1, door1
	got = &collector{paths: map[chat.Path]int{}}
	a, _ = start(t, cfgA)
	b, _ = start(t, cfgB)
	b.direct.handle = got.handle
	attached(t, a, 0)
	attached(t, b, 0)
	return a, b, got, door1
}

// Frames keep their order, and none is lost or repeated, while the path changes from a relayed to a
// direct one under load; the relay connection is closed then.
func TestPathSwitchKeepsOrder(t *testing.T) {
	a, b, got, door := pair(t)
	to := b.plan.Keys.Device().ID()
	const senders = 8
	var next, total atomic.Uint64
	total.Store(1 << 62) // until the path has changed
	var mu sync.Mutex    // makes numbering and queueing one step
	var wg sync.WaitGroup
	send := func() {
		for {
			mu.Lock()
			i := next.Load()
			if i >= total.Load() {
				mu.Unlock()
				return
			}
			next.Add(1)
			l := a.direct.link(b.id)
			l.mu.Lock()
			o, act := l.add(numbered(i, 200))
			l.mu.Unlock()
			mu.Unlock()
			act()
			if err := <-o.done; err != nil {
				t.Errorf("frame %d: %v", i, err)
				return
			}
			<-time.After(time.Millisecond)
		}
	}
	for range senders {
		wg.Go(send)
	}
	until(t, 10*time.Second, "frames travel over the relay", func() bool { return got.count() > 200 })
	if p := a.direct.Path(to); p != chat.PathRelayed {
		t.Fatalf("path is %q, want relayed", p)
	}
	door.open.Store(true)
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	ctx = network.WithForceDirectDial(ctx, "test")
	if err := a.host.Connect(ctx, peer.AddrInfo{ID: b.id, Addrs: b.host.Network().ListenAddresses()}); err != nil {
		t.Fatal(err)
	}
	until(t, 10*time.Second, "frames travel directly", func() bool {
		got.mu.Lock()
		defer got.mu.Unlock()
		return got.paths[chat.PathLAN] > 200
	})
	total.Store(next.Load() + 200)
	wg.Wait()
	until(t, 10*time.Second, "all frames arrive", func() bool { return uint64(got.count()) >= total.Load() })
	got.mu.Lock()
	defer got.mu.Unlock()
	for i, f := range got.frames {
		if f != uint64(i) {
			t.Fatalf("frame %d came at place %d of %d", f, i, len(got.frames))
		}
	}
	t.Logf("frames by path: %v", got.paths)
	until(t, 5*time.Second, "the relay connection is closed", func() bool {
		for _, c := range a.host.Network().ConnsToPeer(b.id) {
			if isCircuit(c.RemoteMultiaddr()) {
				return false
			}
		}
		return a.direct.Path(to) == chat.PathLAN
	})
}

// Nobody answers: Send says so in time, and forgets the frame.
func TestSendToNobody(t *testing.T) {
	a, _ := start(t, loopback(t))
	stranger := newTestKeys(t).Device().ID()
	ctx, cancel := context.WithTimeout(t.Context(), time.Second)
	defer cancel()
	began := time.Now()
	if err := a.direct.Send(ctx, stranger, []byte("x")); !errors.Is(err, chat.ErrUnreachable) {
		t.Errorf("sending to nobody: %v", err)
	}
	if took := time.Since(began); took > 2*time.Second {
		t.Errorf("it took %s to say so", took)
	}
	if err := a.direct.Send(t.Context(), stranger, nil); err == nil {
		t.Error("an empty frame was taken")
	}
	if err := a.direct.Send(t.Context(), stranger, make([]byte, wire.MaxFrame+1)); err == nil {
		t.Error("a frame over the limit was taken")
	}
	if p := a.direct.Path(stranger); p != chat.PathNone {
		t.Errorf("path to nobody is %q", p)
	}
}

// A peer that reads nothing fills the queue up to its bound, and no further; the bound is in bytes.
func TestQueueIsBounded(t *testing.T) {
	cfg := loopback(t)
	cfg.Limits.DirectQueue = 256 << 10
	a, _ := start(t, cfg)
	cfgB := loopback(t)
	cfgB.Bootstraps = a.Addrs()
	b, _ := start(t, cfgB)
	release := make(chan struct{})
	b.direct.handle = func(wire.DeviceID, chat.Path, []byte) { <-release }
	until(t, 10*time.Second, "they are connected", func() bool { return a.direct.Path(b.plan.Keys.Device().ID()) != chat.PathNone })
	ctx, cancel := context.WithTimeout(t.Context(), 3*time.Second)
	defer cancel()
	frame := make([]byte, 32<<10)
	frame[0] = 0xff
	var wg sync.WaitGroup
	for range 1000 { // 32 MB
		wg.Go(func() { _ = a.direct.Send(ctx, b.plan.Keys.Device().ID(), frame) })
	}
	l := a.direct.link(b.id)
	most := 0
	for ctx.Err() == nil {
		l.mu.Lock()
		most = max(most, l.bytes)
		l.mu.Unlock()
		select {
		case <-ctx.Done():
		case <-time.After(5 * time.Millisecond):
		}
	}
	close(release)
	wg.Wait()
	// The greeting that begins a stream goes in front of what waits, and is not held up by it.
	if bound := cfg.Limits.DirectQueue + len(a.chat.Greeting()); most > bound {
		t.Errorf("%d bytes waited, at most %d may", most, bound)
	}
	if most < cfg.Limits.DirectQueue/2 {
		t.Errorf("only %d bytes waited: the test proves nothing", most)
	}
}

// Streams are opened for bulk protocols too, and one that the other side does not speak is an error.
func TestOpenAsksForTheProtocol(t *testing.T) {
	a, _ := start(t, loopback(t))
	cfg := loopback(t)
	cfg.Bootstraps = a.Addrs()
	b, _ := start(t, cfg)
	until(t, 10*time.Second, "they are connected", func() bool { return a.direct.Path(b.plan.Keys.Device().ID()) != chat.PathNone })
	s, err := a.direct.Open(t.Context(), b.plan.Keys.Device().ID(), string(syncProtocol))
	if err != nil {
		t.Fatal(err)
	}
	if err := s.Reset(); err != nil {
		t.Error(err)
	}
	s, err = a.direct.Open(t.Context(), b.plan.Keys.Device().ID(), "/starling/none/1")
	if err == nil {
		t.Error("a protocol that nobody speaks was opened")
		_ = s.Reset()
	}
}

// An idle stream is closed, and the next frame opens another.
func TestIdleStreamIsClosed(t *testing.T) {
	a, _ := start(t, loopback(t))
	cfg := loopback(t)
	cfg.Bootstraps = a.Addrs()
	b, _ := start(t, cfg)
	got := &collector{paths: map[chat.Path]int{}}
	b.direct.handle = got.handle
	to := b.plan.Keys.Device().ID()
	until(t, 10*time.Second, "they are connected", func() bool { return a.direct.Path(to) != chat.PathNone })
	if err := a.direct.Send(t.Context(), to, numbered(0, 9)); err != nil {
		t.Fatal(err)
	}
	first := a.direct.link(b.id)
	a.direct.closeIdle(time.Now())
	if a.direct.link(b.id) != first {
		t.Error("a stream was closed at once")
	}
	a.direct.closeIdle(time.Now().Add(idleClose + time.Second))
	if a.direct.link(b.id) == first {
		t.Error("an idle stream was kept")
	}
	if err := a.direct.Send(t.Context(), to, numbered(1, 9)); err != nil {
		t.Fatal(err)
	}
	until(t, 10*time.Second, "both frames arrive", func() bool { return got.count() == 2 })
}
