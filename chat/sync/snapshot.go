package sync

import (
	"slices"
)

// Snapshot is the sorted vector of everything one open room has in its set, stubs included, with a
// digest for each UTC day: 40 bytes an item. It exists because scanning the store's keys costs more than
// a whole session. It belongs to one goroutine; the views it gives out do not.
//
// New events are mostly the newest, which makes Add an append. Views share the vector: only an insertion
// below its end, and only the first one after a view was taken, copies it.
type Snapshot struct {
	items  []Item
	shared bool  // a view may see items[:len(items)]
	days   []day // ascending; a day without items has no entry
}

// NewSnapshot takes over items in any order, duplicates allowed.
func NewSnapshot(items []Item) *Snapshot {
	if !slices.IsSortedFunc(items, Item.Compare) {
		slices.SortFunc(items, Item.Compare)
	}
	s := &Snapshot{items: slices.Compact(items)}
	s.recount()
	return s
}

// Len returns the number of items.
func (s *Snapshot) Len() int { return len(s.items) }

// Has reports whether an item is there.
func (s *Snapshot) Has(item Item) bool {
	_, found := slices.BinarySearchFunc(s.items, item, Item.Compare)
	return found
}

// Newest returns the newest item; ok is false when there is none.
func (s *Snapshot) Newest() (item Item, ok bool) {
	if len(s.items) == 0 {
		return Item{}, false
	}
	return s.items[len(s.items)-1], true
}

// Add inserts an item and reports whether it is new. It is idempotent.
func (s *Snapshot) Add(item Item) bool {
	at, found := slices.BinarySearchFunc(s.items, item, Item.Compare)
	if found {
		return false
	}
	switch {
	case at == len(s.items): // beyond what any view sees
		s.items = append(s.items, item)
	case s.shared:
		grown := make([]Item, len(s.items)+1, len(s.items)+len(s.items)/8+16)
		copy(grown, s.items[:at])
		grown[at] = item
		copy(grown[at+1:], s.items[at:])
		s.items, s.shared = grown, false
	default:
		s.items = slices.Insert(s.items, at, item)
	}
	s.touch(item.Time.Day(), 1)
	return true
}

// AddAll inserts many items, in any order, in one pass over what is newer than the oldest of them, and
// returns how many are new.
func (s *Snapshot) AddAll(items []Item) int {
	fresh := slices.Clone(items)
	slices.SortFunc(fresh, Item.Compare)
	fresh = slices.DeleteFunc(slices.Compact(fresh), s.Has)
	if len(fresh) == 0 {
		return 0
	}
	for _, item := range fresh {
		s.touch(item.Time.Day(), 1)
	}
	n := len(s.items)
	if s.shared && search(s.items, fresh[0]) < n {
		s.items = append(make([]Item, 0, n+len(fresh)+n/8), s.items...)
		s.shared = false
	}
	s.items = append(s.items, fresh...)
	for i, j, at := n-1, len(fresh)-1, len(s.items)-1; j >= 0; at-- { // merged from the end, in place
		if i >= 0 && s.items[i].Compare(fresh[j]) > 0 {
			s.items[at] = s.items[i]
			i--
		} else {
			s.items[at] = fresh[j]
			j--
		}
	}
	return len(fresh)
}

// Remove takes an item out and reports whether it was there.
func (s *Snapshot) Remove(item Item) bool {
	at, found := slices.BinarySearchFunc(s.items, item, Item.Compare)
	if !found {
		return false
	}
	if s.shared {
		s.items, s.shared = slices.Concat(s.items[:at], s.items[at+1:]), false
	} else {
		s.items = slices.Delete(s.items, at, at+1)
	}
	s.touch(item.Time.Day(), -1)
	return true
}

// Expire takes out everything below floor, as retention does, and returns how many items that were.
func (s *Snapshot) Expire(floor Time) int {
	n := search(s.items, Item{Time: floor})
	if n == 0 {
		return 0
	}
	s.items, s.shared = slices.Clone(s.items[n:]), false
	known := s.days
	s.recount()
	for i := range s.days { // whole days above the floor keep their digests
		if at, found := findDay(known, s.days[i].day); found && known[at].count == s.days[i].count {
			s.days[i] = known[at]
		}
	}
	return n
}

// View returns the current state, immutable. It costs the digests of the days changed since the last one.
func (s *Snapshot) View() View {
	for i := range s.days {
		if d := &s.days[i]; !d.known {
			from := search(s.items, Item{Time: DayStart(d.day)})
			d.digest, d.known = dayDigest(s.items[from:from+d.count]), true
		}
	}
	s.shared = true
	return View{items: s.items[:len(s.items):len(s.items)], days: slices.Clone(s.days)}
}

// Digest is [View.Digest] of the current state.
func (s *Snapshot) Digest(floor, cut Time) (Digest, int) { return s.View().Digest(floor, cut) }

// recount makes the day entries anew, with no digest known.
func (s *Snapshot) recount() {
	s.days = nil
	for i := range s.items {
		d := s.items[i].Time.Day()
		if n := len(s.days); n > 0 && s.days[n-1].day == d {
			s.days[n-1].count++
		} else {
			s.days = append(s.days, day{day: d, count: 1})
		}
	}
}

// touch notes that delta items of a day came or went.
func (s *Snapshot) touch(d uint32, delta int) {
	at, found := findDay(s.days, d)
	if !found {
		s.days = slices.Insert(s.days, at, day{day: d})
	}
	e := &s.days[at]
	e.count += delta
	e.known = false
	if e.count == 0 {
		s.days = slices.Delete(s.days, at, at+1)
	}
}

func findDay(days []day, d uint32) (int, bool) {
	return slices.BinarySearchFunc(days, d, func(e day, d uint32) int {
		switch {
		case e.day < d:
			return -1
		case e.day > d:
			return 1
		}
		return 0
	})
}
