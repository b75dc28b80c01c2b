package wire

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"

	"golang.org/x/crypto/chacha20poly1305"
)

const (
	nonceSize = chacha20poly1305.NonceSizeX
	tagSize   = chacha20poly1305.Overhead
	// flagEphemeral marks events that are forwarded and never stored.
	flagEphemeral = 1
)

// ErrOpen is returned when a sealed event does not open under the room's keys,
// or opens to something that no honest member seals. It matches ErrInvalid. The
// event stays in the set, since members alone can see this; it is not shown.
var ErrOpen = invalidf("sealed event does not open")

// Sealed is what travels, is stored and is synced: an event encrypted under a
// room's keys and signed by its topic key, so that anybody can check it and
// only members can make or read it. Fields are read-only.
//
// Encoding: {1 version varint, 2 flags varint, 3 hlc fixed64, 4 nonce 24,
// 5 head ciphertext, 6 body ciphertext or 7 its SHA-256, 8 topic signature 64}.
type Sealed struct {
	Topic     TopicKey // the topic it was checked against; not in the encoding
	ID        SealedID
	HLC       HLC
	Ephemeral bool
	Nonce     [nonceSize]byte
	Head      []byte // ciphertext
	Body      []byte // ciphertext; nil in a stub
	BodyHash  Hash   // SHA-256 of the body ciphertext
	Signature Signature

	raw []byte
}

// Bytes returns the encoding as received; it must not be changed.
func (s *Sealed) Bytes() []byte { return s.raw }

// IsStub says whether the body has been dropped. A stub has the same id and
// verifies as before. Stubs come by sync only: a gossip validator ignores them,
// lest somebody outside the room cuts bodies off on the way.
func (s *Sealed) IsStub() bool { return s.Body == nil }

// Seal encrypts and signs an event for the room. An event has exactly one
// sealed form, whoever seals it. A redacted event cannot be sealed; use
// Sealed.Redacted on its sealed form.
func (k *RoomKeys) Seal(e *Event) (*Sealed, error) {
	if e.Redacted() {
		return nil, fmt.Errorf("sealing: %w", ErrRedacted)
	}
	s := &Sealed{Topic: k.Topic, HLC: e.Header.HLC, Ephemeral: e.Header.Kind.Ephemeral()}
	ad := s.associatedData()
	s.Nonce = k.nonceFor(ad, e.head)
	s.Head = k.head.Seal(nil, s.Nonce[:], e.head, ad)
	s.Body = k.body.Seal(nil, s.Nonce[:], e.body, ad)
	s.BodyHash = sha256.Sum256(s.Body)
	s.ID = s.id()
	s.Signature = Sign(DomainSealed, k.signer, s.ID[:])
	s.raw = s.encode()
	return s, nil
}

// CheckSealed decides whether raw belongs to the set of the topic: size, form,
// version, topic signature, in this order. It asks nothing of the clock or of
// other events, so that all nodes agree. An error matches ErrInvalid (reject and
// score) or ErrUnsupported (ignore).
func CheckSealed(topic TopicKey, raw []byte) (*Sealed, error) {
	s, err := parseSealed(topic, raw)
	if err != nil {
		return nil, err
	}
	if !VerifySignature(DomainSealed, topic, s.ID[:], s.Signature) {
		return nil, fmt.Errorf("%w on a sealed event", ErrSignature)
	}
	return s, nil
}

// PeekSealedID computes the id that raw would have if its signature held, at
// the cost of two hashes, so that what is already in the set is dropped before
// any verification:
//
//	SHA-256("starling/sealed/1" || topic key || v || flags || hlc || nonce || head || SHA-256(body ciphertext))
//
// with v and flags as one byte each and hlc as 8 bytes, big-endian. The id does
// not cover the signature: compare it only with ids of events that were
// accepted, and use GossipID where ids of unverified messages are remembered.
func PeekSealedID(topic TopicKey, raw []byte) (SealedID, error) {
	s, err := parseSealed(topic, raw)
	if err != nil {
		return SealedID{}, err
	}
	return s.ID, nil
}

// GossipID names a gossip message before it is verified:
//
//	SHA-256("starling/gossip/1" || topic name || sealed event)
//
// given as one part or as several that follow each other. Unlike the sealed id
// it covers the topic's name, the signature and whether the body is there, so a
// forwarder that spoils a copy, or sends it to another topic, cannot make others
// take the true message for a duplicate.
func GossipID(parts ...[]byte) Hash { return Hash(hashDomain(domainGossip, parts...)) }

