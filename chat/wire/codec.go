package wire

import (
	"bytes"
	"fmt"
	"unicode/utf8"

	"google.golang.org/protobuf/encoding/protowire"
)

// The canonical form of every message: fields in ascending order of number, a
// singular field at most once, varints (values, tags and lengths) in their
// shortest form, no field with the value zero or empty, wire types as
// specified, no field the version does not define. Where a message says so,
// numbers from FirstExtension to LastExtension are kept as received.
const (
	// FirstExtension and LastExtension are the numbers reserved for fields that
	// a later minor revision may add; version 1 keeps and ignores them. They
	// carry the bytes wire type.
	FirstExtension = 100
	LastExtension  = 127
)

// Extensions holds the extension fields of a message exactly as encoded.
type Extensions []byte

// encoder appends fields; the caller calls in ascending order of number.
type encoder struct{ b []byte }

// uint appends a varint field, or nothing for zero.
func (e *encoder) uint(num protowire.Number, v uint64) {
	if v == 0 {
		return
	}
	e.b = protowire.AppendTag(e.b, num, protowire.VarintType)
	e.b = protowire.AppendVarint(e.b, v)
}

// flag appends a boolean field, or nothing for false.
func (e *encoder) flag(num protowire.Number, v bool) {
	if v {
		e.uint(num, 1)
	}
}

// fixed64 appends a fixed64 field, or nothing for zero.
func (e *encoder) fixed64(num protowire.Number, v uint64) {
	if v == 0 {
		return
	}
	e.b = protowire.AppendTag(e.b, num, protowire.Fixed64Type)
	e.b = protowire.AppendFixed64(e.b, v)
}

// bytes appends a bytes field, or nothing when empty.
func (e *encoder) bytes(num protowire.Number, v []byte) {
	if len(v) == 0 {
		return
	}
	e.b = protowire.AppendTag(e.b, num, protowire.BytesType)
	e.b = protowire.AppendBytes(e.b, v)
}

// string appends a bytes field holding UTF-8, or nothing when empty.
func (e *encoder) string(num protowire.Number, v string) {
	if v == "" {
		return
	}
	e.b = protowire.AppendTag(e.b, num, protowire.BytesType)
	e.b = protowire.AppendString(e.b, v)
}

// id appends a fixed-size identifier, or nothing when it is all zero.
func (e *encoder) id(num protowire.Number, v []byte) {
	if !allZero(v) {
		e.bytes(num, v)
	}
}

// raw appends fields that are already encoded.
func (e *encoder) raw(v []byte) { e.b = append(e.b, v...) }

func allZero(v []byte) bool {
	for _, c := range v {
		if c != 0 {
			return false
		}
	}
	return true
}

// decoder reads a message field by field and refuses whatever is not canonical.
// The first error sticks.
type decoder struct {
	what   string // names the message in errors
	b      []byte // what remains
	num    protowire.Number
	typ    protowire.Type
	repeat bool // the field has the same number as the one before
	start  int  // offset of the current field's tag in whole
	whole  []byte
	v1     bool // the version was read and is 1
	err    error
}

func newDecoder(what string, b []byte, limit int) *decoder {
	d := &decoder{what: what, b: b, whole: b}
	if len(b) > limit {
		d.fail("%d bytes, at most %d", len(b), limit)
	}
	return d
}

func (d *decoder) fail(format string, args ...any) {
	if d.err == nil {
		d.err = invalidf("%s: %w", d.what, fmt.Errorf(format, args...))
	}
	d.b = nil
}

// next moves to the following field; it returns false at the end or on error.
func (d *decoder) next() bool {
	if d.err != nil || len(d.b) == 0 {
		return false
	}
	d.start = len(d.whole) - len(d.b)
	tag, ok := d.varint()
	if !ok {
		return false
	}
	num, typ := protowire.DecodeTag(tag)
	if num < protowire.MinValidNumber || num > LastExtension {
		d.fail("field number %d", num)
		return false
	}
	if num < d.num {
		d.fail("field %d after field %d", num, d.num)
		return false
	}
	d.repeat = num == d.num
	d.num, d.typ = num, typ
	return true
}

// finish returns the first error.
func (d *decoder) finish() error { return d.err }

// maxVersion is the highest version number told apart from garbage.
const maxVersion = 255

// version reads field 1 of a versioned message. A version other than 1 ends the
// decoding as unsupported, whatever follows.
func (d *decoder) version() {
	v := d.uint(maxVersion)
	if d.err == nil && v != 1 {
		d.err, d.b = unsupportedf("%s of version %d", d.what, v), nil
	}
	d.v1 = d.err == nil
}

// varint consumes a shortest-form varint.
func (d *decoder) varint() (uint64, bool) {
	v, n := protowire.ConsumeVarint(d.b)
	if n < 0 || n != protowire.SizeVarint(v) {
		d.fail("varint not in its shortest form or cut off")
		return 0, false
	}
	d.b = d.b[n:]
	return v, true
}

