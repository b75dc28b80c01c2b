package chat

import (
	"context"
	"fmt"
	"sync"
	"time"

	"github.com/starling-chat/starling/chat/wire"
)

// links sends frames to devices without making the sender wait: one goroutine and one bounded queue
// for each device that has something to be sent.
type links struct {
	direct Direct

	mu     sync.Mutex // guards open, ctx
	ctx    context.Context
	open   map[wire.DeviceID]chan parcel
	active sync.WaitGroup
}

// parcel is frames and who wants to know what became of them.
type parcel struct {
	frames [][]byte
	result func(error) // may be nil; called once, from the link's goroutine
}

const (
	// linkQueue is how many parcels may wait for one device; more are refused.
	linkQueue = 256
	// maxLinks bounds the devices with something to be sent.
	maxLinks = 1024
	// linkTimeout bounds one send, opening a relayed stream included.
	linkTimeout = 20 * time.Second
	// linkIdle is how long a link's goroutine waits for another frame.
	linkIdle = 10 * time.Second
)

func newLinks(d Direct) *links {
	return &links{direct: d, open: make(map[wire.DeviceID]chan parcel)}
}

// start lets frames flow until ctx ends.
func (l *links) start(ctx context.Context) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.ctx = ctx
}

// wait returns when every link has ended; the context given to start must have ended.
func (l *links) wait() { l.active.Wait() }

// send queues a frame. It returns false, and never calls result, when the queue is full or nothing runs.
func (l *links) send(to wire.DeviceID, frame []byte, result func(error)) bool {
	return l.sendAll(to, [][]byte{frame}, result)
}

// sendAll is send for several frames, of which one result is told.
func (l *links) sendAll(to wire.DeviceID, frames [][]byte, result func(error)) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.ctx == nil || l.ctx.Err() != nil {
		return false
	}
	queue := l.open[to]
	if queue == nil {
		if len(l.open) >= maxLinks {
			return false
		}
		queue = make(chan parcel, linkQueue)
		l.open[to] = queue
		ctx := l.ctx
		l.active.Go(func() { l.run(ctx, to, queue) }) // ends when idle or with ctx; see wait
	}
	select {
	case queue <- parcel{frames, result}:
		return true
	default:
		return false
	}
}

func (l *links) run(ctx context.Context, to wire.DeviceID, queue chan parcel) {
	idle := time.NewTimer(linkIdle)
	defer idle.Stop()
	var failed error // the stream broke: what was queued behind is lost as well
	for {
		select {
		case p := <-queue:
			if failed == nil {
				sctx, cancel := context.WithTimeout(ctx, linkTimeout)
				failed = l.direct.Send(sctx, to, p.frames...)
				cancel()
			}
			if p.result != nil {
				p.result(failed)
			}
			if len(queue) == 0 {
				failed = nil
			}
			idle.Reset(linkIdle)
		case <-idle.C:
			if l.close(to, queue) {
				return
			}
			idle.Reset(linkIdle)
		case <-ctx.Done():
			l.drain(to, queue)
			return
		}
	}
}

// close ends a link that has nothing queued.
func (l *links) close(to wire.DeviceID, queue chan parcel) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	if len(queue) > 0 {
		return false
	}
	delete(l.open, to)
	return true
}

// drain refuses what is left when everything stops.
func (l *links) drain(to wire.DeviceID, queue chan parcel) {
	l.mu.Lock()
	delete(l.open, to)
	l.mu.Unlock()
	for {
		select {
		case p := <-queue:
			if p.result != nil {
				p.result(fmt.Errorf("sending a frame: %w", ErrStopped))
			}
		default:
			return
		}
	}
}
