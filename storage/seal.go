package storage

import (
	"crypto/cipher"
	"crypto/hkdf"
	"crypto/rand"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"

	"github.com/dchest/siphash"
	"golang.org/x/crypto/chacha20poly1305"
)

// sealVersion is the first byte of every sealed value.
const sealVersion = 1

// sealHeaderSize is version, key number, nonce; sealOverhead what a sealed
// value is longer than its plain text.
const (
	sealHeaderSize = 1 + 4 + chacha20poly1305.NonceSizeX
	sealOverhead   = sealHeaderSize + chacha20poly1305.Overhead
	tagSize        = 8
)

// sealer protects values. Sealed kinds: XChaCha20-Poly1305 with a random
// nonce, the associated data being the header, the kind and the full key.
// Tagged kinds: followed by SipHash-2-4 of key and value under a secret key.
// Safe for concurrent use.
type sealer struct {
	master []byte
	static cipher.AEAD // key number 0
	tag0   uint64
	tag1   uint64
	ring   *keyRing
}

// subKey derives a 32-byte key from the master key by HKDF-SHA256.
func subKey(master []byte, purpose string) []byte {
	k, err := hkdf.Key(sha256.New, master, nil, "starling/storage/1 "+purpose, 32)
	if err != nil {
		panic(err) // only for lengths over 8,160 bytes
	}
	return k
}

func randomKey() []byte {
	k := make([]byte, 32)
	rand.Read(k) // never fails
	return k
}

func newAEAD(key []byte) cipher.AEAD {
	a, err := chacha20poly1305.NewX(key)
	if err != nil {
		panic(err) // only for keys that are not 32 bytes
	}
	return a
}

func newSealer(master []byte) *sealer {
	tag := subKey(master, "tags")
	return &sealer{
		master: master,
		static: newAEAD(subKey(master, "values")),
		tag0:   binary.BigEndian.Uint64(tag), tag1: binary.BigEndian.Uint64(tag[8:]),
		ring: newKeyRing(),
	}
}

// seal protects a write for storage, choosing the cipher key by the kind and,
// for a record, by its expiry. Only the committer calls it.
func (s *sealer) seal(w plainWrite) ([]byte, error) {
	kind := w.key[0]
	if !sealedKind(kind) {
		return s.appendTag(w.key, w.plain), nil
	}
	number, aead := uint32(0), s.static
	var err error
	switch {
	case kind == kindEphemeral:
		number, aead = s.ring.current()
	case kind == kindRecord:
		if ms := binary.BigEndian.Uint64(w.plain[9:]); ms != 0 {
			number, aead, err = s.ring.forExpiry(ms)
		}
	}
	if err != nil {
		return nil, err
	}
	if w.room != nil {
		return sealInPlace(aead, number, w.key, w.room), nil
	}
	return sealWith(aead, number, w.key, w.plain), nil
}

// sealRoom returns room to seal n bytes of plain text in place: the caller
// puts them after the first sealHeaderSize bytes.
func sealRoom(n int) []byte { return make([]byte, sealHeaderSize+n, sealOverhead+n) }

func sealWith(aead cipher.AEAD, number uint32, key, plain []byte) []byte {
	room := sealRoom(len(plain))
	copy(room[sealHeaderSize:], plain)
	return sealInPlace(aead, number, key, room)
}

// sealInPlace seals the plain text in room, which sealRoom made.
func sealInPlace(aead cipher.AEAD, number uint32, key, room []byte) []byte {
	room[0] = sealVersion
	binary.BigEndian.PutUint32(room[1:], number)
	nonce := room[5:sealHeaderSize]
	rand.Read(nonce)
	var scratch [64]byte // most keys are shorter: no allocation
	ad := append(append(scratch[:0], key...), room[:5]...)
	return aead.Seal(room[:sealHeaderSize], nonce, room[sealHeaderSize:], ad)
}

// associated is what a sealed value is bound to: full key (whose first byte is
// the kind), version, key number.
func associated(header, key []byte) []byte {
	ad := make([]byte, 0, len(key)+5)
	return append(append(ad, key...), header[:5]...)
}

// open is the inverse of seal. An unknown cipher key is errErased: the record
// has expired, or a rotation has finished since the snapshot was taken.
func (s *sealer) open(key, stored []byte) ([]byte, error) {
	if !sealedKind(key[0]) {
		return s.checkTag(key, stored)
	}
	if len(stored) < sealOverhead {
		return nil, fmt.Errorf("sealed value of %d bytes: %w", len(stored), ErrCorrupt)
	}
	if stored[0] != sealVersion {
		return nil, fmt.Errorf("sealed value of version %d: %w", stored[0], ErrCorrupt)
	}
	aead := s.static
	if number := binary.BigEndian.Uint32(stored[1:]); number != 0 {
		if aead = s.ring.lookup(number); aead == nil {
			return nil, errErased
		}
	}
	plain, err := aead.Open(nil, stored[5:sealHeaderSize], stored[sealHeaderSize:], associated(stored, key))
	if err != nil {
		return nil, fmt.Errorf("value of kind %q does not open: %w", key[0], ErrCorrupt)
	}
	return plain, nil
}

// errErased: the value's cipher key was erased, so it is gone for good.
var errErased = errors.New("value is sealed under an erased key")

func (s *sealer) tag(key, value []byte) uint64 {
	var scratch [160]byte // most are shorter: no allocation
	b := binary.BigEndian.AppendUint64(scratch[:0], uint64(len(key)))
	b = append(append(b, key...), value...)
	return siphash.Hash(s.tag0, s.tag1, b)
}

func (s *sealer) appendTag(key, value []byte) []byte {
	out := make([]byte, 0, len(value)+tagSize)
	out = append(out, value...)
	return binary.BigEndian.AppendUint64(out, s.tag(key, value))
}

func (s *sealer) checkTag(key, stored []byte) ([]byte, error) {
	n := len(stored) - tagSize
	if n < 0 {
		return nil, fmt.Errorf("tagged value of %d bytes: %w", len(stored), ErrCorrupt)
	}
	if binary.BigEndian.Uint64(stored[n:]) != s.tag(key, stored[:n]) {
		return nil, fmt.Errorf("value of kind %q has a wrong tag: %w", key[0], ErrCorrupt)
	}
	return stored[:n:n], nil
}
