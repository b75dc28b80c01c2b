package sync

import (
	"google.golang.org/protobuf/encoding/protowire"
)

// malformed returns the fault of bytes that do not decode.
func malformed(format string, args ...any) error { return misbehave(Malformed, format, args...) }

// fields reads a protobuf message in the canonical form of the specification, so that what decodes
// encodes to the same bytes. The first violation sticks: num becomes 0 and err is set.
type fields struct {
	rest  []byte
	num   protowire.Number // the current field
	typ   protowire.Type
	value uint64 // of a varint field
	data  []byte // of a bytes field; aliases the input
	err   error
}

// next moves to the next field and reports whether there is one. Numbers never descend; a number
// may come again only if it is in repeated.
func (f *fields) next(repeated protowire.Number) bool {
	if f.err != nil || len(f.rest) == 0 {
		return false
	}
	last := f.num
	tag, ok := f.varint()
	if !ok {
		return false
	}
	f.num, f.typ = protowire.DecodeTag(tag)
	if f.num < last || f.num == last && f.num != repeated || !f.num.IsValid() {
		return f.fail("field %d after %d", f.num, last)
	}
	switch f.typ {
	case protowire.VarintType:
		if f.value, ok = f.varint(); !ok {
			return false
		}
		if f.value == 0 {
			return f.fail("field %d has its default spelled out", f.num)
		}
	case protowire.BytesType:
		n, ok := f.varint()
		if !ok {
			return false
		}
		if n > uint64(len(f.rest)) {
			return f.fail("field %d is cut short", f.num)
		}
		f.data, f.rest = f.rest[:n:n], f.rest[n:]
	default:
		return f.fail("field %d has wire type %d", f.num, f.typ)
	}
	return true
}

// varint takes one varint in its shortest form.
func (f *fields) varint() (uint64, bool) {
	v, n := protowire.ConsumeVarint(f.rest)
	if n < 0 || n != protowire.SizeVarint(v) {
		return 0, f.fail("bad varint")
	}
	f.rest = f.rest[n:]
	return v, true
}

func (f *fields) fail(format string, args ...any) bool {
	if f.err == nil {
		f.err = malformed(format, args...)
	}
	f.num = 0
	return false
}

// uint returns the current field as a varint of at most limit.
func (f *fields) uint(limit uint64) uint64 {
	if f.typ != protowire.VarintType {
		f.fail("field %d is no varint", f.num)
		return 0
	}
	if f.value > limit {
		f.fail("field %d is %d, more than %d", f.num, f.value, limit)
		return 0
	}
	return f.value
}

// bytes returns the current field, which must have a length between low and high that is a multiple of unit.
func (f *fields) bytes(low, high, unit int) []byte {
	if f.typ != protowire.BytesType {
		f.fail("field %d is no byte string", f.num)
		return nil
	}
	if n := len(f.data); n < low || n > high || n%unit != 0 {
		f.fail("field %d has %d bytes", f.num, n)
		return nil
	}
	return f.data
}

// exact fills dst with the current field, which must be as long.
func (f *fields) exact(dst []byte) {
	copy(dst, f.bytes(len(dst), len(dst), 1))
}

// prefix returns the current field as an id whose trailing zero bytes were left out.
func (f *fields) prefix() (id ID) {
	b := f.bytes(1, len(id), 1)
	if len(b) > 0 && b[len(b)-1] == 0 {
		f.fail("field %d ends in a zero byte", f.num)
	}
	copy(id[:], b)
	return id
}

// unknown refuses the current field.
func (f *fields) unknown() { f.fail("unknown field %d", f.num) }

func appendUint(b []byte, num protowire.Number, v uint64) []byte {
	if v == 0 {
		return b
	}
	return protowire.AppendVarint(protowire.AppendTag(b, num, protowire.VarintType), v)
}

func appendFlag(b []byte, num protowire.Number, v bool) []byte {
	return appendUint(b, num, protowire.EncodeBool(v))
}

func appendBytes(b []byte, num protowire.Number, v []byte) []byte {
	return protowire.AppendBytes(protowire.AppendTag(b, num, protowire.BytesType), v)
}

func appendPrefix(b []byte, num protowire.Number, id ID) []byte {
	n := len(id)
	for n > 0 && id[n-1] == 0 {
		n--
	}
	if n == 0 {
		return b
	}
	return appendBytes(b, num, id[:n])
}
