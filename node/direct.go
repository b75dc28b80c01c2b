package node

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"sync"
	"time"

	"github.com/libp2p/go-libp2p/core/host"
	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/libp2p/go-libp2p/core/protocol"

	"github.com/starling-chat/starling/chat"
	"github.com/starling-chat/starling/chat/wire"
)

// Protocols between two devices.
const (
	dmProtocol   protocol.ID = "/starling/dm/1"
	syncProtocol protocol.ID = "/starling/sync/1"
	fileProtocol protocol.ID = "/starling/file/1"
)

// bulkProtocols are served by chat on streams of their own.
var bulkProtocols = [...]protocol.ID{syncProtocol}

const (
	dmService = "starling.dm"
	// reachTimeout bounds finding a path to a device, all ways together.
	reachTimeout = 20 * time.Second
	// plainTimeout is how long a stream waits for a direct connection while a hole is being punched,
	// before it takes the relayed one.
	plainTimeout = time.Second
	// plainWindow is how young a relayed connection must be for that wait: punching begins with it.
	plainWindow = 4 * time.Second
	// openTimeout bounds opening a stream on a connection that stands.
	openTimeout = 10 * time.Second
	// writeTimeout bounds one write; a peer that takes nothing for so long is gone.
	writeTimeout = 30 * time.Second
	// Read deadlines: for the first byte of a new stream, for the rest of a frame once it began, and
	// between frames.
	firstByteTimeout = 10 * time.Second
	frameTimeout     = 30 * time.Second
	idleTimeout      = 2 * time.Minute
	// idleClose is when a sender closes a stream it does not use, before the reader gives it up.
	idleClose = 90 * time.Second
	// drainTimeout bounds the wait for the other side to have read all of a stream that is replaced,
	// so that what follows on the new one cannot overtake it.
	drainTimeout = 2 * time.Second
	// writeChunk is the most that one write carries: a relay that resets a stream loses whole writes.
	writeChunk = 32 << 10
	// maxLinks bounds the peers with a stream or a queue; the least recently used idle one goes.
	maxLinks = 1024
)

// direct is the ordered way to single devices. It implements chat.Direct. Each side sends on a
// stream of its own and only reads on the other's, so that two that start at once do not collide.
type direct struct {
	host   host.Host
	log    *slog.Logger
	queue  int // bytes waiting for one peer
	paths  *paths
	reach  func(ctx context.Context, p peer.ID) error // makes a connection, or ErrUnreachable
	hint   func(p peer.ID, addrs []string)
	greet  func() []byte
	handle func(from wire.DeviceID, path chat.Path, frame []byte)

	mu    sync.Mutex                      // guards spawn, links
	spawn func(func(ctx context.Context)) // starts a goroutine that run waits for; nil before and after
	links map[peer.ID]*link
}

func newDirect(p *plan, t *paths) *direct {
	return &direct{log: p.Logger, queue: p.Limits.DirectQueue, paths: t, links: make(map[peer.ID]*link)}
}

// run serves streams until ctx ends, and returns when every goroutine of a link has.
func (d *direct) run(ctx context.Context, ready func()) error {
	var wg sync.WaitGroup
	d.mu.Lock()
	d.spawn = func(f func(context.Context)) { wg.Go(func() { f(ctx) }) }
	d.mu.Unlock()
	d.host.SetStreamHandler(dmProtocol, d.serve)
	ready()
	tick := time.NewTicker(idleClose / 3)
	defer tick.Stop()
	for {
		select {
		case <-tick.C:
			d.closeIdle(time.Now())
			continue
		case <-ctx.Done():
		}
		break
	}
	d.host.RemoveStreamHandler(dmProtocol)
	d.mu.Lock()
	d.spawn = nil
	links := d.links
	d.links = make(map[peer.ID]*link)
	d.mu.Unlock()
	for _, l := range links {
		l.abandon()
	}
	wg.Wait()
	return nil
}

// start runs f in a goroutine that run waits for; false when the service does not run.
func (d *direct) start(f func(ctx context.Context)) bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.spawn == nil {
		return false
	}
	d.spawn(f)
	return true
}

// Send implements chat.Direct.
func (d *direct) Send(ctx context.Context, to wire.DeviceID, frames ...[]byte) error {
	for _, frame := range frames {
		if len(frame) == 0 || len(frame) > wire.MaxFrame {
			return fmt.Errorf("sending a frame: %d bytes, want 1 to %d", len(frame), wire.MaxFrame)
		}
	}
	l := d.link(peer.ID(to.PeerID()))
	if l == nil {
		return fmt.Errorf("sending a frame: %w", chat.ErrUnreachable)
	}
	if err := l.send(ctx, frames); err != nil {
		return fmt.Errorf("sending a frame: %w", err)
	}
	return nil
}

// link returns the link to a peer, making one if need be; nil when the service does not run.
func (d *direct) link(p peer.ID) *link {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.spawn == nil {
		return nil
	}
	l := d.links[p]
	if l == nil {
		if len(d.links) >= maxLinks {
			d.dropOldest()
		}
		l = &link{d: d, peer: p}
		d.links[p] = l
	}
	return l
}

