// Package drive runs a session of package sync over a stream: it moves the bytes and leaves the
// effects to its caller. It is the one place where the protocol meets I/O, for members and mirrors alike.
package drive

import (
	"context"
	"fmt"
	"io"
	gosync "sync"
	"time"

	"github.com/starling-chat/starling/chat/sync"
)

// Stream is a reliable byte stream to the other side.
type Stream interface {
	io.ReadWriteCloser
	// SetDeadline bounds reads and writes, as in net.Conn.
	SetDeadline(t time.Time) error
	// Reset abandons the stream at once.
	Reset() error
}

const (
	// firstTimeout bounds the wait for a session's first bytes, idleTimeout the wait for any
	// progress, and wholeTimeout a whole session.
	firstTimeout = 10 * time.Second
	idleTimeout  = 30 * time.Second
	wholeTimeout = 5 * time.Minute
	// maxUnwritten bounds what a session has given out and the stream has not taken, in bytes.
	maxUnwritten = 4 << 20
	readBuffer   = 32 << 10
)

// Run drives a session until it is over and closes the stream. answer carries out one effect and
// answers it on the session; an error of it ends the session. The second result says why a session
// was cut; the report is right in any case.
func Run(ctx context.Context, st Stream, session *sync.Session, answer func(ctx context.Context, e sync.Effect) error) (sync.Report, error) {
	ctx, cancel := context.WithTimeout(ctx, wholeTimeout)
	defer cancel()
	stop := context.AfterFunc(ctx, func() { _ = st.Reset() })
	defer stop()
	d := &driver{st: st, session: session, answer: answer}
	d.out.changed = gosync.NewCond(&d.out.mu)
	var writing gosync.WaitGroup
	writing.Go(func() { d.out.run(st) }) // ends when out is closed or the stream fails; waited for below
	err := d.exchange(ctx)
	d.out.close(err != nil)
	if err != nil {
		_ = st.Reset()
	}
	writing.Wait()
	if err == nil {
		err = st.Close()
	}
	return session.Close(), err
}

type driver struct {
	st      Stream
	session *sync.Session
	answer  func(ctx context.Context, e sync.Effect) error
	out     unwritten
}

// exchange returns nil when the session finished by itself.
func (d *driver) exchange(ctx context.Context) error {
	if err := d.st.SetDeadline(time.Now().Add(firstTimeout)); err != nil {
		return err
	}
	if over, err := d.work(ctx); over || err != nil {
		return err
	}
	buf := make([]byte, readBuffer)
	for {
		n, err := d.st.Read(buf)
		if n > 0 {
			if derr := d.st.SetDeadline(time.Now().Add(idleTimeout)); derr != nil {
				return derr
			}
		}
		for in := buf[:n]; len(in) > 0; {
			in = in[d.session.Receive(in):]
			if over, werr := d.work(ctx); over || werr != nil {
				return werr
			}
		}
		if err != nil {
			return fmt.Errorf("reading a sync stream: %w", err)
		}
	}
}

// work does everything that needs no input; over says that the session has ended.
func (d *driver) work(ctx context.Context) (over bool, err error) {
	for {
		out, effect := d.session.Next()
		if len(out) > 0 {
			if err := d.out.put(out); err != nil {
				return false, err
			}
			continue
		}
		switch effect.(type) {
		case nil:
			return false, nil
		case sync.Finished:
			return true, nil
		}
		if err := d.answer(ctx, effect); err != nil {
			return false, err
		}
	}
}

// unwritten is what a session has given out and the stream has not taken yet: both sides may send
// much before they read, so writing must not keep a side from reading.
type unwritten struct {
	mu      gosync.Mutex // guards everything below
	changed *gosync.Cond
	queue   [][]byte
	size    int
	closed  bool
	err     error
}

// put queues bytes; it waits while too much is queued.
func (u *unwritten) put(b []byte) error {
	u.mu.Lock()
	defer u.mu.Unlock()
	for u.size > maxUnwritten && u.err == nil {
		u.changed.Wait()
	}
	if u.err != nil {
		return u.err
	}
	u.queue = append(u.queue, b)
	u.size += len(b)
	u.changed.Broadcast()
	return nil
}

// close lets run end after it has written everything, or at once.
func (u *unwritten) close(now bool) {
	u.mu.Lock()
	defer u.mu.Unlock()
	u.closed = true
	if now {
		u.queue = nil
	}
	u.changed.Broadcast()
}

func (u *unwritten) next() []byte {
	u.mu.Lock()
	defer u.mu.Unlock()
	for len(u.queue) == 0 && !u.closed {
		u.changed.Wait()
	}
	if len(u.queue) == 0 {
		return nil
	}
	b := u.queue[0]
	u.queue = u.queue[1:]
	return b
}

// run writes what is queued to the stream.
func (u *unwritten) run(st Stream) {
	for b := u.next(); b != nil; b = u.next() {
		_, err := st.Write(b)
		u.mu.Lock()
		u.size -= len(b)
		u.err = err
		u.changed.Broadcast()
		u.mu.Unlock()
		if err != nil {
			return
		}
	}
}