// Open decrypts a sealed event and checks everything that ties the two
// together: nonce, clock reading, ephemeral flag, and with a body that it is
// present. A stub opens to a redacted event. The author's signatures are still
// to be verified: Verifier.VerifyEvent. Errors match ErrOpen or ErrUnsupported.
func (k *RoomKeys) Open(s *Sealed) (*Event, error) {
	ad := s.associatedData() // holds the topic: another room's event does not decrypt
	head, err := k.head.Open(nil, s.Nonce[:], s.Head, ad)
	if err != nil {
		return nil, fmt.Errorf("%w: head does not decrypt", ErrOpen)
	}
	var body []byte
	if !s.IsStub() {
		if body, err = k.body.Open(nil, s.Nonce[:], s.Body, ad); err != nil {
			return nil, fmt.Errorf("%w: body does not decrypt", ErrOpen)
		}
	}
	e, err := ParseEvent(joinEvent(head, body))
	if err != nil {
		if errors.Is(err, ErrUnsupported) {
			return nil, err
		}
		return nil, fmt.Errorf("%w: %w", ErrOpen, err)
	}
	switch {
	case len(e.head) != len(head) || e.Redacted() != s.IsStub():
		return nil, fmt.Errorf("%w: head and body are not apart", ErrOpen)
	case e.Header.HLC != s.HLC:
		return nil, fmt.Errorf("%w: inner and outer clock differ", ErrOpen)
	case e.Header.Kind.Ephemeral() != s.Ephemeral:
		return nil, fmt.Errorf("%w: ephemeral flag does not fit the kind", ErrOpen)
	case s.Nonce != k.nonceFor(ad, head):
		return nil, fmt.Errorf("%w: nonce is not the event's", ErrOpen)
	}
	return e, nil
}

// Redacted returns the stub: the same sealed event without its body ciphertext,
// with the same id and signature. A stub is returned as it is.
func (s *Sealed) Redacted() *Sealed {
	if s.IsStub() {
		return s
	}
	stub := *s
	stub.Body = nil
	stub.raw = stub.encode()
	return &stub
}

// nonceFor returns HMAC-SHA256(nonce key, associated data || head)[:24]. The
// head commits to the body by hash, so the nonce depends on the whole event.
func (k *RoomKeys) nonceFor(ad, head []byte) (n [nonceSize]byte) {
	m := hmac.New(sha256.New, k.nonce[:])
	m.Write(ad)
	m.Write(head)
	copy(n[:], m.Sum(nil))
	return n
}

func (s *Sealed) flags() byte {
	if s.Ephemeral {
		return flagEphemeral
	}
	return 0
}

// associatedData returns topic key || v || flags || hlc, 42 bytes.
func (s *Sealed) associatedData() []byte {
	ad := make([]byte, 0, 42)
	ad = append(ad, s.Topic[:]...)
	ad = append(ad, 1, s.flags())
	return binary.BigEndian.AppendUint64(ad, uint64(s.HLC))
}

func (s *Sealed) id() SealedID {
	return SealedID(hashDomain(domainSealedID, s.associatedData(), s.Nonce[:], s.Head, s.BodyHash[:]))
}

func (s *Sealed) encode() []byte {
	e := encoder{b: make([]byte, 0, len(s.Head)+len(s.Body)+160)}
	e.uint(1, 1)
	e.uint(2, uint64(s.flags()))
	e.fixed64(3, uint64(s.HLC))
	e.bytes(4, s.Nonce[:])
	e.bytes(5, s.Head)
	if s.Body != nil {
		e.bytes(6, s.Body)
	} else {
		e.bytes(7, s.BodyHash[:])
	}
	e.bytes(8, s.Signature[:])
	return e.b
}

// parseSealed reads the form and computes the id.
func parseSealed(topic TopicKey, raw []byte) (*Sealed, error) {
	s := &Sealed{Topic: topic, raw: raw}
	var flags uint64
	var nonce, hashed, signed bool
	d := newDecoder("sealed event", raw, MaxSealed)
	for d.next() {
		switch d.num {
		case 1:
			d.version()
		case 2:
			flags = d.uint(255)
		case 3:
			s.HLC = HLC(d.fixed64())
		case 4:
			d.exact(s.Nonce[:])
			nonce = true
		case 5:
			s.Head = d.bytes(MaxHead + tagSize)
		case 6:
			s.Body = d.bytes(MaxBody + tagSize)
		case 7:
			d.exact(s.BodyHash[:])
			hashed = true
		case 8:
			d.exact(s.Signature[:])
			signed = true
		default:
			d.unknown()
		}
	}
	d.require(d.v1, "version")
	d.require(s.HLC != 0 && nonce && signed, "clock, nonce or signature")
	d.require(len(s.Head) > tagSize, "head")
	d.require((s.Body != nil) != hashed, "body or hash of it, or both")
	d.require(s.Body == nil || len(s.Body) >= BodySaltSize+tagSize, "whole body")
	if err := d.finish(); err != nil {
		return nil, err
	}
	if flags&^flagEphemeral != 0 {
		return nil, unsupportedf("sealed event with flags %#x", flags)
	}
	s.Ephemeral = flags&flagEphemeral != 0
	if s.Body != nil {
		s.BodyHash = sha256.Sum256(s.Body)
	}
	s.ID = s.id()
	return s, nil
}
