package wire

import (
	"fmt"
	"time"
	"unicode/utf8"
)

// DMProtocol is the stream protocol of direct messages. Each side writes
// DMHello first, then any number of DMData, DMAck and DMReject.
const DMProtocol = "/starling/dm/1"

const (
	dmHello  = 1
	dmData   = 2
	dmAck    = 3
	dmReject = 4
)

// ParseDMFrame decodes the payload of a frame of DMProtocol: *DMHello, *DMData,
// *DMAck or *DMReject. A type this version does not know gives ErrUnsupported
// and is to be skipped.
func ParseDMFrame(payload []byte) (Frame, error) {
	return parseFrame("dm", payload, func(t byte) Frame {
		switch t {
		case dmHello:
			return &DMHello{}
		case dmData:
			return &DMData{}
		case dmAck:
			return &DMAck{}
		case dmReject:
			return &DMReject{}
		default:
			return nil
		}
	})
}

// DMHello introduces one side. Receivers check that the certificate's device is
// the stream's remote peer and verify it.
//
// Encoding: {1 version varint, 2 certificate, 3 nick, 4 capabilities (repeated,
// ascending), 100..127 extensions}.
type DMHello struct {
	Certificate  Certificate
	Nick         string // a claim; empty if none
	Capabilities []string
	Extensions   Extensions
}

// DMData carries one sealed direct message.
//
// Encoding: {1 envelope}.
type DMData struct{ Envelope []byte }

// ReceiptKind says what an acknowledgement proves.
type ReceiptKind uint8

const (
	// ReceiptDelivered: the device stored the message.
	ReceiptDelivered ReceiptKind = 1
	// ReceiptRead: a person's user interface showed it.
	ReceiptRead ReceiptKind = 2
)

// DMAck acknowledges direct messages, after they were stored.
//
// Encoding: {1 kind varint, 2 message ids 16 (repeated)}.
type DMAck struct {
	Kind ReceiptKind
	IDs  []MsgID // 1 to MaxAcks
}

// RejectReason says why an envelope was not taken.
type RejectReason uint8

// Reasons for a DMReject.
const (
	RejectUndecryptable RejectReason = 1 // start a new session
	RejectStranger      RejectReason = 2 // the requests inbox is full; wait to be accepted
	RejectTooLarge      RejectReason = 3
	RejectTooMany       RejectReason = 4 // slow down
	RejectUnsupported   RejectReason = 5 // the receiver is older
	RejectBusy          RejectReason = 6 // not now; try again later
)

// DMReject says that an envelope was not taken, and that it should not be sent
// again as it is.
//
// Encoding: {1 reason varint, 2 SHA-256 of the envelope}.
type DMReject struct {
	Reason   RejectReason
	Envelope Hash
}

func (*DMHello) frameType() byte  { return dmHello }
func (*DMData) frameType() byte   { return dmData }
func (*DMAck) frameType() byte    { return dmAck }
func (*DMReject) frameType() byte { return dmReject }

func (f *DMHello) encodeFrame(e *encoder) {
	e.uint(1, 1)
	e.bytes(2, f.Certificate.Encode())
	e.string(3, f.Nick)
	for _, c := range f.Capabilities {
		e.string(4, c)
	}
	e.raw(f.Extensions)
}

func (f *DMHello) decodeFrame(d *decoder) {
	d.require(d.num == 1 || d.v1, "version")
	switch d.num {
	case 1:
		d.version()
	case 2:
		f.Certificate = d.certificate()
	case 3:
		f.Nick = d.string(MaxNick)
	case 4:
		f.Capabilities = append(f.Capabilities, string(d.item(MaxCapability, len(f.Capabilities), MaxCapabilities)))
	default:
		d.extension(&f.Extensions)
	}
}

func (f *DMHello) checkFrame() error {
	if f.Certificate.Account.IsZero() {
		return invalidf("hello without a certificate")
	}
	if err := f.Certificate.checkFields(); err != nil {
		return err
	}
	if f.Nick != "" {
		if err := CheckNick(f.Nick); err != nil {
			return err
		}
	}
	if len(f.Capabilities) > MaxCapabilities {
		return invalidf("%d capabilities, at most %d", len(f.Capabilities), MaxCapabilities)
	}
	for i, c := range f.Capabilities {
		if err := checkASCII("capability", c, MaxCapability); err != nil {
			return err
		}
		if i > 0 && f.Capabilities[i-1] >= c {
			return invalidf("capabilities not ascending")
		}
	}
	return checkExtensions(f.Extensions)
}

