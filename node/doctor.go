package node

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"
	ma "github.com/multiformats/go-multiaddr"

	"github.com/starling-chat/starling/discovery"
	"github.com/starling-chat/starling/node/api"
	"github.com/starling-chat/starling/node/netcheck"
)

// Statuses of a check.
const (
	checkOK   = "ok"
	checkWarn = "warn"
	checkFail = "fail"
	checkSkip = "skip"
)

// Doctor implements apiserver.Node: what netcheck finds from outside, and what this node knows itself.
func (n *Node) Doctor(ctx context.Context) (api.Doctor, error) {
	report, err := netcheck.Run(ctx, n.plan.bootstraps)
	if err != nil {
		return api.Doctor{}, fmt.Errorf("checking the network: %w", err)
	}
	st, err := n.Status(ctx)
	if err != nil {
		return api.Doctor{}, err
	}
	checks := []api.Check{n.checkListening()}
	checks = append(checks, DescribeNetwork(report)...)
	if !slices.ContainsFunc(checks, func(c api.Check) bool { return c.Name == "clock" }) {
		checks = append(checks, checkClock(time.Duration(st.ClockSkewMS)*time.Millisecond))
	}
	checks = append(checks, checkReservation(st), n.checkDiscovery(), checkPeers(st), n.checkLosses())
	d := api.Doctor{Schema: api.Schema, OK: true, Checks: checks}
	for _, c := range checks {
		d.OK = d.OK && c.Status != checkFail
	}
	return d, nil
}

func (n *Node) checkListening() api.Check {
	c := api.Check{Name: "listening", Status: checkOK}
	addrs := slices.DeleteFunc(n.host.Network().ListenAddresses(), func(a ma.Multiaddr) bool {
		return a.String() == "/p2p-circuit" // the relay transport's own, no socket
	})
	if len(addrs) == 0 {
		c.Status, c.Detail, c.Hint = checkFail, "no address is listened on", "restart the node; another program may hold the port"
		return c
	}
	c.Detail = fmt.Sprintf("%d addresses, the first %s", len(addrs), addrs[0])
	return c
}

// DescribeNetwork puts a report of netcheck in words.
func DescribeNetwork(r netcheck.Report) []api.Check {
	out := []api.Check{describeFamilies(r)}
	if len(r.Nodes) == 0 {
		return append(out, api.Check{
			Name: "public nodes", Status: checkSkip, Detail: "none is configured",
			Hint: "on the internet, give one with --relay; on a local network none is needed",
		})
	}
	if r.Behind > time.Hour {
		out = append(out, api.Check{
			Name: "clock", Status: checkFail,
			Detail: fmt.Sprintf("this machine's clock, or theirs, is wrong by about %s: certificates from now look as if from the future", r.Behind.Round(time.Minute)),
			Hint:   "set the clock (timedatectl set-ntp true)",
		})
	}
	for _, node := range r.Nodes {
		out = append(out, describeNode(node))
	}
	return append(out, describeUDP(r), describeNAT(r))
}

func describeFamilies(r netcheck.Report) api.Check {
	c := api.Check{Name: "addresses", Status: checkOK}
	var have []string
	if r.IPv4 {
		have = append(have, "IPv4")
	}
	if r.IPv6 {
		have = append(have, "IPv6")
	}
	if len(have) == 0 {
		c.Status, c.Detail, c.Hint = checkFail, "this machine has no address", "connect it to a network"
		return c
	}
	c.Detail = strings.Join(have, " and ")
	return c
}

func describeNode(node netcheck.Node) api.Check {
	c := api.Check{Name: "public node " + shortID(node.Peer), Status: checkOK}
	var parts []string
	for _, t := range []struct {
		name string
		a    netcheck.Attempt
	}{{"TCP", node.TCP}, {"QUIC", node.QUIC}} {
		switch {
		case !t.a.Tried:
		case t.a.OK:
			parts = append(parts, fmt.Sprintf("%s works (%s)", t.name, t.a.RTT.Round(time.Millisecond)))
		default:
			parts = append(parts, t.name+" does not")
		}
	}
	c.Detail = strings.Join(parts, ", ")
	if !node.TCP.OK && !node.QUIC.OK {
		c.Status = checkFail
		c.Hint = "check its address with its operator, and whether this network lets you out"
	}
	return c
}

