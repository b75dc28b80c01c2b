package ratchet

import (
	"bytes"
	"crypto/rand"
	"errors"
	"math"
	"testing"
)

// Everything that says who, to whom, where and in which version is bound: swapped, a message
// does not open.
func TestBinding(t *testing.T) {
	other := newDevice(77).party
	type swap struct {
		name string
		self func(*Party)   // how the recipient sees itself
		peer func(*Party)   // how the recipient sees the sender
		byte func(b []byte) // what happens to the bytes
		ad   string
	}
	at := func(offset int) func([]byte) { return func(b []byte) { b[offset] ^= 1 } }
	swaps := []swap{
		{name: "recipient's account", self: func(p *Party) { p.Account = other.Account }},
		{name: "recipient's device", self: func(p *Party) { p.Device = other.Device }},
		{name: "recipient's identity key", self: func(p *Party) { p.Identity = other.Identity }},
		{name: "sender's account", peer: func(p *Party) { p.Account = other.Account }, byte: func(b []byte) { copy(b[2:], other.Account[:]) }},
		{name: "sender's device", peer: func(p *Party) { p.Device = other.Device }, byte: func(b []byte) { copy(b[34:], other.Device[:]) }},
		{name: "sender's identity key", peer: func(p *Party) { p.Identity = other.Identity }, byte: func(b []byte) { copy(b[outerSize:], other.Identity[:]) }},
		{name: "sender's account, only on the wire", byte: at(2)},
		{name: "sender's device, only on the wire", byte: at(34)},
		{name: "outer version", byte: at(0)},
		{name: "flags", byte: at(1)},
		{name: "session", byte: at(66)},
		{name: "ephemeral key", byte: at(outerSize + 32)},
		{name: "prekey id", byte: at(outerSize + 64 + 3)},
		{name: "replaced sessions", byte: at(outerSize + 64 + 4 + 1)},
		{name: "KEM ciphertext", byte: at(outerSize + 64 + 4 + 2)},
		{name: "message version", byte: at(outerSize + 64 + 4 + 2 + kemCiphertextSize)},
		{name: "associated data", ad: "room 1, epoch 2"},
	}
	for _, v := range swaps {
		t.Run(v.name, func(t *testing.T) {
			a, b := pair(t, 40)
			a.start(b)
			sealed, _, err := a.Seal(rand.Reader, []byte("for b"), []byte("room 1, epoch 1"))
			if err != nil {
				t.Fatal(err)
			}
			self, peer, ad := b.self, b.peer, "room 1, epoch 1"
			swapped := bytes.Clone(sealed)
			if v.self != nil {
				v.self(&self)
			}
			if v.peer != nil {
				v.peer(&peer)
			}
			if v.byte != nil {
				v.byte(swapped)
			}
			if v.ad != "" {
				ad = v.ad
			}
			if opened, err := NewSet(self, peer).Open(b.secrets, swapped, []byte(ad)); err == nil {
				t.Fatalf("opened %q", opened.Content)
			}
			if opened, err := NewSet(b.self, b.peer).Open(b.secrets, sealed, []byte("room 1, epoch 1")); err != nil || string(opened.Content) != "for b" {
				t.Fatalf("the message itself: %q, %v", opened.Content, err)
			}
		})
	}
}

// No single altered bit anywhere in a message goes unnoticed, with an init part and without.
func TestEveryBitIsAuthenticated(t *testing.T) {
	a, b := pair(t, 41)
	a.start(b)
	a.start(b) // so that the init part names a replaced session
	first := a.says("first")
	everyBit(t, b, first)
	b.hears(first, "first")
	a.hears(b.says("answer"), "answer")
	later := a.says("later")
	everyBit(t, b, later)
	b.hears(later, "later")
}