func (f *DMData) encodeFrame(e *encoder) { e.bytes(1, f.Envelope) }

func (f *DMData) decodeFrame(d *decoder) {
	if d.num != 1 {
		d.unknown()
		return
	}
	f.Envelope = d.bytes(MaxEnvelope)
}

func (f *DMData) checkFrame() error { return checkEnvelope(f.Envelope) }

func (f *DMAck) encodeFrame(e *encoder) {
	e.uint(1, uint64(f.Kind))
	for i := range f.IDs {
		e.bytes(2, f.IDs[i][:])
	}
}

func (f *DMAck) decodeFrame(d *decoder) {
	switch d.num {
	case 1:
		f.Kind = ReceiptKind(d.uint(uint64(ReceiptRead)))
	case 2:
		f.IDs = d.msgID(f.IDs, MaxAcks)
	default:
		d.unknown()
	}
}

func (f *DMAck) checkFrame() error {
	if f.Kind < ReceiptDelivered || f.Kind > ReceiptRead {
		return invalidf("acknowledgement of kind %d", f.Kind)
	}
	if len(f.IDs) == 0 {
		return invalidf("acknowledgement of nothing")
	}
	return checkMsgIDs(f.IDs)
}

func (f *DMReject) encodeFrame(e *encoder) {
	e.uint(1, uint64(f.Reason))
	e.id(2, f.Envelope[:])
}

func (f *DMReject) decodeFrame(d *decoder) {
	switch d.num {
	case 1:
		f.Reason = RejectReason(d.uint(255))
	case 2:
		d.id(f.Envelope[:])
	default:
		d.unknown()
	}
}

func (f *DMReject) checkFrame() error {
	if f.Reason == 0 || f.Envelope == (Hash{}) {
		return invalidf("reject without a reason or envelope")
	}
	return nil
}

// DMKind says what a direct message's content is. Kinds 1 to 5 have the bodies
// of the room kinds with the same number.
type DMKind uint8

// The kinds of version 1. 6 to 63 are reserved for those shared with rooms; 128
// and above are ephemeral: sent on a live stream or not at all, never stored.
const (
	DMMessage DMKind = 1
	DMEdit    DMKind = 2
	DMRedact  DMKind = 3
	DMReact   DMKind = 4
	DMProfile DMKind = 5

	// DMReceipt has no body; its acks say it all.
	DMReceipt DMKind = 64
	// DMRead has no body; its acks name messages that were read.
	DMRead DMKind = 65
	// DMRoomSecret hands over the secret of a private room's epoch.
	DMRoomSecret DMKind = 66
	// DMRecords carries the sender's newest device list and prekey record.
	DMRecords DMKind = 67
	// DMJoinRequest redeems a room invite.
	DMJoinRequest DMKind = 68
	// DMAccept tells a stranger that the contact request was accepted.
	DMAccept DMKind = 69
	// DMContact asks a stranger to become a contact.
	DMContact DMKind = 70
	// DMRoomLog hands over membership events of a private room.
	DMRoomLog DMKind = 71
	// DMRoomWanted asks a member for membership events and secrets.
	DMRoomWanted DMKind = 72
	// DMRoomRefused answers an invite that was not taken.
	DMRoomRefused DMKind = 73

	DMTyping DMKind = 128
)

// DMContent is the inside of a direct message. It is authenticated by the
// session that carries it and not signed, so that it can be denied.
//
// Encoding: {1 version varint, 2 message id 16, 3 conversation 32, 4 kind
// varint, 5 sent at fixed64 (Unix ms), 6 device sequence varint, 7 acks 16
// (repeated), 8 expires fixed64 (Unix ms), 9 ref 16, 10 body, 11 attachments
// (repeated), 100..127 extensions}. Sealing it pads it (docs/spec/dm.md).
type DMContent struct {
	ID           MsgID
	Conversation ConversationID
	Kind         DMKind
	SentAt       time.Time // UTC, milliseconds
	DeviceSeq    uint64    // counts the device's messages in the conversation, from 1
	Acks         []MsgID   // messages of the other side that are stored here
	Expires      time.Time // zero: never
	Ref          MsgID     // the message this one edits, redacts, reacts or replies to
	Body         []byte    // EncodeBody for kinds shared with rooms, else EncodeDMBody
	Attachments  []Attachment
	Extensions   Extensions
}

