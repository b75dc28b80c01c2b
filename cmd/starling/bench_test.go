package main

import (
	"bufio"
	"encoding/json"
	"fmt"
	"io"
	"os/exec"
	"strings"
	"testing"
	"time"
)

// adapter is a `starling bench node` that a test speaks with.
type adapter struct {
	t     *testing.T
	in    io.WriteCloser
	lines chan string
	addr  string
}

func startAdapter(t *testing.T, args ...string) *adapter {
	t.Helper()
	cmd := exec.Command("starling", append([]string{"bench", "node"}, args...)...)
	cmd.Stderr = t.Output()
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	ad := &adapter{t: t, in: in, lines: make(chan string, 1024)}
	go func() { // ends with the process's output
		defer close(ad.lines)
		for sc := bufio.NewScanner(out); sc.Scan(); {
			ad.lines <- sc.Text()
		}
	}()
	t.Cleanup(func() {
		ad.tell("QUIT")
		for range ad.lines {
		}
		if err := cmd.Wait(); err != nil {
			t.Errorf("an adapter ended with %v", err)
		}
	})
	ad.addr = ad.expect("READY ")
	return ad
}

func (ad *adapter) tell(format string, args ...any) {
	ad.t.Helper()
	if _, err := fmt.Fprintf(ad.in, format+"\n", args...); err != nil {
		ad.t.Error(err)
	}
}

// expect returns what follows a prefix in the next line that has it.
func (ad *adapter) expect(prefix string) string {
	ad.t.Helper()
	timeout := time.After(patience)
	for {
		select {
		case line, ok := <-ad.lines:
			if !ok {
				ad.t.Fatalf("the adapter ended before it said %s", prefix)
			}
			if rest, found := strings.CutPrefix(line, prefix); found {
				return rest
			}
		case <-timeout:
			ad.t.Fatalf("the adapter did not say %s", prefix)
		}
	}
}

func testAdapters(t *testing.T, args ...string) {
	a, b := startAdapter(t, args...), startAdapter(t, args...)
	a.tell("CONNECT %s", b.addr)
	a.expect("CONNECTED")
	for _, ad := range []*adapter{a, b} {
		ad.tell("JOIN lobby")
		if got := ad.expect("JOINED "); got != "lobby" {
			t.Errorf("joined %q", got)
		}
	}
	// The anchor forgets what it publishes before it has heard who else is in the room.
	got := make(chan string, 1)
	go func() { got <- b.expect("R ") }()
	var first string
	for i := 0; first == ""; i++ {
		a.tell("PUB lobby to the room %d", i)
		select {
		case first = <-got:
		case <-time.After(100 * time.Millisecond):
		}
	}
	if !strings.HasPrefix(first, "to the room ") {
		t.Errorf("the room got %q", first)
	}
	for i := range 20 {
		a.tell("DM %s only for you %d", b.addr, i)
		if got, want := b.expect("D "), fmt.Sprint("only for you ", i); got != want {
			t.Fatalf("the peer got %q, want %q", got, want)
		}
	}
	a.tell("STAT")
	var u struct {
		CPU int64 `json:"cpu_ns"`
	}
	if err := json.Unmarshal([]byte(a.expect("STAT ")), &u); err != nil || u.CPU <= 0 {
		t.Errorf("usage %+v, %v", u, err)
	}
	for _, bad := range []string{"PUB", "DM nobody hello", "JOIN", "CONNECT here", "HELLO", "", "PUB elsewhere hello"} {
		a.tell("%s", bad)
		if a.expect("ERR ") == "" {
			t.Errorf("%q: no reason", bad)
		}
	}
}

func TestBenchNode(t *testing.T) {
	t.Parallel()
	testAdapters(t)
}

func TestBenchNodeBare(t *testing.T) {
	t.Parallel()
	testAdapters(t, "--bare")
}

// TestBenchNodeStranger: whoever was never told of a peer takes its messages all the same, all of
// them once and in order.
func TestBenchNodeStranger(t *testing.T) {
	t.Parallel()
	a, b := startAdapter(t), startAdapter(t)
	for i := range 50 {
		a.tell("DM %s %d", b.addr, i)
	}
	for i := range 50 {
		if got := b.expect("D "); got != fmt.Sprint(i) {
			t.Fatalf("message %d is %q", i, got)
		}
	}
}
