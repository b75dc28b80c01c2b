package main

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/starling-chat/starling/node/api"
)

// TestIdleCost is the method of docs/bench/idle.md: nine nodes that share ten rooms, each with eight peers, say
// nothing. After two minutes, in which what joining took is given back, each of them stays under 60 MB as
// `ps` counts them, and under 2 MB an hour, for two minutes.
func TestIdleCost(t *testing.T) {
	if !full() {
		t.Skip("takes five minutes: set STARLING_FULL to run it")
	}
	const nodes, rooms, settle, length = 9, 10, 2 * time.Minute, 2 * time.Minute
	const maxResident, maxHourly = 60e6, 2e6 // bytes
	procs, clients := make([]*proc, nodes), make([]*api.Client, nodes)
	var flags []string
	for i := range nodes {
		procs[i], clients[i], _ = launchQuiet(t, shortHome(t), flags...)
		if i == 0 {
			st, err := clients[0].Status(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			flags = []string{"--bootstrap", st.Addrs[0]}
		}
	}
	for _, c := range clients {
		for r := range rooms {
			if _, err := c.Join(t.Context(), api.JoinRequest{Room: "idle" + strconv.Itoa(r)}); err != nil {
				t.Fatal(err)
			}
		}
	}
	<-time.After(settle)
	type reading struct {
		at             time.Time
		bytes, ticks   int64
		wakes, memory  int64
		resident, anon int64 // the most
	}
	read := func(i int) (r reading) {
		st, err := clients[i].Status(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		if st.Peers.Total != nodes-1 {
			t.Errorf("node %d has %d peers, want %d", i, st.Peers.Total, nodes-1)
		}
		pid := procs[i].cmd.Process.Pid
		r.at, r.bytes, r.memory = time.Now(), int64(st.BytesIn+st.BytesOut), int64(st.MemoryBytes)
		r.resident, r.anon = procField(t, pid, "VmRSS")<<10, procField(t, pid, "RssAnon")<<10
		r.ticks, r.wakes = cpuTicks(t, pid), switches(t, pid)
		return r
	}
	first, last := make([]reading, nodes), make([]reading, nodes)
	for i := range nodes {
		first[i] = read(i)
	}
	most := make([]int64, nodes)
	for began := time.Now(); time.Since(began) < length; {
		<-time.After(time.Second)
		for i := range nodes {
			most[i] = max(most[i], procField(t, procs[i].cmd.Process.Pid, "VmRSS")<<10)
		}
	}
	for i := range nodes {
		last[i] = read(i)
		d := last[i].at.Sub(first[i].at)
		hourly := float64(last[i].bytes-first[i].bytes) / d.Hours()
		t.Logf("node %d: resident at most %.1f MB, at last %.1f, of it private %.1f; Go runtime %.1f; %.2f MB/h; %.2f %% of a core; %.0f wake-ups a second",
			i, float64(most[i])/1e6, float64(last[i].resident)/1e6, float64(last[i].anon)/1e6, float64(last[i].memory)/1e6, hourly/1e6,
			float64(last[i].ticks-first[i].ticks)/d.Seconds(), float64(last[i].wakes-first[i].wakes)/d.Seconds())
		if most[i] > maxResident || hourly > maxHourly {
			t.Errorf("node %d takes too much", i)
		}
	}
}

// launchQuiet starts a node that stays on this machine, and serves the lookup table as a public one does.
func launchQuiet(t *testing.T, home string, flags ...string) (*proc, *api.Client, time.Duration) {
	t.Helper()
	return launchWith(t, home, append([]string{
		"run", "--home", home, "--no-mdns", "--reachability", "public",
		"--listen", "/ip4/127.0.0.1/tcp/0", "--listen", "/ip4/127.0.0.1/udp/0/quic-v1",
	}, flags...))
}

// procField reads a number of /proc/PID/status.
func procField(t *testing.T, pid int, name string) int64 {
	t.Helper()
	return statusField(t, fmt.Sprintf("/proc/%d/status", pid), name)
}

func statusField(t *testing.T, file, name string) int64 {
	t.Helper()
	b, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	for line := range bytes.Lines(b) {
		f := strings.Fields(string(line))
		if len(f) > 1 && f[0] == name+":" {
			n, err := strconv.ParseInt(f[1], 10, 64)
			if err != nil {
				t.Fatal(err)
			}
			return n
		}
	}
	t.Fatalf("no %s in %s", name, file)
	return 0
}

// cpuTicks is the processor time of a process, in hundredths of a second.
func cpuTicks(t *testing.T, pid int) (n int64) {
	t.Helper()
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		t.Fatal(err)
	}
	f := strings.Fields(string(b[bytes.LastIndexByte(b, ')')+1:]))
	for _, s := range f[11:13] {
		v, err := strconv.ParseInt(s, 10, 64)
		if err != nil {
			t.Fatal(err)
		}
		n += v
	}
	return n
}

// switches counts how often the threads of a process went to sleep by themselves.
func switches(t *testing.T, pid int) (n int64) {
	t.Helper()
	tasks, err := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/status", pid))
	if err != nil {
		t.Fatal(err)
	}
	for _, file := range tasks {
		n += statusField(t, file, "voluntary_ctxt_switches")
	}
	return n
}
