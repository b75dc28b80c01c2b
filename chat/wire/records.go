package wire

import (
	"crypto/ed25519"
	"crypto/mlkem"
	"fmt"
	"time"
)

// Records are statements that outlive a connection: each is signed, has a
// sequence number that only rises (contacts pin the highest they saw) and an
// expiry.
//
// A record's encoding ends with its signature, as field 15, over all the bytes
// before that field under the record's domain, as received.

// DeviceList says which devices speak for an account.
//
// Encoding: {1 version varint, 2 account 32, 3 sequence varint, 4 issued
// fixed64, 5 expires fixed64, 6 certificates (repeated, ascending by device),
// 7 revoked devices 32 (repeated, ascending), 15 signature 64}; the account
// signs under DomainDeviceList.
type DeviceList struct {
	Account   AccountID
	Sequence  uint64
	Issued    time.Time // UTC, milliseconds
	Expires   time.Time
	Devices   []Certificate // at most MaxDevices
	Revoked   []DeviceID    // at most MaxDevices, none of them in Devices
	Signature Signature

	signed []byte // what the signature covers, as received
}

// Mailbox is a place where a device's mail may be left.
//
// Encoding: {1 mailbox 32, 2 relay device 32, 3 address}.
type Mailbox struct {
	ID      MailboxID
	Relay   DeviceID
	Address string // a multiaddr in text form, or empty
}

// PrekeyRecord holds the keys with which a session to a device is begun while
// it is away.
//
// Encoding: {1 version varint, 2 certificate, 3 sequence varint, 4 issued
// fixed64, 5 expires fixed64, 6 agreement key 32, 7 prekey id varint, 8 prekey
// 32, 9 kem key 1184, 10 envelope key 32, 11 mailboxes (repeated), 15 signature
// 64}; the device signs under DomainPrekeys.
type PrekeyRecord struct {
	Certificate Certificate
	Sequence    uint64
	Issued      time.Time // UTC, milliseconds
	Expires     time.Time
	Agreement   [32]byte // X25519 identity key of the device
	PrekeyID    uint32   // which pair of prekeys, chosen by the device; from 1
	Prekey      [32]byte // X25519, rotated
	KEM         []byte   // ML-KEM-768 encapsulation key, rotated with Prekey
	Envelope    [32]byte // X25519, for the outer envelope at mailboxes
	Mailboxes   []Mailbox
	Signature   Signature

	signed []byte
}

const recordSignature = 15

// Sign encodes the list signed by the account key; it sets Account, Signature.
func (l *DeviceList) Sign(account ed25519.PrivateKey) ([]byte, error) {
	copy(l.Account[:], account.Public().(ed25519.PublicKey))
	l.Issued, l.Expires = truncateMillis(l.Issued), truncateMillis(l.Expires)
	if err := l.check(); err != nil {
		return nil, fmt.Errorf("signing a device list: %w", err)
	}
	l.signed = l.signedPart()
	l.Signature = Sign(DomainDeviceList, account, l.signed)
	return appendRecordSignature(l.signed, l.Signature), nil
}

func (l *DeviceList) signedPart() []byte {
	e := encoder{b: make([]byte, 0, 512)}
	e.uint(1, 1)
	e.id(2, l.Account[:])
	e.uint(3, l.Sequence)
	e.fixed64(4, millis(l.Issued))
	e.fixed64(5, millis(l.Expires))
	for i := range l.Devices {
		e.bytes(6, l.Devices[i].Encode())
	}
	for i := range l.Revoked {
		e.bytes(7, l.Revoked[i][:])
	}
	return e.b
}

// ParseDeviceList reads a list without verifying signatures.
func ParseDeviceList(raw []byte) (*DeviceList, error) {
	l := &DeviceList{}
	d := newDecoder("device list", raw, MaxRecord)
	for d.next() {
		switch d.num {
		case 1:
			d.version()
		case 2:
			d.id(l.Account[:])
		case 3:
			l.Sequence = d.uint(1<<63 - 1)
		case 4:
			l.Issued = d.time()
		case 5:
			l.Expires = d.time()
		case 6:
			c, err := ParseCertificate(d.item(MaxCertificate, len(l.Devices), MaxDevices))
			d.check(err)
			l.Devices = append(l.Devices, c)
		case 7:
			var id DeviceID
			v := d.item(len(id), len(l.Revoked), MaxDevices)
			d.copyID(id[:], v)
			l.Revoked = append(l.Revoked, id)
		case recordSignature:
			l.signed = d.recordSignature(&l.Signature)
		default:
			d.unknown()
		}
	}
	d.require(d.v1, "version")
	d.require(l.signed != nil, "signature")
	if d.err == nil {
		d.check(l.check())
	}
	if err := d.finish(); err != nil {
		return nil, err
	}
	return l, nil
}

