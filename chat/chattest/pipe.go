package chattest

import (
	"errors"
	"io"
	"os"
	"sync"
	"time"

	"github.com/starling-chat/starling/chat"
)

// pipeBuffer is how many bytes one direction of a stream holds before Write waits.
const pipeBuffer = 256 << 10

// newPipe returns the two ends of a buffered stream.
func newPipe(watch func([]byte)) (a, b chat.Stream) {
	x, y := &direction{watch: watch}, &direction{watch: watch}
	x.changed, y.changed = sync.NewCond(&x.mu), sync.NewCond(&y.mu)
	return &end{in: x, out: y}, &end{in: y, out: x}
}

// direction is one way of a stream.
type direction struct {
	mu      sync.Mutex // guards everything below
	changed *sync.Cond
	data    []byte
	closed  bool // no more will be written
	reset   bool

	readBy, writeBy time.Time // deadlines
	watch           func([]byte)
}

var errReset = errors.New("stream was reset")

// end is one end of a stream.
type end struct{ in, out *direction }

// Read implements io.Reader.
func (e *end) Read(b []byte) (int, error) {
	d := e.in
	d.mu.Lock()
	defer d.mu.Unlock()
	for {
		switch {
		case d.reset:
			return 0, errReset
		case len(d.data) > 0:
			n := copy(b, d.data)
			d.data = d.data[n:]
			d.changed.Broadcast()
			return n, nil
		case d.closed:
			return 0, io.EOF
		case expired(d.readBy):
			return 0, os.ErrDeadlineExceeded
		}
		d.changed.Wait()
	}
}

// Write implements io.Writer.
func (e *end) Write(b []byte) (int, error) {
	d := e.out
	d.watch(b)
	d.mu.Lock()
	defer d.mu.Unlock()
	n := 0
	for n < len(b) {
		switch {
		case d.reset, d.closed:
			return n, errReset
		case expired(d.writeBy):
			return n, os.ErrDeadlineExceeded
		case len(d.data) < pipeBuffer:
			k := min(len(b)-n, pipeBuffer-len(d.data))
			d.data = append(d.data, b[n:n+k]...)
			n += k
			d.changed.Broadcast()
			continue
		}
		d.changed.Wait()
	}
	return n, nil
}

func expired(t time.Time) bool { return !t.IsZero() && !time.Now().Before(t) }

// Close implements io.Closer.
func (e *end) Close() error {
	e.out.finish(false)
	e.in.mu.Lock()
	defer e.in.mu.Unlock()
	e.in.closed = true
	e.in.changed.Broadcast()
	return nil
}

// Reset implements chat.Stream.
func (e *end) Reset() error {
	e.out.finish(true)
	e.in.finish(true)
	return nil
}

func (d *direction) finish(reset bool) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.closed = true
	d.reset = d.reset || reset
	d.changed.Broadcast()
}

// SetDeadline implements chat.Stream.
func (e *end) SetDeadline(t time.Time) error {
	e.in.mu.Lock()
	e.in.readBy = t
	e.in.mu.Unlock()
	e.out.mu.Lock()
	e.out.writeBy = t
	e.out.mu.Unlock()
	if !t.IsZero() {
		time.AfterFunc(time.Until(t), func() { // wakes whoever waits; ends by itself
			for _, d := range []*direction{e.in, e.out} {
				d.mu.Lock()
				d.changed.Broadcast()
				d.mu.Unlock()
			}
		})
	}
	return nil
}