// Encode returns the canonical encoding, which the limits of the fields keep
// under MaxDMContent.
func (c *DMContent) Encode() ([]byte, error) {
	if err := c.check(); err != nil {
		return nil, fmt.Errorf("encoding a direct message: %w", err)
	}
	return c.encode(), nil
}

func (c *DMContent) encode() []byte {
	e := encoder{b: make([]byte, 0, 256)}
	e.uint(1, 1)
	e.id(2, c.ID[:])
	e.id(3, c.Conversation[:])
	e.uint(4, uint64(c.Kind))
	e.fixed64(5, millis(c.SentAt))
	e.uint(6, c.DeviceSeq)
	for i := range c.Acks {
		e.bytes(7, c.Acks[i][:])
	}
	e.fixed64(8, millis(c.Expires))
	e.id(9, c.Ref[:])
	e.bytes(10, c.Body)
	for i := range c.Attachments {
		e.bytes(11, c.Attachments[i].encode())
	}
	e.raw(c.Extensions)
	return e.b
}

// ParseDMContent reads the content of a direct message.
func ParseDMContent(raw []byte) (*DMContent, error) {
	c := &DMContent{}
	d := newDecoder("direct message", raw, MaxDMContent)
	for d.next() {
		switch d.num {
		case 1:
			d.version()
		case 2:
			d.id(c.ID[:])
		case 3:
			d.id(c.Conversation[:])
		case 4:
			c.Kind = DMKind(d.uint(255))
		case 5:
			c.SentAt = d.time()
		case 6:
			c.DeviceSeq = d.uint(1<<63 - 1)
		case 7:
			c.Acks = d.msgID(c.Acks, MaxAcks)
		case 8:
			c.Expires = d.time()
		case 9:
			d.id(c.Ref[:])
		case 10:
			c.Body = d.bytes(MaxDMBody)
		case 11:
			c.Attachments = d.attachment(c.Attachments)
		default:
			d.extension(&c.Extensions)
		}
	}
	d.require(d.v1, "version")
	if d.err == nil {
		d.check(c.check())
	}
	if err := d.finish(); err != nil {
		return nil, err
	}
	return c, nil
}

func (c *DMContent) check() error {
	switch {
	case c.ID.IsZero():
		return invalidf("no message id")
	case c.Conversation == ConversationID{}:
		return invalidf("no conversation")
	case c.Kind == 0:
		return invalidf("no kind")
	case millis(c.SentAt) == 0:
		return invalidf("no time of sending")
	case c.DeviceSeq == 0:
		return invalidf("no device sequence number")
	case len(c.Body) > MaxDMBody:
		return invalidf("body of %d bytes, at most %d", len(c.Body), MaxDMBody)
	case c.Kind >= DMEdit && c.Kind <= DMReact && c.Ref.IsZero():
		return invalidf("direct message without the message it is about")
	}
	if err := checkAttachments(c.Attachments); err != nil {
		return err
	}
	if err := checkMsgIDs(c.Acks); err != nil {
		return err
	}
	return checkExtensions(c.Extensions)
}

// EventKind returns the room kind whose body the direct kind shares, or false.
func (k DMKind) EventKind() (Kind, bool) {
	if k >= DMMessage && k <= DMProfile {
		return Kind(k), true
	}
	return 0, false
}

func (d *decoder) msgID(list []MsgID, most int) []MsgID {
	var id MsgID
	v := d.item(len(id), len(list), most)
	d.copyID(id[:], v)
	return append(list, id)
}

func checkMsgIDs(list []MsgID) error {
	if len(list) > MaxAcks {
		return invalidf("%d message ids, at most %d", len(list), MaxAcks)
	}
	for i := range list {
		if list[i].IsZero() {
			return invalidf("zero message id")
		}
	}
	return nil
}

func checkEnvelope(b []byte) error {
	if len(b) == 0 || len(b) > MaxEnvelope {
		return invalidf("envelope of %d bytes, want 1 to %d", len(b), MaxEnvelope)
	}
	return nil
}

// checkASCII wants 1 to limit printable ASCII characters without spaces.
func checkASCII(what, s string, limit int) error {
	if s == "" || len(s) > limit {
		return invalidf("%s of %d bytes, want 1 to %d", what, len(s), limit)
	}
	for _, r := range s {
		if r <= ' ' || r >= utf8.RuneSelf-1 {
			return invalidf("%s holds %q", what, r)
		}
	}
	return nil
}
