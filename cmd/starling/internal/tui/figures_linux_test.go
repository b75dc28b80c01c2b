package tui

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"sync"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/starling-chat/starling/node/api"
)

// uiHome makes the test binary a front-end to the node whose socket is in that directory: a process
// with the UI and nothing else, to be measured.
const uiHome = "STARLING_TEST_UI_HOME"

func TestMain(m *testing.M) {
	if home := os.Getenv(uiHome); home != "" {
		if _, err := Run(context.Background(), Config{Client: api.NewClient(filepath.Join(home, api.SocketName)), Open: "#crowded"}); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		os.Exit(0)
	}
	os.Exit(m.Run())
}

// onTerminal is the UI as a process of its own on a pseudo-terminal. What it writes is read as it comes.
type onTerminal struct {
	t    *testing.T
	cmd  *exec.Cmd
	side *os.File // ours

	mu   sync.Mutex // guards out, more
	out  []byte
	more chan struct{} // closed when out grows
}

func startOnTerminal(t *testing.T, n *fakeNode) *onTerminal {
	t.Helper()
	ptmx, err := os.OpenFile("/dev/ptmx", os.O_RDWR|syscall.O_NOCTTY, 0)
	if err != nil {
		t.Skipf("no pseudo-terminal: %v", err)
	}
	fd := int(ptmx.Fd())
	if err := unix.IoctlSetPointerInt(fd, unix.TIOCSPTLCK, 0); err != nil {
		t.Fatal(err)
	}
	number, err := unix.IoctlGetInt(fd, unix.TIOCGPTN)
	if err != nil {
		t.Fatal(err)
	}
	if err := unix.IoctlSetWinsize(fd, unix.TIOCSWINSZ, &unix.Winsize{Col: 80, Row: 24}); err != nil {
		t.Fatal(err)
	}
	tty, err := os.OpenFile("/dev/pts/"+strconv.Itoa(number), os.O_RDWR|syscall.O_NOCTTY, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer tty.Close()
	p := &onTerminal{t: t, side: ptmx, more: make(chan struct{})}
	p.cmd = exec.Command(os.Args[0])
	p.cmd.Env = append(os.Environ(), uiHome+"="+n.home, "TERM=xterm-256color", "LANG=C.UTF-8")
	p.cmd.Stdin, p.cmd.Stdout, p.cmd.Stderr = tty, tty, tty
	p.cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true, Setctty: true}
	if err := p.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		p.cmd.Process.Kill()
		p.cmd.Wait()
		ptmx.Close()
	})
	go func() { // ends when the process does
		buf := make([]byte, 64<<10)
		for {
			n, err := ptmx.Read(buf)
			p.mu.Lock()
			p.out = append(p.out, buf[:n]...)
			close(p.more)
			p.more = make(chan struct{})
			p.mu.Unlock()
			if err != nil {
				return
			}
		}
	}()
	return p
}

func (p *onTerminal) press(keys string) {
	p.t.Helper()
	if _, err := p.side.WriteString(keys); err != nil {
		p.t.Fatal(err)
	}
}

// mark is how much was written so far.
func (p *onTerminal) mark() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return len(p.out)
}

// until waits for something in what was written after a mark, and gives how long that took.
func (p *onTerminal) until(what string, after int, ok func(out []byte) bool) time.Duration {
	p.t.Helper()
	began, late := time.Now(), time.After(30*time.Second)
	for {
		p.mu.Lock()
		found, more := ok(p.out[after:]), p.more
		p.mu.Unlock()
		if found {
			return time.Since(began)
		}
		select {
		case <-more:
		case <-late:
			p.t.Fatalf("waited in vain for %s; it wrote %q", what, p.out[after:])
		}
	}
}

// calm waits until nothing was written for a moment: what a key before has brought is on the screen.
func (p *onTerminal) calm() {
	for {
		p.mu.Lock()
		more := p.more
		p.mu.Unlock()
		select {
		case <-more:
		case <-time.After(30 * time.Millisecond):
			return
		}
	}
}