// Verify checks the account's signature on the list and on each certificate. It
// does not look at the dates; see Current.
func (l *DeviceList) Verify() error {
	if WeakKey(l.Account) || !VerifySignature(DomainDeviceList, l.Account, l.signed, l.Signature) {
		return fmt.Errorf("%w on a device list", ErrSignature)
	}
	for i := range l.Devices {
		if err := l.Devices[i].Verify(); err != nil {
			return fmt.Errorf("device list: %w", err)
		}
	}
	return nil
}

// Current says whether the list has not expired at now.
func (l *DeviceList) Current(now time.Time) bool { return now.Before(l.Expires) }

func (l *DeviceList) check() error {
	if l.Account.IsZero() {
		return invalidf("device list of nobody")
	}
	if err := checkRecordDates(l.Sequence, l.Issued, l.Expires); err != nil {
		return err
	}
	if len(l.Devices) > MaxDevices || len(l.Revoked) > MaxDevices {
		return invalidf("more than %d devices", MaxDevices)
	}
	for i := range l.Devices {
		c := &l.Devices[i]
		if c.Account != l.Account {
			return invalidf("device list with another account's certificate")
		}
		if err := c.checkFields(); err != nil {
			return err
		}
		if i > 0 && string(l.Devices[i-1].Device[:]) >= string(c.Device[:]) {
			return invalidf("devices not ascending")
		}
	}
	for i := range l.Revoked {
		if l.Revoked[i].IsZero() || i > 0 && string(l.Revoked[i-1][:]) >= string(l.Revoked[i][:]) {
			return invalidf("revoked devices not ascending")
		}
		for j := range l.Devices {
			if l.Devices[j].Device == l.Revoked[i] {
				return invalidf("device both listed and revoked")
			}
		}
	}
	return nil
}

// Sign encodes the record signed by the device key, which must be the
// certificate's; it sets Signature.
func (r *PrekeyRecord) Sign(device ed25519.PrivateKey) ([]byte, error) {
	r.Issued, r.Expires = truncateMillis(r.Issued), truncateMillis(r.Expires)
	if err := r.check(); err != nil {
		return nil, fmt.Errorf("signing a prekey record: %w", err)
	}
	if DeviceID(device.Public().(ed25519.PublicKey)) != r.Certificate.Device {
		return nil, fmt.Errorf("signing a prekey record: %w", invalidf("the certificate names another device"))
	}
	r.signed = r.signedPart()
	r.Signature = Sign(DomainPrekeys, device, r.signed)
	return appendRecordSignature(r.signed, r.Signature), nil
}

func (r *PrekeyRecord) signedPart() []byte {
	e := encoder{b: make([]byte, 0, 2048)}
	e.uint(1, 1)
	e.bytes(2, r.Certificate.Encode())
	e.uint(3, r.Sequence)
	e.fixed64(4, millis(r.Issued))
	e.fixed64(5, millis(r.Expires))
	e.id(6, r.Agreement[:])
	e.uint(7, uint64(r.PrekeyID))
	e.id(8, r.Prekey[:])
	e.bytes(9, r.KEM)
	e.id(10, r.Envelope[:])
	for i := range r.Mailboxes {
		var m encoder
		m.id(1, r.Mailboxes[i].ID[:])
		m.id(2, r.Mailboxes[i].Relay[:])
		m.string(3, r.Mailboxes[i].Address)
		e.bytes(11, m.b)
	}
	return e.b
}

