package node

import (
	"context"
	"sync"
	"time"

	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"

	"github.com/starling-chat/starling/node/plumtree"
)

const (
	// treeQueueBytes bounds what waits for one neighbour, in bytes; GossipLimits.Queue in frames.
	treeQueueBytes = 4 << 20
	// linkRetry is the pause after a stream that could not be opened; it doubles up to linkRetryMost.
	linkRetry     = time.Second
	linkRetryMost = time.Minute
	// flushTimeout is how long the end waits for what was said last to be written.
	flushTimeout = time.Second
)

// treeLink is the stream to one neighbour with what waits for it. A goroutine of its own writes while
// something waits, so that a slow neighbour keeps nobody else waiting.
type treeLink struct {
	g    *gossip
	peer peer.ID
	uses int // topics that the neighbour takes part in; guarded by gossip.linkMu

	mu     sync.Mutex // guards all below; never held across I/O
	queue  [][]byte   // frames with their prefixes
	bytes  int        // of queue
	busy   bool       // somebody opens or writes
	stream network.Stream
	failed bool // no stream could be opened: nothing is queued until one is
	retry  time.Duration
	timer  *time.Timer // tries again; nil unless failed
	gone   bool        // not used any more: what is queued is written, nothing else taken
}

// startLinks begins to serve the tree protocol. The returned function ends that, and returns when every
// goroutine of a link has ended.
func (g *gossip) startLinks(ctx context.Context) (stop func()) {
	var wg sync.WaitGroup
	served, cancel := context.WithCancel(ctx)
	start := func(f func(context.Context)) { wg.Go(func() { f(served) }) }
	g.linkMu.Lock()
	g.spawn = start
	g.linkMu.Unlock()
	g.host.SetStreamHandler(treeProtocol, func(s network.Stream) {
		done := make(chan struct{})
		// The goroutine is the handler's own; this one is waited for.
		if !g.start(func(context.Context) { <-done }) {
			_ = s.Reset()
			return
		}
		defer close(done)
		g.serveTree(served, s)
	})
	return func() {
		g.host.RemoveStreamHandler(treeProtocol)
		g.linkMu.Lock()
		g.spawn = nil
		links := g.links
		g.links = make(map[peer.ID]*treeLink)
		g.linkMu.Unlock()
		cut := time.AfterFunc(flushTimeout, func() {
			for _, l := range links {
				l.reset()
			}
		})
		for _, l := range links {
			l.close()
		}
		cancel()
		wg.Wait()
		cut.Stop()
	}
}

// start runs f in a goroutine that run waits for; false when the topic layer does not run.
func (g *gossip) start(f func(ctx context.Context)) bool {
	g.linkMu.Lock()
	defer g.linkMu.Unlock()
	if g.spawn == nil {
		return false
	}
	g.spawn(f)
	return true
}

// link returns the link to a neighbour for one more topic, opening it if it is the first; nil when the topic
// layer does not run.
func (g *gossip) link(p peer.ID) *treeLink {
	g.linkMu.Lock()
	if g.spawn == nil {
		g.linkMu.Unlock()
		return nil
	}
	l := g.links[p]
	fresh := l == nil
	if fresh {
		l = &treeLink{g: g, peer: p, busy: true}
		g.links[p] = l
	}
	l.uses++
	g.linkMu.Unlock()
	if fresh {
		g.start(l.run)
	}
	return l
}

// unlink gives back a link for one topic.
func (g *gossip) unlink(p peer.ID) {
	g.linkMu.Lock()
	l := g.links[p]
	if l == nil {
		g.linkMu.Unlock()
		return
	}
	if l.uses--; l.uses > 0 {
		g.linkMu.Unlock()
		return
	}
	delete(g.links, p)
	g.linkMu.Unlock()
	l.close()
}

// linked says whether there is a stream to a neighbour.
func (g *gossip) linked(p peer.ID) bool {
	g.linkMu.Lock()
	l := g.links[p]
	g.linkMu.Unlock()
	if l == nil {
		return false
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.stream != nil
}

// push queues a frame for a neighbour; false: it found no room, and counts as lost.
func (g *gossip) push(to plumtree.Peer, frame []byte) bool {
	g.linkMu.Lock()
	l := g.links[peer.ID(to)]
	g.linkMu.Unlock()
	if l == nil || !l.push(frame) {
		g.counters.outboundDrops.Add(1)
		return false
	}
	return true
}

// usable says whether frames are taken.
func (l *treeLink) usable() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return !l.failed && !l.gone
}

func (l *treeLink) push(frame []byte) bool {
	l.mu.Lock()
	if l.failed || l.gone || len(l.queue) >= l.g.limits.Queue || l.bytes+len(frame) > treeQueueBytes {
		l.mu.Unlock()
		return false
	}
	l.queue = append(l.queue, frame)
	l.bytes += len(frame)
	begin := !l.busy
	l.busy = true
	l.mu.Unlock()
	if begin && !l.g.start(l.run) {
		l.drop()
	}
	return true
}

