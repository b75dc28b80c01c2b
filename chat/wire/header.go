package wire

import (
	"bytes"
	"time"
)

// Header is the part of an event that is signed. It commits to the body by hash,
// so it goes on proving its author after the body is gone.
//
// Encoding: {1 version varint, 2 kind varint, 3 room 32, 4 certificate bytes,
// 5 hlc fixed64, 6 device sequence varint, 7 previous 32, 8 parents 32
// (repeated, ascending), 9 ref 32, 10 epoch varint, 11 expires fixed64 (Unix
// ms), 12 body hash 32, 13 body length varint, 14 attachments (repeated),
// 100..127 extensions}.
type Header struct {
	Kind Kind
	// Room is the room's id; zero only in a create event, whose own id becomes
	// the room's.
	Room RoomID
	// Certificate names the author's account and device and proves they belong
	// together.
	Certificate Certificate
	HLC         HLC // never zero
	// DeviceSeq counts the device's events in this room, from 1 without a hole.
	DeviceSeq uint64
	// Previous is the device's event before this one in the room; zero exactly
	// when DeviceSeq is 1.
	Previous EventID
	// Parents are the newest events the author knew, ascending and distinct.
	Parents []EventID
	// Ref is the event this one edits, redacts, reacts or replies to, or zero.
	Ref EventID
	// Epoch is the room's epoch under whose keys the event is sealed.
	Epoch uint32
	// Expires is when the author asks everyone to forget the event; zero: never.
	Expires time.Time
	// BodyHash and BodyLength commit to the salted body.
	BodyHash   Hash
	BodyLength uint32
	// Attachments are the files that belong to the event.
	Attachments []Attachment
	// Extensions are fields of later revisions, as received.
	Extensions Extensions
}

// Attachment commits to one file: SHA-256 of its (encrypted) bytes and their
// number. What it is called is in the body.
//
// Encoding: {1 hash 32, 2 size varint}.
type Attachment struct {
	Hash Hash
	Size uint64 // bytes, 1 to MaxAttachmentSize
}

// Account returns the author's account.
func (h *Header) Account() AccountID { return h.Certificate.Account }

// Device returns the author's device.
func (h *Header) Device() DeviceID { return h.Certificate.Device }

func (h *Header) encode() []byte {
	e := encoder{b: make([]byte, 0, 512)}
	e.uint(1, 1)
	e.uint(2, uint64(h.Kind))
	e.id(3, h.Room[:])
	e.bytes(4, h.Certificate.Encode())
	e.fixed64(5, uint64(h.HLC))
	e.uint(6, h.DeviceSeq)
	e.id(7, h.Previous[:])
	for i := range h.Parents {
		e.bytes(8, h.Parents[i][:])
	}
	e.id(9, h.Ref[:])
	e.uint(10, uint64(h.Epoch))
	e.fixed64(11, millis(h.Expires))
	e.bytes(12, h.BodyHash[:])
	e.uint(13, uint64(h.BodyLength))
	for _, a := range h.Attachments {
		e.bytes(14, a.encode())
	}
	e.raw(h.Extensions)
	return e.b
}

func parseHeader(raw []byte) (Header, error) {
	var h Header
	d := newDecoder("header", raw, MaxHeader)
	hashed := false
	for d.next() {
		switch d.num {
		case 1:
			d.version()
		case 2:
			h.Kind = Kind(d.uint(255))
		case 3:
			d.id(h.Room[:])
		case 4:
			h.Certificate = d.certificate()
		case 5:
			h.HLC = HLC(d.fixed64())
		case 6:
			h.DeviceSeq = d.uint(1<<63 - 1)
		case 7:
			d.id(h.Previous[:])
		case 8:
			h.Parents = d.eventID(h.Parents, MaxParents)
		case 9:
			d.id(h.Ref[:])
		case 10:
			h.Epoch = uint32(d.uint(1<<32 - 1))
		case 11:
			h.Expires = d.time()
		case 12:
			d.exact(h.BodyHash[:])
			hashed = true
		case 13:
			h.BodyLength = uint32(d.uint(MaxBody))
		case 14:
			h.Attachments = d.attachment(h.Attachments)
		default:
			d.extension(&h.Extensions)
		}
	}
	d.require(d.v1, "version")
	d.require(hashed, "body hash")
	if d.err == nil {
		d.check(h.check())
	}
	return h, d.finish()
}

// check enforces what the encoding alone does not.
func (h *Header) check() error {
	switch {
	case h.Kind == 0:
		return invalidf("no kind")
	case h.Room.IsZero() != (h.Kind == KindCreate):
		return invalidf("a create event has no room id, every other has one")
	case h.Certificate.Account.IsZero():
		return invalidf("no certificate")
	case h.HLC == 0:
		return invalidf("no clock reading")
	case h.DeviceSeq == 0:
		return invalidf("no device sequence number")
	case (h.DeviceSeq == 1) != h.Previous.IsZero():
		return invalidf("only a device's first event has no predecessor")
	case h.Kind.needsRef() && h.Ref.IsZero():
		return invalidf("%s event without the event it is about", h.Kind)
	case h.BodyLength < BodySaltSize || h.BodyLength > MaxBody:
		return invalidf("body of %d bytes, want %d to %d", h.BodyLength, BodySaltSize, MaxBody)
	case len(h.Parents) > MaxParents:
		return invalidf("%d parents, at most %d", len(h.Parents), MaxParents)
	}
	for i := range h.Parents {
		if h.Parents[i].IsZero() || i > 0 && bytes.Compare(h.Parents[i-1][:], h.Parents[i][:]) >= 0 {
			return invalidf("parents not ascending")
		}
	}
	if err := checkAttachments(h.Attachments); err != nil {
		return err
	}
	if err := checkExtensions(h.Extensions); err != nil {
		return err
	}
	return h.Certificate.checkFields()
}

func (a *Attachment) encode() []byte {
	e := encoder{b: make([]byte, 0, 48)}
	e.bytes(1, a.Hash[:])
	e.uint(2, a.Size)
	return e.b
}

func checkAttachments(list []Attachment) error {
	if len(list) > MaxAttachments {
		return invalidf("%d attachments, at most %d", len(list), MaxAttachments)
	}
	for _, a := range list {
		if a.Size == 0 || a.Size > MaxAttachmentSize {
			return invalidf("attachment of %d bytes", a.Size)
		}
	}
	return nil
}

func (d *decoder) attachment(list []Attachment) []Attachment {
	raw := d.item(64, len(list), MaxAttachments)
	if d.err != nil {
		return nil
	}
	var a Attachment
	hashed := false
	in := newDecoder("attachment", raw, 64)
	for in.next() {
		switch in.num {
		case 1:
			in.exact(a.Hash[:])
			hashed = true
		case 2:
			a.Size = in.uint(MaxAttachmentSize)
		default:
			in.unknown()
		}
	}
	in.require(hashed && a.Size > 0, "hash or size")
	d.check(in.finish())
	return append(list, a)
}

func (d *decoder) certificate() Certificate {
	raw := d.bytes(MaxCertificate)
	if d.err != nil {
		return Certificate{}
	}
	c, err := ParseCertificate(raw)
	d.check(err)
	return c
}

func (d *decoder) eventID(list []EventID, most int) []EventID {
	var id EventID
	v := d.item(len(id), len(list), most)
	d.copyID(id[:], v)
	return append(list, id)
}
