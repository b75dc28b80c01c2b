package bench

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strings"
	"time"
)

const (
	// maxLine bounds one line of the adapter's input, in bytes.
	maxLine = 64 << 10
	// outQueue is how many lines wait for a slow reader of the output; then whoever says more waits.
	outQueue = 8192
	// connectTimeout bounds one CONNECT.
	connectTimeout = 30 * time.Second
)

// Peer is what the adapter drives: the product, or the anchor.
type Peer interface {
	// Connect makes a connection to the peer at an address as another adapter's READY line gives it.
	Connect(ctx context.Context, addr string) error
	// Join takes part in a room; what arrives there goes to the output.
	Join(ctx context.Context, room string) error
	// Publish sends to a joined room, and Direct to one peer. They may wait for their turn, but not
	// for arrival. Neither is retried.
	Publish(ctx context.Context, room, payload string) error
	Direct(ctx context.Context, addr, payload string) error
}

// Usage is what an adapter answers to STAT: what its process has used and moved so far.
type Usage struct {
	CPU        time.Duration `json:"cpu_ns"` // user and system
	BytesIn    uint64        `json:"in"`     // by connections, as the host counts them
	BytesOut   uint64        `json:"out"`
	Duplicates uint64        `json:"duplicates"` // room messages that came again
	Memory     uint64        `json:"memory"`     // resident, bytes; 0 when the system does not say
	Messages   int           `json:"messages"`   // stored
}

// output is the adapter's side of the conversation. Lines are written in pieces: as many as wait.
type output struct {
	lines chan string
	done  chan struct{}
}

func newOutput(w io.Writer) *output {
	o := &output{lines: make(chan string, outQueue), done: make(chan struct{})}
	go func() { // ends with close, which waits for it
		defer close(o.done)
		b := bufio.NewWriterSize(w, 64<<10)
		for line := range o.lines {
			b.WriteString(line)
			b.WriteByte('\n')
			if len(o.lines) == 0 {
				b.Flush() // a reader that is gone is noticed by the end of the input
			}
		}
		b.Flush()
	}()
	return o
}

func (o *output) say(line string) { o.lines <- line }

func (o *output) close() {
	close(o.lines)
	<-o.done
}

// Adapter speaks the line protocol between a harness and a [Peer].
//
//	in   CONNECT ADDR   JOIN ROOM   PUB ROOM PAYLOAD   DM ADDR PAYLOAD   STAT   QUIT
//	out  READY ADDR   CONNECTED   JOINED ROOM   R PAYLOAD   D PAYLOAD   STAT JSON   ERR TEXT
type Adapter struct {
	out   *output
	usage func() Usage
}

// NewAdapter writes to w. Close it after everything that reports to it has ended.
func NewAdapter(w io.Writer) *Adapter { return &Adapter{out: newOutput(w)} }

// Close writes what waits.
func (a *Adapter) Close() { a.out.close() }

// Room reports a message that arrived in a room, Direct one that was meant for this peer alone.
func (a *Adapter) Room(payload string) { a.out.say("R " + payload) }

// Direct reports a message for this peer alone.
func (a *Adapter) Direct(payload string) { a.out.say("D " + payload) }

// Error reports what did not work.
func (a *Adapter) Error(err error) {
	a.out.say("ERR " + strings.ReplaceAll(err.Error(), "\n", " "))
}

// Serve says READY and obeys the input until QUIT, its end, or the end of ctx.
func (a *Adapter) Serve(ctx context.Context, in io.Reader, addr string, p Peer, usage func() Usage) error {
	a.usage = usage
	a.out.say("READY " + addr)
	lines := make(chan string)
	failed := make(chan error, 1)
	go func() { // ends with the input, or with the process when that never ends
		defer close(lines)
		sc := bufio.NewScanner(in)
		sc.Buffer(make([]byte, 0, 16<<10), maxLine)
		for sc.Scan() {
			select {
			case lines <- sc.Text():
			case <-ctx.Done():
				return
			}
		}
		failed <- sc.Err()
	}()
	for {
		select {
		case line, ok := <-lines:
			if !ok {
				select {
				case err := <-failed:
					if err != nil {
						return fmt.Errorf("reading commands: %w", err)
					}
				default:
				}
				return nil
			}
			if line == "QUIT" {
				return nil
			}
			if err := a.obey(ctx, line, p); err != nil {
				a.Error(err)
			}
		case <-ctx.Done():
			return nil
		}
	}
}

var errLine = errors.New("a line is CONNECT ADDR, JOIN ROOM, PUB ROOM PAYLOAD, DM ADDR PAYLOAD, STAT or QUIT")

func (a *Adapter) obey(ctx context.Context, line string, p Peer) error {
	verb, rest, _ := strings.Cut(line, " ")
	to, payload, both := strings.Cut(rest, " ")
	switch {
	case verb == "STAT" && rest == "":
		b, err := json.Marshal(a.usage())
		if err != nil {
			return err
		}
		a.out.say("STAT " + string(b))
		return nil
	case to == "":
		return errLine
	case verb == "CONNECT" && !both:
		cctx, cancel := context.WithTimeout(ctx, connectTimeout)
		defer cancel()
		if err := p.Connect(cctx, to); err != nil {
			return err
		}
		a.out.say("CONNECTED")
		return nil
	case verb == "JOIN" && !both:
		if err := p.Join(ctx, to); err != nil {
			return err
		}
		a.out.say("JOINED " + to)
		return nil
	case verb == "PUB" && both:
		return p.Publish(ctx, to, payload)
	case verb == "DM" && both:
		return p.Direct(ctx, to, payload)
	}
	return errLine
}
