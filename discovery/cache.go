package discovery

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"
	ma "github.com/multiformats/go-multiaddr"
)

const (
	cachePrefix  = "peer/"
	cacheVersion = 1
	// maxAddrSize bounds one cached address in bytes; a circuit address with two peer ids has 130.
	maxAddrSize = 512
	// maxPeerIDSize bounds a peer id in bytes; those of Ed25519 keys have 38.
	maxPeerIDSize = 64
	// cacheLife is how long an entry is worth a dial without having worked again.
	cacheLife = 60 * 24 * time.Hour
	// cacheRefresh is how old an entry gets before the same addresses are written again.
	cacheRefresh = 6 * time.Hour
)

var errCacheRecord = errors.New("cached address record is malformed")

// record is one cached peer: when it was last connected, and where.
type record struct {
	peer  peer.ID
	good  time.Time // second precision
	addrs []ma.Multiaddr
}

// encode writes version, seconds since 1970 as 8 bytes, a count, and each address with its length.
func (r *record) encode() []byte {
	b := binary.BigEndian.AppendUint64([]byte{cacheVersion}, uint64(r.good.Unix()))
	b = append(b, byte(len(r.addrs)))
	for _, a := range r.addrs {
		raw := a.Bytes()
		b = binary.BigEndian.AppendUint16(b, uint16(len(raw)))
		b = append(b, raw...)
	}
	return b
}

func decodeRecord(p peer.ID, b []byte) (*record, error) {
	if len(b) < 10 || b[0] != cacheVersion || b[9] > maxAddrs {
		return nil, errCacheRecord
	}
	seconds := binary.BigEndian.Uint64(b[1:9])
	if seconds > 1<<40 {
		return nil, errCacheRecord
	}
	r := &record{peer: p, good: time.Unix(int64(seconds), 0)}
	count, b := int(b[9]), b[10:]
	for range count {
		if len(b) < 2 {
			return nil, errCacheRecord
		}
		size := int(binary.BigEndian.Uint16(b))
		b = b[2:]
		if size > maxAddrSize || size > len(b) {
			return nil, errCacheRecord
		}
		a, err := ma.NewMultiaddrBytes(b[:size])
		if err != nil {
			return nil, errCacheRecord
		}
		r.addrs = append(r.addrs, a)
		b = b[size:]
	}
	if len(b) != 0 {
		return nil, errCacheRecord
	}
	return r, nil
}

// cache keeps last-good addresses per group in a [Store]. One goroutine of the Finder uses it, so
// that no lock is held across the disk and no caller waits for it.
type cache struct {
	store Store
	max   int // per group
}

func cacheKey(group Key, p peer.ID) []byte {
	return append(append([]byte(cachePrefix), group[:]...), p...)
}

// load returns a group's entries, most recently good first. Expired and broken ones are deleted.
func (c *cache) load(ctx context.Context, group Key, now time.Time) ([]*record, error) {
	if c.store == nil {
		return nil, nil
	}
	prefix := append([]byte(cachePrefix), group[:]...)
	var out []*record
	var drop [][]byte
	err := c.store.Each(ctx, prefix, func(key, value []byte) bool {
		id := key[len(prefix):]
		if len(id) == 0 || len(id) > maxPeerIDSize {
			drop = append(drop, slices.Clone(key))
			return true
		}
		r, err := decodeRecord(peer.ID(id), slices.Clone(value))
		if err != nil || now.Sub(r.good) > cacheLife {
			drop = append(drop, slices.Clone(key))
			return true
		}
		out = append(out, r)
		return true
	})
	if err != nil {
		return nil, fmt.Errorf("reading cached addresses: %w", err)
	}
	slices.SortFunc(out, func(a, b *record) int { return b.good.Compare(a.good) })
	for _, r := range out[min(len(out), c.max):] {
		drop = append(drop, cacheKey(group, r.peer))
	}
	for _, key := range drop {
		if err := c.store.Delete(ctx, key); err != nil {
			return nil, fmt.Errorf("dropping a cached address: %w", err)
		}
	}
	return out[:min(len(out), c.max)], nil
}

// save writes an entry.
func (c *cache) save(ctx context.Context, group Key, r *record) error {
	if c.store == nil {
		return nil
	}
	if err := c.store.Put(ctx, cacheKey(group, r.peer), r.encode()); err != nil {
		return fmt.Errorf("caching an address: %w", err)
	}
	return nil
}
