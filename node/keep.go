package node

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"slices"
	"time"

	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/libp2p/go-libp2p/core/protocol"
	ma "github.com/multiformats/go-multiaddr"

	"github.com/starling-chat/starling/chat"
	"github.com/starling-chat/starling/chat/wire"
	"github.com/starling-chat/starling/discovery"
	"github.com/starling-chat/starling/node/relay"
	"github.com/starling-chat/starling/storage"
)

const (
	// keepEvery is how often the list of peers worth a connection is gone through.
	keepEvery = 20 * time.Second
	// protectTag marks peers that the connection manager may not close.
	protectTag = "starling"

	addressBucket = "addresses"
	nodeBucket    = "node"
	portKey       = "port"
	usageKey      = "usage"
)

// pathChanged is called by paths for each peer whose connections changed.
func (n *Node) pathChanged(p peer.ID, path chat.Path) {
	relay := path != chat.PathNone && n.speaks(p, wire.RelayProtocol)
	chats := path != chat.PathNone && n.speaks(p, dmProtocol)
	n.mu.Lock()
	_, was := n.relays[p]
	switch {
	case relay && !was:
		n.relays[p] = struct{}{}
	case !relay && was:
		delete(n.relays, p)
	}
	old, known := n.reported[p]
	tell := path
	if chats {
		n.reported[p] = path
	} else {
		tell = chat.PathNone
		delete(n.reported, p)
	}
	n.mu.Unlock()

	n.puncher.mark(p, path)
	if path == chat.PathNone {
		n.finder.Lost(p)
	}
	if relay != was {
		n.leases.wake()
		n.reservations.wake()
	}
	if n.chat != nil && ((chats && (!known || old != path)) || (!chats && known)) {
		n.direct.pathChanged(p, tell)
		if dev, err := wire.DeviceFromPeerID([]byte(p)); err == nil {
			n.chat.PeerChanged(dev, tell)
		}
	}
	if path != chat.PathNone && path != chat.PathRelayed {
		n.remember(p)
	}
}

// speaks says whether a peer's identification named a protocol.
func (n *Node) speaks(p peer.ID, proto protocol.ID) bool {
	supported, err := n.host.Peerstore().SupportsProtocols(p, proto)
	return err == nil && len(supported) > 0
}

func (n *Node) isRelay(p peer.ID) bool {
	n.mu.Lock()
	defer n.mu.Unlock()
	_, ok := n.relays[p]
	return ok
}

// knownRelays lists the connected relays, in a stable order.
func (n *Node) knownRelays() []peer.ID {
	n.mu.Lock()
	defer n.mu.Unlock()
	out := make([]peer.ID, 0, len(n.relays))
	for p := range n.relays {
		out = append(out, p)
	}
	slices.Sort(out)
	return out
}

// trustedRelays lists the connected relays that the user configured: a stranger that merely says it
// is a relay is told nothing.
func (n *Node) trustedRelays() []peer.ID {
	return slices.DeleteFunc(n.knownRelays(), func(p peer.ID) bool {
		return !slices.ContainsFunc(n.plan.bootstraps, func(b peer.AddrInfo) bool { return b.ID == p })
	})
}

// remember caches where a peer was reached, in every group it belongs to.
func (n *Node) remember(p peer.ID) {
	addrs := n.goodAddrs(p)
	if len(addrs) == 0 {
		return
	}
	info := peer.AddrInfo{ID: p, Addrs: addrs}
	n.mu.Lock()
	_, relay := n.relays[p]
	_, guarded := n.guarded[p]
	n.mu.Unlock()
	if relay {
		n.finder.Good(discovery.RelayGroup, info)
	}
	if guarded {
		n.finder.Good(discovery.ContactGroup, info)
	}
	for _, topic := range n.gossip.joined() {
		if !relay && slices.Contains(n.gossip.peers(topic), p) {
			n.finder.Good(topic, info)
		}
	}
}

// goodAddrs returns the addresses at which a peer can be dialled again: the one we dialled, then those
// that it listens on by its own word.
func (n *Node) goodAddrs(p peer.ID) []ma.Multiaddr {
	var out []ma.Multiaddr
	for _, c := range n.host.Network().ConnsToPeer(p) {
		if c.Stat().Direction == network.DirOutbound && !isCircuit(c.RemoteMultiaddr()) {
			out = append(out, c.RemoteMultiaddr())
		}
	}
	// The peerstore gives them in any order; in a fixed one the same addresses are cached once only.
	listens := n.host.Peerstore().Addrs(p)
	slices.SortFunc(listens, func(a, b ma.Multiaddr) int { return bytes.Compare(a.Bytes(), b.Bytes()) })
	for _, a := range listens {
		if !slices.ContainsFunc(out, a.Equal) {
			out = append(out, a)
		}
	}
	return out
}

// keep goes through the peers that chat cares about: it protects them from the connection manager
// and asks discovery for those that are not connected; and it refreshes the address cache.
func (n *Node) keep(ctx context.Context) error {
	tick := time.NewTicker(keepEvery)
	defer tick.Stop()
	for {
		n.guard()
		for _, p := range n.host.Network().Peers() {
			n.remember(p)
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return nil
		}
	}
}

