// Package sync finds which records two peers miss, in few bytes, and fetches them: range-based set
// reconciliation over (time, id), protocol [Protocol], specified in docs/spec/sync.md.
//
// It is a pure state machine: a [Session] takes bytes in, gives bytes out and asks its caller for the
// few things it cannot do itself (an [Effect]: open a room, read records, commit records). It does no
// I/O, starts no goroutine, reads no clock and knows neither libp2p nor the store; it never looks into
// a record. The same machine serves members and mirrors.
//
// Around it, as pure: [Snapshot] is the sorted vector of a room's items with a digest per UTC day,
// [Complete] remembers which stretches of time are known to be complete, and [Schedule] decides when to
// sync with whom.
//
// No type of this package may be used from two goroutines at once, except [View] and the values of
// [Report], which never change.
package sync

import (
	"bytes"
	"cmp"
	"slices"
	"sort"
	"time"
)

// Protocol is the name under which a session's stream is opened.
const Protocol = "/starling/sync/1"

// Time is a hybrid logical clock reading: the upper 48 bits are milliseconds since 1970-01-01 UTC, the
// lower 16 a counter.
type Time uint64

const (
	counterBits = 16
	maxMilli    = 1<<48 - 1
	dayMillis   = 24 * 60 * 60 * 1000
)

// TimeAt returns the first reading of t's millisecond, and 0 or the last millisecond outside the range of Time.
func TimeAt(t time.Time) Time {
	return timeOf(uint64(min(max(t.UnixMilli(), 0), maxMilli)), 0)
}

func timeOf(milli uint64, counter uint16) Time {
	return Time(milli<<counterBits | uint64(counter))
}

// Milli returns the milliseconds since 1970-01-01 UTC.
func (t Time) Milli() uint64 { return uint64(t) >> counterBits }

// Day returns the UTC day, counted from 1970-01-01.
func (t Time) Day() uint32 { return uint32(t.Milli() / dayMillis) }

func (t Time) counter() uint16 { return uint16(t) }

// DayStart returns the first reading of a UTC day counted from 1970-01-01; windows begin there.
func DayStart(day uint32) Time {
	return timeOf(min(uint64(day)*dayMillis, maxMilli), 0)
}

// ID is the identifier of a record: the sealed id of docs/spec/wire.md.
type ID [32]byte

// Topic is the public topic key of the set that is being synced.
type Topic [32]byte

// Item is one member of a set. Sets are ordered by [Item.Compare].
type Item struct {
	Time Time
	ID   ID
}

// Compare orders by time, then by id.
func (a Item) Compare(b Item) int {
	if c := cmp.Compare(a.Time, b.Time); c != 0 {
		return c
	}
	return bytes.Compare(a.ID[:], b.ID[:])
}

// search returns how many items of a sorted slice lie below the bound.
func search(items []Item, bound Item) int {
	i, _ := slices.BinarySearchFunc(items, bound, Item.Compare)
	return i
}

// between returns the items of a sorted slice from lower (inclusive) to upper (exclusive).
func between(items []Item, lower, upper Item) []Item {
	if lower.Compare(upper) >= 0 {
		return nil
	}
	return items[search(items, lower):search(items, upper)]
}

// sameDay returns how many of the first items of a sorted slice lie in the same UTC day.
func sameDay(items []Item) int {
	if len(items) == 0 {
		return 0
	}
	d := items[0].Time.Day()
	return sort.Search(len(items), func(i int) bool { return items[i].Time.Day() > d })
}
