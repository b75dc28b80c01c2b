package node

import (
	"context"
	"errors"
	"fmt"
	"runtime/metrics"
	"slices"
	"strings"
	"time"

	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/libp2p/go-libp2p/p2p/protocol/ping"

	"github.com/starling-chat/starling/chat"
	"github.com/starling-chat/starling/chat/wire"
	"github.com/starling-chat/starling/node/api"
	"github.com/starling-chat/starling/node/apiserver"
	"github.com/starling-chat/starling/storage"
)

var (
	_ apiserver.Node        = (*Node)(nil)
	_ apiserver.Maintenance = (*Node)(nil)
)

// pingTimeout bounds one round trip; a relayed path across the world takes half a second.
const pingTimeout = 10 * time.Second

// Status implements apiserver.Node.
func (n *Node) Status(context.Context) (api.Status, error) {
	st := api.Status{
		Schema:       api.Schema,
		Version:      n.plan.Version,
		PeerID:       n.id.String(),
		Network:      n.plan.Network,
		Home:         n.plan.Home,
		StartedAt:    api.Time{Time: n.started},
		Ready:        n.isReady(),
		Addrs:        n.Addrs(),
		Reachability: n.reachability(),
		Relays:       n.relayStates(),
		Encrypted:    n.plan.Keys.Protected(),
		MemoryBytes:  memoryInUse(),
		BytesIn:      n.bandwidth.in.Load(),
		BytesOut:     n.bandwidth.out.Load(),
		ClockSkewMS:  n.gossip.skew.ahead(n.plan.Clock.Now()).Milliseconds(),
	}
	if n.chat != nil {
		st.Away.Mailboxes, st.Away.Findable = n.chat.Away()
	}
	c := &n.gossip.counters
	st.Gossip = api.Gossip{
		Published: c.published.Load(), Delivered: c.delivered.Load(), Duplicates: c.duplicates.Load(),
		Rejected: c.rejected.Load(), Ignored: c.ignored.Load(), Dropped: c.dropped(),
	}
	for _, p := range n.host.Network().Peers() {
		switch n.paths.of(p) {
		case chat.PathLAN:
			st.Peers.LAN++
		case chat.PathDirect:
			st.Peers.Direct++
		case chat.PathPunched:
			st.Peers.Punched++
		case chat.PathRelayed:
			st.Peers.Relayed++
		default:
			continue
		}
		st.Peers.Total++
	}
	st.Problems = n.problems(st)
	return st, nil
}

func (n *Node) isReady() bool {
	select {
	case <-n.ready:
		return true
	default:
		return false
	}
}

// reachability says what is known of this node's position: configured, or shown by its addresses.
func (n *Node) reachability() string {
	switch n.plan.Reachability {
	case ReachabilityPublic, ReachabilityPrivate:
		return string(n.plan.Reachability)
	}
	for _, a := range n.host.Addrs() {
		if isCircuit(a) {
			return string(ReachabilityPrivate)
		}
	}
	return "unknown"
}

// relayStates describes the configured public nodes and the relays among them.
func (n *Node) relayStates() []api.Relay {
	out := []api.Relay{}
	for _, b := range n.plan.bootstraps {
		connected := n.host.Network().Connectedness(b.ID) == network.Connected
		configured := slices.ContainsFunc(n.plan.relays, func(r peer.AddrInfo) bool { return r.ID == b.ID })
		if !configured && !n.isRelay(b.ID) {
			continue
		}
		st := n.leases.state(b.ID)
		r := api.Relay{PeerID: b.ID.String(), Connected: connected, Reserved: n.reservations.holds(b.ID), Topics: st.topics, Error: st.err}
		if !connected {
			r.Error = "not connected"
		}
		out = append(out, r)
	}
	return out
}

// problems says in words what the user should know.
func (n *Node) problems(st api.Status) []string {
	out := []string{}
	down := 0
	for _, r := range st.Relays {
		switch {
		case !r.Connected:
			down++
		case r.Error != "":
			out = append(out, fmt.Sprintf("relay %s: %s", r.PeerID, r.Error))
		}
	}
	if c := checkClock(time.Duration(st.ClockSkewMS) * time.Millisecond); c.Status != checkOK {
		out = append(out, c.Detail+"; "+c.Hint)
	}
	if n.chat != nil && n.chat.Revoked() {
		out = append(out, "this device was revoked by another one of your account: nobody takes anything from it any more")
	}
	if down > 0 && down == len(st.Relays) {
		out = append(out, "no relay can be reached: people behind other routers cannot reach you; try `starling doctor`")
	}
	if st.Peers.Total == 0 && n.isReady() && time.Since(n.started) > time.Minute {
		out = append(out, "nobody is connected: give the address of a relay or another node with --relay or --bootstrap")
	}
	return out
}

