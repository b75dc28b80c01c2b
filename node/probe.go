package node

import (
	"context"
	"errors"
	"time"

	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/libp2p/go-libp2p/p2p/protocol/ping"
	msmux "github.com/multiformats/go-multistream"

	"github.com/starling-chat/starling/chat"
)

const (
	// probeTimeout is how long a connection that is being asked may be silent before it counts as dead.
	// The transports find out by themselves after 30 to 40 s; a second of a slow mobile network and a
	// lost packet or two have room in this.
	probeTimeout = 4 * time.Second
	// maxProbes bounds the probes under way at once.
	maxProbes = 64
)

// probed is the result of asking one connection.
type probed struct {
	peer  peer.ID
	conn  network.Conn
	alive bool
}

// answers asks the other end of one connection for anything at all, and says whether it came. A
// connection whose other end has moved away stands for half a minute as if nothing had happened, and
// the library would prefer it to one that works. Only silence counts as death: a refusal is an answer.
func answers(ctx context.Context, c network.Conn) bool {
	ctx, cancel := context.WithTimeout(network.WithAllowLimitedConn(ctx, "probe"), probeTimeout)
	defer cancel()
	s, err := c.NewStream(ctx)
	if err != nil {
		return ctx.Err() == nil && !c.IsClosed()
	}
	end := context.AfterFunc(ctx, func() { _ = s.Reset() })
	defer end()
	err = msmux.SelectProtoOrFail(ping.ID, s)
	if err == nil {
		_ = s.Close()
		return true
	}
	_ = s.Reset()
	var unknown msmux.ErrNotSupported[string]
	return errors.As(err, &unknown) || (ctx.Err() == nil && !c.IsClosed())
}

// probe asks a connection in a goroutine that ends within the time-out or with ctx; run waits for it. A
// dead one is closed there: saying goodbye to nobody may take a while.
func (t *paths) probe(ctx context.Context, p peer.ID, c network.Conn) {
	if len(t.asking) >= maxProbes || t.asking[c] {
		return
	}
	t.asking[c] = true
	t.probes.Go(func() {
		r := probed{peer: p, conn: c, alive: answers(ctx, c)}
		if !r.alive && ctx.Err() == nil {
			t.log.Debug("connection is dead", "peer", p, "relayed", connPath(c) == chat.PathRelayed)
			_ = c.Close()
		}
		select {
		case t.results <- r:
		case <-ctx.Done():
		}
	})
}

// probeAll makes run ask every connection: the machine slept, or has another address.
func (t *paths) probeAll() {
	t.mu.Lock()
	for _, p := range t.host.Network().Peers() {
		t.dirty[p] = markAll
	}
	t.mu.Unlock()
	t.wake()
}
