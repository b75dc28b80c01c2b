// Package bench measures the product beside an anchor in the same run: a bare go-libp2p host with
// gossipsub and nothing else, and raw files and raw Badger for what is stored. A figure counts only
// as a ratio to its anchor; docs/bench/bench.md has the method.
//
// The product is driven as others drive it: a real node (encryption, storage and receipts on) behind
// the line protocol of [Serve], in a process of its own. There is no path in here that a user's node
// does not have.
//
// A [Suite] is used by one goroutine.
package bench

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math"
	"slices"
	"time"
)

// MinRounds is how many rounds a verdict needs.
const MinRounds = 5

// clockSlack is what a row that depends on the wall clock is allowed over its target: the machines
// these run on are shared.
const clockSlack = 1.3

// Verdicts of a [Row].
const (
	VerdictPass  = "pass"
	VerdictSlack = "within slack" // over the target, but not by more than the clock may be off
	VerdictMiss  = "miss"
	VerdictNone  = "none" // too few rounds
)

// Row is one line of the table. Ours and Anchor are medians in Unit; Ratio is the median of the
// ratios of the rounds.
type Row struct {
	ID      string  `json:"id"`
	What    string  `json:"what"`
	Target  string  `json:"target"`
	Unit    string  `json:"unit"`
	Ours    float64 `json:"ours"`
	Anchor  float64 `json:"anchor"`
	Ratio   float64 `json:"ratio"`
	Low     float64 `json:"ratio_low"` // of all rounds
	High    float64 `json:"ratio_high"`
	Rounds  int     `json:"rounds"`
	Verdict string  `json:"verdict"`
	Error   string  `json:"error,omitempty"`
	Note    string  `json:"note,omitempty"`
}

// target is what a row is held to.
type target struct {
	id, what, unit string
	limit          float64 // of the ratio ours/anchor
	atLeast        bool    // the ratio must reach limit instead of staying under it
	clock          bool    // wall clock: clockSlack applies
	says           string
}

// sample is one round's measurement of a row.
type sample struct{ ours, anchor float64 }

// ratio of a sample; nothing over nothing is 0, something over nothing has no bound.
func (s sample) ratio() float64 {
	switch {
	case s.anchor != 0:
		return s.ours / s.anchor
	case s.ours == 0:
		return 0
	}
	return math.Inf(1)
}

// judge turns the rounds of a row into a line of the table.
func judge(t target, rounds []sample, note string, err error) Row {
	r := Row{ID: t.id, What: t.what, Target: t.says, Unit: t.unit, Rounds: len(rounds), Verdict: VerdictNone, Note: note}
	if err != nil {
		r.Error = err.Error()
	}
	if len(rounds) == 0 {
		return r
	}
	ratios := make([]float64, len(rounds))
	ours, anchor := make([]float64, len(rounds)), make([]float64, len(rounds))
	for i, s := range rounds {
		ratios[i], ours[i], anchor[i] = min(s.ratio(), math.MaxFloat32), s.ours, s.anchor // JSON has no infinity
	}
	r.Ours, r.Anchor, r.Ratio = median(ours), median(anchor), median(ratios)
	r.Low, r.High = slices.Min(ratios), slices.Max(ratios)
	if len(rounds) < MinRounds || err != nil {
		return r
	}
	slack := 1.0
	if t.clock {
		slack = clockSlack
	}
	switch over := t.excess(r.Ratio); {
	case over <= 1:
		r.Verdict = VerdictPass
	case over <= slack:
		r.Verdict = VerdictSlack
	default:
		r.Verdict = VerdictMiss
	}
	return r
}

// excess says by what factor a ratio is beyond the limit; up to 1 it is not.
func (t target) excess(ratio float64) float64 {
	switch {
	case t.atLeast && ratio == 0:
		return math.Inf(1)
	case t.atLeast:
		return t.limit / ratio
	case t.limit == 0 && ratio == 0:
		return 0
	default:
		return ratio / t.limit // by zero: any excess is infinite
	}
}