// Peers implements apiserver.Node.
func (n *Node) Peers(context.Context) ([]api.Peer, error) {
	rooms := make(map[peer.ID]int)
	for _, topic := range n.gossip.joined() {
		for _, p := range n.gossip.peers(topic) {
			rooms[p]++
		}
	}
	out := []api.Peer{}
	for _, p := range n.host.Network().Peers() {
		path := n.paths.of(p)
		c := n.bestConn(p)
		if path == chat.PathNone || c == nil {
			continue
		}
		entry := api.Peer{
			PeerID: p.String(),
			Path:   string(path),
			Addr:   c.RemoteMultiaddr().String(),
			RTTMS:  milliseconds(n.host.Peerstore().LatencyEWMA(p)),
			Relay:  n.isRelay(p),
			Rooms:  rooms[p],
		}
		if dev, err := wire.DeviceFromPeerID([]byte(p)); err == nil && n.chat != nil {
			if account, name, known := n.chat.Owner(dev); known {
				entry.Account, entry.Nick = account.String(), name
			}
		}
		if agent, err := n.host.Peerstore().Get(p, "AgentVersion"); err == nil {
			if text, ok := agent.(string); ok {
				entry.Agent = text[:min(len(text), 64)]
			}
		}
		out = append(out, entry)
	}
	slices.SortFunc(out, func(a, b api.Peer) int { return strings.Compare(a.PeerID, b.PeerID) })
	return out, nil
}

// bestConn returns the connection that new streams to a peer use.
func (n *Node) bestConn(p peer.ID) network.Conn {
	var best network.Conn
	for _, c := range n.host.Network().ConnsToPeer(p) {
		if c.IsClosed() {
			continue
		}
		if best == nil || pathRank(connPath(c)) > pathRank(connPath(best)) {
			best = c
		}
	}
	return best
}

// Ping implements apiserver.Node.
func (n *Node) Ping(ctx context.Context, text string) (api.PingResult, error) {
	ctx, cancel := context.WithTimeout(ctx, reachTimeout+pingTimeout)
	defer cancel()
	p, err := n.parsePeer(text)
	if err != nil {
		return api.PingResult{}, err
	}
	if err := n.reach(ctx, p); err != nil {
		return api.PingResult{}, fmt.Errorf("pinging %s: %w", p, err)
	}
	ctx, cancel = context.WithTimeout(network.WithAllowLimitedConn(ctx, "ping"), pingTimeout)
	defer cancel()
	select {
	case r := <-ping.Ping(ctx, n.host, p):
		if r.Error != nil {
			return api.PingResult{}, fmt.Errorf("pinging %s: %w: %w", p, chat.ErrUnreachable, r.Error)
		}
		res := api.PingResult{PeerID: p.String(), Path: string(n.paths.of(p)), RTTMS: milliseconds(r.RTT)}
		if c := n.bestConn(p); c != nil {
			res.Addr = c.RemoteMultiaddr().String()
		}
		return res, nil
	case <-ctx.Done():
		return api.PingResult{}, fmt.Errorf("pinging %s: %w: %w", p, chat.ErrUnreachable, ctx.Err())
	}
}

// parsePeer reads a peer id, or a multiaddr that ends in one and whose address is remembered.
func (n *Node) parsePeer(text string) (peer.ID, error) {
	if strings.HasPrefix(text, "/") {
		info, err := peer.AddrInfoFromString(text)
		if err != nil {
			return "", fmt.Errorf("%w: %q is no address with a peer id: %w", chat.ErrBadRequest, text, err)
		}
		n.finder.Hint(*info)
		return info.ID, nil
	}
	p, err := peer.Decode(text)
	if err != nil {
		return "", fmt.Errorf("%w: %q is no peer id: %w", chat.ErrBadRequest, text, err)
	}
	return p, nil
}

func milliseconds(d time.Duration) float64 { return float64(d.Microseconds()) / 1000 }

// memoryInUse returns the bytes that the Go runtime holds from the operating system.
func memoryInUse() uint64 {
	s := []metrics.Sample{
		{Name: "/memory/classes/total:bytes"}, {Name: "/memory/classes/heap/released:bytes"},
	}
	metrics.Read(s)
	return s[0].Value.Uint64() - s[1].Value.Uint64()
}

// Check implements apiserver.Maintenance.
func (n *Node) Check(ctx context.Context) (api.CheckReport, error) {
	return checkReport(n.store.Check(ctx))
}

// CheckStore verifies the store of a node that does not run. One that does not open is repaired: what
// is damaged is set aside, for others to send again.
func CheckStore(ctx context.Context, cfg Config) (api.CheckReport, error) {
	p, err := cfg.check()
	if err != nil {
		return api.CheckReport{}, fmt.Errorf("configuring the node: %w", err)
	}
	store, err := openStore(ctx, p)
	if errors.Is(err, storage.ErrManifest) || errors.Is(err, storage.ErrCorrupt) {
		p.Logger.Warn("the store does not open; repairing it", "err", err)
		return checkReport(storage.Repair(ctx, storeOptions(p)))
	}
	if err != nil {
		return api.CheckReport{}, err
	}
	report, err := checkReport(store.Check(ctx))
	return report, errors.Join(err, store.Close())
}

func checkReport(r storage.Report, err error) (api.CheckReport, error) {
	if err != nil {
		return api.CheckReport{}, err
	}
	return api.CheckReport{
		OK:       r.OK(),
		Checked:  r.Values,
		Streams:  r.Streams,
		Records:  r.Records + r.Stubs,
		Problems: slices.Concat([]string{}, r.Damaged),
		Repaired: slices.Concat([]string{}, r.Repaired),
	}, nil
}
