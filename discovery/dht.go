package discovery

import (
	"context"
	"errors"
	"fmt"
	"sync/atomic"
	"time"

	"github.com/ipfs/go-cid"
	dht "github.com/libp2p/go-libp2p-kad-dht"
	"github.com/libp2p/go-libp2p-kad-dht/records"
	"github.com/libp2p/go-libp2p/core/host"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/libp2p/go-libp2p/core/protocol"
	ma "github.com/multiformats/go-multiaddr"
	"github.com/multiformats/go-multihash"
)

const (
	// dhtPerCPL and dhtPerTable bound how many servers of one /16 (IPv4) or /32 (IPv6) the routing
	// table holds, so that one rented network cannot fill it. The values are those that libp2p's
	// own public DHT uses.
	dhtPerCPL   = 2
	dhtPerTable = 3
	// dhtRefresh is how often the routing table is checked; the library's 10 minutes cost an
	// idle laptop more than its rooms do.
	dhtRefresh = 30 * time.Minute
)

// DHT is this network's own Kademlia table: its protocol id carries the network's name, so it
// never mixes with the public one. It holds who can be found under a key, and records that
// [DHTConfig.Records] lets in.
type DHT struct {
	host host.Host
	cfg  DHTConfig
	kad  atomic.Pointer[dht.IpfsDHT] // nil unless Run runs
}

// DHTConfig configures [NewDHT].
type DHTConfig struct {
	Network    string          // the network's name
	Server     bool            // answer others; for relays and public nodes
	Records    Records         // what may lie in the table besides addresses; nil: nothing
	Store      Store           // keeps records across restarts; for servers
	Bootstraps []peer.AddrInfo // say how private this network's addresses are; see PolicyFor
}

// NewDHT returns a table on a host; it does nothing before Run.
func NewDHT(h host.Host, cfg DHTConfig) *DHT { return &DHT{host: h, cfg: cfg} }

// errDHTStopped says that the table does not run.
var errDHTStopped = errors.New("the DHT does not run")

// Run keeps the table until ctx ends, and calls ready once it can be asked. The host must be listening.
// It learns of servers as the host connects to them, and dials none by itself while it knows none: that
// is left to the Finder, which chooses by which transport a bootstrap is reached.
func (d *DHT) Run(ctx context.Context, ready func()) error {
	h, cfg := d.host, d.cfg
	mode := dht.ModeClient
	policy := PolicyFor(cfg.Bootstraps)
	if cfg.Server {
		mode = dht.ModeServer
		// A server's own table is as private as the addresses it is itself reached at.
		policy = PolicyFor(append([]peer.AddrInfo{{ID: h.ID(), Addrs: h.Addrs()}}, cfg.Bootstraps...))
	}
	opts, err := d.recordOptions(ctx)
	if err != nil {
		return fmt.Errorf("starting the DHT: %w", err)
	}
	opts = append(
		opts,
		dht.ProtocolPrefix(protocol.ID("/starling/"+cfg.Network)),
		dht.Mode(mode),
		dht.RoutingTablePeerDiversityFilter(dht.NewRTPeerDiversityFilter(h, dhtPerCPL, dhtPerTable)),
		dht.RoutingTableRefreshPeriod(dhtRefresh),
		dht.ProviderManagerOpts(
			records.ProvideValidity(provideLife),
			records.ProviderAddrTTL(provideLife),
			records.CleanupInterval(provideLife/4),
		),
		dht.AddressFilter(func(addrs []ma.Multiaddr) []ma.Multiaddr { return policy.Publish(addrs) }),
	)
	kad, err := dht.New(ctx, h, opts...)
	if err != nil {
		return fmt.Errorf("starting the DHT: %w", err)
	}
	d.kad.Store(kad)
	ready()
	<-ctx.Done()
	d.kad.Store(nil)
	if err := kad.Close(); err != nil {
		return fmt.Errorf("stopping the DHT: %w", err)
	}
	return nil
}

// Ready implements [Rendezvous].
func (d *DHT) Ready() bool { return d.Size() > 0 }

// Size returns the number of servers in the routing table.
func (d *DHT) Size() int {
	kad := d.kad.Load()
	if kad == nil {
		return 0
	}
	return kad.RoutingTable().Size()
}

// Provide implements [Rendezvous].
func (d *DHT) Provide(ctx context.Context, key Key) error {
	c, err := contentID(key)
	if err != nil {
		return err
	}
	kad := d.kad.Load()
	if kad == nil {
		return errDHTStopped
	}
	if err := kad.Provide(ctx, c, true); err != nil {
		return fmt.Errorf("announcing in the DHT: %w", err)
	}
	return nil
}

// Find implements [Rendezvous].
func (d *DHT) Find(ctx context.Context, key Key, limit int) ([]peer.AddrInfo, error) {
	c, err := contentID(key)
	if err != nil {
		return nil, err
	}
	kad := d.kad.Load()
	if kad == nil {
		return nil, errDHTStopped
	}
	// A count of 0 makes the walk go on until it has asked every close server: with a limit it ends
	// as soon as this node's own record fills it.
	found := make(map[peer.ID]int)
	var out []peer.AddrInfo
	for info := range kad.FindProvidersAsync(ctx, c, 0) {
		if i, ok := found[info.ID]; ok {
			out[i].Addrs = append(out[i].Addrs, info.Addrs...)
			continue
		}
		if len(out) < limit {
			found[info.ID] = len(out)
			out = append(out, info)
		}
	}
	if err := ctx.Err(); err != nil && len(out) == 0 && !errors.Is(err, context.Canceled) {
		return nil, fmt.Errorf("looking up in the DHT: %w", err)
	}
	return out, nil
}

// FindPeer implements [Rendezvous].
func (d *DHT) FindPeer(ctx context.Context, p peer.ID) (peer.AddrInfo, error) {
	kad := d.kad.Load()
	if kad == nil {
		return peer.AddrInfo{}, errDHTStopped
	}
	info, err := kad.FindPeer(ctx, p)
	if err != nil {
		return peer.AddrInfo{}, fmt.Errorf("finding a peer in the DHT: %w", err)
	}
	return info, nil
}

// Refresh fills the routing table again after the network changed.
func (d *DHT) Refresh() {
	if kad := d.kad.Load(); kad != nil {
		kad.RefreshRoutingTable()
	}
}

// contentID wraps a rendezvous key as the content id that the DHT's provider records are about:
// the key stands in for the SHA-256 of a content that does not exist.
func contentID(key Key) (cid.Cid, error) {
	mh, err := multihash.Encode(key[:], multihash.SHA2_256)
	if err != nil {
		return cid.Undef, fmt.Errorf("encoding a rendezvous key: %w", err)
	}
	return cid.NewCidV1(cid.Raw, mh), nil
}
