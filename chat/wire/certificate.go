package wire

import (
	"crypto/ed25519"
	"fmt"
	"time"
)

// Certificate is an account's statement that a device speaks for it.
//
// Encoding: {1 version varint, 2 account 32, 3 device 32, 4 not before fixed64,
// 5 not after fixed64, 6 signature 64}, times in Unix milliseconds, zero
// meaning no bound. The account signs fields 1 to 5 as encoded, under
// DomainCertificate.
type Certificate struct {
	Account   AccountID
	Device    DeviceID
	NotBefore time.Time // UTC, milliseconds; zero for no bound
	NotAfter  time.Time // UTC, milliseconds; zero for no bound
	Signature Signature
}

// IssueCertificate makes a certificate signed by the account key. Zero times
// mean no bound.
func IssueCertificate(account ed25519.PrivateKey, device DeviceID, notBefore, notAfter time.Time) (Certificate, error) {
	c := Certificate{Device: device, NotBefore: truncateMillis(notBefore), NotAfter: truncateMillis(notAfter)}
	copy(c.Account[:], account.Public().(ed25519.PublicKey))
	if err := c.checkFields(); err != nil {
		return Certificate{}, fmt.Errorf("issuing a certificate: %w", err)
	}
	c.Signature = Sign(DomainCertificate, account, c.signedPart())
	return c, nil
}

func (c *Certificate) checkFields() error {
	switch {
	case [32]byte(c.Account) == [32]byte(c.Device):
		return invalidf("account and device have the same key")
	case !c.NotAfter.IsZero() && !c.NotAfter.After(c.NotBefore):
		return invalidf("certificate ends before it begins")
	}
	return nil
}

func (c *Certificate) signedPart() []byte {
	e := encoder{b: make([]byte, 0, MaxCertificate)}
	e.uint(1, 1)
	e.id(2, c.Account[:])
	e.id(3, c.Device[:])
	e.fixed64(4, millis(c.NotBefore))
	e.fixed64(5, millis(c.NotAfter))
	return e.b
}

// Encode returns the canonical encoding.
func (c *Certificate) Encode() []byte {
	e := encoder{b: c.signedPart()}
	e.bytes(6, c.Signature[:])
	return e.b
}

// ParseCertificate reads a certificate without verifying its signature.
func ParseCertificate(raw []byte) (Certificate, error) {
	var c Certificate
	d := newDecoder("certificate", raw, MaxCertificate)
	signed := false
	for d.next() {
		switch d.num {
		case 1:
			d.version()
		case 2:
			d.id(c.Account[:])
		case 3:
			d.id(c.Device[:])
		case 4:
			c.NotBefore = d.time()
		case 5:
			c.NotAfter = d.time()
		case 6:
			d.exact(c.Signature[:])
			signed = true
		default:
			d.unknown()
		}
	}
	d.require(d.v1, "version")
	d.require(!c.Account.IsZero() && !c.Device.IsZero() && signed, "account, device or signature")
	d.check(c.checkFields())
	return c, d.finish()
}

// Verify checks the account's signature and refuses weak keys. It does not look
// at the dates; see ValidAt.
func (c *Certificate) Verify() error {
	if WeakKey(c.Account) || WeakKey(c.Device) {
		return fmt.Errorf("%w on a certificate: weak key", ErrSignature)
	}
	if !VerifySignature(DomainCertificate, c.Account, c.signedPart(), c.Signature) {
		return fmt.Errorf("%w on a certificate", ErrSignature)
	}
	return nil
}

// ValidAt says whether t lies within the certificate's dates, the first
// included and the last not. For an event t is its clock reading, so that the
// answer is the same at every node and for ever.
func (c *Certificate) ValidAt(t time.Time) bool {
	return !t.Before(c.NotBefore) && (c.NotAfter.IsZero() || t.Before(c.NotAfter))
}

// time reads a fixed64 of Unix milliseconds.
func (d *decoder) time() time.Time {
	ms := d.fixed64()
	if ms > maxHLCMillis {
		d.fail("field %d is no time", d.num)
		return time.Time{}
	}
	if ms == 0 {
		return time.Time{}
	}
	return time.UnixMilli(int64(ms)).UTC()
}

// millis returns Unix milliseconds, zero for the zero time.
func millis(t time.Time) uint64 {
	if t.IsZero() {
		return 0
	}
	return uint64(min(max(t.UnixMilli(), 0), maxHLCMillis))
}

// truncateMillis gives t the precision and location that the wire keeps.
func truncateMillis(t time.Time) time.Time {
	ms := millis(t)
	if ms == 0 {
		return time.Time{}
	}
	return time.UnixMilli(int64(ms)).UTC()
}
