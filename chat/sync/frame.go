package sync

import "google.golang.org/protobuf/encoding/protowire"

// kind is the first byte of a frame.
type kind byte

const (
	kindHello kind = iota + 1
	kindProve
	kindSummary
	kindRound
	kindGet
	kindPage
	kindRecords
	kindDone
)

// message is the body of one kind of frame. A decoded message aliases the bytes it was decoded from.
type message interface {
	kind() kind
	append(b []byte) []byte
	decode(b []byte) error
}

// appendFrame appends a whole frame: length, kind, body.
func appendFrame(b []byte, m message) []byte {
	return wrapFrame(b, m.kind(), m.append(nil))
}

func wrapFrame(b []byte, k kind, body []byte) []byte {
	b = protowire.AppendVarint(b, uint64(1+len(body)))
	return append(append(b, byte(k)), body...)
}

// newMessage returns an empty message of a kind, or nil for an unknown one.
func newMessage(k kind) message {
	switch k {
	case kindHello:
		return new(hello)
	case kindProve:
		return new(prove)
	case kindSummary:
		return new(summary)
	case kindRound:
		return new(round)
	case kindGet:
		return new(get)
	case kindPage:
		return new(page)
	case kindRecords:
		return new(records)
	case kindDone:
		return new(done)
	}
	return nil
}

// decodeFrame decodes what follows a frame's length.
func decodeFrame(b []byte) (message, error) {
	if len(b) == 0 {
		return nil, malformed("empty frame")
	}
	m := newMessage(kind(b[0]))
	if m == nil {
		return nil, malformed("unknown kind %d", b[0])
	}
	return m, m.decode(b[1:])
}

// frameBuffer collects the bytes of one frame.
type frameBuffer struct {
	buf  []byte
	head int // bytes of the length, 0 while it is incomplete
	need int // bytes of kind and body
}

// fill takes bytes from p up to the end of the current frame and returns how many. The frame is
// complete when whole returns it. A length over the limit is refused before anything is reserved for it.
func (f *frameBuffer) fill(p []byte) (int, error) {
	n := 0
	for f.head == 0 && n < len(p) {
		f.buf = append(f.buf, p[n])
		n++
		if p[n-1] < 0x80 {
			v, size := protowire.ConsumeVarint(f.buf)
			if size != protowire.SizeVarint(v) || v == 0 || v > MaxFrame {
				return n, malformed("frame length %d", v)
			}
			f.head, f.need = size, int(v)
		} else if len(f.buf) > 3 {
			return n, malformed("frame length of more than 3 bytes")
		}
	}
	if f.head > 0 {
		take := min(f.head+f.need-len(f.buf), len(p)-n)
		f.buf = append(f.buf, p[n:n+take]...)
		n += take
	}
	return n, nil
}

// whole returns kind and body of the frame once it is complete, else nil. They are valid until reset.
func (f *frameBuffer) whole() []byte {
	if f.head == 0 || len(f.buf) < f.head+f.need {
		return nil
	}
	return f.buf[f.head:]
}

func (f *frameBuffer) reset() {
	f.buf, f.head, f.need = f.buf[:0], 0, 0
}