func (n *Node) guard() {
	want := make(map[peer.ID]struct{})
	var devices []wire.DeviceID
	if n.chat != nil {
		devices = n.chat.Protect()
	}
	for _, dev := range devices {
		if len(want) < n.plan.Limits.Protected {
			want[peer.ID(dev.PeerID())] = struct{}{}
		}
	}
	delete(want, n.id)
	n.mu.Lock()
	old := n.guarded
	n.guarded = want
	n.mu.Unlock()
	cm := n.host.ConnManager()
	for p := range old {
		if _, ok := want[p]; !ok {
			cm.Unprotect(p, protectTag)
			n.finder.Release(p)
		}
	}
	for p := range want {
		cm.Protect(p, protectTag)
		n.finder.Want(p)
	}
	for _, b := range n.plan.bootstraps {
		cm.Protect(b.ID, protectTag)
	}
}

// roomJoined makes a room findable.
func (n *Node) roomJoined(keys *wire.RoomKeys) {
	n.finder.Follow(discovery.Group{
		Name: keys.Topic,
		Keys: func(now time.Time) []discovery.Key {
			day := wire.UTCDay(now)
			out := []discovery.Key{keys.RendezvousKey(day)}
			// Members whose last announcement was yesterday's have until noon to renew it.
			if now.UTC().Hour() < 12 {
				out = append(out, keys.RendezvousKey(day-1))
			}
			return out
		},
	})
	n.leases.join(keys)
}

// roomLeft undoes roomJoined.
func (n *Node) roomLeft(topic wire.TopicKey) {
	n.finder.Unfollow(topic)
	n.leases.leave(topic)
}

// roomMember notes that a peer takes part in a joined room.
func (n *Node) roomMember(topic wire.TopicKey, p peer.ID) {
	if n.isRelay(p) {
		return
	}
	addrs := n.goodAddrs(p)
	n.finder.Member(topic, peer.AddrInfo{ID: p, Addrs: addrs})
	n.finder.Good(topic, peer.AddrInfo{ID: p, Addrs: addrs})
}

// lastPort returns the port of the last start, or 0. A laptop keeps its port, so that the addresses
// that others remember stay good.
func (n *Node) lastPort(ctx context.Context) int {
	v, err := n.store.GetBucket(ctx, nodeBucket, []byte(portKey))
	if err != nil || len(v) != 2 {
		return 0
	}
	return int(binary.BigEndian.Uint16(v))
}

func (n *Node) savePort(ctx context.Context, port int) {
	var b storage.Batch
	b.Put(nodeBucket, []byte(portKey), binary.BigEndian.AppendUint16(nil, uint16(port)))
	if _, err := n.store.Commit(ctx, &b, storage.Relaxed); err != nil {
		n.plan.Logger.Warn("port not remembered", "err", err)
	}
}

// addressStore keeps discovery's cache in the store.
type addressStore struct{ store *storage.Store }

var _ discovery.Store = addressStore{}

// Put implements discovery.Store.
func (a addressStore) Put(ctx context.Context, key, value []byte) error {
	return a.commit(ctx, func(b *storage.Batch) { b.Put(addressBucket, key, value) })
}

// Delete implements discovery.Store.
func (a addressStore) Delete(ctx context.Context, key []byte) error {
	return a.commit(ctx, func(b *storage.Batch) { b.Delete(addressBucket, key) })
}

func (a addressStore) commit(ctx context.Context, fill func(*storage.Batch)) error {
	var b storage.Batch
	fill(&b)
	_, err := a.store.Commit(ctx, &b, storage.Relaxed)
	if errors.Is(err, storage.ErrNoSpace) {
		return nil // a full disk has been reported already; the cache can wait
	}
	return err
}

// Each implements discovery.Store.
func (a addressStore) Each(ctx context.Context, prefix []byte, f func(key, value []byte) bool) error {
	for kv, err := range a.store.ScanBucket(ctx, addressBucket, prefix) {
		if err != nil {
			return err
		}
		if !f(kv.Key, kv.Value) {
			return nil
		}
	}
	return nil
}

// protectedPeers returns the peers that chat asked to keep.
func (n *Node) protectedPeers() map[peer.ID]struct{} {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.guarded // replaced, never changed
}

// usageStore keeps a relay's byte counts in the store.
type usageStore struct{ store *storage.Store }

var _ relay.UsageStore = usageStore{}

// LoadUsage implements relay.UsageStore.
func (u usageStore) LoadUsage(ctx context.Context) ([]byte, error) {
	b, err := u.store.GetBucket(ctx, nodeBucket, []byte(usageKey))
	if errors.Is(err, storage.ErrNotFound) {
		return nil, nil
	}
	return b, err
}

// SaveUsage implements relay.UsageStore.
func (u usageStore) SaveUsage(ctx context.Context, b []byte) error {
	var batch storage.Batch
	batch.Put(nodeBucket, []byte(usageKey), b)
	_, err := u.store.Commit(ctx, &batch, storage.Relaxed)
	return err
}
