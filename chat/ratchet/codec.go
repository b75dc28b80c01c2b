package ratchet

import "encoding/binary"

// codec writes or reads fields of fixed size: one description of a format serves both ways. When
// reading, the first field that is missing or not allowed makes it bad, for good.
type codec struct {
	b       []byte // what was written, or what is left to read
	reading bool
	bad     bool
}

func (c *codec) raw(p []byte) {
	switch {
	case !c.reading:
		c.b = append(c.b, p...)
	case len(c.b) < len(p):
		c.bad, c.b = true, nil
	default:
		c.b = c.b[copy(p, c.b):]
	}
}

func (c *codec) u8(v *byte) {
	b := [1]byte{*v}
	c.raw(b[:])
	*v = b[0]
}

func (c *codec) u32(v *uint32) {
	b := binary.BigEndian.AppendUint32(nil, *v)
	c.raw(b)
	*v = binary.BigEndian.Uint32(b)
}

// list codes a count and that many items, each of at least size bytes. When reading, the count is
// held against limit and against what is left before anything is allocated.
func list[T any](c *codec, items *[]T, limit, size int, item func(*T)) {
	b := binary.BigEndian.AppendUint16(nil, uint16(len(*items)))
	c.raw(b)
	if n := int(binary.BigEndian.Uint16(b)); c.reading && n > 0 {
		if n > limit || n*size > len(c.b) {
			c.bad = true
			return
		}
		*items = make([]T, n)
	}
	for i := range *items {
		item(&(*items)[i])
	}
}
