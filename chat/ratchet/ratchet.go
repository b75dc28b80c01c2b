// Package ratchet turns the plaintext of direct messages into forward-secret ciphertext between
// two devices, and back: a PQXDH handshake (X25519 and ML-KEM-768), a Double Ratchet, and the
// choice among the sessions that two devices may have. The protocol is docs/spec/dm.md; section
// numbers in comments are its.
//
// It does no I/O, knows no clock, and imports only cryptography. It does not verify who owns a
// key: the caller checks the signed records of accounts and devices before it fills a [Party] or a
// [Bundle]. It has not been independently audited.
//
// A [Set] is all state between this device and one other. It is not safe for concurrent use; its
// owner stores [Set.Marshal] in the same transaction as whatever the call that changed it
// produced, before anything leaves the process or is acknowledged. If that transaction fails, the
// Set is thrown away and the stored bytes are read again.
package ratchet

import (
	"crypto/ecdh"
	"crypto/hkdf"
	"crypto/hmac"
	"crypto/sha256"
	"fmt"
	"io"
	"math"
	"slices"
)

// Limits of version 1 (section 11).
const (
	// MaxSkip is how many numbers of one chain a single message may pass over.
	MaxSkip = 1024
	// MaxKept is how many message keys a session keeps for messages that were passed over; the
	// oldest goes first.
	MaxKept = 4096
	// MaxReceipts is how many receipts go on with a spent sending chain before one renews it.
	MaxReceipts = 64
)

// key is 32 secret or public bytes; what they are says the name of the variable.
type key = [32]byte

func newKey(rand io.Reader) (*ecdh.PrivateKey, error) {
	var private key
	if _, err := io.ReadFull(rand, private[:]); err != nil {
		return nil, fmt.Errorf("reading randomness for a key pair: %w", err)
	}
	return ecdh.X25519().NewPrivateKey(private[:])
}

// publicOf returns the bytes of a public half.
func publicOf(private *ecdh.PrivateKey) key { return key(private.PublicKey().Bytes()) }

// agree is X25519; the standard library refuses an all-zero result.
func agree(private *ecdh.PrivateKey, public key) ([]byte, error) {
	pub, err := ecdh.X25519().NewPublicKey(public[:])
	if err != nil {
		return nil, fmt.Errorf("reading an X25519 key: %w", err)
	}
	secret, err := private.ECDH(pub)
	if err != nil {
		return nil, fmt.Errorf("agreeing on a key: %w", err)
	}
	return secret, nil
}

// session is one run of the Double Ratchet (section 4). A copy of the struct is a copy of the
// state, but for what it points to, which is not changed in place, and kept.
type session struct {
	transcript key
	ephemeral  key // the initiator's handshake key: the smaller one seals
	replaces   []SessionID
	// init is what began the session, until a message has opened on it: an initiator attaches it to
	// all it sends. While it is there, there is no receiving chain.
	init *initPart

	root key
	peer key // the peer's ratchet key, or its prekey before the first answer

	// The sending chain: there is one if own is set, or if receipts are left. It is spent once the
	// peer has answered its ratchet key: own is erased then, and only receipts may go on with it.
	own       *ecdh.PrivateKey
	ownPublic key
	sendChain key
	ns, pn    uint32 // next number in the sending chain; length of the one before
	receipts  byte   // how many more

	recvChain key
	nr        uint32 // next number in the receiving chain

	kept []keptKey // oldest first
}

// keptKey opens one message that was passed over. Eight bytes tell the chains of one peer apart.
type keptKey struct {
	chain   fingerprint // of the peer's ratchet key
	number  uint32
	message key
}

// id returns the session's name on the wire.
func (s *session) id() SessionID { return SessionID(s.transcript[:16]) }

// turn advances the root chain by one agreement and returns the new chain's key.
func (s *session) turn(private *ecdh.PrivateKey, public key) (chain key, err error) {
	secret, err := agree(private, public)
	if err != nil {
		return chain, err
	}
	out, err := hkdf.Key(sha256.New, secret, s.root[:], "starling/dm-ratchet/1", 64)
	if err != nil {
		return chain, fmt.Errorf("stepping the root chain: %w", err)
	}
	s.root = key(out[:32])
	return key(out[32:]), nil
}

// advance returns the message key that a chain key gives, and the chain key after it.
func advance(chain key) (message, next key) {
	h := hmac.New(sha256.New, chain[:])
	h.Write([]byte{1})
	h.Sum(message[:0])
	h.Reset()
	h.Write([]byte{2})
	h.Sum(next[:0])
	return message, next
}

