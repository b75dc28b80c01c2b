package bench

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math"
	"os"
	"os/exec"
	"runtime/debug"
	"strconv"
	"testing"
	"testing/synctest"
	"time"

	"github.com/starling-chat/starling/node/nodetest"
)

// Scenario says what to simulate.
type Scenario = nodetest.Scenario

// From manyNodes on a simulation collects garbage sooner than a program does by itself: each node knows all
// others, so a thousand hold 8 GB, and as much again would be left lying.
const (
	manyNodes = 300
	thriftyGC = 40 // percent of what is live
)

// Simulation is what a simulated network came to, with what the run cost here.
type Simulation struct {
	nodetest.Result

	Wall     time.Duration `json:"wall_ns"`
	Resident uint64        `json:"resident"` // at most, bytes; 0 when the system does not say
}

// Simulate plays a scenario with whole nodes in virtual time, in a process of its own that command
// starts: this program with the arguments that make it call [SimulateHere]. Lines about its progress go
// to progress, which may be nil.
func Simulate(ctx context.Context, command []string, s Scenario, progress io.Writer) (out Simulation, err error) {
	if progress == nil {
		progress = io.Discard
	}
	order, err := json.Marshal(s)
	if err != nil {
		return out, err
	}
	self, err := os.Executable()
	if err != nil {
		return out, fmt.Errorf("finding this program: %w", err)
	}
	began := time.Now()
	cmd := exec.CommandContext(ctx, self)
	cmd.Args, cmd.Stdin, cmd.Stderr = command, bytes.NewReader(order), progress
	lines, err := cmd.StdoutPipe()
	if err != nil {
		return out, err
	}
	if err := cmd.Start(); err != nil {
		return out, fmt.Errorf("starting the simulation: %w", err)
	}
	found := false
	sc := bufio.NewScanner(lines)
	sc.Buffer(nil, maxLine)
	for sc.Scan() {
		switch line := sc.Bytes(); {
		case bytes.HasPrefix(line, []byte("{")):
			found = json.Unmarshal(line, &out.Result) == nil
		case !bytes.Equal(line, []byte("PASS")): // why it failed
			fmt.Fprintf(progress, "%s\n", line)
		}
	}
	_, _ = io.Copy(io.Discard, lines) // what follows a line that is too long
	err = cmd.Wait()
	out.Wall, out.Resident = time.Since(began), peakMemory(cmd.ProcessState)
	switch {
	case ctx.Err() != nil:
		return out, ctx.Err()
	case err != nil || !found:
		return out, errors.Join(errors.New("a simulated node failed; its reason stands above"), err)
	}
	return out, nil
}

// SimulateHere reads a scenario, plays it, writes the result as one line of JSON to standard output,
// and ends the process.
//
// Virtual time belongs to a test (testing/synctest), and only the machinery of package testing makes
// one. So this runs a single test, as a test binary does, which is why it takes a process of its own.
func SimulateHere(in io.Reader, progress io.Writer) error {
	var s Scenario
	if err := json.NewDecoder(in).Decode(&s); err != nil {
		return fmt.Errorf("reading a scenario: %w", err)
	}
	s.CPU = func() time.Duration { return processUsage().CPU }
	s.Progress = func(format string, args ...any) { fmt.Fprintf(progress, "sim: "+format+"\n", args...) }
	play := func(t *testing.T) {
		var result nodetest.Result
		synctest.Test(t, func(t *testing.T) { result = nodetest.Simulate(t, s) })
		if err := json.NewEncoder(os.Stdout).Encode(result); err != nil {
			t.Error(err)
		}
	}
	if s.Nodes >= manyNodes && os.Getenv("GOGC") == "" {
		debug.SetGCPercent(thriftyGC)
	}
	os.Args = os.Args[:1] // the flags of a test binary are not ours
	all := func(string, string) (bool, error) { return true, nil }
	testing.Main(all, []testing.InternalTest{{Name: "Simulation", F: play}}, nil, nil)
	return nil // not reached: Main ends the process
}

// Cells renders a simulation for a table of two columns.
func (s *Simulation) Cells() [][]string {
	n := strconv.Itoa
	ms := func(d time.Duration) string { return d.Round(100 * time.Microsecond).String() }
	deliveries := max(float64(s.Deliveries), 1)
	rows := [][]string{
		{"nodes", fmt.Sprintf("%d, of which %d live at the end with %.1f neighbours each", s.Nodes, s.Living, s.Neighbours)},
		{"messages", fmt.Sprintf("%d, to be delivered %d times", s.Messages, s.Deliveries)},
		{"delivered", fmt.Sprintf("%.4g %%", 100*s.Delivered)},
		{"lost", n(s.Lost)},
		{"shown twice", n(s.Duplicates)},
		{"latency", fmt.Sprintf("p50 %s, p99 %s, most %s", ms(s.P50), ms(s.P99), ms(s.Max))},
		{"hops", fmt.Sprintf("%.2f on average, at most %d; %.4g %% came by gossip, the rest by sync", s.Hops, s.MaxHops, 100*s.ByTopic)},
		{"copies per delivery", figure(s.Copies)},
		{"sent", fmt.Sprintf("%.1f MB in %d packets, all traffic: %.0f bytes per delivery", float64(s.Bytes)/1e6, s.Packets, s.BytesDelivery)},
		{"complete", ms(s.Settled) + " after the last message"},
		{"virtual time", s.Virtual.Round(time.Millisecond).String()},
		{"processor", fmt.Sprintf("%s to start and join, %s after that: %s a delivery",
			s.CPUStart.Round(time.Millisecond), s.CPURun.Round(time.Millisecond),
			time.Duration(float64(s.CPURun)/deliveries).Round(time.Microsecond))},
		{"memory", fmt.Sprintf("%.0f MB live, %.2f MB a node; %.0f MB resident at most",
			float64(s.Memory)/1e6, float64(s.Memory)/1e6/math.Max(float64(s.Nodes), 1), float64(s.Resident)/1e6)},
		{"wall time", s.Wall.Round(time.Millisecond).String()},
		{"seed", strconv.FormatUint(s.Seed, 10)},
	}
	return rows
}