// run opens a stream if there is none and writes until nothing waits. It is the busy one.
func (l *treeLink) run(ctx context.Context) {
	var batch, buf []byte
	again := false // the batch was lost with a broken stream, and is tried once more
	for {
		l.mu.Lock()
		s, gone := l.stream, l.gone
		l.mu.Unlock()
		if s == nil && gone {
			l.drop()
			return
		}
		if s == nil {
			var err error
			if s, err = l.open(ctx); err != nil {
				l.fail(err)
				return
			}
		}
		if !again {
			if batch, buf = l.take(buf[:0]); len(batch) == 0 {
				return
			}
		}
		if err := writeAll(s, batch); err == nil {
			again = false
			continue
		}
		_ = s.Reset()
		l.mu.Lock()
		if l.stream == s {
			l.stream = nil
		}
		l.mu.Unlock()
		if again {
			l.g.counters.outboundDrops.Add(1)
		}
		again = !again
	}
}

// take takes one batch from the queue: a lone frame as it is, or frames of at most writeChunk bytes together
// in buf. With an empty queue the link is idle from then on.
func (l *treeLink) take(buf []byte) (batch, rest []byte) {
	l.mu.Lock()
	defer l.mu.Unlock()
	switch n := len(l.queue); {
	case n == 0:
		l.queue, l.busy = nil, false
		if l.gone && l.stream != nil {
			_ = l.stream.Close()
			l.stream = nil
		}
		return nil, buf
	case n == 1 || len(l.queue[0])+len(l.queue[1]) > writeChunk:
		return l.next(), buf
	}
	for len(l.queue) > 0 && len(buf)+len(l.queue[0]) <= writeChunk {
		buf = append(buf, l.next()...)
	}
	return buf, buf
}

// next takes the first frame from the queue. The caller holds mu.
func (l *treeLink) next() []byte {
	frame := l.queue[0]
	l.queue[0] = nil
	l.queue = l.queue[1:]
	l.bytes -= len(frame)
	return frame
}

// open opens a stream to a neighbour that is connected, not over a limited relay.
func (l *treeLink) open(ctx context.Context) (network.Stream, error) {
	ctx, cancel := context.WithTimeout(ctx, openTimeout)
	defer cancel()
	s, err := l.g.host.NewStream(network.WithNoDial(ctx, "connected already"), l.peer, treeProtocol)
	if err != nil {
		return nil, err
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.stream, l.retry = s, 0
	return s, nil
}

// fail gives up until the next try. Meanwhile the neighbour has no place in any tree.
func (l *treeLink) fail(err error) {
	l.g.log.Debug("no tree stream", "peer", l.peer, "err", err)
	l.mu.Lock()
	lost := len(l.queue)
	l.queue, l.bytes, l.busy = nil, 0, false
	if !l.gone {
		l.failed = true
		l.retry = min(max(linkRetry, 2*l.retry), linkRetryMost)
		l.timer = time.AfterFunc(l.retry, func() { l.g.start(l.reopen) }) // stopped by close
	}
	l.mu.Unlock()
	l.g.counters.outboundDrops.Add(uint64(lost))
	l.g.replant(l, false)
}

// replant takes a neighbour out of all trees, or gives it its places back, when its link has failed or works
// again.
func (g *gossip) replant(l *treeLink, works bool) {
	g.linkMu.Lock()
	current := g.links[l.peer] == l
	g.linkMu.Unlock()
	if !current {
		return // another link has taken over
	}
	now := time.Now()
	for _, t := range g.all() {
		t.mu.Lock()
		if _, member := t.members[l.peer]; works && member {
			t.tree.AddPeer(now, plumtree.Peer(l.peer))
		} else if !works {
			t.tree.RemovePeer(now, plumtree.Peer(l.peer))
		}
		g.schedule(t)
		t.mu.Unlock()
	}
}

// reopen tries again, and gives the neighbour its places back.
func (l *treeLink) reopen(ctx context.Context) {
	l.mu.Lock()
	if l.gone || l.busy {
		l.mu.Unlock()
		return
	}
	l.busy = true
	l.mu.Unlock()
	if _, err := l.open(ctx); err != nil {
		l.fail(err)
		return
	}
	l.mu.Lock()
	l.failed = false
	l.mu.Unlock()
	l.g.replant(l, true)
	l.run(ctx)
}

// close ends the link once what waits is written.
func (l *treeLink) close() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.gone = true
	if l.timer != nil {
		l.timer.Stop()
	}
	if !l.busy && l.stream != nil {
		_ = l.stream.Close()
		l.stream = nil
	}
}

// drop forgets what waits, since nobody is there to write it.
func (l *treeLink) drop() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.g.counters.outboundDrops.Add(uint64(len(l.queue)))
	l.queue, l.bytes, l.busy = nil, 0, false
}

// reset ends the stream at once.
func (l *treeLink) reset() {
	l.mu.Lock()
	s := l.stream
	l.mu.Unlock()
	if s != nil {
		_ = s.Reset()
	}
}
