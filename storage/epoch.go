package storage

import (
	"context"
	"crypto/cipher"
	"encoding/binary"
	"errors"
	"fmt"
	"maps"
	"slices"
	"sync"
	"time"
)

// ringKey is an erasable cipher key: an epoch key (until 0), or the key of the
// records that expire in the time up to until (Unix milliseconds).
type ringKey struct {
	until uint64
	key   [32]byte
	aead  cipher.AEAD
}

// keyRing holds the erasable keys. They lie alone in one small file, so that
// erasing a key makes everything sealed under it unreadable, wherever Badger
// may still keep it. Only the committer changes the ring.
type keyRing struct {
	mu    sync.RWMutex // guards all but save and now
	keys  map[uint32]ringKey
	epoch uint32 // number of the current epoch key
	next  uint32 // numbers are not used twice
	dirty bool   // something was sealed under the current epoch key

	save func(plain []byte) error // writes the key file; nil in memory
	now  func() time.Time
}

func newKeyRing() *keyRing {
	return &keyRing{keys: make(map[uint32]ringKey), next: 1, now: time.Now}
}

// start makes the first epoch key of a new store.
func (r *keyRing) start() error {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.epoch != 0 {
		return nil
	}
	r.epoch = r.add(0)
	return r.write()
}

// add makes a key. The caller holds mu and writes the file.
func (r *keyRing) add(until uint64) uint32 {
	n := r.next
	r.next++
	k := ringKey{until: until, key: [32]byte(randomKey())}
	k.aead = newAEAD(k.key[:])
	r.keys[n] = k
	return n
}

func (r *keyRing) write() error {
	if r.save == nil {
		return nil
	}
	return r.save(r.encode())
}

// current returns the epoch key to seal with.
func (r *keyRing) current() (uint32, cipher.AEAD) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.dirty = true
	return r.epoch, r.keys[r.epoch].aead
}

// peek is current for the guard journal, whose old forms are overwritten
// anyway and need no rotation.
func (r *keyRing) peek() (uint32, cipher.AEAD) {
	r.mu.RLock()
	defer r.mu.RUnlock()
	return r.epoch, r.keys[r.epoch].aead
}

// used tells whether anything was sealed since the last rotation.
func (r *keyRing) used() bool {
	r.mu.RLock()
	defer r.mu.RUnlock()
	return r.dirty
}

func (r *keyRing) lookup(n uint32) cipher.AEAD {
	r.mu.RLock()
	defer r.mu.RUnlock()
	return r.keys[n].aead
}

// Expiring records share a key with those that expire in the same hour; beyond
// two weeks in the same day, beyond 400 days in the same 64 days. So the file
// never holds more than about 1,300 keys. Beyond 100 years nothing expires.
const (
	msPerHour   = 60 * 60 * 1000
	hourlyUntil = 14 * msPerDay
	dailyUntil  = 400 * msPerDay
	expiryUntil = 36525 * msPerDay
)

func expirySlot(ms, now uint64) uint64 {
	width := uint64(64 * msPerDay)
	switch {
	case ms < now+hourlyUntil:
		width = msPerHour
	case ms < now+dailyUntil:
		width = msPerDay
	}
	return (ms/width + 1) * width
}

// forExpiry returns the key for a record that expires at ms, making one if
// needed.
func (r *keyRing) forExpiry(ms uint64) (uint32, cipher.AEAD, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	now := millis(r.now())
	if ms > now+expiryUntil {
		ms = now + expiryUntil
	}
	until := expirySlot(max(ms, now), now)
	for n, k := range r.keys {
		if k.until == until {
			return n, k.aead, nil
		}
	}
	n := r.add(until)
	if err := r.write(); err != nil {
		delete(r.keys, n)
		return 0, nil, fmt.Errorf("making an expiry key: %w", err)
	}
	return n, r.keys[n].aead, nil
}

// rotate makes a new current epoch key; the old ones stay until erase.
func (r *keyRing) rotate() error {
	r.mu.Lock()
	defer r.mu.Unlock()
	old := r.epoch
	n := r.add(0)
	r.epoch = n
	if err := r.write(); err != nil {
		delete(r.keys, n)
		r.epoch = old
		return err
	}
	r.dirty = false
	return nil
}

// stale tells whether an epoch key other than the current one is still there.
func (r *keyRing) stale() bool {
	r.mu.RLock()
	defer r.mu.RUnlock()
	for n, k := range r.keys {
		if k.until == 0 && n != r.epoch {
			return true
		}
	}
	return false
}

// erase drops the keys that drop selects, and writes the file if there are any.
func (r *keyRing) erase(drop func(n uint32, k ringKey) bool) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	before := maps.Clone(r.keys)
	maps.DeleteFunc(r.keys, drop)
	if len(r.keys) == len(before) {
		return nil
	}
	if err := r.write(); err != nil {
		r.keys = before
		return err
	}
	return nil
}

const (
	ringVersion    = 1
	ringHeaderSize = 1 + 4 + 4 + 4
	ringKeySize    = 4 + 8 + 32
	maxRingKeys    = 4096
)

