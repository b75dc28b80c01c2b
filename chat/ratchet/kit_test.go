package ratchet

import (
	"bytes"
	"crypto/ecdh"
	"crypto/mlkem"
	"crypto/mlkem/mlkemtest"
	"errors"
	"io"
	"math/rand/v2"
	"testing"
)

// seeded returns deterministic "randomness".
func seeded(seed uint64) io.Reader {
	var k [32]byte
	for i := range 8 {
		k[i] = byte(seed >> (8 * i))
	}
	return rand.NewChaCha8(k)
}

// derandomized is an encapsulator that draws from r.
func derandomized(r io.Reader) encapsulator {
	return func(ek *mlkem.EncapsulationKey768) (secret, ciphertext []byte) {
		var m [32]byte
		if _, err := io.ReadFull(r, m[:]); err != nil {
			panic(err)
		}
		secret, ciphertext, err := mlkemtest.Encapsulate768(ek, m[:])
		if err != nil {
			panic(err)
		}
		return secret, ciphertext
	}
}

// device is one side of a test: its keys and the bundle it hands out.
type device struct {
	party   Party
	secrets *Secrets
	random  io.Reader
}

const (
	testPrekey  = 7
	testOneTime = 9
)

func newDevice(seed uint64) *device {
	r := seeded(seed)
	must := func(k *ecdh.PrivateKey, err error) *ecdh.PrivateKey {
		if err != nil {
			panic(err)
		}
		return k
	}
	d := &device{random: r}
	mustRead(r, d.party.Account[:])
	mustRead(r, d.party.Device[:])
	var kemSeed [mlkem.SeedSize]byte
	mustRead(r, kemSeed[:])
	kem, err := mlkem.NewDecapsulationKey768(kemSeed[:])
	if err != nil {
		panic(err)
	}
	d.secrets = &Secrets{
		Identity: must(newKey(r)),
		Prekeys:  map[uint32]Prekey{testPrekey: {DH: must(newKey(r)), KEM: kem}},
		OneTime:  map[uint32]*ecdh.PrivateKey{testOneTime: must(newKey(r))},
	}
	d.party.Identity = publicOf(d.secrets.Identity)
	return d
}

func mustRead(r io.Reader, b []byte) {
	if _, err := io.ReadFull(r, b); err != nil {
		panic(err)
	}
}

func (d *device) bundle() *Bundle {
	pre := d.secrets.Prekeys[testPrekey]
	return &Bundle{
		Owner: d.party, PrekeyID: testPrekey,
		Prekey: publicOf(pre.DH), KEM: pre.KEM.EncapsulationKey().Bytes(),
	}
}

func (d *device) bundleWithOneTime() *Bundle {
	b := d.bundle()
	b.OneTime = &OneTimeKey{ID: testOneTime, Key: publicOf(d.secrets.OneTime[testOneTime])}
	return b
}

// side is a device with its state towards one other.
type side struct {
	*device
	*Set
	t testing.TB
}

// pair returns two devices that know nothing of each other but their keys.
func pair(t testing.TB, seed uint64) (a, b *side) {
	t.Helper()
	da, db := newDevice(2*seed), newDevice(2*seed+1)
	return &side{da, NewSet(da.party, db.party), t}, &side{db, NewSet(db.party, da.party), t}
}

// talking returns two devices with one session, on which each has heard the other.
func talking(t testing.TB, seed uint64) (a, b *side) {
	t.Helper()
	a, b = pair(t, seed)
	a.start(b)
	b.hears(a.says("hello"), "hello")
	a.hears(b.says("hello yourself"), "hello yourself")
	return a, b
}

func (s *side) start(peer *side) SessionID {
	s.t.Helper()
	return s.startWith(peer.bundle())
}

func (s *side) startWith(b *Bundle) SessionID {
	s.t.Helper()
	id, err := s.initiate(s.random, derandomized(s.random), s.secrets, b)
	if err != nil {
		s.t.Fatal(err)
	}
	return id
}

func (s *side) says(text string) []byte {
	s.t.Helper()
	sealed, _, err := s.Seal(s.random, []byte(text), nil)
	if err != nil {
		s.t.Fatal(err)
	}
	return sealed
}

func (s *side) hears(sealed []byte, want string) Opened {
	s.t.Helper()
	opened, err := s.Open(s.secrets, sealed, nil)
	if err != nil {
		s.t.Fatalf("opening %q: %v", want, err)
	}
	if string(opened.Content) != want {
		s.t.Fatalf("opened %q, want %q", opened.Content, want)
	}
	return opened
}

// refuses checks that a message does not open, why, and that the attempt changed no byte.
func (s *side) refuses(sealed []byte, why error) {
	s.t.Helper()
	before := s.Marshal()
	opened, err := s.Open(s.secrets, sealed, nil)
	if !errors.Is(err, why) || opened.Content != nil {
		s.t.Fatalf("opened %q with error %v, want %v", opened.Content, err, why)
	}
	if !bytes.Equal(s.Marshal(), before) {
		s.t.Fatal("a message that did not open changed the state")
	}
}

// reload puts the state through its stored form.
func (s *side) reload() { s.restore(s.Marshal()) }

func (s *side) restore(stored []byte) {
	s.t.Helper()
	set, err := UnmarshalSet(s.self, s.peer, stored)
	if err != nil {
		s.t.Fatal(err)
	}
	s.Set = set
}

// stolen returns a copy of the side, as somebody has it who copied its disk: all keys and the state.
func (s *side) stolen() *side {
	s.t.Helper()
	c := &side{s.device, nil, s.t}
	set, err := UnmarshalSet(s.self, s.peer, s.Marshal())
	if err != nil {
		s.t.Fatal(err)
	}
	c.Set = set
	return c
}
