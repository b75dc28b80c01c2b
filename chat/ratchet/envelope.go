package ratchet

import (
	"crypto/ecdh"
	"crypto/hpke"
	"fmt"
)

const (
	// EnvelopeOverhead is how many bytes an envelope is longer than the Sealed DM inside it.
	EnvelopeOverhead = 1 + 32 + 16

	envelopeVersion = 1
)

func envelopeInfo(device [32]byte) []byte {
	return append([]byte("starling/dm-envelope/1"), device[:]...)
}

// Wrap seals a Sealed DM once more, to the envelope key of the device it is for, so that a mailbox
// relay sees neither sender nor session (section 9). It is stateless; HPKE draws its randomness
// from the system. RFC 9180, base mode.
func Wrap(device [32]byte, envelopeKey *ecdh.PublicKey, sealed []byte) ([]byte, error) {
	if sealedSize(len(sealed)) != len(sealed) {
		return nil, fmt.Errorf("wrapping a message: %w", ErrMalformed)
	}
	to, err := hpke.NewDHKEMPublicKey(envelopeKey)
	if err != nil {
		return nil, fmt.Errorf("reading an envelope key: %w", err)
	}
	inner, err := hpke.Seal(to, hpke.HKDFSHA256(), hpke.ChaCha20Poly1305(), envelopeInfo(device), sealed)
	if err != nil {
		return nil, fmt.Errorf("wrapping a message: %w", err)
	}
	return append([]byte{envelopeVersion}, inner...), nil
}

// Unwrap opens an envelope for this device and returns the Sealed DM, which is still to be
// opened. It fails with [ErrMalformed] for anything that is not an envelope, and with
// [ErrUndecryptable] for one to another device or key.
func Unwrap(device [32]byte, envelopeKey *ecdh.PrivateKey, envelope []byte) ([]byte, error) {
	n := len(envelope) - EnvelopeOverhead
	if n <= 0 || sealedSize(n) != n || envelope[0] != envelopeVersion {
		return nil, fmt.Errorf("unwrapping a message: %w", ErrMalformed)
	}
	own, err := hpke.NewDHKEMPrivateKey(envelopeKey)
	if err != nil {
		return nil, fmt.Errorf("reading the envelope key: %w", err)
	}
	sealed, err := hpke.Open(own, hpke.HKDFSHA256(), hpke.ChaCha20Poly1305(), envelopeInfo(device), envelope[1:])
	if err != nil {
		return nil, fmt.Errorf("unwrapping a message: %w", ErrUndecryptable)
	}
	return sealed, nil
}