func everyBit(t *testing.T, to *side, sealed []byte) {
	t.Helper()
	before := to.Marshal()
	step := 1
	if len(sealed) > 1024 {
		step = 7 // every byte of the fields comes up, in one of its bits
	}
	for bit := 0; bit < 8*len(sealed); bit += step {
		bad := bytes.Clone(sealed)
		bad[bit/8] ^= 1 << (bit % 8)
		if _, err := to.Open(to.secrets, bad, nil); err == nil {
			t.Fatalf("bit %d is not authenticated", bit)
		}
	}
	if !bytes.Equal(to.Marshal(), before) {
		t.Fatal("altered messages changed the state")
	}
}

func TestMessageOfAnotherSession(t *testing.T) {
	a, b := talking(t, 42)
	old := a.sealing().id()
	a.start(b)
	b.hears(a.says("x"), "x")
	a.hears(b.says("y"), "y")
	sealed := a.says("z")
	copy(sealed[66:], old[:])
	b.refuses(sealed, ErrUndecryptable)
}

// A message sent back to its sender, as if the peer had said it.
func TestReflection(t *testing.T) {
	a, b := talking(t, 43)
	sealed := a.says("x")
	a.refuses(sealed, ErrWrongPeer)
	copy(sealed[2:], b.party.Account[:])
	copy(sealed[34:], b.party.Device[:])
	a.refuses(sealed, ErrUndecryptable)
}

// Somebody else's handshake in a's name: only the true identity key makes the keys come out.
func TestImpersonation(t *testing.T) {
	a, b := pair(t, 44)
	mallory := newDevice(78)
	// Mallory has the public keys of both, and its own identity key in place of a's private one.
	claimed := NewSet(a.party, b.party)
	if _, err := claimed.Initiate(rand.Reader, mallory.secrets, b.bundle()); err == nil {
		t.Fatal("initiated with a foreign identity key")
	}
	p := Party{Account: a.party.Account, Device: a.party.Device, Identity: mallory.party.Identity}
	forger := NewSet(p, b.party)
	if _, err := forger.Initiate(rand.Reader, mallory.secrets, b.bundle()); err != nil {
		t.Fatal(err)
	}
	sealed, _, err := forger.Seal(rand.Reader, []byte("I am a"), nil)
	if err != nil {
		t.Fatal(err)
	}
	b.refuses(sealed, ErrWrongPeer) // the identity key is not a's
	copy(sealed[outerSize:], a.party.Identity[:])
	b.refuses(sealed, ErrUndecryptable) // a's is named, but was not used
}

// A peer that follows the handshake but not the rules for what it writes around it.
func TestMaliciousPeer(t *testing.T) {
	t.Run("names a session by another id", func(t *testing.T) {
		a, b := pair(t, 46)
		a.start(b)
		b.refuses(resealed(t, a, func(header []byte) { header[66] ^= 1 }, func([]byte) {}), ErrUndecryptable)
	})
	t.Run("uses the last number", func(t *testing.T) {
		a, b := pair(t, 47)
		a.start(b)
		a.sealing().ns = math.MaxUint32 - 1
		sealed := resealed(t, a, func(header []byte) { header[len(header)-25]++ }, func([]byte) {})
		b.refuses(sealed, ErrMalformed)
	})
	t.Run("returns to an old ratchet key", func(t *testing.T) {
		a, b := talking(t, 48)
		lost := a.says("lost for now")
		b.hears(a.says("x"), "x")
		old := a.sealing().own
		a.hears(b.says("y"), "y")
		b.hears(a.says("z"), "z")
		a.hears(b.says("turn"), "turn")
		b.says("b sends, so that it can receive a new chain")
		held := a.sealing()
		chain, err := held.turn(old, held.peer)
		if err != nil {
			t.Fatal(err)
		}
		held.own, held.sendChain, held.pn, held.ns = old, chain, held.ns, 0
		a.says("would be kept beside the other number 0")
		b.refuses(a.says("in a chain that ended"), ErrUndecryptable)
		b.reload()
		b.hears(lost, "lost for now")
	})
}