func describeUDP(r netcheck.Report) api.Check {
	c := api.Check{Name: "udp", Status: checkOK, Detail: "UDP gets through"}
	switch {
	case !r.UDP && !r.TCP:
		c.Status, c.Detail = checkFail, "neither TCP nor UDP gets through"
		c.Hint = "this network lets nothing out, or the public nodes are down"
	case !r.UDP:
		c.Status, c.Detail = checkWarn, "UDP is blocked; TCP works"
		c.Hint = "direct connections are rarer without UDP; everything else works over TCP"
	}
	return c
}

func describeNAT(r netcheck.Report) api.Check {
	c := api.Check{Name: "nat", Status: checkOK}
	switch r.NAT {
	case netcheck.NATNone:
		c.Detail = "this machine is seen at its own address"
	case netcheck.NATCone:
		c.Detail = "behind a router that lets holes be punched: direct connections will mostly work"
	case netcheck.NATSymm:
		c.Status, c.Detail = checkWarn, "behind a router that uses another port for every connection: direct connections will mostly fail"
		c.Hint = "messages go through a relay; port forwarding on the router would help"
	default:
		c.Status, c.Detail = checkSkip, "not known: two public nodes must be reached over UDP to tell"
	}
	return c
}

func checkReservation(st api.Status) api.Check {
	c := api.Check{Name: "relay", Status: checkOK}
	if len(st.Relays) == 0 {
		c.Status, c.Detail = checkSkip, "no relay is configured"
		return c
	}
	connected, reserved, topics := 0, 0, 0
	for _, r := range st.Relays {
		if r.Connected {
			connected++
		}
		if r.Reserved {
			reserved++
		}
		topics += r.Topics
	}
	c.Detail = fmt.Sprintf("%d of %d connected, %d hold a place for this node, %d rooms forwarded", connected, len(st.Relays), reserved, topics)
	switch {
	case connected == 0:
		c.Status, c.Hint = checkFail, "nobody behind another router can reach you until a relay answers"
	case reserved == 0 && st.Reachability != string(ReachabilityPublic):
		c.Status, c.Hint = checkWarn, "no relay holds a place: it may be full; add another with --relay"
	}
	return c
}

func (n *Node) checkDiscovery() api.Check {
	c := api.Check{Name: "discovery", Status: checkOK}
	s := n.finder.Stats()
	var parts []string
	if n.plan.MDNS {
		parts = append(parts, fmt.Sprintf("%d sightings on the local network", s.Found[discovery.SourceLAN]))
	}
	if n.dht != nil {
		parts = append(parts, fmt.Sprintf("%d servers in the DHT table", n.dht.Size()))
		if n.dht.Size() == 0 && len(n.plan.bootstraps) > 0 {
			c.Status, c.Hint = checkWarn, "rooms cannot be looked up until a public node answers"
		}
	}
	parts = append(parts, fmt.Sprintf("%d dials, %d failed", s.Dials, s.Failures))
	c.Detail = strings.Join(parts, ", ")
	return c
}

func checkPeers(st api.Status) api.Check {
	c := api.Check{Name: "peers", Status: checkOK}
	p := st.Peers
	c.Detail = fmt.Sprintf("%d connected: %d lan, %d direct, %d punched, %d relayed", p.Total, p.LAN, p.Direct, p.Punched, p.Relayed)
	if p.Total == 0 {
		c.Status, c.Hint = checkWarn, "nobody is connected yet"
	}
	return c
}

func (n *Node) checkLosses() api.Check {
	c := api.Check{Name: "losses", Status: checkOK}
	g := &n.gossip.counters
	c.Detail = fmt.Sprintf("%d messages dropped by full queues, %d invalid ones refused", g.dropped(), g.rejected.Load())
	if g.dropped() > 0 {
		c.Status, c.Hint = checkWarn, "sync fetches what is missing; a slow disk or network is the usual cause"
	}
	return c
}

// shortID shortens a peer id for people.
func shortID(p peer.ID) string {
	s := p.String()
	return s[max(0, len(s)-8):]
}
