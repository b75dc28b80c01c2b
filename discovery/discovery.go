// Package discovery produces addresses of peers worth dialling, from any source, without flooding.
//
// A [Finder] merges four sources: the cache of addresses that worked before (tried first, so that
// a restart works with every bootstrap down), the local network (mDNS), our own DHT, and the
// configured bootstraps. It decides who is dialled and when: one back-off per peer with jitter, a
// cap on dials a minute, and no private address that a stranger put into the DHT unless it lies in
// one of our own subnets. Every source can be left out.
//
// It is not a router and keeps no connections: whether a peer stays connected is for the
// connection manager of the node.
//
// All methods of Finder may be called from any goroutine. Sources call back from their own.
package discovery

import (
	"context"
	"log/slog"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"
)

// Source names where an address came from.
type Source string

// The sources, in the order in which their addresses are trusted.
const (
	SourceBootstrap Source = "bootstrap" // configured by the user
	SourceHint      Source = "hint"      // from an invite, a contact or a conversation
	SourceLAN       Source = "lan"       // announced on the local network
	SourceCache     Source = "cache"     // worked before
	SourceDHT       Source = "dht"       // anybody could have put it there
)

// Key is a 32-byte rendezvous key, or the name of a [Group].
type Key = [32]byte

// Network is what a Finder needs of the host. Implementations are safe for concurrent use.
type Network interface {
	// Connect opens a connection to a peer at one of the addresses, or says why it cannot. A nil
	// error does not prove that the connection lives on.
	Connect(ctx context.Context, info peer.AddrInfo) error
	// Connected says whether a connection to the peer stands now, be it over a relay: making it a
	// direct one is not the business of dialling again.
	Connected(p peer.ID) bool
	// LocalSubnets lists the prefixes of this machine's own interfaces, as multiaddr texts of IP
	// networks such as "192.168.1.0/24".
	LocalSubnets() []string
}

// Store keeps the cache. Implementations are safe for concurrent use; errors are not fatal, they
// only cost a slower start.
type Store interface {
	// Put writes a value durably or soon durably.
	Put(ctx context.Context, key, value []byte) error
	// Delete removes a key; one that is missing is no error.
	Delete(ctx context.Context, key []byte) error
	// Each calls f with every key that has the prefix until f returns false. f must not call Store.
	Each(ctx context.Context, prefix []byte, f func(key, value []byte) bool) error
}

// LAN finds peers of the same network on the local link.
type LAN interface {
	// Run announces this peer and calls found for each peer it hears of, repeatedly, until ctx
	// ends. An error that a later attempt may not have (no multicast, no interface) is handled
	// inside: Run returns only when ctx ends.
	Run(ctx context.Context, found func(peer.AddrInfo)) error
	// Restart makes it announce this peer's addresses of now.
	Restart()
}

// Rendezvous is a lookup shared by all peers of a network, such as a DHT.
type Rendezvous interface {
	// Ready says whether there is anybody to ask.
	Ready() bool
	// Provide puts this peer's addresses under key once.
	Provide(ctx context.Context, key Key) error
	// Find asks for at most limit peers under key.
	Find(ctx context.Context, key Key, limit int) ([]peer.AddrInfo, error)
	// FindPeer asks for the addresses of one peer.
	FindPeer(ctx context.Context, p peer.ID) (peer.AddrInfo, error)
}

// Limits bound what a Finder does to the network.
type Limits struct {
	DialsPerMinute int           // over all peers; raising it costs traffic on the router's connection table
	ParallelDials  int           // at once
	DialTimeout    time.Duration // for one dial, all addresses together
	Peers          int           // candidates remembered; the least useful one is forgotten first
	GroupPeers     int           // connected members of one group after which no more are dialled
	LANPeers       int           // connected peers of the local network after which no more are dialled
	CachePerGroup  int           // cached peers per group
}

// DefaultLimits suit a laptop and a relay alike.
func DefaultLimits() Limits {
	return Limits{
		DialsPerMinute: 60,
		ParallelDials:  8,
		DialTimeout:    15 * time.Second,
		Peers:          1024,
		GroupPeers:     12,
		LANPeers:       32,
		CachePerGroup:  32,
	}
}

// Config configures a [Finder]. Only Self and Network are required.
type Config struct {
	Self       peer.ID
	Network    Network
	Bootstraps []peer.AddrInfo // kept connected as long as the Finder runs
	LAN        LAN             // nil: no local discovery
	Rendezvous Rendezvous      // nil: no DHT
	Store      Store           // nil: no cache
	Limits     Limits          // zero: DefaultLimits
	Now        func() time.Time
	Logger     *slog.Logger
	Seed       uint64 // of the jitter; 0 draws one
}

// Group is a set of peers that belong together, such as the members of a room. Name identifies
// it in the cache. Keys returns the rendezvous keys at a wall-clock time, the one to announce
// under first; a group without Keys lives from the cache and from hints alone.
type Group struct {
	Name Key
	Keys func(now time.Time) []Key
}