// median of a list, which it does not change; the mean of the middle two when the number is even.
func median(list []float64) float64 {
	list = slices.Sorted(slices.Values(list))
	n := len(list)
	if n%2 == 1 {
		return list[n/2]
	}
	return (list[n/2-1] + list[n/2]) / 2
}

// percentile of a sorted list of durations, in microseconds.
func percentile(sorted []time.Duration, p float64) float64 {
	if len(sorted) == 0 {
		return 0
	}
	i := min(int(p*float64(len(sorted))), len(sorted)-1)
	return float64(sorted[i].Nanoseconds()) / 1e3
}

// Suite is one run.
type Suite struct {
	// Command starts this program: its path, and what comes before the arguments.
	Command []string
	// Rounds is how often each row is measured; [MinRounds] or more for a verdict.
	Rounds int
	// Only names the experiments or rows to run; empty is all.
	Only []string
	// Progress gets a line for each step; nil for none.
	Progress io.Writer
	// Dir is an empty directory for what the run stores. The caller removes it.
	Dir string
	// Profiles, if set, is a directory in which each adapter leaves a processor profile.
	Profiles string
	// Quick makes everything smaller, for tests of the harness. Its figures mean nothing.
	Quick bool

	profiles int // begun
}

// experiment measures one or several rows that share their processes.
type experiment struct {
	name    string
	targets []target
	note    string
	// begin prepares what the rounds share and returns the measurement of one round, and what ends
	// it all. The samples are in the order of the targets.
	begin func(ctx context.Context, s *Suite) (round func(context.Context) ([]sample, error), end func(), err error)
}

// Names lists the experiments and rows that [Suite.Only] may name.
func Names() []string {
	var out []string
	for _, e := range experiments() {
		out = append(out, e.name)
		for _, t := range e.targets {
			out = append(out, t.id)
		}
	}
	return slices.Compact(out)
}

// wanted keeps the rows that were asked for.
func (s *Suite) wanted(e experiment) []bool {
	keep := make([]bool, len(e.targets))
	for i, t := range e.targets {
		keep[i] = len(s.Only) == 0 || slices.Contains(s.Only, e.name) || slices.Contains(s.Only, t.id)
	}
	return keep
}

// Run measures and returns the table. What fails is a row with an error; only the end of ctx ends the
// run, with what there is by then.
func (s *Suite) Run(ctx context.Context) ([]Row, error) {
	var rows []Row
	for _, e := range experiments() {
		keep := s.wanted(e)
		if !slices.Contains(keep, true) {
			continue
		}
		rounds, err := s.repeat(ctx, e)
		if err != nil && ctx.Err() == nil {
			s.say("%s failed: %v", e.name, err)
		}
		for i, t := range e.targets {
			if !keep[i] {
				continue
			}
			list := make([]sample, len(rounds))
			for k := range rounds {
				list[k] = rounds[k][i]
			}
			rows = append(rows, judge(t, list, e.note, err))
		}
		if err := ctx.Err(); err != nil {
			return rows, err
		}
	}
	return rows, nil
}

func (s *Suite) repeat(ctx context.Context, e experiment) (rounds [][]sample, err error) {
	s.say("%s: preparing", e.name)
	round, end, err := e.begin(ctx, s)
	if end != nil {
		defer end()
	}
	if err != nil {
		return nil, fmt.Errorf("preparing: %w", err)
	}
	for i := range s.Rounds {
		began := time.Now()
		list, err := round(ctx)
		if err != nil {
			return rounds, fmt.Errorf("round %d: %w", i+1, err)
		}
		if len(list) != len(e.targets) {
			return rounds, errors.New("a round measured another number of rows than the experiment has")
		}
		rounds = append(rounds, list)
		s.say("%s: round %d of %d, %.1f s", e.name, i+1, s.Rounds, time.Since(began).Seconds())
	}
	return rounds, nil
}

func (s *Suite) say(format string, args ...any) {
	if s.Progress != nil {
		fmt.Fprintf(s.Progress, "bench: "+format+"\n", args...)
	}
}

// some is n, or a small number when the suite only tests itself.
func (s *Suite) some(n, quick int) int {
	if s.Quick {
		return quick
	}
	return n
}
