package node

import (
	"context"
	"encoding/binary"
	"fmt"
	"sync"
	"time"

	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"

	"github.com/starling-chat/starling/chat"
)

// link is the sending side to one device: a queue, and the stream it is written to. Whoever adds a
// frame while nobody writes becomes the writer, and writes what others add meanwhile in the same
// piece; so a lone frame costs no hand-over between goroutines, and many cost few writes.
type link struct {
	d    *direct
	peer peer.ID

	mu      sync.Mutex // guards all below; never held across I/O
	queue   []*outgoing
	bytes   int           // of queue
	space   chan struct{} // closed when the queue shrinks; nil when nobody waits for that
	busy    bool          // somebody connects, writes or switches streams
	stream  network.Stream
	ended   chan struct{} // closed when the other side closed or broke stream
	relayed bool          // stream runs over a relay
	stale   bool          // a better path stands: switch before the next write
	used    time.Time
	gone    bool // abandoned: a new link takes over
	buf     []byte
}

// outgoing is one frame that waits. done gets exactly one result.
type outgoing struct {
	frame []byte
	done  chan error
	left  bool // the sender gave up; owned by link.mu
}

const framePrefix = 4 // bytes; see wire.AppendFrame

// send queues frames and returns once they were written, refused, or ctx ended.
func (l *link) send(ctx context.Context, frames [][]byte) error {
	size := 0
	for _, frame := range frames {
		size += len(frame)
	}
	l.mu.Lock()
	for l.bytes > 0 && l.bytes+size > l.d.queue && !l.gone {
		if l.space == nil {
			l.space = make(chan struct{})
		}
		space := l.space
		l.mu.Unlock()
		select {
		case <-space:
		case <-ctx.Done():
			return fmt.Errorf("%w: queue is full: %w", chat.ErrUnreachable, ctx.Err())
		}
		l.mu.Lock()
	}
	list := make([]*outgoing, len(frames))
	write := func() {}
	for i, frame := range frames {
		var act func()
		if list[i], act = l.add(frame); i == 0 {
			write = act // the first one makes the link busy, if it was not
		}
	}
	l.mu.Unlock()
	write()
	for i, o := range list {
		select {
		case err := <-o.done:
			if err != nil {
				return err
			}
		case <-ctx.Done():
			l.mu.Lock()
			for _, o := range list[i:] {
				o.left = true
			}
			l.mu.Unlock()
			return fmt.Errorf("%w: %w", chat.ErrUnreachable, ctx.Err())
		}
	}
	return nil
}

// add puts a frame into the queue. The caller holds mu, and calls act once it does not: that writes the
// frame if nobody else does.
func (l *link) add(frame []byte) (o *outgoing, act func()) {
	o = &outgoing{frame: frame, done: make(chan error, 1)}
	if l.gone {
		o.done <- chat.ErrUnreachable
		return o, func() {}
	}
	l.queue = append(l.queue, o)
	l.bytes += len(frame)
	if l.busy {
		return o, func() {}
	}
	l.busy = true
	if l.alive() && !l.stale {
		return o, l.write
	}
	return o, l.begin
}

// begin has a stream opened or replaced, and the queue written to it. The caller made the link busy.
func (l *link) begin() {
	if !l.d.start(l.connect) {
		l.fail(chat.ErrUnreachable)
	}
}

// write writes the first batch of the queue on the stream. The caller is the busy one. What came
// in meanwhile is left to a goroutine, so that one sender does not work for all others.
func (l *link) write() {
	l.flush()
	l.mu.Lock()
	more := len(l.queue) > 0
	if !more {
		l.busy = false
	}
	l.mu.Unlock()
	if more {
		l.begin()
	}
}

// connect opens a stream if there is none, then writes until the queue is empty. It is the busy one.
func (l *link) connect(ctx context.Context) {
	for {
		l.mu.Lock()
		if len(l.queue) == 0 && !l.stale {
			l.busy = false
			l.mu.Unlock()
			return
		}
		alive, stale := l.alive(), l.stale
		l.mu.Unlock()
		if stale {
			l.drain(ctx)
			continue
		}
		if !alive {
			if err := l.open(ctx); err != nil {
				l.fail(err)
				return
			}
		}
		l.flush()
	}
}

// alive says whether there is a stream that the other side has not closed. The caller holds mu.
func (l *link) alive() bool {
	if l.stream == nil {
		return false
	}
	select {
	case <-l.ended:
		l.stream = nil
		return false
	default:
		return true
	}
}

