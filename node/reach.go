package node

import (
	"context"
	"errors"
	"fmt"
	"net"
	"slices"
	"time"

	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"
	ma "github.com/multiformats/go-multiaddr"

	"github.com/starling-chat/starling/chat"
	"github.com/starling-chat/starling/chat/wire"
	"github.com/starling-chat/starling/discovery"
)

// maxCircuits bounds the relays by which an unconnected peer is tried.
const maxCircuits = 4

// reach makes a connection to a peer, of whatever kind, or returns chat.ErrUnreachable. Known
// addresses and our own relays are tried together (the swarm gives direct ones a head start), then
// whatever the DHT knows.
func (n *Node) reach(ctx context.Context, p peer.ID) error {
	if n.connected(p) {
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, reachTimeout)
	defer cancel()
	ctx = network.WithAllowLimitedConn(ctx, "starling")
	addrs := slices.Concat(n.finder.Known(p), n.circuits(p))
	err := n.host.Connect(ctx, peer.AddrInfo{ID: p, Addrs: addrs})
	if err == nil {
		return nil
	}
	found, ferr := n.finder.FindPeer(ctx, p)
	if ferr != nil || len(found) == 0 || len(found[0].Addrs) == 0 {
		return fmt.Errorf("%w: %w", chat.ErrUnreachable, errors.Join(err, ferr))
	}
	if err := n.host.Connect(ctx, found[0]); err != nil {
		return fmt.Errorf("%w: %w", chat.ErrUnreachable, err)
	}
	return nil
}

func (n *Node) connected(p peer.ID) bool {
	c := n.host.Network().Connectedness(p)
	return c == network.Connected || c == network.Limited
}

// circuits returns addresses of a peer by way of the relays we are connected to: members of a room
// choose its relays by the same rule, so somebody whose address nobody knows is likely behind one.
func (n *Node) circuits(p peer.ID) []ma.Multiaddr {
	var out []ma.Multiaddr
	for _, r := range n.knownRelays() {
		if r == p || n.host.Network().Connectedness(r) != network.Connected {
			continue
		}
		a, err := ma.NewMultiaddr("/p2p/" + r.String() + "/p2p-circuit")
		if err != nil {
			continue
		}
		if out = append(out, a); len(out) == maxCircuits {
			break
		}
	}
	return out
}

// hint remembers addresses that an invite or a contact brought.
func (n *Node) hint(p peer.ID, texts []string) {
	var addrs []ma.Multiaddr
	for _, t := range texts[:min(len(texts), wire.MaxLinkAddresses)] {
		a, err := ma.NewMultiaddr(t)
		if err != nil {
			continue
		}
		if transport, id := peer.SplitAddr(a); transport != nil && (id == "" || id == p) {
			addrs = append(addrs, transport)
		}
	}
	if len(addrs) > 0 {
		n.finder.Hint(peer.AddrInfo{ID: p, Addrs: addrs})
	}
}

// dialer is what the Finder needs of the node.
type dialer struct{ n *Node }

var _ discovery.Network = dialer{}

// Connect implements discovery.Network.
func (d dialer) Connect(ctx context.Context, info peer.AddrInfo) error {
	n := d.n
	n.preferTCP(&info)
	if len(info.Addrs) == 0 {
		return n.reach(ctx, info.ID)
	}
	return n.host.Connect(network.WithAllowLimitedConn(ctx, "starling"), info)
}

// Connected implements discovery.Network.
func (d dialer) Connected(p peer.ID) bool { return d.n.connected(p) }

// LocalSubnets implements discovery.Network.
func (d dialer) LocalSubnets() []string {
	addrs, err := net.InterfaceAddrs()
	if err != nil || d.n.plan.Simulation != nil {
		return nil
	}
	out := make([]string, 0, len(addrs))
	for _, a := range addrs {
		if ipnet, ok := a.(*net.IPNet); ok && !ipnet.IP.IsLoopback() {
			out = append(out, ipnet.String())
		}
	}
	return out
}

// preferTCP makes the connection to every second public node a TCP one. Others learn only the
// observed address of the transport by which we reached public nodes, so a node that has been seen
// over QUIC alone cannot be met by one whose network blocks UDP. Where TCP fails, the next attempt
// takes whatever works.
func (n *Node) preferTCP(info *peer.AddrInfo) {
	i := slices.IndexFunc(n.plan.bootstraps, func(b peer.AddrInfo) bool { return b.ID == info.ID })
	if i < 0 || i%2 == 0 {
		return
	}
	n.mu.Lock()
	n.tcpFirst[info.ID] = !n.tcpFirst[info.ID]
	first := n.tcpFirst[info.ID]
	n.mu.Unlock()
	tcpOnly := slices.DeleteFunc(slices.Clone(info.Addrs), func(a ma.Multiaddr) bool {
		_, err := a.ValueForProtocol(ma.P_TCP)
		return err != nil || isCircuit(a)
	})
	if !first || len(tcpOnly) == 0 {
		return
	}
	// The swarm dials all that the peerstore has, whatever it is asked for.
	n.host.Peerstore().ClearAddrs(info.ID)
	info.Addrs = tcpOnly
}

// directory implements chat.Directory by the Finder.
type directory struct{ n *Node }

var (
	_ chat.Directory = directory{}
	_ chat.Records   = directory{}
)

// Announce implements chat.Directory.
func (d directory) Announce(ctx context.Context, key [32]byte) { d.n.finder.Announce(ctx, key) }

// Find implements chat.Directory.
func (d directory) Find(ctx context.Context, key [32]byte) ([]wire.DeviceID, error) {
	infos, err := d.n.finder.Find(ctx, key)
	if err != nil {
		return nil, fmt.Errorf("looking up a device: %w", err)
	}
	out := make([]wire.DeviceID, 0, len(infos))
	for _, info := range infos {
		dev, err := wire.DeviceFromPeerID([]byte(info.ID))
		if err != nil {
			continue
		}
		if len(info.Addrs) > 0 {
			d.n.finder.Hint(info)
		}
		out = append(out, dev)
	}
	return out, nil
}

// PutRecord implements chat.Records.
func (d directory) PutRecord(ctx context.Context, key wire.RecordKey, value []byte) error {
	if d.n.dht == nil {
		return errNoTable
	}
	return d.n.dht.Put(ctx, key, value)
}

// GetRecord implements chat.Records.
func (d directory) GetRecord(ctx context.Context, key wire.RecordKey) ([]byte, error) {
	if d.n.dht == nil {
		return nil, errNoTable
	}
	value, err := d.n.dht.Get(ctx, key)
	if errors.Is(err, discovery.ErrNoRecord) {
		return nil, fmt.Errorf("looking a record up: %w", chat.ErrNotFound)
	}
	return value, err
}

// errNoTable says that the node takes no part in the lookup table.
var errNoTable = errors.New("the lookup table is switched off")

// lookupRules let only signed records into the lookup table. It implements discovery.Records.
type lookupRules struct{ now func() time.Time }

// Check implements discovery.Records.
func (r lookupRules) Check(key discovery.Key, value []byte) error {
	_, err := wire.CheckLookup(key, value, r.now())
	return err
}

// Newer implements discovery.Records.
func (r lookupRules) Newer(a, b []byte) bool { return wire.NewerLookup(a, b) }
