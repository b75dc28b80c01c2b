package wire

import (
	"crypto/ed25519"
	"crypto/rand"
	"fmt"

	"github.com/oasisprotocol/curve25519-voi/curve"
	voi "github.com/oasisprotocol/curve25519-voi/primitives/ed25519"
)

// This file is the only place where Ed25519 signatures are made and checked.
//
// Signing is RFC 8032. Verification follows ZIP 215
// (https://zips.z.cash/zip-0215): the cofactored equation, any encoding of A
// and R that decodes to a curve point, S below the group order. It is the one
// rule under which single and batch verification always agree, so nodes never
// disagree on a set. See docs/adr/0002-zip215.md.

// Domain separates the uses of signatures: what is signed is always
// domain || 0x00 || payload, so a signature made for one use holds for no other.
type Domain string

// The domains of version 1.
const (
	// DomainEvent: device key over an event id.
	DomainEvent Domain = "starling/event/1"
	// DomainSealed: topic key over a sealed id.
	DomainSealed Domain = "starling/sealed/1"
	// DomainCertificate: account key over a device certificate.
	DomainCertificate Domain = "starling/certificate/1"
	// DomainDeviceList: account key over a device list.
	DomainDeviceList Domain = "starling/device-list/1"
	// DomainPrekeys: device key over a prekey record.
	DomainPrekeys Domain = "starling/prekeys/1"
	// DomainAgreement: device key over its X25519 identity key.
	DomainAgreement Domain = "starling/agreement/1"
	// DomainSync: topic key over a sync session's transcript.
	DomainSync Domain = "starling/sync/1"
	// DomainAttach: topic key over an attachment to a relay.
	DomainAttach Domain = "starling/attach/1"
	// DomainMailbox: mailbox key over a collection from a relay.
	DomainMailbox Domain = "starling/mailbox/1"
	// DomainReceipt: relay's device key over a deposit that it keeps.
	DomainReceipt Domain = "starling/receipt/1"
	// DomainStanding: topic key over what a member says of an author's events.
	DomainStanding Domain = "starling/standing/1"
	// DomainBundle: topic key over the end of a bundle.
	DomainBundle Domain = "starling/bundle/1"
	// DomainInvite: inviter's device key over a room invite.
	DomainInvite Domain = "starling/invite/1"
)

// Domains of plain hashes.
const (
	domainEventID      = "starling/event/1"
	domainSealedID     = "starling/sealed/1"
	domainBody         = "starling/body/1"
	domainRoomID       = "starling/room-id/1"
	domainFingerprint  = "starling/fingerprint/1"
	domainConversation = "starling/conversation/1"
	domainGossip       = "starling/gossip/1"
	domainDeposit      = "starling/deposit/1"
)

var zip215 = &voi.Options{Verify: voi.VerifyOptionsZIP_215}

// signedMessage returns what is given to Ed25519.
func signedMessage(d Domain, payload []byte) []byte {
	m := make([]byte, 0, len(d)+1+len(payload))
	m = append(m, d...)
	m = append(m, 0)
	return append(m, payload...)
}

// Sign signs payload for a domain. The signature is deterministic (RFC 8032).
func Sign(d Domain, key ed25519.PrivateKey, payload []byte) Signature {
	return Signature(ed25519.Sign(key, signedMessage(d, payload)))
}

// VerifySignature says whether sig is key's signature of payload for the
// domain, by ZIP 215. A Verifier is faster for keys that come again.
func VerifySignature(d Domain, key [32]byte, payload []byte, sig Signature) bool {
	return voi.VerifyWithOptions(key[:], signedMessage(d, payload), sig[:], zip215)
}

// expandedKey is a public key prepared for repeated verification (1.5 KB).
type expandedKey = voi.ExpandedPublicKey

// expand prepares a key; it fails if the key encodes no curve point, in which
// case no signature by it holds.
func expand(key [32]byte) (*expandedKey, error) {
	k, err := voi.NewExpandedPublicKey(key[:])
	if err != nil {
		return nil, fmt.Errorf("%w: public key: %w", ErrSignature, err)
	}
	return k, nil
}

func verifyExpanded(d Domain, key *expandedKey, payload []byte, sig Signature) bool {
	return voi.VerifyExpandedWithOptions(key, signedMessage(d, payload), sig[:], zip215)
}

// batch gathers signatures that are checked together at less cost each. It
// gives the same answer as checking one by one.
type batch struct {
	v        *voi.BatchVerifier // nil until there are two
	capacity int
	n        int
	first    batchEntry
}

type batchEntry struct {
	key     *expandedKey
	message []byte
	sig     Signature
}

func newBatch(capacity int) *batch { return &batch{capacity: capacity} }

func (b *batch) add(d Domain, key *expandedKey, payload []byte, sig Signature) {
	e := batchEntry{key, signedMessage(d, payload), sig}
	switch b.n++; b.n {
	case 1: // one alone costs a quarter more in a batch
		b.first = e
		return
	case 2:
		b.v = voi.NewBatchVerifierWithCapacity(max(b.capacity, b.n))
		b.v.AddExpandedWithOptions(b.first.key, b.first.message, b.first.sig[:], zip215)
	}
	b.v.AddExpandedWithOptions(e.key, e.message, e.sig[:], zip215)
}

// verify answers for each entry in the order of add.
func (b *batch) verify() []bool {
	switch b.n {
	case 0:
		return nil
	case 1:
		return []bool{voi.VerifyExpandedWithOptions(b.first.key, b.first.message, b.first.sig[:], zip215)}
	}
	_, each := b.v.Verify(rand.Reader)
	return each
}

// WeakKey says whether a public key decodes to no curve point or to a point of
// small order. Under the latter anyone can make signatures, and one signature
// can hold for many payloads, which ZIP 215 allows; so such a key never speaks
// for an account or a device.
func WeakKey(key [32]byte) bool {
	var y curve.CompressedEdwardsY
	var p curve.EdwardsPoint
	copy(y[:], key[:])
	if _, err := p.SetCompressedY(&y); err != nil {
		return true
	}
	return p.IsSmallOrder()
}