// expect checks the wire type and, for singular fields, that it comes once.
func (d *decoder) expect(typ protowire.Type, repeated bool) bool {
	switch {
	case d.err != nil:
		return false
	case d.typ != typ:
		d.fail("field %d has wire type %d", d.num, d.typ)
		return false
	case d.repeat && !repeated:
		d.fail("field %d twice", d.num)
		return false
	}
	return true
}

// uint reads a non-zero varint field of at most limit.
func (d *decoder) uint(limit uint64) uint64 {
	if !d.expect(protowire.VarintType, false) {
		return 0
	}
	v, ok := d.varint()
	if !ok {
		return 0
	}
	if v == 0 || v > limit {
		d.fail("field %d is %d, want 1 to %d", d.num, v, limit)
		return 0
	}
	return v
}

// flag reads a boolean field, which is present only when true.
func (d *decoder) flag() bool { return d.uint(1) == 1 }

// fixed64 reads a non-zero fixed64 field.
func (d *decoder) fixed64() uint64 {
	if !d.expect(protowire.Fixed64Type, false) {
		return 0
	}
	v, n := protowire.ConsumeFixed64(d.b)
	if n < 0 || v == 0 {
		d.fail("field %d is zero or cut off", d.num)
		return 0
	}
	d.b = d.b[n:]
	return v
}

func (d *decoder) blob(limit int, repeated bool) []byte {
	if !d.expect(protowire.BytesType, repeated) {
		return nil
	}
	size, ok := d.varint()
	if !ok {
		return nil
	}
	if size == 0 || size > uint64(limit) || size > uint64(len(d.b)) {
		d.fail("field %d has %d bytes, want 1 to %d", d.num, size, limit)
		return nil
	}
	v := d.b[:size:size]
	d.b = d.b[size:]
	return v
}

// bytes reads a non-empty singular bytes field of at most limit bytes.
func (d *decoder) bytes(limit int) []byte { return d.blob(limit, false) }

// item reads one non-empty element of a repeated bytes field; have is the
// number already read and most their limit, checked before anything is kept.
func (d *decoder) item(limit, have, most int) []byte {
	if have >= most {
		d.fail("field %d more than %d times", d.num, most)
		return nil
	}
	return d.blob(limit, true)
}

// string reads a non-empty field of valid UTF-8 without NUL.
func (d *decoder) string(limit int) string {
	v := d.bytes(limit)
	if d.err == nil && (!utf8.Valid(v) || bytes.IndexByte(v, 0) >= 0) {
		d.fail("field %d is not UTF-8 text", d.num)
		return ""
	}
	return string(v)
}

// id reads an identifier of exactly len(dst) bytes that is not all zero.
func (d *decoder) id(dst []byte) {
	v := d.bytes(len(dst))
	d.copyID(dst, v)
}

// exact reads a field of exactly len(dst) bytes with any value.
func (d *decoder) exact(dst []byte) {
	v := d.bytes(len(dst))
	if d.err == nil && len(v) != len(dst) {
		d.fail("field %d has %d bytes, want %d", d.num, len(v), len(dst))
		return
	}
	copy(dst, v)
}

func (d *decoder) copyID(dst, v []byte) {
	switch {
	case d.err != nil:
	case len(v) != len(dst):
		d.fail("field %d has %d bytes, want %d", d.num, len(v), len(dst))
	case allZero(v):
		d.fail("field %d is all zero", d.num)
	default:
		copy(dst, v)
	}
}

// extension keeps the current field as received if its number is in the
// extension range; any other number is an error.
func (d *decoder) extension(ext *Extensions) {
	if d.num < FirstExtension {
		d.unknown()
		return
	}
	d.blob(MaxExtensions, true)
	if d.err != nil {
		return
	}
	end := len(d.whole) - len(d.b)
	*ext = append(*ext, d.whole[d.start:end]...)
	if len(*ext) > MaxExtensions {
		d.fail("extensions over %d bytes", MaxExtensions)
	}
}

// unknown refuses a field that version 1 does not define.
func (d *decoder) unknown() { d.fail("unknown field %d", d.num) }

// require fails unless ok; it names a field that must be present.
func (d *decoder) require(ok bool, field string) {
	if d.err == nil && !ok {
		d.fail("no %s", field)
	}
}

// check turns the error of a semantic check into the decoder's error.
func (d *decoder) check(err error) {
	if d.err == nil && err != nil {
		d.fail("%w", err)
	}
}

// checkExtensions says whether ext is what a decoder would have kept.
func checkExtensions(ext Extensions) error {
	if len(ext) == 0 {
		return nil
	}
	d := newDecoder("extensions", ext, MaxExtensions)
	var kept Extensions
	for d.next() {
		d.extension(&kept)
	}
	return d.finish()
}
