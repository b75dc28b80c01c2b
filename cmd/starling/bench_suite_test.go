package main

import (
	"encoding/json"
	"strings"
	"testing"

	"github.com/starling-chat/starling/cmd/starling/internal/bench"
)

// TestBenchSuite runs every experiment once, much too small for its figures to mean anything: what it
// shows is that each of them ends and measures all its rows.
func TestBenchSuite(t *testing.T) {
	if !full() {
		t.Skip("some forty processes: set STARLING_FULL to run them")
	}
	s := bench.Suite{Command: []string{"starling"}, Rounds: 1, Dir: t.TempDir(), Progress: t.Output(), Quick: true}
	rows, err := s.Run(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if len(rows) < 15 {
		t.Errorf("only %d rows", len(rows))
	}
	for _, r := range rows {
		if r.Error != "" || r.Rounds != 1 {
			t.Errorf("%s: %d rounds, %s", r.ID, r.Rounds, r.Error)
		}
		if r.Verdict != bench.VerdictNone {
			t.Errorf("%s: the verdict of one round is %s", r.ID, r.Verdict)
		}
		if r.ID == "hub-lost" && r.Ours != 0 || r.ID == "overload" && r.Ours != 0 {
			t.Errorf("%s: %v", r.ID, r.Ours)
		}
	}
	report := bench.Report{Rows: rows}
	if _, err := json.Marshal(report); err != nil {
		t.Error(err)
	}
	for _, cells := range report.Cells() {
		if len(cells) != len(bench.Header()) || !strings.HasPrefix(cells[len(cells)-1], "none") {
			t.Errorf("a line of the table is %q", cells)
		}
	}
}
