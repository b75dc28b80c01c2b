package node

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/libp2p/go-libp2p/core/event"
	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/libp2p/go-libp2p/p2p/host/eventbus"
	"github.com/libp2p/go-libp2p/p2p/protocol/circuitv2/client"
	pbv2 "github.com/libp2p/go-libp2p/p2p/protocol/circuitv2/pb"
	circuit "github.com/libp2p/go-libp2p/p2p/protocol/circuitv2/proto"
	ma "github.com/multiformats/go-multiaddr"
)

const (
	// reservationCount is how many relays hold a place for us.
	reservationCount = 2
	// reserveTimeout bounds one request for a place.
	reserveTimeout = 10 * time.Second
	// reserveSlack is how long before its end a reservation is renewed.
	reserveSlack = 5 * time.Minute
	// fullPause and brokenPause are how long a relay is left alone that had no place, or did not
	// answer.
	fullPause   = time.Minute
	brokenPause = 4 * time.Second
	reserveTag  = "starling-reservation"
)

// reservations keeps places at relays, by which others can open a circuit to this node, and makes the
// host announce the circuit addresses. libp2p's AutoRelay does the same with a random choice among
// candidates, polls for them, and drops addresses of relays on private networks; here the relays are
// configured, and the answer to "has a relay come back" is known the moment it connects. One
// goroutine (run) owns the state; requests run beside it.
type reservations struct {
	n    *Node
	kick chan struct{} // capacity 1
	done chan reserved

	mu   sync.Mutex // guards held
	held map[peer.ID]struct{}
}

// place is how this node stands with one relay.
type place struct {
	busy  bool
	until time.Time // zero: none held
	next  time.Time // when to ask (again)
	addrs []ma.Multiaddr
}

// reserved is the result of one request.
type reserved struct {
	relay peer.ID
	rsvp  *client.Reservation
	err   error
}

func newReservations(n *Node) *reservations {
	return &reservations{
		n:    n,
		kick: make(chan struct{}, 1),
		done: make(chan reserved, reservationCount),
		held: make(map[peer.ID]struct{}),
	}
}

func (r *reservations) wake() {
	select {
	case r.kick <- struct{}{}:
	default:
	}
}

// holds says whether a relay holds a place for this node.
func (r *reservations) holds(p peer.ID) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	_, ok := r.held[p]
	return ok
}

// run asks for places and renews them until ctx ends.
func (r *reservations) run(ctx context.Context) error {
	bus := r.n.host.EventBus()
	emit, err := bus.Emitter(new(event.EvtAutoRelayAddrsUpdated), eventbus.Stateful)
	if err != nil {
		return fmt.Errorf("announcing circuit addresses: %w", err)
	}
	defer emit.Close()
	reach, err := bus.Subscribe(new(event.EvtLocalReachabilityChanged))
	if err != nil {
		return fmt.Errorf("watching reachability: %w", err)
	}
	defer reach.Close()

	places := make(map[peer.ID]*place)
	public := r.n.plan.Reachability == ReachabilityPublic
	var requests sync.WaitGroup
	var announced []ma.Multiaddr
	timer := time.NewTimer(time.Hour)
	defer timer.Stop()
	for {
		select {
		case <-ctx.Done():
			requests.Wait()
			return nil
		case e := <-reach.Out():
			if evt, ok := e.(event.EvtLocalReachabilityChanged); ok {
				public = evt.Reachability == network.ReachabilityPublic
			}
		case <-r.kick:
		case <-timer.C:
		case res := <-r.done:
			r.settle(places, res)
		}
		timer.Reset(r.plan(ctx, places, public, &requests))
		if addrs := r.publish(places); !slices.EqualFunc(addrs, announced, ma.Multiaddr.Equal) {
			announced = addrs
			if err := emit.Emit(event.EvtAutoRelayAddrsUpdated{RelayAddrs: slices.Clone(addrs)}); err != nil {
				return fmt.Errorf("announcing circuit addresses: %w", err)
			}
		}
	}
}

