package storage

import (
	"bytes"
	"cmp"
	"encoding/hex"
	"math"
	"time"
)

// StreamID is the local handle of a stream, see [Store.Stream]. It means
// nothing on another machine.
type StreamID [8]byte

// ID names a record or a queue item; usually a SHA-256. A record's ID is
// unique in the whole store, so callers derive it from all that distinguishes
// the record, its stream included.
type ID [32]byte

// String returns the ID in hexadecimal.
func (id ID) String() string { return hex.EncodeToString(id[:]) }

// Flags of a record. The low six bits belong to the caller.
const (
	// FlagStub marks a record that is known but not kept (refused, say): it
	// has no value and no arrival number, is not counted by Count nor returned
	// by Scan and ScanArrival, but takes part in Keys and Digest. Appending
	// the record itself later replaces the stub.
	FlagStub uint8 = 1 << 7
	// flagReserved must be zero.
	flagReserved uint8 = 1 << 6
)

// Record is one entry of a stream.
type Record struct {
	Stream StreamID
	// Time orders the stream, ties by ID. It is a hybrid logical clock
	// reading: the high 48 bits are Unix milliseconds, the low 16 a counter.
	Time uint64
	ID   ID
	// Flags are opaque but for FlagStub; bit 6 must be zero.
	Flags uint8
	// Arrival counts the stream's records in the order of their arrival here,
	// from 1, never reused. Set by the store.
	Arrival uint64
	// Expires is when the record falls due for Sweep, to the millisecond; the
	// zero time means never. The value of an expiring record is sealed under a
	// key that is erased afterwards.
	Expires time.Time
	// Value is at most MaxValueSize bytes.
	Value []byte
}

// Position returns the record's place in its stream.
func (r Record) Position() Position { return Position{r.Time, r.ID} }

// Position is a place in a stream: (Time, ID), in this order.
type Position struct {
	Time uint64
	ID   ID
}

// Compare returns -1, 0 or +1 as p sorts before, at or after q.
func (p Position) Compare(q Position) int {
	if c := cmp.Compare(p.Time, q.Time); c != 0 {
		return c
	}
	return bytes.Compare(p.ID[:], q.ID[:])
}

// IsZero tells whether p is the zero Position, which stands for "no bound".
func (p Position) IsZero() bool { return p == Position{} }

// Range selects records of a stream. Both bounds are exclusive and absent when
// zero, so the last position of one page is the bound of the next.
type Range struct {
	After, Before Position
	// Reverse walks from the newest to the oldest.
	Reverse bool
	// Limit is the most records to return; 0 means all.
	Limit int
}

// Interval is a span of a stream's time, From inclusive, To exclusive.
type Interval struct{ From, To uint64 }

// msPerDay is the length of a UTC day; Day counts them since 1970.
const msPerDay = 24 * 60 * 60 * 1000

// Day returns the UTC day of a record time, counted from 1970-01-01.
func Day(t uint64) uint32 { return uint32((t >> 16) / msPerDay) }

// DayStart returns the first record time of a day; for days that 48 bits of
// milliseconds do not reach, the largest time.
func DayStart(day uint32) uint64 {
	ms := uint64(day) * msPerDay
	if ms > maxMillis {
		return math.MaxUint64
	}
	return ms << 16
}

// ClockTime returns the record time with counter 0 of a wall-clock time; times
// before 1970 become 0.
func ClockTime(t time.Time) uint64 { return millis(t) << 16 }

// WallTime returns the wall-clock part of a record time, in UTC.
func WallTime(t uint64) time.Time { return fromMillis(t >> 16) }

// maxMillis is the largest 48-bit millisecond count, in the year 10889.
const maxMillis = 1<<48 - 1

func millis(t time.Time) uint64 {
	return uint64(max(0, min(t.UnixMilli(), maxMillis)))
}

func fromMillis(ms uint64) time.Time { return time.UnixMilli(int64(min(ms, maxMillis))).UTC() }

// expiry encodes Record.Expires: 0 is never.
func expiry(t time.Time) uint64 {
	if t.IsZero() {
		return 0
	}
	return max(1, millis(t))
}

func fromExpiry(ms uint64) time.Time {
	if ms == 0 {
		return time.Time{}
	}
	return fromMillis(ms)
}
