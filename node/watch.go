package node

import (
	"context"
	"fmt"
	"slices"
	"time"

	"github.com/libp2p/go-libp2p/core/event"
	"github.com/libp2p/go-libp2p/p2p/net/swarm"
)

const (
	// clockTick is how often wall clock and ticker are compared.
	clockTick = 5 * time.Second
	// clockJump is how far they may part before it counts as a suspend or a set clock.
	clockJump = 20 * time.Second
	// changeSettle gathers address changes that come in a burst, such as a new Wi-Fi.
	changeSettle = 2 * time.Second
)

// jumpDetector compares the wall clock with the passing of time as this process sees it. Go's
// monotonic clock stands still while a machine sleeps; the wall clock does not.
type jumpDetector struct {
	wall time.Time // without its monotonic reading
	mono time.Time
}

// jumped returns by how much the wall clock ran ahead of (or behind) the monotonic one since the last
// call, and whether that is more than a clock's drift.
func (j *jumpDetector) jumped(wall, mono time.Time) (time.Duration, bool) {
	wall = wall.Round(0)
	first := j.wall.IsZero()
	ahead := wall.Sub(j.wall) - mono.Sub(j.mono)
	j.wall, j.mono = wall, mono
	return ahead, !first && ahead.Abs() > clockJump
}

// watchNetwork notices that the machine slept, that its clock was set, or that it has other
// addresses now, and then makes everything look anew: listeners, local discovery, the DHT, leases,
// rooms and outbox.
func (n *Node) watchNetwork(ctx context.Context) error {
	sub, err := n.host.EventBus().Subscribe(new(event.EvtLocalAddressesUpdated))
	if err != nil {
		return fmt.Errorf("watching addresses: %w", err)
	}
	defer sub.Close()
	tick := time.NewTicker(clockTick)
	defer tick.Stop()
	var jump jumpDetector
	var settled <-chan time.Time
	known := n.ownAddrs()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-sub.Out():
			if settled == nil {
				settled = time.After(changeSettle)
			}
		case <-settled:
			settled = nil
			// A reservation at a relay is a new address too, but no new network.
			if now := n.ownAddrs(); !slices.Equal(now, known) {
				known = now
				n.wake("network change")
			} else {
				n.finder.Reannounce()
			}
		case <-tick.C:
			if ahead, ok := jump.jumped(n.plan.Clock.Now(), time.Now()); ok {
				n.plan.Logger.Info("clock jumped", "by", ahead.Round(time.Second))
				n.wake("resume")
			}
		}
	}
}

// ownAddrs returns this machine's own addresses, sorted.
func (n *Node) ownAddrs() []string {
	addrs, err := n.host.Network().InterfaceListenAddresses()
	if err != nil {
		return nil
	}
	out := make([]string, 0, len(addrs))
	for _, a := range addrs {
		out = append(out, a.String())
	}
	slices.Sort(out)
	return out
}

// wake makes the node find its place again.
func (n *Node) wake(reason string) {
	n.plan.Logger.Debug("waking", "reason", reason)
	if len(n.host.Network().ListenAddresses()) == 0 {
		if _, err := listen(n.host, n.plan.listen, 0); err != nil {
			n.plan.Logger.Warn("not listening any more", "err", err)
		}
	}
	if s, ok := n.host.Network().(*swarm.Swarm); ok {
		for _, b := range n.plan.bootstraps {
			s.Backoff().Clear(b.ID)
		}
		for dev := range n.protectedPeers() {
			s.Backoff().Clear(dev)
		}
	}
	if n.dht != nil {
		n.dht.Refresh()
	}
	n.finder.Wake()
	n.leases.wake()
	n.puncher.again()
	n.reservations.wake()
	if n.chat != nil {
		n.chat.Wake(reason)
	}
}