func (p *onTerminal) resident() (mib float64) {
	p.t.Helper()
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", p.cmd.Process.Pid))
	if err != nil {
		p.t.Fatal(err)
	}
	m := regexp.MustCompile(`VmRSS:\s+(\d+) kB`).FindSubmatch(b)
	kib, err := strconv.Atoi(string(m[1]))
	if err != nil {
		p.t.Fatal(err)
	}
	return float64(kib) / 1024
}

func quantile(list []time.Duration, q float64) time.Duration {
	slices.Sort(list)
	return list[min(len(list)-1, int(q*float64(len(list))))].Round(100 * time.Microsecond)
}

// TestFigures measures the UI as a process of its own: opening a room of 100,000 messages, scrolling
// back, typing during a flood of 200 messages a second, and memory. The targets are 300 ms, 50 ms, 50 ms
// at the 99th percentile, and 40 MiB; what is printed is what docs/bench/tui.md says.
func TestFigures(t *testing.T) {
	if os.Getenv("STARLING_FULL") == "" {
		t.Skip("a measurement, with STARLING_FULL=1")
	}
	n := newFakeNode(t)
	c := n.room("crowded")
	n.fill(c, manyMessages)
	// From the process's first instruction to the newest message on the screen.
	began := time.Now()
	p := startOnTerminal(t, n)
	newest := []byte(fmt.Sprintf("message %d of many", manyMessages))
	p.until("the newest message", 0, func(out []byte) bool { return bytes.Contains(out, newest) })
	start := time.Since(began)

	// The renderer writes what differs and shows the cursor at the end of a frame.
	frame := func(out []byte) bool { return bytes.Contains(out, []byte("\x1b[?25h")) }
	after := func(keys string) time.Duration {
		p.calm()
		at := p.mark()
		p.press(keys)
		return p.until("a frame", at, frame)
	}
	var opened, pages []time.Duration
	for range 20 { // to the other conversation and back
		after("\x1b2")
		opened = append(opened, after("\x1b1"))
	}
	for range 100 {
		pages = append(pages, after("\x1b[5~"))
	}
	p.press("\x1b[F")

	const flood, seconds = 200, 10
	done := make(chan struct{})
	go func() { // ends by itself, waited for below
		defer close(done)
		tick := time.NewTicker(time.Second / flood)
		defer tick.Stop()
		for i := range flood * seconds {
			<-tick.C
			n.say(c, "bob", fmt.Sprintf("flood %d with words enough to take more than one line of an ordinary window", i))
		}
	}()
	var typed []time.Duration
	pause := time.NewTicker(40 * time.Millisecond)
	defer pause.Stop()
	for i, going := 0, true; going; i++ {
		select {
		case <-done:
			going = false
		case <-pause.C:
			at := p.mark()
			key := []byte("ABCDEFGHIJKLMNOPQRSTUVWXYZ")[i%26]
			p.press(string(key))
			// Capital letters stand in no message, and final bytes of sequences have a digit or [ before them.
			shown := regexp.MustCompile(`[^0-9\[;?]` + string(key) + `|m` + string(key))
			typed = append(typed, p.until("the key", at, func(out []byte) bool { return shown.Match(out) || len(out) > 0 && out[0] == key }))
			if i%60 == 59 {
				p.press("\x15") // ctrl+u
			}
		}
	}
	memory := p.resident()
	t.Logf("start to the newest of %d messages %s", manyMessages, start.Round(time.Millisecond))
	t.Logf("open a held room: median %s, worst %s", quantile(opened, 0.5), quantile(opened, 1))
	t.Logf("a page back: median %s, p99 %s", quantile(pages, 0.5), quantile(pages, 0.99))
	t.Logf("key to screen in a flood of %d/s: median %s, p99 %s of %d", flood, quantile(typed, 0.5), quantile(typed, 0.99), len(typed))
	t.Logf("resident memory after all of it: %.1f MiB", memory)
	if memory > 40 {
		t.Errorf("%.1f MiB of memory", memory)
	}
	// Times are told and not judged here beyond what a loaded machine excuses.
	for what, took := range map[string]time.Duration{"opening": quantile(opened, 0.5), "a page": quantile(pages, 0.5), "a key": quantile(typed, 0.5)} {
		if took > 300*time.Millisecond {
			t.Errorf("%s takes %s", what, took)
		}
	}
}
