package sync

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"slices"
)

// Digest is the digest of a window: equal for equal sets, collision resistant.
type Digest [sha256.Size]byte

// dayDigest is SHA-256 over the ids of one UTC day in ascending order. It does not depend on times, so that
// a store can keep it as a digest of a set of ids.
func dayDigest(items []Item) Digest {
	ids := make([]ID, len(items))
	for i := range items {
		ids[i] = items[i].ID
	}
	slices.SortFunc(ids, func(a, b ID) int { return bytes.Compare(a[:], b[:]) })
	h := sha256.New()
	for i := range ids {
		h.Write(ids[i][:])
	}
	return Digest(h.Sum(nil))
}

// day is the cached digest of all items of one UTC day.
type day struct {
	day    uint32
	count  int
	digest Digest
	known  bool // digest fits the items; count always does
}

// View is an immutable sorted vector of items with a digest for each UTC day: what a [Session] works
// on. It may be used from any goroutine. The zero View is empty.
type View struct {
	items []Item
	days  []day // ascending, every day with items, all known
}

// NewView returns a view of items, which must be sorted, distinct and never change.
func NewView(items []Item) View {
	v := View{items: items}
	for rest := items; len(rest) > 0; {
		d := rest[0].Time.Day()
		n := sameDay(rest)
		v.days = append(v.days, day{d, n, dayDigest(rest[:n]), true})
		rest = rest[n:]
	}
	return v
}

// Len returns the number of items.
func (v View) Len() int { return len(v.items) }

// Window returns the items with floor <= time < cut, oldest first. They must not be changed.
func (v View) Window(floor, cut Time) []Item {
	return between(v.items, Item{Time: floor}, Item{Time: cut})
}

// Digest returns the window digest of docs/spec/sync.md and the number of items in the window. It costs
// time proportional to the number of days, and to the items of days that lie partly outside.
func (v View) Digest(floor, cut Time) (Digest, int) {
	h := sha256.New()
	h.Write([]byte("starling/sync/window/1"))
	window := v.Window(floor, cut)
	count := len(window)
	days := v.days
	for len(window) > 0 {
		d := window[0].Time.Day()
		for days[0].day < d {
			days = days[1:]
		}
		n := min(days[0].count, len(window))
		if window[n-1].Time.Day() != d { // the floor lies inside this day
			n = sameDay(window)
		}
		digest := days[0].digest
		if n != days[0].count {
			digest = dayDigest(window[:n])
		}
		var head [8]byte
		binary.BigEndian.PutUint32(head[:4], d)
		binary.BigEndian.PutUint32(head[4:], uint32(n))
		h.Write(head[:])
		h.Write(digest[:])
		window = window[n:]
	}
	return Digest(h.Sum(nil)), count
}
