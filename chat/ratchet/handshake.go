package ratchet

import (
	"bytes"
	"crypto/ecdh"
	"crypto/hkdf"
	"crypto/mlkem"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
)

const (
	kemCiphertextSize = mlkem.CiphertextSize768

	suite = "X25519 ML-KEM-768 HKDF-SHA-256 XChaCha20-Poly1305"
)

// Party is one device as the handshake binds it: the three keys are parts of every message's
// associated data. That they belong together is for the caller to verify.
type Party struct {
	Account  [32]byte // Ed25519 public key of the account
	Device   [32]byte // Ed25519 public key of the device
	Identity [32]byte // X25519 public key of the device
}

// Bundle is what it takes to begin a session with a device. The caller has verified that the
// prekey is signed by Owner.Device.
type Bundle struct {
	Owner    Party
	PrekeyID uint32
	Prekey   [32]byte    // X25519
	KEM      []byte      // ML-KEM-768 encapsulation key, 1,184 bytes
	OneTime  *OneTimeKey // nil without one
}

// OneTimeKey is the public half of a key that begins one session only.
type OneTimeKey struct {
	ID  uint32
	Key [32]byte // X25519
}

// Secrets are this device's private halves, by the ids under which the public ones were handed
// out. What was erased is simply missing.
type Secrets struct {
	Identity *ecdh.PrivateKey
	Prekeys  map[uint32]Prekey
	OneTime  map[uint32]*ecdh.PrivateKey
}

// Prekey is the private half of a prekey: two keys of one id and one life.
type Prekey struct {
	DH  *ecdh.PrivateKey
	KEM *mlkem.DecapsulationKey768
}

// encapsulator is ML-KEM encapsulation. The standard library draws its randomness itself, from
// the system; known-answer tests put a derandomized one here.
type encapsulator func(*mlkem.EncapsulationKey768) (secret, ciphertext []byte)

// initiate computes the initiator's side of the handshake (section 3) up to its first sending step.
func initiate(rand io.Reader, encapsulate encapsulator, self *Party, identity *ecdh.PrivateKey, b *Bundle, replaces []SessionID) (*session, error) {
	if publicOf(identity) != self.Identity {
		return nil, errors.New("own identity key is not the one of this device")
	}
	kem, err := mlkem.NewEncapsulationKey768(b.KEM)
	if err != nil {
		return nil, fmt.Errorf("reading the peer's ML-KEM key: %w", err)
	}
	ephemeral, err := newKey(rand)
	if err != nil {
		return nil, err
	}
	agreements := []agreement{{identity, b.Prekey}, {ephemeral, b.Owner.Identity}, {ephemeral, b.Prekey}}
	p := &initPart{identity: self.Identity, ephemeral: publicOf(ephemeral), prekey: b.PrekeyID, replaces: replaces}
	if b.OneTime != nil {
		p.oneTime = &b.OneTime.ID
		agreements = append(agreements, agreement{ephemeral, b.OneTime.Key})
	}
	secret, ciphertext := encapsulate(kem)
	copy(p.ciphertext[:], ciphertext)
	s, err := newSession(self, b, p, agreements, secret)
	if err != nil {
		return nil, err
	}
	s.peer = b.Prekey
	return s, s.beginSending(rand)
}

// respond computes the responder's side. The session is not to be kept until a message has
// opened on it: only that proves that the initiator is the peer.
func respond(self, peer *Party, secrets *Secrets, p *initPart) (*session, error) {
	pre, ok := secrets.Prekeys[p.prekey]
	if !ok {
		return nil, ErrUnknownPrekey
	}
	b := &Bundle{
		Owner: *self, PrekeyID: p.prekey,
		Prekey: publicOf(pre.DH), KEM: pre.KEM.EncapsulationKey().Bytes(),
	}
	agreements := []agreement{{pre.DH, peer.Identity}, {secrets.Identity, p.ephemeral}, {pre.DH, p.ephemeral}}
	if p.oneTime != nil {
		one, ok := secrets.OneTime[*p.oneTime]
		if !ok {
			return nil, ErrUnknownPrekey
		}
		b.OneTime = &OneTimeKey{ID: *p.oneTime, Key: publicOf(one)}
		agreements = append(agreements, agreement{one, p.ephemeral})
	}
	secret, err := pre.KEM.Decapsulate(p.ciphertext[:])
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrUndecryptable, err)
	}
	s, err := newSession(peer, b, p, agreements, secret)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrUndecryptable, err)
	}
	s.own = pre.DH
	return s, nil
}

// agreement is one X25519 of the handshake.
type agreement struct {
	private *ecdh.PrivateKey
	public  key
}

// newSession derives the root key from the agreements, in the order of section 3, and ML-KEM's secret.
func newSession(initiator *Party, b *Bundle, p *initPart, agreements []agreement, secret []byte) (*session, error) {
	ikm := bytes.Repeat([]byte{0xFF}, 32)
	for _, a := range agreements {
		shared, err := agree(a.private, a.public)
		if err != nil {
			return nil, err
		}
		ikm = append(ikm, shared...)
	}
	s := &session{transcript: transcript(initiator, b, p), ephemeral: p.ephemeral, replaces: p.replaces, init: p}
	root, err := hkdf.Key(sha256.New, append(ikm, secret...), s.transcript[:], "starling/dm-root/1", len(s.root))
	if err != nil {
		return nil, fmt.Errorf("deriving the root key: %w", err)
	}
	s.root = key(root)
	return s, nil
}

// transcript hashes all that the two sides have to agree on. Each field has its length before it,
// so that no two handshakes have the same text.
func transcript(a *Party, b *Bundle, p *initPart) key {
	var oneTime, replaces []byte
	if b.OneTime != nil {
		oneTime = append(binary.BigEndian.AppendUint32(nil, b.OneTime.ID), b.OneTime.Key[:]...)
	}
	for _, id := range p.replaces {
		replaces = append(replaces, id[:]...)
	}
	text := []byte("starling/dm-handshake/1")
	for _, part := range [][]byte{
		[]byte(suite),
		a.Account[:], a.Device[:], a.Identity[:],
		b.Owner.Account[:], b.Owner.Device[:], b.Owner.Identity[:],
		binary.BigEndian.AppendUint32(nil, b.PrekeyID), b.Prekey[:], b.KEM, oneTime,
		p.ephemeral[:], p.ciphertext[:], replaces,
	} {
		text = appendLP(text, part)
	}
	return sha256.Sum256(text)
}
