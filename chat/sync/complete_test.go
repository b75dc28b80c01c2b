package sync

import (
	"slices"
	"testing"

	"pgregory.net/rapid"
)

func TestCompleteIsASetOfInstants(t *testing.T) {
	const span = 40
	drawInterval := rapid.Custom(func(t *rapid.T) Interval {
		return Interval{Time(rapid.IntRange(0, span).Draw(t, "from")), Time(rapid.IntRange(0, span).Draw(t, "to"))}
	})
	rapid.Check(t, func(t *rapid.T) {
		var model [span]bool
		c := NewComplete(nil)
		for range rapid.IntRange(0, 30).Draw(t, "steps") {
			i := drawInterval.Draw(t, "interval")
			known := rapid.IntRange(0, 3).Draw(t, "step") > 0
			if known {
				c.Add(i)
			} else {
				c.Forget(i)
			}
			for at := i.From; at < i.To; at++ {
				model[at] = known
			}
			stored := c.Intervals()
			for n, k := range stored {
				if k.From >= k.To || n > 0 && stored[n-1].To >= k.From {
					t.Fatalf("intervals %v are not ascending and apart", stored)
				}
			}
			for at := range Time(span) {
				if c.Covers(Interval{at, at + 1}) != model[at] {
					t.Fatalf("%d: known %v, intervals %v", at, model[at], stored)
				}
			}
			asked := drawInterval.Draw(t, "asked")
			gaps := c.Gaps(asked)
			missing := 0
			for n, g := range gaps {
				if n > 0 && gaps[n-1].From <= g.To {
					t.Fatalf("gaps %v are not newest first and apart", gaps)
				}
				for at := g.From; at < g.To; at++ {
					missing++
					if model[at] || at < asked.From || at >= asked.To {
						t.Fatalf("gap %v in %v holds what is known", g, stored)
					}
				}
			}
			for at := asked.From; at < asked.To; at++ {
				if !model[at] {
					missing--
				}
			}
			if missing != 0 {
				t.Fatalf("gaps %v of %v do not add up, known %v", gaps, asked, stored)
			}
			if again := NewComplete(stored); !slices.Equal(again.Intervals(), stored) {
				t.Fatal("stored intervals load differently")
			}
		}
	})
}

func TestCompleteForgetsTheOldestWhenFull(t *testing.T) {
	c := new(Complete)
	for i := range Time(maxIntervals + 1) {
		c.Add(Interval{10 * i, 10*i + 5})
	}
	if n := len(c.Intervals()); n != maxIntervals || c.Covers(Interval{0, 5}) || !c.Covers(Interval{10 * maxIntervals, 10*maxIntervals + 5}) {
		t.Errorf("%d intervals", n)
	}
}