// ParsePrekeyRecord reads a record without verifying signatures.
func ParsePrekeyRecord(raw []byte) (*PrekeyRecord, error) {
	r := &PrekeyRecord{}
	d := newDecoder("prekey record", raw, MaxRecord)
	for d.next() {
		switch d.num {
		case 1:
			d.version()
		case 2:
			r.Certificate = d.certificate()
		case 3:
			r.Sequence = d.uint(1<<63 - 1)
		case 4:
			r.Issued = d.time()
		case 5:
			r.Expires = d.time()
		case 6:
			d.id(r.Agreement[:])
		case 7:
			r.PrekeyID = uint32(d.uint(1<<32 - 1))
		case 8:
			d.id(r.Prekey[:])
		case 9:
			r.KEM = d.bytes(mlkem.EncapsulationKeySize768)
		case 10:
			d.id(r.Envelope[:])
		case 11:
			r.Mailboxes = d.mailbox(r.Mailboxes)
		case recordSignature:
			r.signed = d.recordSignature(&r.Signature)
		default:
			d.unknown()
		}
	}
	d.require(d.v1, "version")
	d.require(r.signed != nil, "signature")
	if d.err == nil {
		d.check(r.check())
	}
	if err := d.finish(); err != nil {
		return nil, err
	}
	return r, nil
}

// Verify checks the device's signature and the account's on its certificate. It
// does not look at the dates; see Current.
func (r *PrekeyRecord) Verify() error {
	if err := r.Certificate.Verify(); err != nil {
		return fmt.Errorf("prekey record: %w", err)
	}
	if !VerifySignature(DomainPrekeys, r.Certificate.Device, r.signed, r.Signature) {
		return fmt.Errorf("%w on a prekey record", ErrSignature)
	}
	return nil
}

// Current says whether record and certificate have not expired at now.
func (r *PrekeyRecord) Current(now time.Time) bool {
	return now.Before(r.Expires) && (r.Certificate.NotAfter.IsZero() || now.Before(r.Certificate.NotAfter))
}

func (r *PrekeyRecord) check() error {
	if r.Certificate.Account.IsZero() {
		return invalidf("prekey record without a certificate")
	}
	if err := r.Certificate.checkFields(); err != nil {
		return err
	}
	if err := checkRecordDates(r.Sequence, r.Issued, r.Expires); err != nil {
		return err
	}
	switch {
	case allZero(r.Agreement[:]), allZero(r.Prekey[:]), allZero(r.Envelope[:]), r.PrekeyID == 0:
		return invalidf("prekey record without one of its keys")
	case len(r.KEM) != mlkem.EncapsulationKeySize768:
		return invalidf("kem key of %d bytes, want %d", len(r.KEM), mlkem.EncapsulationKeySize768)
	case len(r.Mailboxes) > MaxMailboxes:
		return invalidf("%d mailboxes, at most %d", len(r.Mailboxes), MaxMailboxes)
	}
	for i := range r.Mailboxes {
		m := &r.Mailboxes[i]
		if m.ID == (MailboxID{}) || m.Relay.IsZero() {
			return invalidf("mailbox without id or relay")
		}
		if m.Address != "" {
			if err := checkAddress(m.Address); err != nil {
				return err
			}
		}
	}
	return nil
}

func (d *decoder) mailbox(list []Mailbox) []Mailbox {
	const limit = MaxAddress + 80
	raw := d.item(limit, len(list), MaxMailboxes)
	if d.err != nil {
		return nil
	}
	var m Mailbox
	in := newDecoder("mailbox", raw, limit)
	for in.next() {
		switch in.num {
		case 1:
			in.id(m.ID[:])
		case 2:
			in.id(m.Relay[:])
		case 3:
			m.Address = in.string(MaxAddress)
		default:
			in.unknown()
		}
	}
	d.check(in.finish())
	return append(list, m)
}

// appendRecordSignature returns a new slice: what is signed and the signature.
func appendRecordSignature(signed []byte, sig Signature) []byte {
	e := encoder{b: append(make([]byte, 0, len(signed)+len(sig)+4), signed...)}
	e.bytes(recordSignature, sig[:])
	return e.b
}

// recordSignature reads a record's last field and returns what it covers.
func (d *decoder) recordSignature(sig *Signature) []byte {
	d.exact(sig[:])
	return d.whole[:d.start:d.start]
}

func checkRecordDates(sequence uint64, issued, expires time.Time) error {
	switch {
	case sequence == 0:
		return invalidf("record without a sequence number")
	case issued.IsZero() || !expires.After(issued):
		return invalidf("record that ends before it begins")
	case expires.Sub(issued) > MaxRecordLife:
		return invalidf("record that lives longer than %s", MaxRecordLife)
	}
	return nil
}

// checkAddress wants what looks like a multiaddr in text form.
func checkAddress(s string) error {
	if err := checkASCII("address", s, MaxAddress); err != nil {
		return err
	}
	if s[0] != '/' {
		return invalidf("address %q does not begin with '/'", clip(s))
	}
	return nil
}