// open opens a stream and puts the greeting in front of the queue.
func (l *link) open(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, reachTimeout)
	defer cancel()
	s, err := l.d.open(ctx, l.peer, dmProtocol)
	if err != nil {
		return err
	}
	greeting := l.d.greet()
	ended := make(chan struct{})
	l.mu.Lock()
	if l.gone {
		l.mu.Unlock()
		_ = s.Reset()
		return chat.ErrUnreachable
	}
	l.stream, l.ended, l.stale = s, ended, false
	l.relayed = connPath(s.Conn()) == chat.PathRelayed
	l.used = time.Now()
	if len(greeting) > 0 {
		l.queue = append([]*outgoing{{frame: greeting, done: make(chan error, 1)}}, l.queue...)
		l.bytes += len(greeting)
	}
	l.mu.Unlock()
	// The other side never writes; its end of the stream tells when it is gone.
	if !l.d.start(func(context.Context) { l.watch(s, ended) }) {
		_ = s.Reset()
		return chat.ErrUnreachable
	}
	return nil
}

// watch waits for the other side to close the stream or for the stream to break.
func (l *link) watch(s network.Stream, ended chan struct{}) {
	_, _ = s.Read(make([]byte, 1))
	close(ended)
	_ = s.Reset()
}

// flush writes one batch of at most writeChunk bytes, or one larger frame. The caller is the busy one.
func (l *link) flush() {
	l.mu.Lock()
	var batch []*outgoing
	buf := l.buf[:0]
	for len(l.queue) > 0 {
		o := l.queue[0]
		if len(batch) > 0 && len(buf)+framePrefix+len(o.frame) > writeChunk {
			break
		}
		l.queue = l.queue[1:]
		l.bytes -= len(o.frame)
		if o.left {
			continue
		}
		buf = binary.BigEndian.AppendUint32(buf, uint32(len(o.frame)))
		buf = append(buf, o.frame...)
		batch = append(batch, o)
	}
	if len(l.queue) == 0 {
		l.queue = nil
	}
	l.buf = buf
	if l.space != nil {
		close(l.space)
		l.space = nil
	}
	s := l.stream
	l.used = time.Now()
	l.mu.Unlock()
	if len(batch) == 0 {
		return
	}
	err := writeAll(s, buf)
	if err != nil {
		err = fmt.Errorf("%w: writing: %w", chat.ErrUnreachable, err)
		_ = s.Reset()
		l.mu.Lock()
		if l.stream == s {
			l.stream = nil
		}
		l.mu.Unlock()
	}
	for _, o := range batch {
		o.done <- err
	}
}

func writeAll(s network.Stream, b []byte) error {
	if s == nil {
		return fmt.Errorf("stream ended")
	}
	if err := s.SetWriteDeadline(time.Now().Add(writeTimeout)); err != nil {
		return err
	}
	for len(b) > 0 {
		n, err := s.Write(b[:min(len(b), writeChunk)])
		if err != nil {
			return err
		}
		b = b[n:]
	}
	return nil
}

// drain ends a stream that a better path replaces: it says that no more comes, and waits a little for
// the other side to have read it all, so that nothing on the next stream overtakes it.
func (l *link) drain(ctx context.Context) {
	l.mu.Lock()
	s, ended := l.stream, l.ended
	l.stream, l.stale = nil, false
	l.mu.Unlock()
	if s == nil {
		return
	}
	if err := s.CloseWrite(); err == nil {
		t := time.NewTimer(drainTimeout)
		select {
		case <-ended:
		case <-t.C:
		case <-ctx.Done():
		}
		t.Stop()
	}
	_ = s.Reset()
}

// pathChanged reacts to a new path to the peer.
func (l *link) pathChanged(path chat.Path) {
	l.mu.Lock()
	if l.stream == nil || !l.relayed || pathRank(path) <= pathRank(chat.PathRelayed) {
		l.mu.Unlock()
		return
	}
	l.stale = true
	writer := !l.busy
	l.busy = true
	l.mu.Unlock()
	if writer {
		l.begin()
	}
}

// fail answers everybody who waits and ends the busy state.
func (l *link) fail(err error) {
	l.mu.Lock()
	queue := l.queue
	l.queue, l.bytes, l.busy = nil, 0, false
	if l.space != nil {
		close(l.space)
		l.space = nil
	}
	l.mu.Unlock()
	for _, o := range queue {
		o.done <- err
	}
}

// abandon closes the stream and refuses further frames.
func (l *link) abandon() {
	l.mu.Lock()
	s := l.stream
	l.stream, l.gone = nil, true
	busy := l.busy
	l.mu.Unlock()
	if s != nil {
		// What was written still arrives: the other side reads to the end and closes, which ends watch.
		_ = s.CloseWrite()
		_ = s.SetReadDeadline(time.Now().Add(drainTimeout / 2))
	}
	if !busy {
		l.fail(chat.ErrUnreachable)
	}
}

// lastUse says when the link last wrote, and whether it is idle.
func (l *link) lastUse() (time.Time, bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.used, !l.busy && len(l.queue) == 0
}