// encode returns the plain text of the key file: version, next number, current
// epoch, count, and for each key, by number: number, until, key.
func (r *keyRing) encode() []byte {
	b := make([]byte, 0, ringHeaderSize+len(r.keys)*ringKeySize)
	b = append(b, ringVersion)
	for _, v := range []uint32{r.next, r.epoch, uint32(len(r.keys))} {
		b = binary.BigEndian.AppendUint32(b, v)
	}
	for _, n := range slices.Sorted(maps.Keys(r.keys)) {
		k := r.keys[n]
		b = binary.BigEndian.AppendUint32(b, n)
		b = binary.BigEndian.AppendUint64(b, k.until)
		b = append(b, k.key[:]...)
	}
	return b
}

// decode fills an empty ring from the plain text of the key file.
func (r *keyRing) decode(b []byte) error {
	if len(b) < ringHeaderSize || b[0] != ringVersion {
		return fmt.Errorf("epoch key file has no known format: %w", ErrCorrupt)
	}
	next, epoch, n := binary.BigEndian.Uint32(b[1:]), binary.BigEndian.Uint32(b[5:]), binary.BigEndian.Uint32(b[9:])
	if n > maxRingKeys || len(b) != ringHeaderSize+int(n)*ringKeySize {
		return fmt.Errorf("epoch key file of %d bytes for %d keys: %w", len(b), n, ErrCorrupt)
	}
	keys := make(map[uint32]ringKey, n)
	last := uint32(0)
	for b = b[ringHeaderSize:]; len(b) > 0; b = b[ringKeySize:] {
		number := binary.BigEndian.Uint32(b)
		if number <= last || number >= next {
			return fmt.Errorf("epoch key file has keys out of order: %w", ErrCorrupt)
		}
		last = number
		k := ringKey{until: binary.BigEndian.Uint64(b[4:]), key: [32]byte(b[12:ringKeySize])}
		k.aead = newAEAD(k.key[:])
		keys[number] = k
	}
	if k, ok := keys[epoch]; !ok || k.until != 0 {
		return fmt.Errorf("epoch key file lacks its current key: %w", ErrCorrupt)
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.keys, r.next, r.epoch = keys, next, epoch
	return nil
}

// resealChunk is how many ephemeral values one transaction re-seals.
const resealChunk = 256

// RotateEpoch makes everything that was overwritten in or deleted from
// ephemeral buckets unreadable for ever: it makes a new epoch key, re-seals
// the live values under it, and erases the old key. If it is interrupted, both
// keys are on disk and the next Open finishes it. Cost: one pass over the live
// ephemeral values.
func (s *Store) RotateEpoch(ctx context.Context) error {
	s.rotateMu.Lock()
	defer s.rotateMu.Unlock()
	err := s.update(ctx, Durable, func(*tx) error {
		if err := s.opts.hook("rotate-begin"); err != nil {
			return err
		}
		return s.seal.ring.rotate()
	})
	if err == nil {
		err = s.finishRotation(ctx)
	}
	if err != nil {
		return fmt.Errorf("rotating the epoch key: %w", err)
	}
	return nil
}

// finishRotation re-seals what is under an older epoch key, then erases it.
func (s *Store) finishRotation(ctx context.Context) error {
	from := []byte{kindEphemeral}
	for from != nil {
		err := s.update(ctx, Relaxed, func(t *tx) (err error) {
			from, err = s.reseal(t, from)
			return err
		})
		if err != nil {
			return err
		}
	}
	return s.update(ctx, Durable, func(*tx) error {
		// Relaxed chunks must be on disk before the only key that opens their
		// old form goes.
		if err := s.syncAll(); err != nil {
			return err
		}
		if err := s.opts.hook("rotate-resealed"); err != nil {
			return err
		}
		if err := s.rewriteGuard(); err != nil {
			return err
		}
		ring := s.seal.ring
		err := ring.erase(func(n uint32, k ringKey) bool { return k.until == 0 && n != ring.epoch })
		return errors.Join(err, s.opts.hook("rotate-end"))
	})
}

// reseal puts again up to resealChunk ephemeral values that are under an old
// key, and returns where to go on, or nil at the end.
func (s *Store) reseal(t *tx, from []byte) (next []byte, err error) {
	sp := prefixSpan([]byte{kindEphemeral})
	sp.from = from
	current := s.seal.ring.epoch
	n := 0
	var inner error
	err = t.scan(sp, func(key []byte, value func() ([]byte, error)) bool {
		if n == resealChunk || t.bytes > groupBytes {
			next = slices.Clone(key)
			return false
		}
		stored, err := value()
		if err == nil && len(stored) >= sealOverhead && binary.BigEndian.Uint32(stored[1:]) == current {
			return true
		}
		var plain []byte
		if err == nil {
			plain, err = s.seal.open(key, stored)
		}
		if err != nil {
			inner = err
			return false
		}
		t.put(slices.Clone(key), plain)
		n++
		return true
	})
	return next, errors.Join(err, inner)
}