func TestMalformed(t *testing.T) {
	a, b := pair(t, 49)
	a.start(b)
	sealed := a.says("x")
	for name, spoil := range map[string]func([]byte) []byte{
		"nothing":                  func([]byte) []byte { return nil },
		"a size that is none":      func(m []byte) []byte { return m[:len(m)-1] },
		"larger than the largest":  func(m []byte) []byte { return append(m, make([]byte, 2*MaxSealed)...) },
		"cut inside the init part": func(m []byte) []byte { return m[:1024] },
		"a later version":          func(m []byte) []byte { m[0] = 2; return m },
		"a later message version":  func(m []byte) []byte { m[outerSize+64+4+2+kemCiphertextSize] = 2; return m },
		"one-time id without init": func(m []byte) []byte { m[1] = flagOneTime; return m },
		"an unknown flag":          func(m []byte) []byte { m[1] |= 4; return m },
		"too many replaced":        func(m []byte) []byte { m[outerSize+64+4+1] = maxReplaces + 1; return m },
		"a replaced session twice": func(m []byte) []byte { m[outerSize+64+4+1] = 2; clear(m[outerSize+64+6:][:32]); return m },
		"no init, all of one byte": func(m []byte) []byte { return bytes.Repeat([]byte{1}, 256) },
	} {
		bad := spoil(bytes.Clone(sealed))
		if _, err := ReadHeader(bad); !errors.Is(err, ErrMalformed) {
			t.Errorf("%s: %v", name, err)
		}
		b.refuses(bad, ErrMalformed)
	}
	if b.NeedsRestart() {
		t.Error("bytes of anybody make a restart due")
	}
}

func TestEnvelope(t *testing.T) {
	a, b := talking(t, 45)
	envelopeKey, err := newKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	sealed := a.says("by mail")
	envelope, err := Wrap(b.party.Device, envelopeKey.PublicKey(), sealed)
	if err != nil || len(envelope) != len(sealed)+EnvelopeOverhead {
		t.Fatalf("%d bytes, %v", len(envelope), err)
	}
	for name, secret := range map[string][]byte{"account": a.party.Account[:], "device": a.party.Device[:], "session": sealed[66:82]} {
		if bytes.Contains(envelope, secret) {
			t.Errorf("the envelope shows the sender's %s", name)
		}
	}
	again, err := Wrap(b.party.Device, envelopeKey.PublicKey(), sealed)
	if err != nil || bytes.Equal(again, envelope) {
		t.Errorf("wrapping twice gave the same bytes, %v", err)
	}
	otherKey, err := newKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := Unwrap(b.party.Device, otherKey, envelope); !errors.Is(err, ErrUndecryptable) {
		t.Errorf("another key: %v", err)
	}
	if _, err := Unwrap(a.party.Device, envelopeKey, envelope); !errors.Is(err, ErrUndecryptable) {
		t.Errorf("another device: %v", err)
	}
	for i := range envelope {
		bad := bytes.Clone(envelope)
		bad[i] ^= 0x10
		if _, err := Unwrap(b.party.Device, envelopeKey, bad); err == nil {
			t.Fatalf("byte %d is not authenticated", i)
		}
	}
	for _, bad := range [][]byte{nil, envelope[:EnvelopeOverhead], envelope[1:], append(bytes.Clone(envelope), 0)} {
		if _, err := Unwrap(b.party.Device, envelopeKey, bad); !errors.Is(err, ErrMalformed) {
			t.Errorf("%d bytes: %v", len(bad), err)
		}
	}
	if _, err := Wrap(b.party.Device, envelopeKey.PublicKey(), sealed[1:]); !errors.Is(err, ErrMalformed) {
		t.Errorf("wrapped what is no sealed message: %v", err)
	}
	got, err := Unwrap(b.party.Device, envelopeKey, envelope)
	if err != nil {
		t.Fatal(err)
	}
	b.hears(got, "by mail")
}
