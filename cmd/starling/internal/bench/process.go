package bench

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"
)

const (
	// payloadSize is what every measured message carries, in bytes.
	payloadSize = 300
	// stepTimeout bounds one answer of an adapter, and endTimeout its end.
	stepTimeout = 60 * time.Second
	endTimeout  = 20 * time.Second
)

// payload makes a message that begins with its number.
func payload(n int) string {
	s := strconv.Itoa(n) + " "
	return s + strings.Repeat("x", payloadSize-len(s))
}

// process is one adapter in a process of its own.
type process struct {
	cmd   *exec.Cmd
	in    io.WriteCloser
	w     *bufio.Writer
	addr  string
	lines chan string // all but arrivals
	done  chan struct{}

	mu      sync.Mutex // guards all below
	arrived map[int]time.Time
	copies  int // arrivals that had arrived before
	errs    []string
	changed chan struct{} // closed at the next arrival; nil when nobody waits
}

// start runs the adapter with arguments and waits until it is ready.
func (s *Suite) start(ctx context.Context, args ...string) (*process, error) {
	args = append([]string{"bench", "node"}, args...)
	if s.Profiles != "" {
		s.profiles++
		args = append(args, "--cpuprofile", filepath.Join(s.Profiles, fmt.Sprintf("%02d.prof", s.profiles)))
	}
	return s.spawn(ctx, "READY ", args...)
}

// spawn runs this program with arguments until it says what begins with a prefix.
func (s *Suite) spawn(ctx context.Context, prefix string, args ...string) (*process, error) {
	p := &process{
		cmd:   exec.CommandContext(ctx, s.Command[0], slices.Concat(s.Command[1:], args)...),
		lines: make(chan string, 64),
		done:  make(chan struct{}), arrived: make(map[int]time.Time),
	}
	p.cmd.Env = append(os.Environ(), "TMPDIR="+s.Dir)
	in, err := p.cmd.StdinPipe()
	if err != nil {
		return nil, err
	}
	out, err := p.cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	p.in, p.w = in, bufio.NewWriterSize(in, 64<<10)
	p.cmd.Stderr = s.Progress
	if err := p.cmd.Start(); err != nil {
		return nil, fmt.Errorf("starting an adapter: %w", err)
	}
	go p.read(out) // ends with the process's output; stop waits for it
	if p.addr, err = p.answer(ctx, prefix); err != nil {
		p.stop()
		return nil, err
	}
	return p, nil
}

// read sorts what the adapter says.
func (p *process) read(out io.Reader) {
	defer close(p.done)
	defer close(p.lines)
	sc := bufio.NewScanner(out)
	sc.Buffer(make([]byte, 0, 64<<10), 2*maxLine)
	for sc.Scan() {
		line := sc.Text()
		now := time.Now()
		switch {
		case strings.HasPrefix(line, "R ") || strings.HasPrefix(line, "D "):
			number, _, _ := strings.Cut(line[2:], " ")
			n, err := strconv.Atoi(number)
			if err != nil {
				continue
			}
			p.mu.Lock()
			if _, again := p.arrived[n]; again {
				p.copies++
			} else {
				p.arrived[n] = now
			}
			p.signal()
			p.mu.Unlock()
		case strings.HasPrefix(line, "ERR "):
			p.mu.Lock()
			p.errs = append(p.errs, line[4:])
			p.signal()
			p.mu.Unlock()
		default:
			p.lines <- line
		}
	}
}

// signal wakes who waits for arrivals; mu is held.
func (p *process) signal() {
	if p.changed != nil {
		close(p.changed)
		p.changed = nil
	}
}

// tell writes a line; flush sends what was told.
func (p *process) tell(words ...string) error {
	_, err := p.w.WriteString(strings.Join(words, " ") + "\n")
	return err
}

func (p *process) flush() error { return p.w.Flush() }

// ask tells one line and returns the rest of the answer that begins with a prefix.
func (p *process) ask(ctx context.Context, prefix string, words ...string) (string, error) {
	if err := errors.Join(p.tell(words...), p.flush()); err != nil {
		return "", err
	}
	return p.answer(ctx, prefix)
}

