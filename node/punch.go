package node

import (
	"context"
	"errors"
	"log/slog"
	"slices"
	"sync"
	"time"

	"github.com/libp2p/go-libp2p/core/host"
	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"
	basichost "github.com/libp2p/go-libp2p/p2p/host/basic"
	"github.com/libp2p/go-libp2p/p2p/protocol/holepunch"
	"github.com/libp2p/go-libp2p/p2p/protocol/identify"
	ma "github.com/multiformats/go-multiaddr"
	manet "github.com/multiformats/go-multiaddr/net"

	"github.com/starling-chat/starling/chat"
)

const (
	// punchLook is how often our outside address is looked for after somebody was met who can tell it,
	// and punchLooks how many times: it comes with the other's identification, in no given order.
	punchLook  = 20 * time.Millisecond
	punchLooks = 100
	// punchPause is the first pause after a failed try, which grows threefold up to punchPauseMax. The
	// NATs on the way rarely change, and a try is three rounds of 5 s.
	punchPause    = 20 * time.Second
	punchPauseMax = 30 * time.Minute
	// punchBusy is the pause when libp2p is at it already, by itself.
	punchBusy = 5 * time.Second
)

// puncher gets from a circuit to a direct connection (DCUtR). libp2p's own service does that once, when
// a circuit comes in; but what it needs may come later than the circuit: our outside address, which it
// looks for in growing intervals of up to 5 s, or the other side's readiness. Such a pair would stay on
// its relay for as long as the circuit stands. So the service is made in the moment in which an outside
// address is known, and asked again for every circuit that is left: as soon as the other side says that
// it is ready, after a change of network, and from time to time. One goroutine (run) decides.
type puncher struct {
	host   host.Host
	log    *slog.Logger
	tracer holepunch.EventTracer
	addrs  func() []ma.Multiaddr // our public ones
	speaks func(p peer.ID) bool  // says whether a peer's identification named DCUtR
	first  func(p peer.ID) bool  // says whether it is for us to begin

	kick chan struct{} // capacity 1
	done chan punchResult

	mu    sync.Mutex // guards marks, fresh
	marks map[peer.ID]chat.Path
	fresh bool // the network changed
}

// punch is a peer that is reached over a relay only.
type punch struct {
	next  time.Time // not before
	pause time.Duration
	able  bool // it has said that it speaks DCUtR
	busy  bool
}

type punchResult struct {
	peer peer.ID
	err  error
}

// punchHost is what the host has beyond its interface.
type punchHost interface {
	IDService() identify.IDService
	AllAddrs() []ma.Multiaddr
}

func newPuncher(h host.Host, observed basichost.ObservedAddrsManager, tracer holepunch.EventTracer, log *slog.Logger) *puncher {
	return &puncher{
		host:   h,
		first:  func(p peer.ID) bool { return cameByCircuit(h, p) },
		log:    log,
		tracer: tracer,
		addrs:  func() []ma.Multiaddr { return outsideAddrs(h, observed) },
		speaks: func(p peer.ID) bool {
			found, err := h.Peerstore().SupportsProtocols(p, holepunch.Protocol)
			return err == nil && len(found) > 0
		},
		kick:  make(chan struct{}, 1),
		done:  make(chan punchResult, 8),
		marks: make(map[peer.ID]chat.Path),
	}
}

// outsideAddrs returns our public addresses: our own, those mapped by the router, and those at which even
// one other node sees us; the host itself believes only what four say.
func outsideAddrs(h host.Host, observed basichost.ObservedAddrsManager) []ma.Multiaddr {
	var out []ma.Multiaddr
	if ph, ok := h.(punchHost); ok {
		out = ph.AllAddrs()
	}
	if observed != nil {
		out = append(out, observed.Addrs(1)...)
	}
	return slices.DeleteFunc(ma.Unique(out), func(a ma.Multiaddr) bool { return isCircuit(a) || !manet.IsPublicAddr(a) })
}

// mark says how a peer is reached now, and that it may have said something new about itself.
func (u *puncher) mark(p peer.ID, path chat.Path) {
	u.mu.Lock()
	u.marks[p] = path
	u.mu.Unlock()
	u.wake()
}