// beginSending takes the sending step: a new ratchet key, and a chain from it.
func (s *session) beginSending(rand io.Reader) (err error) {
	if s.own, err = newKey(rand); err != nil {
		return err
	}
	s.ownPublic, s.pn, s.ns, s.receipts = publicOf(s.own), s.ns, 0, 0
	s.sendChain, err = s.turn(s.own, s.peer)
	return err
}

// nextSending takes the next message key of the sending chain, and says where it stands.
func (s *session) nextSending(rand io.Reader, receipt bool) (message key, at place, err error) {
	switch {
	case s.own != nil:
	case receipt && s.receipts > 0:
		s.receipts--
	default:
		if err := s.beginSending(rand); err != nil {
			return message, at, err
		}
	}
	if s.ns == math.MaxUint32 {
		return message, at, ErrNoSession
	}
	at = place{key: s.ownPublic, previous: s.pn, number: s.ns}
	message, s.sendChain = advance(s.sendChain)
	s.ns++
	if s.own == nil && s.receipts == 0 {
		s.ownPublic, s.sendChain = key{}, key{}
	}
	return message, at, nil
}

// open decrypts one message, and changes the session only if that succeeds.
func (s *session) open(m *sealedDM, ad []byte) ([]byte, error) {
	aad := associatedData(s.transcript, ad, m.prefix)
	chain := fingerprint(m.at.key[:8])
	if i := slices.IndexFunc(s.kept, func(k keptKey) bool { return k.number == m.at.number && k.chain == chain }); i >= 0 {
		content, err := m.open(s.kept[i].message, aad)
		if err == nil {
			s.kept = slices.Delete(s.kept, i, i+1) // which clears the place that becomes free
		}
		return content, err
	}
	next := *s
	passed, err := next.passOver(m.at)
	if err != nil {
		return nil, err
	}
	var message key
	message, next.recvChain = advance(next.recvChain)
	next.nr++
	content, err := m.open(message, aad)
	if err != nil {
		return nil, err
	}
	*s = next
	s.kept = append(s.kept, passed...)
	s.kept = slices.Delete(s.kept, 0, max(0, len(s.kept)-MaxKept))
	return content, nil
}

// fresh says whether a place was not opened yet.
func (s *session) fresh(at place) bool {
	chain := fingerprint(at.key[:8])
	return s.init == nil && at.key == s.peer && at.number >= s.nr ||
		slices.ContainsFunc(s.kept, func(k keptKey) bool { return k.number == at.number && k.chain == chain })
}

// passOver brings the receiving chain to where a message stands, and returns the keys of the
// messages before it that have not come.
func (s *session) passOver(at place) (passed []keptKey, err error) {
	if s.init != nil || at.key != s.peer {
		chain := fingerprint(at.key[:8])
		if s.own == nil || slices.ContainsFunc(s.kept, func(k keptKey) bool { return k.chain == chain }) {
			return nil, ErrUndecryptable // it answers no key of ours, or goes back to a chain that ended
		}
		if at.number > MaxSkip {
			return nil, ErrTooFarAhead // before anything is computed
		}
		if s.init == nil && at.previous > s.nr {
			if passed, err = s.skipTo(at.previous, nil); err != nil {
				return nil, err
			}
		}
		if s.recvChain, err = s.turn(s.own, at.key); err != nil {
			return nil, fmt.Errorf("%w: %w", ErrUndecryptable, err)
		}
		s.init, s.peer, s.nr = nil, at.key, 0 // the init part has done its work
		s.own = nil
		if s.ownPublic != (key{}) { // a responder has no chain yet
			s.receipts = MaxReceipts
		}
	}
	if at.number < s.nr {
		return nil, ErrUndecryptable // its key is used up
	}
	return s.skipTo(at.number, passed)
}

// skipTo advances the receiving chain to a number not below nr, and appends the keys passed over.
func (s *session) skipTo(number uint32, passed []keptKey) ([]keptKey, error) {
	if number-s.nr > MaxSkip {
		return nil, ErrTooFarAhead
	}
	passed = slices.Grow(passed, int(number-s.nr))
	for ; s.nr < number; s.nr++ {
		k := keptKey{chain: fingerprint(s.peer[:8]), number: s.nr}
		k.message, s.recvChain = advance(s.recvChain)
		passed = append(passed, k)
	}
	return passed, nil
}