// dropOldest forgets the idle link that was used longest ago. The caller holds mu.
func (d *direct) dropOldest() {
	var oldest *link
	var at time.Time
	for _, l := range d.links {
		if used, idle := l.lastUse(); idle && (oldest == nil || used.Before(at)) {
			oldest, at = l, used
		}
	}
	if oldest != nil {
		delete(d.links, oldest.peer)
		oldest.abandon()
	}
}

// closeIdle closes streams that have not been used for a while.
func (d *direct) closeIdle(now time.Time) {
	d.mu.Lock()
	defer d.mu.Unlock()
	for p, l := range d.links {
		if used, idle := l.lastUse(); idle && now.Sub(used) > idleClose {
			delete(d.links, p)
			l.abandon()
		}
	}
}

// pathChanged moves traffic over when a better path stands, and forgets the stream when none does.
func (d *direct) pathChanged(p peer.ID, path chat.Path) {
	d.mu.Lock()
	l := d.links[p]
	d.mu.Unlock()
	if l != nil {
		l.pathChanged(path)
	}
}

// Open implements chat.Direct.
func (d *direct) Open(ctx context.Context, to wire.DeviceID, proto string) (chat.Stream, error) {
	p := peer.ID(to.PeerID())
	ctx, cancel := context.WithTimeout(ctx, reachTimeout)
	defer cancel()
	s, err := d.open(ctx, p, protocol.ID(proto))
	if err != nil {
		return nil, fmt.Errorf("opening a %s stream: %w", proto, err)
	}
	return s, nil
}

// open makes a stream over the best path there is: a direct one, or after a short wait for it the
// relayed one. On a limited connection a plain NewStream does not fail, it blocks until its deadline.
func (d *direct) open(ctx context.Context, p peer.ID, proto protocol.ID) (network.Stream, error) {
	if err := d.reach(ctx, p); err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(ctx, openTimeout)
	defer cancel()
	ctx = network.WithNoDial(ctx, "reached already")
	if age := d.limitedFor(p); age >= 0 && age < plainWindow {
		plain, cancel := context.WithTimeout(ctx, plainTimeout)
		s, err := d.host.NewStream(plain, p, proto)
		cancel()
		if err == nil {
			return s, nil
		}
	}
	s, err := d.host.NewStream(network.WithAllowLimitedConn(ctx, "starling"), p, proto)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", chat.ErrUnreachable, err)
	}
	return s, nil
}

// limitedFor says for how long a peer has been connected by a limited relay only; negative when
// it has a better connection or none.
func (d *direct) limitedFor(p peer.ID) time.Duration {
	if d.host.Network().Connectedness(p) != network.Limited {
		return -1
	}
	age := time.Duration(-1)
	for _, c := range d.host.Network().ConnsToPeer(p) {
		age = max(age, time.Since(c.Stat().Opened))
	}
	return age
}

// Path implements chat.Direct.
func (d *direct) Path(to wire.DeviceID) chat.Path { return d.paths.of(peer.ID(to.PeerID())) }

// Hint implements chat.Direct.
func (d *direct) Hint(to wire.DeviceID, addrs []string) { d.hint(peer.ID(to.PeerID()), addrs) }

var _ chat.Prober = (*direct)(nil)

// Probe implements chat.Prober.
func (d *direct) Probe(to wire.DeviceID) { d.paths.mark(peer.ID(to.PeerID()), markAll) }

// serve reads another device's stream and hands its frames on, in order, until it ends.
func (d *direct) serve(s network.Stream) {
	if err := d.read(s); err != nil {
		d.log.Debug("dm stream ended", "peer", s.Conn().RemotePeer(), "err", err)
		_ = s.Reset()
		return
	}
	_ = s.Close()
}

func (d *direct) read(s network.Stream) error {
	if err := s.SetReadDeadline(time.Now().Add(firstByteTimeout)); err != nil {
		return err
	}
	if err := s.Scope().SetService(dmService); err != nil {
		return err
	}
	if err := s.Scope().ReserveMemory(wire.MaxFrame+writeChunk, network.ReservationPriorityMedium); err != nil {
		return err
	}
	from, err := wire.DeviceFromPeerID([]byte(s.Conn().RemotePeer()))
	if err != nil {
		return err
	}
	own := connPath(s.Conn())
	in := bufio.NewReaderSize(s, writeChunk)
	for {
		if in.Buffered() == 0 {
			if _, err := in.Peek(1); errors.Is(err, io.EOF) {
				return nil
			} else if err != nil {
				return err
			}
			if err := s.SetReadDeadline(time.Now().Add(frameTimeout)); err != nil {
				return err
			}
		}
		frame, err := wire.ReadFrame(in, wire.MaxFrame)
		if err != nil {
			return err
		}
		path := own
		if own == chat.PathDirect && d.paths.of(s.Conn().RemotePeer()) == chat.PathPunched {
			path = chat.PathPunched
		}
		d.handle(from, path, frame)
		if in.Buffered() == 0 {
			if err := s.SetReadDeadline(time.Now().Add(idleTimeout)); err != nil {
				return err
			}
		}
	}
}
