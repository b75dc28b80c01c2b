package wire

import (
	"fmt"
	"io"

	"golang.org/x/crypto/chacha20poly1305"
)

// ReadMarker says up to which event a room was read.
//
// Encoding: {1 event 32, 2 hlc fixed64}, sealed as nonce 24 || XChaCha20-Poly1305
// under a key that only the account's devices hold, with the room id as
// associated data.
type ReadMarker struct {
	Event EventID
	HLC   HLC
}

// SealReadMarker seals a marker for the account's other devices.
func SealReadMarker(key [32]byte, room RoomID, m ReadMarker, random io.Reader) (*ReadMarkerBody, error) {
	if m.Event.IsZero() || m.HLC == 0 {
		return nil, invalidf("read marker without an event")
	}
	aead, err := chacha20poly1305.NewX(key[:])
	if err != nil {
		return nil, fmt.Errorf("sealing a read marker: %w", err)
	}
	nonce := make([]byte, nonceSize, MaxReadMarkerBox)
	if _, err := io.ReadFull(random, nonce); err != nil {
		return nil, fmt.Errorf("sealing a read marker: reading random bytes: %w", err)
	}
	var e encoder
	e.id(1, m.Event[:])
	e.fixed64(2, uint64(m.HLC))
	return &ReadMarkerBody{Box: aead.Seal(nonce, nonce, e.b, room[:])}, nil
}

// OpenReadMarker opens what SealReadMarker sealed.
func OpenReadMarker(key [32]byte, room RoomID, b *ReadMarkerBody) (ReadMarker, error) {
	var m ReadMarker
	if len(b.Box) < nonceSize {
		return m, invalidf("read marker of %d bytes", len(b.Box))
	}
	aead, err := chacha20poly1305.NewX(key[:])
	if err != nil {
		return m, fmt.Errorf("opening a read marker: %w", err)
	}
	plain, err := aead.Open(nil, b.Box[:nonceSize], b.Box[nonceSize:], room[:])
	if err != nil {
		return m, invalidf("read marker does not decrypt")
	}
	d := newDecoder("read marker", plain, MaxReadMarkerBox)
	for d.next() {
		switch d.num {
		case 1:
			d.id(m.Event[:])
		case 2:
			m.HLC = HLC(d.fixed64())
		default:
			d.unknown()
		}
	}
	d.require(!m.Event.IsZero() && m.HLC != 0, "event or clock")
	return m, d.finish()
}
