package ratchet

import (
	"crypto/ecdh"
	"crypto/sha256"
	"errors"
	"fmt"
)

// The encoding of a Set at rest, version 1. Integers are big-endian, a count has 2 bytes.
//
//	version 1, binding 32
//	sessions: count, and each:
//	    flags 1, transcript 32, ephemeral 32, replaces (count, 16 each), root 32, peer 32, ns 4, pn 4
//	    with a sending chain: own public key 32, chain key 32, own private key 32
//	    with a spent one:     own public key 32, chain key 32, receipts left 1
//	    with an init part:    the same as on the wire
//	    without:              receiving chain key 32, nr 4
//	    kept keys: count, and each: chain 8, number 4, key 32
//	ended: count, 8 each
//	recent: count, 8 each
//
// There is one encoding of each state: UnmarshalSet accepts nothing that Marshal would not write.
const (
	stateVersion = 1

	// Flags of a session. The lowest two are those of the init part.
	stateSending = 1 << 2
	stateSpent   = 1 << 3 // never both

	// Bytes of a kept key, and the least and the usual of a session.
	keptSize, minSession, usualSession = 44, 176, 512
)

// ErrState says that stored bytes are no state between these two devices. Nothing else is lost:
// go on with an empty Set, and both sides begin a new session.
var ErrState = errors.New("stored session state is damaged or belongs to another contact")

// Marshal returns the state in the encoding that [UnmarshalSet] reads. It holds secrets: the
// caller seals it, and makes the bytes it replaces unreadable.
func (s *Set) Marshal() []byte {
	size := 128 + 8*(len(s.ended)+len(s.recent))
	for _, held := range s.sessions {
		size += usualSession + keptSize*len(held.kept)
		if held.init != nil {
			size += maxInit
		}
	}
	c := codec{b: make([]byte, 0, size)}
	s.code(&c)
	return c.b
}

// UnmarshalSet reads what [Set.Marshal] wrote for the same two devices; otherwise [ErrState]. The
// result does not refer to data.
func UnmarshalSet(self, peer Party, data []byte) (*Set, error) {
	s, c := NewSet(self, peer), codec{b: data, reading: true}
	if s.code(&c); c.bad || len(c.b) != 0 {
		return nil, fmt.Errorf("reading %d bytes: %w", len(data), ErrState)
	}
	return s, nil
}

// binding ties the stored bytes to the two devices.
func (s *Set) binding() key {
	b := []byte("starling/dm-state/1")
	for _, p := range []*Party{&s.self, &s.peer} {
		b = append(append(append(b, p.Account[:]...), p.Device[:]...), p.Identity[:]...)
	}
	return sha256.Sum256(b)
}

func (s *Set) code(c *codec) {
	version, bound := byte(stateVersion), s.binding()
	c.u8(&version)
	c.raw(bound[:])
	if version != stateVersion || bound != s.binding() {
		c.bad = true
		return
	}
	list(c, &s.sessions, MaxSessions, minSession, func(held **session) {
		if c.reading {
			*held = &session{}
		}
		(*held).code(c)
		c.bad = c.bad || s.find((*held).id()) != *held // an earlier one has the same id
	})
	codeFingerprints(c, &s.ended, maxEnded)
	codeFingerprints(c, &s.recent, maxRecent)
}

func codeFingerprints(c *codec, items *[]fingerprint, limit int) {
	list(c, items, limit, len(fingerprint{}), func(f *fingerprint) { c.raw(f[:]) })
}

func (s *session) flags() byte {
	flags := s.init.flags()
	if s.own != nil {
		flags |= stateSending
	}
	if s.receipts > 0 {
		flags |= stateSpent
	}
	return flags
}

func (s *session) code(c *codec) {
	flags := s.flags()
	c.u8(&flags)
	c.raw(s.transcript[:])
	c.raw(s.ephemeral[:])
	codeReplaces(c, &s.replaces)
	c.raw(s.root[:])
	c.raw(s.peer[:])
	c.u32(&s.ns)
	c.u32(&s.pn)
	switch flags & (stateSending | stateSpent) {
	case stateSending:
		c.raw(s.ownPublic[:])
		c.raw(s.sendChain[:])
		s.codePrivate(c)
	case stateSpent:
		c.raw(s.ownPublic[:])
		c.raw(s.sendChain[:])
		c.u8(&s.receipts)
		c.bad = c.bad || s.receipts > MaxReceipts
	case stateSending | stateSpent:
		c.bad = true
	}
	if flags&flagInit != 0 {
		if c.reading {
			s.init = &initPart{}
		}
		s.init.code(c, flags)
	} else {
		c.raw(s.recvChain[:])
		c.u32(&s.nr)
	}
	list(c, &s.kept, MaxKept, keptSize, func(k *keptKey) {
		c.raw(k.chain[:])
		c.u32(&k.number)
		c.raw(k.message[:])
	})
	c.bad = c.bad || flags != s.flags() || s.init != nil && s.own == nil
}

func (s *session) codePrivate(c *codec) {
	var private key
	if s.own != nil {
		private = key(s.own.Bytes())
	}
	c.raw(private[:])
	if c.reading {
		var err error
		s.own, err = ecdh.X25519().NewPrivateKey(private[:])
		c.bad = c.bad || err != nil || publicOf(s.own) != s.ownPublic
	}
}
