package storage

import (
	"encoding/binary"
	"fmt"
)

// Key prefixes: the first byte of every key. docs/spec/storage.md lists what
// follows. Sealed kinds carry a sealed value, the others a tagged one.
const (
	kindRecord    = 'm' // stream8 time8 id32: the record
	kindID        = 'i' // id32: where the record is
	kindArrival   = 'n' // stream8 arrival8: run of time8 id32
	kindStub      = 'x' // stream8 time8 id32: nothing
	kindDigest    = 'f' // stream8 day4: count, SHA-256
	kindComplete  = 'k' // stream8: intervals known to be complete
	kindExpiry    = 'e' // expires8 id32: nothing
	kindDue       = 'q' // queue due8 id32: the item; due is all ones: held
	kindQueued    = 'r' // queue id32: due8
	kindBucket    = 'b' // bucket key: the value
	kindEphemeral = 'p' // bucket key: the value, under an epoch key
	kindStream    = 's' // stream8: state, name
	kindName      = 'w' // name: stream8
	kindCounters  = 'c' // stream8: counters
	kindPosting   = 't' // stream8 term8 block4: arrival numbers
	kindIndexed   = 'u' // stream8: last arrival number in the search index
	kindStore     = 'z' // name: schema, head, next stream
)

// kinds lists every prefix, for Check.
const kinds = "minxfkeqrbpswctuz"

// sealedKind tells whether values of this kind are encrypted and authenticated
// (true) or hold only ids and counts and are tagged (false).
func sealedKind(kind byte) bool {
	switch kind {
	case kindRecord, kindDue, kindBucket, kindEphemeral, kindStream:
		return true
	}
	return false
}

func be64(v uint64) []byte { return binary.BigEndian.AppendUint64(nil, v) }

func streamKey(kind byte, s StreamID) []byte {
	return append([]byte{kind}, s[:]...)
}

func positionKey(kind byte, s StreamID, p Position) []byte {
	k := make([]byte, 0, 49)
	k = append(append(k, kind), s[:]...)
	k = binary.BigEndian.AppendUint64(k, p.Time)
	return append(k, p.ID[:]...)
}

func idKey(id ID) []byte { return append([]byte{kindID}, id[:]...) }

func arrivalKey(s StreamID, arrival uint64) []byte {
	return binary.BigEndian.AppendUint64(streamKey(kindArrival, s), arrival)
}

func digestKey(s StreamID, day uint32) []byte {
	return binary.BigEndian.AppendUint32(streamKey(kindDigest, s), day)
}

func expiryKey(ms uint64, id ID) []byte {
	k := binary.BigEndian.AppendUint64([]byte{kindExpiry}, ms)
	return append(k, id[:]...)
}

// namedKey is kind, the length of name in one byte, name, and rest.
func namedKey(kind byte, name string, rest []byte) []byte {
	k := make([]byte, 0, 2+len(name)+len(rest))
	k = append(k, kind, byte(len(name)))
	k = append(k, name...)
	return append(k, rest...)
}

func dueKey(queue string, ms uint64, id ID) []byte {
	return namedKey(kindDue, queue, append(be64(ms), id[:]...))
}

// neverDue stands for the due time of an item that is held. Such an item has no
// entry of kindQueued.
const neverDue = 1<<64 - 1

func queuedKey(queue string, id ID) []byte { return namedKey(kindQueued, queue, id[:]) }

func storeKey(name string) []byte { return append([]byte{kindStore}, name...) }

// parsePositionKey splits the key of a record or stub.
func parsePositionKey(k []byte) (StreamID, Position, error) {
	if len(k) != 49 {
		return StreamID{}, Position{}, fmt.Errorf("position key of %d bytes: %w", len(k), ErrCorrupt)
	}
	var s StreamID
	var p Position
	copy(s[:], k[1:9])
	p.Time = binary.BigEndian.Uint64(k[9:17])
	copy(p.ID[:], k[17:])
	return s, p, nil
}

// parseDueKey splits the part of a due key that follows the queue's name.
func parseDueKey(rest []byte) (ms uint64, id ID, err error) {
	if len(rest) != 40 {
		return 0, ID{}, fmt.Errorf("due key of %d bytes: %w", len(rest), ErrCorrupt)
	}
	copy(id[:], rest[8:])
	return binary.BigEndian.Uint64(rest), id, nil
}

