package wire

import (
	"encoding/binary"
	"fmt"
	"io"
)

// frameHeader is the size of a frame's length prefix, in bytes.
const frameHeader = 4

// Frame is one message of a stream protocol. The implementations are the
// structs of this package whose names begin with DM, Relay or Mailbox.
//
// On the stream a frame is its payload's length (4 bytes, big-endian, 1 to
// MaxFrame), then the payload: one byte of type, then the message's encoding.
type Frame interface {
	frameType() byte
	encodeFrame(e *encoder)
	decodeFrame(d *decoder)
	checkFrame() error
}

// EncodeFrame returns a frame's payload, or an error naming the limit that is
// broken.
func EncodeFrame(f Frame) ([]byte, error) {
	if err := f.checkFrame(); err != nil {
		return nil, fmt.Errorf("encoding a frame: %w", err)
	}
	e := encoder{b: append(make([]byte, 0, 256), f.frameType())}
	f.encodeFrame(&e)
	if len(e.b) > MaxFrame {
		return nil, fmt.Errorf("encoding a frame: %w", invalidf("%d bytes, at most %d", len(e.b), MaxFrame))
	}
	return e.b, nil
}

// AppendFrame appends the frame to dst with its length prefix, so that many can
// be written at once.
func AppendFrame(dst []byte, f Frame) ([]byte, error) {
	payload, err := EncodeFrame(f)
	if err != nil {
		return dst, err
	}
	dst = binary.BigEndian.AppendUint32(dst, uint32(len(payload)))
	return append(dst, payload...), nil
}

// ReadFrame reads one frame's payload. It checks the announced length against
// limit (at most MaxFrame) before it allocates. At a clean end of the stream the
// error is io.EOF, in the middle of a frame io.ErrUnexpectedEOF.
func ReadFrame(r io.Reader, limit int) ([]byte, error) {
	var prefix [frameHeader]byte
	if _, err := io.ReadFull(r, prefix[:]); err != nil {
		if err == io.EOF {
			return nil, io.EOF
		}
		return nil, fmt.Errorf("reading a frame: %w", err)
	}
	size := binary.BigEndian.Uint32(prefix[:])
	if size == 0 || size > uint32(min(limit, MaxFrame)) {
		return nil, fmt.Errorf("reading a frame: %w", invalidf("%d bytes, want 1 to %d", size, min(limit, MaxFrame)))
	}
	payload := make([]byte, size)
	if _, err := io.ReadFull(r, payload); err != nil {
		if err == io.EOF {
			err = io.ErrUnexpectedEOF
		}
		return nil, fmt.Errorf("reading a frame: %w", err)
	}
	return payload, nil
}

// parseFrame decodes a payload with the constructor table of one protocol.
func parseFrame(what string, payload []byte, empty func(byte) Frame) (Frame, error) {
	if len(payload) == 0 {
		return nil, invalidf("%s frame: empty", what)
	}
	f := empty(payload[0])
	if f == nil {
		return nil, unsupportedf("%s frame of type %d", what, payload[0])
	}
	d := newDecoder(what+" frame", payload[1:], MaxFrame-1)
	for d.next() {
		f.decodeFrame(d)
	}
	if d.err == nil {
		d.check(f.checkFrame())
	}
	if err := d.finish(); err != nil {
		return nil, err
	}
	return f, nil
}
