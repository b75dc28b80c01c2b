package node

import (
	"context"
	"log/slog"
	"slices"
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
// closes relay connections once a direct one stands and answers: gossip streams opened on a relay stay
// there otherwise, and die with it. When somebody who is connected comes again, the older connections
// are asked whether they still work: whoever changed its network comes back while they seem to stand.
// One goroutine (run) decides; libp2p's callbacks only mark peers.
type paths struct {
	host    host.Host
	log     *slog.Logger
	changed func(p peer.ID, path chat.Path) // from run, in order

	kick chan struct{} // capacity 1

	// Of run: the connections being asked whether they are alive, and what came of it.
	asking  map[network.Conn]bool
	results chan probed
	probes  sync.WaitGroup

	mu       sync.Mutex // guards dirty, current, punching
	dirty    map[peer.ID]mark
	current  map[peer.ID]chat.Path
	punching map[peer.ID]time.Time // when a hole punch with the peer began last
}

func newPaths(log *slog.Logger) *paths {
	return &paths{
		log:      log,
		kick:     make(chan struct{}, 1),
		asking:   make(map[network.Conn]bool),
		results:  make(chan probed, maxProbes),
		dirty:    make(map[peer.ID]mark),
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

// mark says what is to be done about a peer, each value more than those before.
type mark int

const (
	markLook  mark = iota // decide about its path
	markOlder             // it is newly connected: ask the other connections too
	markAll               // ask all connections
)

// mark makes run look at a peer again.
func (t *paths) mark(p peer.ID, m mark) {
	t.mu.Lock()
	t.dirty[p] = max(t.dirty[p], m)
	t.mu.Unlock()
	t.wake()
}

func (t *paths) wake() {
	select {
	case t.kick <- struct{}{}:
	default:
	}
}

// run decides until ctx ends. The host must be set before.
func (t *paths) run(ctx context.Context) error {
	watch := &network.NotifyBundle{
		ConnectedF:    func(_ network.Network, c network.Conn) { t.mark(c.RemotePeer(), markOlder) },
		DisconnectedF: func(_ network.Network, c network.Conn) { t.mark(c.RemotePeer(), markLook) },
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
		t.mark(p, markLook)
	}
	defer t.probes.Wait()

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
				t.mark(e.Peer, markLook)
			case event.EvtPeerProtocolsUpdated:
				t.mark(e.Peer, markLook)
			}
		case <-t.kick:
			for p, m := range t.takeDirty() {
				t.ask(ctx, p, m)
				t.decide(p, settle)
			}
		case r := <-t.results:
			delete(t.asking, r.conn)
			t.settled(r, settle)
		case <-timer.C:
		}
		timer.Reset(t.askSettled(ctx, settle))
	}
}

func (t *paths) takeDirty() map[peer.ID]mark {
	t.mu.Lock()
	defer t.mu.Unlock()
	out := t.dirty
	t.dirty = make(map[peer.ID]mark)
	return out
}

// ask probes the connections of a peer that a mark is about, and those to the relays that they run over:
// a new circuit would begin with the relay that has died.
func (t *paths) ask(ctx context.Context, p peer.ID, m mark) {
	conns := t.host.Network().ConnsToPeer(p)
	if m == markLook || len(conns) == 0 || (m == markOlder && len(conns) == 1) {
		return
	}
	newest := slices.MaxFunc(conns, func(a, b network.Conn) int { return a.Stat().Opened.Compare(b.Stat().Opened) })
	for _, c := range conns {
		if !c.IsClosed() && (m == markAll || c != newest) {
			t.probe(ctx, p, c)
			if relay, ok := relayOf(c.RemoteMultiaddr()); ok && m == markAll {
				for _, rc := range t.host.Network().ConnsToPeer(relay) {
					t.probe(ctx, relay, rc)
				}
			}
		}
	}
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

// askSettled probes the direct connections that have stood long enough for the relayed ones to the same
// peer to be closed, and returns how long to wait for the next.
func (t *paths) askSettled(ctx context.Context, settle map[peer.ID]time.Time) time.Duration {
	wait := time.Hour
	now := time.Now()
	for p, at := range settle {
		if d := at.Sub(now); d > 0 {
			wait = min(wait, d)
			continue
		}
		settle[p] = now.Add(probeTimeout + directSettle) // when to ask again, should nothing come of it
		wait = min(wait, probeTimeout+directSettle)
		for _, c := range t.host.Network().ConnsToPeer(p) {
			if !c.IsClosed() && connPath(c) != chat.PathRelayed {
				t.probe(ctx, p, c)
			}
		}
	}
	return wait
}

// settled takes the result of a probe: the relayed connections of a peer go once a direct one has stood
// for long enough and has answered.
func (t *paths) settled(r probed, settle map[peer.ID]time.Time) {
	_, waits := settle[r.peer]
	if !r.alive || !waits || connPath(r.conn) == chat.PathRelayed || time.Since(r.conn.Stat().Opened) < directSettle {
		return
	}
	delete(settle, r.peer)
	for _, c := range t.host.Network().ConnsToPeer(r.peer) {
		if connPath(c) != chat.PathRelayed {
			continue
		}
		if err := c.Close(); err != nil {
			t.log.Debug("relay connection did not close", "err", err)
		}
	}
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

// relayOf returns the relay that a circuit runs over.
func relayOf(a ma.Multiaddr) (peer.ID, bool) {
	if !isCircuit(a) {
		return "", false
	}
	text, err := a.ValueForProtocol(ma.P_P2P) // the first one is the relay's
	if err != nil {
		return "", false
	}
	p, err := peer.Decode(text)
	return p, err == nil
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
