package node

import (
	"context"
	"fmt"
	"maps"
	"net/netip"
	"time"

	"github.com/libp2p/go-libp2p/core/event"
	"github.com/libp2p/go-libp2p/p2p/net/swarm"
)

const (
	// lookTick is how often wall clock and ticker are compared, and the addresses of the interfaces
	// looked at: libp2p keeps its own list of them for up to a minute.
	lookTick = 3 * time.Second
	// clockJump is how far they may part before it counts as a suspend or a set clock.
	clockJump = 20 * time.Second
	// changeSettle gathers address changes that come in a burst, such as a new Wi-Fi.
	changeSettle = time.Second
	// reannounceSettle gathers changes of what we tell others, such as a place at a relay.
	reannounceSettle = 2 * time.Second
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
	tick := time.NewTicker(lookTick)
	defer tick.Stop()
	var jump jumpDetector
	var settled, reannounce <-chan time.Time
	known := n.interfaces.now()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-sub.Out():
			// A place at a relay is a new address too, but no new network.
			if reannounce == nil {
				reannounce = time.After(reannounceSettle)
			}
		case <-reannounce:
			reannounce = nil
			n.finder.Reannounce()
		case <-settled:
			settled = nil
			now := n.interfaces.now()
			if gone, came := without(known, now), without(now, known); len(gone)+len(came) > 0 {
				known = now
				n.dropFrom(gone)
				n.wake("network change")
			}
		case <-tick.C:
			if ahead, ok := jump.jumped(n.plan.Clock.Now(), time.Now()); ok {
				n.plan.Logger.Info("clock jumped", "by", ahead.Round(time.Second))
				n.wake("resume")
			}
			if settled == nil && !maps.Equal(known, n.interfaces.now()) {
				settled = time.After(changeSettle)
			}
		}
	}
}

// dropFrom closes the connections that began at addresses this machine no longer has. QUIC uses one
// socket for all of them: its connections might survive the move, but by addresses that nobody here
// learns of, and not through a NAT on the other side.
func (n *Node) dropFrom(gone map[netip.Addr]struct{}) {
	var lost4, lost6 bool
	for ip := range gone {
		lost4, lost6 = lost4 || ip.Is4(), lost6 || ip.Is6()
	}
	for _, c := range n.host.Network().Conns() {
		if isCircuit(c.RemoteMultiaddr()) {
			continue // goes with the connection to its relay
		}
		local, ok := addrIP(c.LocalMultiaddr())
		if !ok {
			continue
		}
		_, dead := gone[local]
		if local.IsUnspecified() {
			remote, ok := addrIP(c.RemoteMultiaddr())
			dead = ok && !remote.IsLoopback() && (remote.Is4() && lost4 || remote.Is6() && lost6)
		}
		if dead {
			go c.Close() // ends by itself: on a dead line it waits for an answer that cannot come
		}
	}
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
	n.paths.probeAll()
	n.finder.Wake()
	n.leases.wake()
	n.puncher.again()
	n.reservations.wake()
	if n.chat != nil {
		n.chat.Wake(reason)
	}
}
