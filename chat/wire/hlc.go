package wire

import "time"

// HLC is a hybrid logical clock reading: 48 bits of Unix milliseconds, then a
// 16-bit counter. Comparing two as integers respects causality and stays close
// to wall time (Kulkarni et al., "Logical Physical Clocks", 2014).
type HLC uint64

const hlcCounterBits = 16

// maxHLCMillis is the last representable millisecond (in the year 10889).
const maxHLCMillis = 1<<48 - 1

// HLCFromTime returns the reading at t with counter zero. Times before 1970 or
// after the year 10889 are clamped.
func HLCFromTime(t time.Time) HLC {
	ms := min(max(t.UnixMilli(), 0), maxHLCMillis)
	return HLC(uint64(ms) << hlcCounterBits)
}

// Time returns the wall time of the reading in UTC, to the millisecond.
func (h HLC) Time() time.Time { return time.UnixMilli(int64(h >> hlcCounterBits)).UTC() }

// Next returns the reading for a new event: the greatest of the wall clock, one
// past the own last event, and one past each parent. Whatever lies more than
// MaxAhead beyond the wall clock is left out, one's own last event included, so
// that a wrong clock, once put right, does not go on marking new events with
// the future.
func Next(wall time.Time, last HLC, parents ...HLC) HLC {
	next := max(HLCFromTime(wall), 1)
	limit := HLCFromTime(wall.Add(MaxAhead)) | (1<<hlcCounterBits - 1)
	follow := func(h HLC) {
		if h < limit && h+1 > next {
			next = h + 1
		}
	}
	follow(last)
	for _, p := range parents {
		follow(p)
	}
	return next
}

// Timeliness says what to do with an event by its clock reading.
type Timeliness int

const (
	// OnTime: take it now.
	OnTime Timeliness = iota
	// Early: keep it aside until it is due (more than MaxAhead in the future).
	Early
	// TooEarly: drop it (more than MaxDefer in the future).
	TooEarly
)

// Timeliness compares the reading with the local wall clock. It is advice to
// the receiver and never part of validity, which asks nothing of any clock.
func (h HLC) Timeliness(wall time.Time) Timeliness {
	switch ahead := h.Time().Sub(wall); {
	case ahead > MaxDefer:
		return TooEarly
	case ahead > MaxAhead:
		return Early
	default:
		return OnTime
	}
}
