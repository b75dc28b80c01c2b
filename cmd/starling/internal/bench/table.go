package bench

import (
	"fmt"
	"math"
	"os"
	"runtime"
	"strconv"
	"strings"
)

// Report is a run with what it ran on.
type Report struct {
	Version string   `json:"version"`
	Go      string   `json:"go"`
	Machine []string `json:"machine"` // one fact each
	Rounds  int      `json:"rounds"`
	Rows    []Row    `json:"rows"`
}

// Header names the columns of [Report.Cells].
func Header() []string {
	return []string{"ROW", "WHAT", "OURS", "ANCHOR", "UNIT", "RATIO", "RANGE", "TARGET", "VERDICT"}
}

// Cells renders the rows for a table.
func (r Report) Cells() [][]string {
	out := make([][]string, len(r.Rows))
	for i, row := range r.Rows {
		verdict := row.Verdict
		if verdict == VerdictNone && row.Error == "" {
			verdict = fmt.Sprintf("none: %d of %d rounds", row.Rounds, MinRounds)
		} else if row.Error != "" {
			verdict = "failed"
		}
		out[i] = []string{
			row.ID, row.What, figure(row.Ours), figure(row.Anchor), row.Unit, figure(row.Ratio),
			figure(row.Low) + " to " + figure(row.High), row.Target, verdict,
		}
	}
	return out
}

// Notes are lines to go below the table.
func (r Report) Notes() []string {
	out := []string{"machine: " + strings.Join(r.Machine, ", ") + ", " + r.Go}
	seen := make(map[string]bool)
	for _, row := range r.Rows {
		if row.Error != "" {
			out = append(out, row.ID+": "+row.Error)
		}
		if row.Note != "" && !seen[row.Note] {
			seen[row.Note] = true
			out = append(out, row.Note)
		}
	}
	return out
}

// figure writes three digits that count.
func figure(v float64) string {
	switch {
	case v == 0:
		return "0"
	case math.Abs(v) >= 100:
		return strconv.FormatFloat(v, 'f', 0, 64)
	case math.Abs(v) >= 10:
		return strconv.FormatFloat(v, 'f', 1, 64)
	}
	return strconv.FormatFloat(v, 'f', 2, 64)
}

// Machine describes what the run runs on, its load included.
func Machine() []string {
	out := []string{runtime.GOOS + "/" + runtime.GOARCH, strconv.Itoa(runtime.NumCPU()) + " cores"}
	if b, err := os.ReadFile("/proc/cpuinfo"); err == nil {
		for line := range strings.Lines(string(b)) {
			if name, value, ok := strings.Cut(line, ":"); ok && strings.TrimSpace(name) == "model name" {
				out = append(out, strings.TrimSpace(value))
				break
			}
		}
	}
	if b, err := os.ReadFile("/proc/loadavg"); err == nil {
		if fields := strings.Fields(string(b)); len(fields) > 2 {
			out = append(out, "load before the run "+strings.Join(fields[:3], " "))
		}
	}
	return out
}