func (p *process) answer(ctx context.Context, prefix string) (string, error) {
	timer := time.NewTimer(stepTimeout)
	defer timer.Stop()
	for {
		select {
		case line, ok := <-p.lines:
			if !ok {
				return "", errors.New("an adapter ended; its reason stands above")
			}
			if rest, found := strings.CutPrefix(line, prefix); found {
				return rest, nil
			}
		case <-timer.C:
			p.mu.Lock()
			defer p.mu.Unlock()
			return "", fmt.Errorf("an adapter did not say %s in %s; errors: %q", strings.TrimSpace(prefix), stepTimeout, p.errs)
		case <-ctx.Done():
			return "", ctx.Err()
		}
	}
}

// usage asks for the process's figures.
func (p *process) usage(ctx context.Context) (Usage, error) {
	var u Usage
	text, err := p.ask(ctx, "STAT ", "STAT")
	if err == nil {
		err = json.Unmarshal([]byte(text), &u)
	}
	return u, err
}

// wait returns when the numbers from first on, count of them, have arrived, or says how many are
// missing after a time without any arrival.
func (p *process) wait(ctx context.Context, first, count int, quiet time.Duration) error {
	next := first
	timer := time.NewTimer(quiet)
	defer timer.Stop()
	for {
		p.mu.Lock()
		for next < first+count {
			if _, ok := p.arrived[next]; !ok {
				break
			}
			next++
		}
		if next == first+count {
			p.mu.Unlock()
			return nil
		}
		if p.changed == nil {
			p.changed = make(chan struct{})
		}
		changed, errs := p.changed, p.errs
		p.mu.Unlock()
		select {
		case <-changed:
			timer.Reset(quiet)
		case <-timer.C:
			return fmt.Errorf("%d of %d messages did not arrive; errors: %.300q", p.missing(first, count), count, errs)
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// missing counts the numbers of a range that have not arrived.
func (p *process) missing(first, count int) int {
	p.mu.Lock()
	defer p.mu.Unlock()
	n := 0
	for i := first; i < first+count; i++ {
		if _, ok := p.arrived[i]; !ok {
			n++
		}
	}
	return n
}

// at says when a number arrived.
func (p *process) at(n int) (time.Time, bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	t, ok := p.arrived[n]
	return t, ok
}

// stop ends the process, gently first.
func (p *process) stop() {
	_ = errors.Join(p.tell("QUIT"), p.flush()) // it may be gone already
	p.in.Close()
	_ = p.cmd.Process.Signal(os.Interrupt) // for what does not read its input; likewise
	timer := time.AfterFunc(endTimeout, func() { p.cmd.Process.Kill() })
	defer timer.Stop()
	go func() { // ends with done: nobody asks any more, and the reader must not block
		for range p.lines {
		}
	}()
	<-p.done
	_ = p.cmd.Wait() // its reason, if it failed, went to standard error
}

// group is several processes of one kind.
type group struct{ list []*process }

func (g *group) stop() {
	var wg sync.WaitGroup
	for _, p := range g.list {
		wg.Go(p.stop)
	}
	wg.Wait()
}

// startGroup starts n adapters that are all connected with each other.
func (s *Suite) startGroup(ctx context.Context, n int, args ...string) (*group, error) {
	g := &group{}
	for range n {
		p, err := s.start(ctx, args...)
		if err != nil {
			g.stop()
			return nil, err
		}
		for _, other := range g.list {
			if _, err := p.ask(ctx, "CONNECTED", "CONNECT", other.addr); err != nil {
				p.stop()
				g.stop()
				return nil, err
			}
		}
		g.list = append(g.list, p)
	}
	return g, nil
}

// usage sums what the processes have used.
func (g *group) usage(ctx context.Context) (sum Usage, err error) {
	for _, p := range g.list {
		u, err := p.usage(ctx)
		if err != nil {
			return sum, err
		}
		sum.CPU += u.CPU
		sum.BytesIn += u.BytesIn
		sum.BytesOut += u.BytesOut
		sum.Duplicates += u.Duplicates
		sum.Memory += u.Memory
	}
	return sum, nil
}
