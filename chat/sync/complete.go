package sync

import "slices"

// Interval is a stretch of time, From inclusive, To exclusive.
type Interval struct{ From, To Time }

// maxIntervals bounds what is remembered of one room. Forgetting an interval is safe: it is synced again.
const maxIntervals = 1024

// Complete remembers for which stretches of time a room's set is known to be complete, so that
// scrolling back asks the network only once. The zero value knows nothing.
type Complete struct {
	intervals []Interval // ascending, disjoint, not touching
}

// NewComplete returns what stored intervals say, in any order, overlapping or not.
func NewComplete(intervals []Interval) *Complete {
	c := new(Complete)
	for _, i := range intervals {
		c.Add(i)
	}
	return c
}

// Add merges an interval with what is known; an empty one changes nothing. When there are too many
// separate intervals the oldest is forgotten.
func (c *Complete) Add(i Interval) {
	if i.From >= i.To {
		return
	}
	lo, hi := c.touching(i)
	if lo < hi {
		i.From = min(i.From, c.intervals[lo].From)
		i.To = max(i.To, c.intervals[hi-1].To)
	}
	c.intervals = slices.Replace(c.intervals, lo, hi, i)
	if len(c.intervals) > maxIntervals {
		c.intervals = slices.Delete(c.intervals, 0, 1)
	}
}

// Forget takes an interval out, for instance what retention removed.
func (c *Complete) Forget(i Interval) {
	if i.From >= i.To {
		return
	}
	var kept []Interval
	for _, k := range c.intervals {
		if left := (Interval{k.From, min(k.To, i.From)}); left.From < left.To {
			kept = append(kept, left)
		}
		if right := (Interval{max(k.From, i.To), k.To}); right.From < right.To {
			kept = append(kept, right)
		}
	}
	c.intervals = kept
}

// Covers reports whether all of an interval is known to be complete; an empty one always is.
func (c *Complete) Covers(i Interval) bool { return len(c.Gaps(i)) == 0 }

// Gaps returns what of an interval is not known to be complete, newest first: the order in which to fetch it.
func (c *Complete) Gaps(i Interval) []Interval {
	var gaps []Interval
	upper := i.To
	for _, k := range slices.Backward(c.intervals) {
		if k.From >= upper || k.To <= i.From {
			continue
		}
		if k.To < upper {
			gaps = append(gaps, Interval{k.To, upper})
		}
		upper = k.From
	}
	if i.From < upper {
		gaps = append(gaps, Interval{i.From, upper})
	}
	return gaps
}

// Intervals returns a copy of what is known, ascending, disjoint, to be stored.
func (c *Complete) Intervals() []Interval { return slices.Clone(c.intervals) }

// touching returns the range of indices whose intervals overlap or touch i.
func (c *Complete) touching(i Interval) (lo, hi int) {
	for lo < len(c.intervals) && c.intervals[lo].To < i.From {
		lo++
	}
	for hi = lo; hi < len(c.intervals) && c.intervals[hi].From <= i.To; {
		hi++
	}
	return lo, hi
}
