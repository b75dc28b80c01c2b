package nodetest

import (
	"encoding/json"
	"os"
	"testing"
	"testing/synctest"
	"time"
)

// simulate plays a scenario in a bubble of its own and checks what must hold of every one.
func simulate(t *testing.T, s Scenario) (r Result) {
	t.Helper()
	s.Progress = t.Logf
	synctest.Test(t, func(t *testing.T) { r = Simulate(t, s) })
	b, err := json.Marshal(r)
	if err != nil {
		t.Fatal(err)
	}
	t.Logf("%s", b)
	if r.Lost != 0 || r.Delivered != 1 {
		t.Errorf("%d of %d deliveries lost", r.Lost, r.Deliveries)
	}
	if r.Duplicates != 0 {
		t.Errorf("%d messages shown twice", r.Duplicates)
	}
	if r.Deliveries == 0 || r.P50 <= 0 || r.P99 < r.P50 || r.Max < r.P99 || r.Packets == 0 || r.BytesDelivery < 300 {
		t.Errorf("figures that cannot be: %s", b)
	}
	return r
}

// A hundred nodes in one room lose nothing, at one lost packet in a hundred and when a quarter of them
// dies at once; what is said by then and later reaches all who live, and most of it within a few hops.
func TestSimulateHundred(t *testing.T) {
	if testing.Short() {
		t.Skip("a hundred nodes are too slow for -short")
	}
	r := simulate(t, Scenario{Messages: 12, Loss: 0.01, Die: 0.25})
	if r.Nodes != 100 || r.Living != 75 || r.Messages != 12 || r.Deliveries != 12*74 {
		t.Errorf("%d nodes, %d living, %d messages, %d deliveries", r.Nodes, r.Living, r.Messages, r.Deliveries)
	}
	if r.Hops < 1 || r.MaxHops > 12 {
		t.Errorf("%.2f hops, at most %d", r.Hops, r.MaxHops)
	}
	// A mesh of four makes 3.2 copies, a tree alone 1, and what authors hand out themselves a quarter.
	if r.Copies < 1 || r.Copies > 1.5 {
		t.Errorf("%.2f copies for each message at each node", r.Copies)
	}
}

// Nodes that leave and come back, and halves of a network that find together again, catch up by sync.
func TestSimulateTroubles(t *testing.T) {
	for _, c := range []struct {
		name string
		s    Scenario
	}{
		{"churn", Scenario{Nodes: 12, Churn: 0.5, Loss: 0.01, Pause: time.Second}},
		{"partition", Scenario{Nodes: 12, Partition: time.Minute, Pause: time.Second, Seed: 2}},
	} {
		t.Run(c.name, func(t *testing.T) {
			r := simulate(t, c.s)
			if r.ByTopic == 1 {
				t.Error("nothing came by sync: the trouble was none")
			}
		})
	}
}

// The same seed makes the same nodes meet and the same ones speak; what goroutines do in which order
// moves the figures by little.
func TestSimulateSameSeed(t *testing.T) {
	s := Scenario{Nodes: 10, Messages: 10, Loss: 0.02, Seed: 5}
	a, b := simulate(t, s), simulate(t, s)
	if a.Deliveries != b.Deliveries || a.Neighbours != b.Neighbours || a.Living != b.Living {
		t.Errorf("one seed, two runs: %+v and %+v", a, b)
	}
	if d := (a.P50 - b.P50).Abs(); d > 20*time.Millisecond {
		t.Errorf("p50 %s and %s", a.P50, b.P50)
	}
}

// A thousand nodes, on demand: minutes, and a few gigabytes.
func TestSimulateThousand(t *testing.T) {
	if os.Getenv("STARLING_FULL") == "" {
		t.Skip("a thousand nodes take minutes: set STARLING_FULL to run them")
	}
	simulate(t, Scenario{Nodes: 1000, Loss: 0.01, Die: 0.25})
}