// plan asks the relays that should hold a place and do not, and returns when to look again.
func (r *reservations) plan(ctx context.Context, places map[peer.ID]*place, public bool, requests *sync.WaitGroup) time.Duration {
	now, wait := time.Now(), time.Hour
	cm := r.n.host.ConnManager()
	offered := r.offered()
	for p, pl := range places {
		if public || !slices.Contains(offered, p) || (!pl.until.IsZero() && now.After(pl.until)) {
			delete(places, p)
			cm.Unprotect(p, reserveTag)
		}
	}
	if public {
		return wait
	}
	held := 0
	for _, pl := range places {
		if !pl.until.IsZero() {
			held++
		}
	}
	for _, p := range offered {
		pl := places[p]
		if pl == nil {
			pl = &place{next: now}
			places[p] = pl
		}
		if pl.busy || (pl.until.IsZero() && held >= reservationCount) {
			continue
		}
		if d := pl.next.Sub(now); d > 0 {
			wait = min(wait, d)
			continue
		}
		pl.busy = true
		held++
		// Ends within the time-out or with ctx; run waits for it.
		requests.Go(func() { r.reserve(ctx, p) })
	}
	return wait
}

// offered lists the connected relays that carry circuits, each node's in an order of its own, so that
// the users of several relays spread over them.
func (r *reservations) offered() []peer.ID {
	out := slices.DeleteFunc(r.n.trustedRelays(), func(p peer.ID) bool { return !r.n.speaks(p, circuit.ProtoIDv2Hop) })
	weight := func(p peer.ID) []byte {
		sum := sha256.Sum256(slices.Concat([]byte(r.n.id), []byte(p)))
		return sum[:]
	}
	slices.SortFunc(out, func(a, b peer.ID) int { return bytes.Compare(weight(a), weight(b)) })
	return out
}

func (r *reservations) reserve(ctx context.Context, p peer.ID) {
	ctx, cancel := context.WithTimeout(ctx, reserveTimeout)
	defer cancel()
	rsvp, err := client.Reserve(ctx, r.n.host, peer.AddrInfo{ID: p})
	r.done <- reserved{relay: p, rsvp: rsvp, err: err}
}

// settle takes the result of a request.
func (r *reservations) settle(places map[peer.ID]*place, res reserved) {
	pl := places[res.relay]
	if pl == nil {
		return // disconnected meanwhile
	}
	pl.busy = false
	now := time.Now()
	if res.err != nil {
		r.n.plan.Logger.Debug("no place at a relay", "relay", res.relay, "err", res.err)
		pl.next = now.Add(brokenPause)
		var refused client.ReservationError
		if errors.As(res.err, &refused) && refused.Status != pbv2.Status_CONNECTION_FAILED {
			pl.next = now.Add(fullPause)
		}
		return
	}
	pl.until = res.rsvp.Expiration
	pl.next = now.Add(max(time.Until(pl.until)-reserveSlack, reserveSlack/5))
	pl.addrs = circuitAddrs(res.relay, res.rsvp.Addrs)
	r.n.host.ConnManager().Protect(res.relay, reserveTag)
}

// circuitAddrs turns the relay's own addresses into ours.
func circuitAddrs(relay peer.ID, addrs []ma.Multiaddr) []ma.Multiaddr {
	suffix, err := ma.NewMultiaddr("/p2p/" + relay.String() + "/p2p-circuit")
	if err != nil {
		return nil
	}
	out := make([]ma.Multiaddr, 0, len(addrs))
	for _, a := range addrs {
		if transport, _ := peer.SplitAddr(a); transport != nil && !isCircuit(a) {
			out = append(out, transport.Encapsulate(suffix))
		}
	}
	return out
}

// publish updates what the status shows and returns the circuit addresses, sorted.
func (r *reservations) publish(places map[peer.ID]*place) []ma.Multiaddr {
	r.mu.Lock()
	defer r.mu.Unlock()
	clear(r.held)
	var out []ma.Multiaddr
	for p, pl := range places {
		if !pl.until.IsZero() {
			r.held[p] = struct{}{}
			out = append(out, pl.addrs...)
		}
	}
	slices.SortFunc(out, ma.Multiaddr.Compare)
	return out
}