// again makes all pauses end: the network changed.
func (u *puncher) again() {
	u.mu.Lock()
	u.fresh = true
	u.mu.Unlock()
	u.wake()
}

func (u *puncher) wake() {
	select {
	case u.kick <- struct{}{}:
	default:
	}
}

// run punches until ctx ends.
func (u *puncher) run(ctx context.Context) error {
	var service *holepunch.Service
	var tries sync.WaitGroup
	defer func() {
		if service != nil {
			if err := service.Close(); err != nil {
				u.log.Debug("hole punching did not close", "err", err)
			}
		}
		tries.Wait()
	}()
	peers := make(map[peer.ID]*punch)
	looks := 0
	timer := time.NewTimer(time.Hour)
	defer timer.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-u.kick:
			if u.update(peers, time.Now()) {
				looks = punchLooks
			}
		case r := <-u.done:
			u.settle(peers, r)
		case <-timer.C:
		}
		wait := time.Hour
		if service == nil && looks > 0 {
			looks--
			wait = punchLook
			var err error
			if service, err = u.open(); err != nil {
				return err
			}
		}
		if service != nil {
			wait = u.start(peers, time.Now(), func(p peer.ID) {
				// Ends within libp2p's time-outs or with the service; run waits for it.
				tries.Go(func() {
					r := punchResult{p, service.DirectConnect(p)}
					select {
					case u.done <- r:
					case <-ctx.Done():
					}
				})
			})
		}
		timer.Reset(wait)
	}
}

// open makes libp2p's service if we have an address to offer by now.
func (u *puncher) open() (*holepunch.Service, error) {
	ph, ok := u.host.(punchHost)
	if !ok || len(u.addrs()) == 0 {
		return nil, nil
	}
	u.log.Debug("outside address is known")
	return holepunch.NewService(u.host, ph.IDService(), u.addrs, holepunch.WithTracer(u.tracer))
}

// update takes in what was marked and says whether somebody is connected who can tell our address.
func (u *puncher) update(peers map[peer.ID]*punch, now time.Time) bool {
	u.mu.Lock()
	marks, fresh := u.marks, u.fresh
	u.marks, u.fresh = make(map[peer.ID]chat.Path), false
	u.mu.Unlock()
	teller := false
	for p, path := range marks {
		if path != chat.PathRelayed {
			teller = teller || path != chat.PathNone
			delete(peers, p)
			continue
		}
		t := peers[p]
		if t == nil {
			t = &punch{next: now, pause: punchPause}
			peers[p] = t
		}
		if able := u.speaks(p); able != t.able {
			t.able, t.next, t.pause = able, now, punchPause
		}
	}
	for _, t := range peers {
		if fresh {
			t.next, t.pause = now, punchPause
		}
	}
	return teller
}

// start begins the tries that are due and returns how long to wait for the next.
func (u *puncher) start(peers map[peer.ID]*punch, now time.Time, try func(peer.ID)) time.Duration {
	wait := time.Hour
	for p, t := range peers {
		if t.busy || !t.able || !u.first(p) {
			continue
		}
		if d := t.next.Sub(now); d > 0 {
			wait = min(wait, d)
			continue
		}
		t.busy = true
		try(p)
	}
	return wait
}

// cameByCircuit says whether a peer has a circuit to us: DCUtR has the side begin that the circuit came to.
func cameByCircuit(h host.Host, p peer.ID) bool {
	return slices.ContainsFunc(h.Network().ConnsToPeer(p), func(c network.Conn) bool {
		return c.Stat().Direction == network.DirInbound && isCircuit(c.RemoteMultiaddr()) && !c.IsClosed()
	})
}

// settle takes the result of a try.
func (u *puncher) settle(peers map[peer.ID]*punch, r punchResult) {
	t := peers[r.peer]
	if t == nil {
		return // it is reached directly, or gone
	}
	t.busy = false
	now := time.Now()
	switch {
	case r.err == nil || errors.Is(r.err, holepunch.ErrHolePunchActive):
		t.next = now.Add(punchBusy)
	default:
		u.log.Debug("hole punching failed", "peer", r.peer, "err", r.err)
		t.next = now.Add(t.pause)
		t.pause = min(3*t.pause, punchPauseMax)
	}
}