// location is the value of an id key.
type location struct {
	stream  StreamID
	time    uint64
	flags   uint8
	arrival uint64
	size    uint32 // bytes of the record's value
	expires uint64 // ms, 0 = never
}

const locationSize = 37

func (l location) position(id ID) Position { return Position{l.time, id} }

func (l location) encode() []byte {
	b := make([]byte, 0, locationSize)
	b = append(b, l.stream[:]...)
	b = binary.BigEndian.AppendUint64(b, l.time)
	b = append(b, l.flags)
	b = binary.BigEndian.AppendUint64(b, l.arrival)
	b = binary.BigEndian.AppendUint32(b, l.size)
	return binary.BigEndian.AppendUint64(b, l.expires)
}

func parseLocation(b []byte) (location, error) {
	if len(b) != locationSize {
		return location{}, fmt.Errorf("location of %d bytes: %w", len(b), ErrCorrupt)
	}
	var l location
	copy(l.stream[:], b)
	l.time = binary.BigEndian.Uint64(b[8:])
	l.flags = b[16]
	l.arrival = binary.BigEndian.Uint64(b[17:])
	l.size = binary.BigEndian.Uint32(b[25:])
	l.expires = binary.BigEndian.Uint64(b[29:])
	return l, nil
}

// recordHeaderSize is what precedes the value in a record's plain text: flags,
// arrival number, expiry.
const recordHeaderSize = 17

func encodeRecord(flags uint8, arrival, expires uint64, value []byte) []byte {
	b := make([]byte, 0, recordHeaderSize+len(value))
	b = append(b, flags)
	b = binary.BigEndian.AppendUint64(b, arrival)
	b = binary.BigEndian.AppendUint64(b, expires)
	return append(b, value...)
}

// parseRecord decodes a record; Value aliases b.
func parseRecord(s StreamID, p Position, b []byte) (Record, error) {
	if len(b) < recordHeaderSize || len(b) > recordHeaderSize+MaxValueSize {
		return Record{}, fmt.Errorf("record of %d bytes: %w", len(b), ErrCorrupt)
	}
	return Record{
		Stream: s, Time: p.Time, ID: p.ID, Flags: b[0],
		Arrival: binary.BigEndian.Uint64(b[1:]),
		Expires: fromExpiry(binary.BigEndian.Uint64(b[9:])),
		Value:   b[recordHeaderSize:],
	}, nil
}

// counters of one stream, kept with every commit.
type counters struct {
	count   uint64 // records, without stubs
	stubs   uint64
	bytes   uint64 // values of the records
	arrival uint64 // last arrival number given out
	floor   uint64 // Trim removed everything before this time
	changes uint64 // goes up with every change of the set of ids
}

const countersSize = 48

func (c counters) encode() []byte {
	b := make([]byte, 0, countersSize)
	for _, v := range []uint64{c.count, c.stubs, c.bytes, c.arrival, c.floor, c.changes} {
		b = binary.BigEndian.AppendUint64(b, v)
	}
	return b
}

func parseCounters(b []byte) (counters, error) {
	if len(b) != countersSize {
		return counters{}, fmt.Errorf("counters of %d bytes: %w", len(b), ErrCorrupt)
	}
	at := func(i int) uint64 { return binary.BigEndian.Uint64(b[8*i:]) }
	return counters{at(0), at(1), at(2), at(3), at(4), at(5)}, nil
}

func parseIntervals(b []byte) ([]Interval, error) {
	if len(b)%16 != 0 || len(b) > 16*maxIntervals {
		return nil, fmt.Errorf("interval list of %d bytes: %w", len(b), ErrCorrupt)
	}
	list := make([]Interval, 0, len(b)/16)
	for ; len(b) > 0; b = b[16:] {
		iv := Interval{binary.BigEndian.Uint64(b), binary.BigEndian.Uint64(b[8:])}
		if iv.From >= iv.To || (len(list) > 0 && iv.From <= list[len(list)-1].To) {
			return nil, fmt.Errorf("interval list out of order: %w", ErrCorrupt)
		}
		list = append(list, iv)
	}
	return list, nil
}

func encodeIntervals(list []Interval) []byte {
	b := make([]byte, 0, 16*len(list))
	for _, iv := range list {
		b = binary.BigEndian.AppendUint64(b, iv.From)
		b = binary.BigEndian.AppendUint64(b, iv.To)
	}
	return b
}
