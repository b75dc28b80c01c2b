package wire

import (
	"crypto/ed25519"
	"errors"
	"fmt"
	"io"

	"google.golang.org/protobuf/encoding/protowire"
)

// Event is one signed thing said in a room: the inside of a Sealed.
//
// Encoding: {1 header bytes, 2 device signature 64, 3 body bytes}; the body is
// absent once redacted. The body is 16 random bytes of salt, then the content
// of its kind; the salt keeps the hash of a short deleted text from being
// guessed. Fields are read-only; an Event is safe for concurrent use.
type Event struct {
	// ID is SHA-256("starling/event/1" || header as received).
	ID        EventID
	Header    Header
	Signature Signature

	raw  []byte // the whole encoding, as received
	head []byte // its first two fields
	body []byte // salt and content; nil when redacted
}

// ErrRedacted is returned where an event's body is asked for and is gone.
var ErrRedacted = errors.New("event is redacted")

// NewEvent signs an event with the device key. It fills in the header's body
// hash and length; h.Certificate must be the device's. random yields the salt
// (crypto/rand.Reader outside tests).
func NewEvent(h Header, content []byte, device ed25519.PrivateKey, random io.Reader) (*Event, error) {
	if len(content) > MaxBody-BodySaltSize {
		return nil, fmt.Errorf("making an event: %w", invalidf("content of %d bytes, at most %d", len(content), MaxBody-BodySaltSize))
	}
	if DeviceID(device.Public().(ed25519.PublicKey)) != h.Certificate.Device {
		return nil, fmt.Errorf("making an event: %w", invalidf("the certificate names another device"))
	}
	body := make([]byte, BodySaltSize, BodySaltSize+len(content))
	if _, err := io.ReadFull(random, body); err != nil {
		return nil, fmt.Errorf("making an event: reading random bytes: %w", err)
	}
	body = append(body, content...)
	h.BodyHash, h.BodyLength = hashBody(body), uint32(len(body))
	if err := h.check(); err != nil {
		return nil, fmt.Errorf("making an event: %w", err)
	}
	header := h.encode()
	id := eventID(header)
	sig := Sign(DomainEvent, device, id[:])
	e := encoder{b: make([]byte, 0, len(header)+len(body)+80)}
	e.bytes(1, header)
	e.bytes(2, sig[:])
	e.bytes(3, body)
	return ParseEvent(e.b)
}

// ParseEvent reads an event, checking form and limits but neither body hash nor
// signatures; see Verifier.VerifyEvent.
func ParseEvent(raw []byte) (*Event, error) {
	ev := &Event{raw: raw}
	var header []byte
	signed := false
	d := newDecoder("event", raw, MaxEvent)
	for d.next() {
		switch d.num {
		case 1:
			header = d.bytes(MaxHeader)
		case 2:
			d.exact(ev.Signature[:])
			signed = true
			ev.head = raw[: len(raw)-len(d.b) : len(raw)-len(d.b)]
		case 3:
			ev.body = d.bytes(MaxBody)
		default:
			d.unknown()
		}
	}
	d.require(header != nil && signed, "header or signature")
	if err := d.finish(); err != nil {
		return nil, err
	}
	var err error
	if ev.Header, err = parseHeader(header); err != nil {
		return nil, err
	}
	if ev.body != nil && len(ev.body) != int(ev.Header.BodyLength) {
		return nil, invalidf("event: body of %d bytes, header says %d", len(ev.body), ev.Header.BodyLength)
	}
	ev.ID = eventID(header)
	return ev, nil
}

// Bytes returns the encoding as received; it must not be changed.
func (e *Event) Bytes() []byte { return e.raw }

// Redacted says whether the body is gone.
func (e *Event) Redacted() bool { return e.body == nil }

// Content returns the body without its salt, or nil when redacted; it must not
// be changed. See ParseBody.
func (e *Event) Content() []byte {
	if e.body == nil {
		return nil
	}
	return e.body[BodySaltSize:]
}

// Body decodes the content by the event's kind. It returns ErrRedacted when the
// body is gone and ErrUnsupported for a kind this version does not know.
func (e *Event) Body() (Body, error) {
	if e.body == nil {
		return nil, ErrRedacted
	}
	return ParseBody(e.Header.Kind, e.Content())
}

// Verify checks everything about the event that it proves by itself: body hash,
// account signature on the certificate, the certificate's dates against the
// event's clock reading, device signature. Verifier.VerifyEvent does the same
// faster for authors that come again.
func (e *Event) Verify() error {
	if err := e.checkBody(); err != nil {
		return err
	}
	if err := e.Header.Certificate.Verify(); err != nil {
		return err
	}
	if err := e.checkDates(); err != nil {
		return err
	}
	if !VerifySignature(DomainEvent, e.Header.Device(), e.ID[:], e.Signature) {
		return fmt.Errorf("%w on an event", ErrSignature)
	}
	return nil
}

func (e *Event) checkBody() error {
	if e.body != nil && hashBody(e.body) != e.Header.BodyHash {
		return invalidf("event: body does not match its hash")
	}
	return nil
}

func (e *Event) checkDates() error {
	if !e.Header.Certificate.ValidAt(e.Header.HLC.Time()) {
		return invalidf("event outside the dates of its certificate")
	}
	return nil
}

func eventID(header []byte) EventID { return EventID(hashDomain(domainEventID, header)) }

// hashBody returns SHA-256("starling/body/1" || salt || content).
func hashBody(body []byte) Hash { return Hash(hashDomain(domainBody, body)) }

// joinEvent puts a head and a body together; body is nil for a redacted event.
func joinEvent(head, body []byte) []byte {
	raw := make([]byte, 0, len(head)+len(body)+protowire.SizeVarint(uint64(len(body)))+1)
	e := encoder{b: append(raw, head...)}
	e.bytes(3, body)
	return e.b
}
