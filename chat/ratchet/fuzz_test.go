package ratchet

import (
	"bytes"
	"crypto/rand"
	"testing"
)

// FuzzSealed: the parser of a Sealed DM never fails but with an error, reads nothing twice and
// skips nothing: what it read, written again, is what came.
func FuzzSealed(f *testing.F) {
	a, b := pair(f, 60)
	a.start(b)
	f.Add(a.says("x"))
	a.startWith(b.bundleWithOneTime())
	sealed := a.says("y")
	f.Add(sealed)
	b.hears(sealed, "y")
	f.Add(b.says("z"))
	f.Add([]byte{})
	f.Fuzz(func(t *testing.T, raw []byte) {
		m, err := parseSealed(raw)
		if err != nil {
			if _, err := ReadHeader(raw); err == nil {
				t.Fatal("a header was read from what does not parse")
			}
			return
		}
		var c codec
		m.header(&c)
		if c.bad || !bytes.Equal(append(c.b, m.ciphertext...), raw) {
			t.Fatal("written again it is something else")
		}
		// Whatever parses must also go through opening without harm.
		set := NewSet(b.party, Party{Account: m.account, Device: m.device, Identity: a.party.Identity})
		before := set.Marshal()
		if _, err := set.Open(b.secrets, raw, nil); err != nil && !bytes.Equal(set.Marshal(), before) {
			t.Fatal("a message that did not open changed the state")
		}
	})
}

// FuzzState: the decoder of a stored state accepts only what the encoder writes.
func FuzzState(f *testing.F) {
	b, all := states(f)
	for _, stored := range all {
		f.Add(stored[33:])
	}
	head := bytes.Clone(all["empty"][:33]) // version and binding, which no fuzzer would guess
	f.Fuzz(func(t *testing.T, tail []byte) {
		stored := append(bytes.Clone(head), tail...)
		set, err := UnmarshalSet(b.self, b.peer, stored)
		if err != nil {
			return
		}
		if !bytes.Equal(set.Marshal(), stored) {
			t.Fatal("written again it is something else")
		}
		// A state from nowhere must not make anything panic either.
		if sealed, id, err := set.Seal(rand.Reader, []byte("x"), nil); err == nil {
			if m, err := parseSealed(sealed); err != nil || m.session != id {
				t.Fatalf("sealed what does not parse: %v", err)
			}
		}
	})
}

// FuzzEnvelope: what is no envelope for this device is refused without harm.
func FuzzEnvelope(f *testing.F) {
	a, b := talking(f, 61)
	envelopeKey, err := newKey(seeded(62))
	if err != nil {
		f.Fatal(err)
	}
	sealed := a.says("x")
	good, err := Wrap(b.party.Device, envelopeKey.PublicKey(), sealed)
	if err != nil {
		f.Fatal(err)
	}
	f.Add(good)
	f.Add(good[:EnvelopeOverhead])
	f.Fuzz(func(t *testing.T, raw []byte) {
		got, err := Unwrap(b.party.Device, envelopeKey, raw)
		if err == nil && !bytes.Equal(got, sealed) {
			t.Fatal("opened an envelope that nobody sealed")
		}
	})
}

// FuzzContent: whatever a peer puts into the padded content, it opens to what the rule says or not at all.
func FuzzContent(f *testing.F) {
	a, _ := talking(f, 63)
	sealed := a.says("x")
	m, err := parseSealed(sealed)
	if err != nil {
		f.Fatal(err)
	}
	f.Add([]byte{0, 1, 'x', 0, 0})
	f.Add([]byte{0xFF, 0xFF})
	f.Fuzz(func(t *testing.T, padded []byte) {
		if len(padded) < contentPrefix {
			return
		}
		var k key
		m.ciphertext = encryptFor(t, k, m.nonce[:], padded)
		content, err := m.open(k, nil)
		if err != nil {
			return
		}
		again := append([]byte{byte(len(content) >> 8), byte(len(content))}, content...)
		again = append(again, make([]byte, max(0, len(padded)-len(again)))...)
		if !bytes.Equal(again, padded) {
			t.Fatalf("%x opened to %x", padded, content)
		}
	})
}
