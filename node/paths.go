package node

import (
	"context"
	"log/slog"
	"sync"
	"time"

	"github.com/libp2p/go-libp2p/core/event"
	"github.com/libp2p/go-libp2p/core/host"
	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/libp2p/go-libp2p/p2p/protocol/holepunch"
	ma "github.com/multiformats/go-multiaddr"
	manet "github.com/multiformats/go-multiaddr/net"

	"github.com/starling-chat/starling/chat"
)

const (
	// directSettle is how long a direct connection must have stood before the relayed ones to the
	// same peer are closed: streams that began on the relay need that long to move over, and some
	// punched paths die at once.
	directSettle = time.Second
	// punchWindow is how long after the start of a hole punch a new direct connection counts as
	// its result: three tries of 5 s and a little.
	punchWindow = 17 * time.Second
)

// paths knows how each connected peer is reached, tells the rest of the node when that changes, and
// closes relay connections once a direct one stands: gossip streams opened on a relay stay there
// otherwise, and die with it. One goroutine (run) decides; libp2p's callbacks only mark peers.
type paths struct {
	host    host.Host
	log     *slog.Logger
	changed func(p peer.ID, path chat.Path) // from run, in order

	kick chan struct{} // capacity 1

	mu       sync.Mutex // guards dirty, current, punching
	dirty    map[peer.ID]struct{}
	current  map[peer.ID]chat.Path
	punching map[peer.ID]time.Time // when a hole punch with the peer began last
}

func newPaths(log *slog.Logger) *paths {
	return &paths{
		log:      log,
		kick:     make(chan struct{}, 1),
		dirty:    make(map[peer.ID]struct{}),
		current:  make(map[peer.ID]chat.Path),
		punching: make(map[peer.ID]time.Time),
	}
}

// of returns the path to a peer as it was last decided.
func (t *paths) of(p peer.ID) chat.Path {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.current[p]
}

// Trace implements holepunch.EventTracer.
func (t *paths) Trace(evt *holepunch.Event) {
	if evt.Type != holepunch.StartHolePunchEvtT {
		return
	}
	t.mu.Lock()
	t.punching[evt.Remote] = time.Now()
	t.mu.Unlock()
}

// mark makes run look at a peer again.
func (t *paths) mark(p peer.ID) {
	t.mu.Lock()
	t.dirty[p] = struct{}{}
	t.mu.Unlock()
	select {
	case t.kick <- struct{}{}:
	default:
	}
}

// run decides until ctx ends. The host must be set before.
func (t *paths) run(ctx context.Context) error {
	watch := &network.NotifyBundle{
		ConnectedF:    func(_ network.Network, c network.Conn) { t.mark(c.RemotePeer()) },
		DisconnectedF: func(_ network.Network, c network.Conn) { t.mark(c.RemotePeer()) },
	}
	t.host.Network().Notify(watch)
	defer t.host.Network().StopNotify(watch)
	// A peer counts once it has said which protocols it speaks.
	sub, err := t.host.EventBus().Subscribe([]any{
		new(event.EvtPeerIdentificationCompleted), new(event.EvtPeerProtocolsUpdated),
	})
	if err != nil {
		return err
	}
	defer sub.Close()
	for _, p := range t.host.Network().Peers() {
		t.mark(p)
	}

	settle := make(map[peer.ID]time.Time) // when to close the relay connections of a peer
	timer := time.NewTimer(time.Hour)
	defer timer.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case e := <-sub.Out():
			switch e := e.(type) {
			case event.EvtPeerIdentificationCompleted:
				t.mark(e.Peer)
			case event.EvtPeerProtocolsUpdated:
				t.mark(e.Peer)
			}
		case <-t.kick:
			for _, p := range t.takeDirty() {
				t.decide(p, settle)
			}
		case <-timer.C:
		}
		timer.Reset(t.closeSettled(settle))
	}
}

func (t *paths) takeDirty() []peer.ID {
	t.mu.Lock()
	defer t.mu.Unlock()
	out := make([]peer.ID, 0, len(t.dirty))
	for p := range t.dirty {
		out = append(out, p)
	}
	clear(t.dirty)
	return out
}

// decide finds the best path to a peer and reports a change.
func (t *paths) decide(p peer.ID, settle map[peer.ID]time.Time) {
	path, relayed := chat.PathNone, false
	t.mu.Lock()
	began, punched := t.punching[p]
	t.mu.Unlock()
	for _, c := range t.host.Network().ConnsToPeer(p) {
		if c.IsClosed() {
			continue
		}
		kind := connPath(c)
		if kind == chat.PathDirect && punched && openedWithin(c, began) {
			kind = chat.PathPunched
		}
		relayed = relayed || kind == chat.PathRelayed
		if pathRank(kind) > pathRank(path) {
			path = kind
		}
	}
	if relayed && path != chat.PathRelayed {
		if _, ok := settle[p]; !ok {
			settle[p] = time.Now().Add(directSettle)
		}
	} else {
		delete(settle, p)
	}
	t.mu.Lock()
	old := t.current[p]
	if path == chat.PathNone {
		delete(t.current, p)
		delete(t.punching, p)
	} else {
		t.current[p] = path
	}
	t.mu.Unlock()
	if path == chat.PathNone && old == chat.PathNone {
		return
	}
	if path != old {
		t.log.Debug("path changed", "peer", p, "path", string(path), "before", string(old))
	}
	t.changed(p, path)
}

// closeSettled closes the relay connections of peers whose direct connection has stood long enough
// and returns how long to wait for the next.
func (t *paths) closeSettled(settle map[peer.ID]time.Time) time.Duration {
	wait := time.Hour
	now := time.Now()
	for p, at := range settle {
		if d := at.Sub(now); d > 0 {
			wait = min(wait, d)
			continue
		}
		delete(settle, p)
		conns := t.host.Network().ConnsToPeer(p)
		direct := false
		for _, c := range conns {
			direct = direct || (!c.IsClosed() && connPath(c) != chat.PathRelayed)
		}
		for _, c := range conns {
			if direct && connPath(c) == chat.PathRelayed {
				if err := c.Close(); err != nil {
					t.log.Debug("relay connection did not close", "err", err)
				}
			}
		}
	}
	return wait
}

func openedWithin(c network.Conn, began time.Time) bool {
	opened := c.Stat().Opened
	return !opened.Before(began) && opened.Sub(began) < punchWindow
}

// connPath labels one connection. Punched ones look direct here.
func connPath(c network.Conn) chat.Path {
	switch addr := c.RemoteMultiaddr(); {
	case isCircuit(addr):
		return chat.PathRelayed
	case manet.IsPublicAddr(addr):
		return chat.PathDirect
	default:
		return chat.PathLAN
	}
}

func isCircuit(a ma.Multiaddr) bool {
	_, err := a.ValueForProtocol(ma.P_CIRCUIT)
	return err == nil
}

func pathRank(p chat.Path) int {
	switch p {
	case chat.PathLAN:
		return 4
	case chat.PathDirect:
		return 3
	case chat.PathPunched:
		return 2
	case chat.PathRelayed:
		return 1
	}
	return 0
}

// count returns the number of peers on a path.
func (t *paths) count(path chat.Path) int {
	t.mu.Lock()
	defer t.mu.Unlock()
	n := 0
	for _, p := range t.current {
		if p == path {
			n++
		}
	}
	return n
}
