package sync

import (
	"crypto/sha256"
	"encoding/binary"
	"math/bits"

	"github.com/dchest/siphash"
)

// fingerprint is the sum of the keyed hashes of some items modulo 2^128.
type fingerprint struct{ lo, hi uint64 }

func (f *fingerprint) add(g fingerprint) {
	var carry uint64
	f.lo, carry = bits.Add64(f.lo, g.lo, 0)
	f.hi, _ = bits.Add64(f.hi, g.hi, carry)
}

func (f fingerprint) bytes() (b [hashSize]byte) {
	binary.LittleEndian.PutUint64(b[:8], f.lo)
	binary.LittleEndian.PutUint64(b[8:], f.hi)
	return b
}

func fingerprintOf(b [hashSize]byte) fingerprint {
	return fingerprint{binary.LittleEndian.Uint64(b[:8]), binary.LittleEndian.Uint64(b[8:])}
}

// hasher hashes ids under a session's key.
type hasher struct {
	k0, k1 uint64
	mask   uint64 // of short ids
}

const fullMask = 1<<64 - 1

// newHasher derives the key from both nonces, so that neither side can choose it alone before the session.
func newHasher(initiator, responder Nonce, mask uint64) hasher {
	h := sha256.New()
	h.Write([]byte("starling/sync/key/1"))
	h.Write(initiator[:])
	h.Write(responder[:])
	key := h.Sum(nil)
	return hasher{
		k0:   binary.LittleEndian.Uint64(key[:8]),
		k1:   binary.LittleEndian.Uint64(key[8:16]),
		mask: mask,
	}
}

// id hashes one id with SipHash-2-4, 128 bits.
func (h *hasher) id(id *ID) fingerprint {
	lo, hi := siphash.Hash128(h.k0, h.k1, id[:])
	return fingerprint{lo, hi}
}

// short returns the short id: the low half of the hash.
func (h *hasher) short(id *ID) uint64 { return h.id(id).lo & h.mask }

func (h *hasher) sum(items []Item) (f fingerprint) {
	for i := range items {
		f.add(h.id(&items[i].ID))
	}
	return f
}
