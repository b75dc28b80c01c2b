package bench

import (
	"bufio"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"sync"
	"sync/atomic"

	"github.com/libp2p/go-libp2p"
	pubsub "github.com/libp2p/go-libp2p-pubsub"
	"github.com/libp2p/go-libp2p/core/host"
	"github.com/libp2p/go-libp2p/core/metrics"
	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"
)

const (
	bareProtocol = "/bare/dm/1"
	// bareBuffer is what the anchor's writer gathers before it writes; it writes at once when nothing
	// waits.
	bareBuffer = 16 << 10
	// bareQueue is how many messages wait for the anchor's stream.
	bareQueue = 4096
)

// bare is the anchor: a go-libp2p host and gossipsub, both with the library's defaults. Direct
// messages go over one persistent stream to each peer. Nothing is stored, sealed or acknowledged.
type bare struct {
	host       host.Host
	ps         *pubsub.PubSub
	a          *Adapter
	counter    *metrics.BandwidthCounter
	duplicates atomic.Uint64

	mu      sync.Mutex // guards topics, streams
	topics  map[string]*pubsub.Topic
	streams map[peer.ID]chan string
	loops   sync.WaitGroup
}

var _ Peer = (*bare)(nil)

// ServeBare runs the adapter on the anchor until the input ends.
func ServeBare(ctx context.Context, a *Adapter, serve func(ctx context.Context, addr string, p Peer, usage func() Usage) error) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	b := &bare{a: a, counter: metrics.NewBandwidthCounter(), topics: make(map[string]*pubsub.Topic), streams: make(map[peer.ID]chan string)}
	var err error
	b.host, err = libp2p.New(libp2p.ListenAddrStrings("/ip4/127.0.0.1/tcp/0"), libp2p.BandwidthReporter(b.counter))
	if err != nil {
		return fmt.Errorf("making a bare host: %w", err)
	}
	defer b.host.Close()
	b.host.SetStreamHandler(bareProtocol, b.read)
	if b.ps, err = pubsub.NewGossipSub(ctx, b.host, pubsub.WithRawTracer(&bareTracer{b})); err != nil {
		return fmt.Errorf("starting bare gossip: %w", err)
	}
	err = serve(ctx, b.host.Addrs()[0].String()+"/p2p/"+b.host.ID().String(), b, func() Usage {
		u := processUsage()
		t := b.counter.GetBandwidthTotals()
		u.BytesIn, u.BytesOut, u.Duplicates = uint64(t.TotalIn), uint64(t.TotalOut), b.duplicates.Load()
		return u
	})
	cancel()
	b.loops.Wait()
	return err
}

// Connect implements [Peer].
func (b *bare) Connect(ctx context.Context, addr string) error {
	info, err := peer.AddrInfoFromString(addr)
	if err != nil {
		return err
	}
	return b.host.Connect(ctx, *info)
}

// Join implements [Peer].
func (b *bare) Join(ctx context.Context, room string) error {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.topics[room] != nil {
		return nil
	}
	t, err := b.ps.Join(room)
	if err != nil {
		return err
	}
	sub, err := t.Subscribe()
	if err != nil {
		return err
	}
	b.topics[room] = t
	b.loops.Go(func() { // ends with ctx of ServeBare; waited for there
		for {
			m, err := sub.Next(ctx)
			if err != nil {
				return
			}
			if m.ReceivedFrom != b.host.ID() {
				b.a.Room(string(m.Data))
			}
		}
	})
	return nil
}

// Publish implements [Peer].
func (b *bare) Publish(ctx context.Context, room, payload string) error {
	b.mu.Lock()
	t := b.topics[room]
	b.mu.Unlock()
	if t == nil {
		return fmt.Errorf("room %s is not joined", room)
	}
	return t.Publish(ctx, []byte(payload))
}

// Direct implements [Peer].
func (b *bare) Direct(ctx context.Context, addr, payload string) error {
	info, err := peer.AddrInfoFromString(addr)
	if err != nil {
		return err
	}
	b.mu.Lock()
	queue := b.streams[info.ID]
	if queue == nil {
		s, err := b.host.NewStream(ctx, info.ID, bareProtocol)
		if err != nil {
			b.mu.Unlock()
			return err
		}
		queue = make(chan string, bareQueue)
		b.streams[info.ID] = queue
		b.loops.Go(func() { b.write(ctx, s, queue) }) // ends with ctx of ServeBare; waited for there
	}
	b.mu.Unlock()
	select {
	case queue <- payload:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

func (b *bare) write(ctx context.Context, s network.Stream, queue <-chan string) {
	defer s.Close()
	w := bufio.NewWriterSize(s, bareBuffer)
	var head [4]byte
	for {
		select {
		case payload := <-queue:
			binary.BigEndian.PutUint32(head[:], uint32(len(payload)))
			w.Write(head[:])
			if _, err := w.WriteString(payload); err != nil {
				b.a.Error(err)
				return
			}
			if len(queue) == 0 {
				if err := w.Flush(); err != nil {
					b.a.Error(err)
					return
				}
			}
		case <-ctx.Done():
			return
		}
	}
}

func (b *bare) read(s network.Stream) {
	defer s.Close()
	r := bufio.NewReaderSize(s, bareBuffer)
	var head [4]byte
	for {
		if _, err := io.ReadFull(r, head[:]); err != nil {
			return
		}
		size := binary.BigEndian.Uint32(head[:])
		if size > maxLine {
			b.a.Error(errors.New("a direct message is over the size limit"))
			return
		}
		payload := make([]byte, size)
		if _, err := io.ReadFull(r, payload); err != nil {
			return
		}
		b.a.Direct(string(payload))
	}
}
