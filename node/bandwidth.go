package node

import (
	"sync/atomic"
	"time"

	"github.com/libp2p/go-libp2p/core/metrics"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/libp2p/go-libp2p/core/protocol"
)

// bandwidth counts bytes on all connections together. libp2p's own counter keeps rates for every
// peer and protocol and a goroutine that never ends; two numbers are all that is shown.
type bandwidth struct {
	in, out atomic.Int64
}

var _ metrics.Reporter = (*bandwidth)(nil)

// LogSentMessage implements metrics.Reporter.
func (b *bandwidth) LogSentMessage(n int64) { b.out.Add(n) }

// LogRecvMessage implements metrics.Reporter.
func (b *bandwidth) LogRecvMessage(n int64) { b.in.Add(n) }

// LogSentMessageStream implements metrics.Reporter; the bytes were counted by LogSentMessage.
func (*bandwidth) LogSentMessageStream(int64, protocol.ID, peer.ID) {}

// LogRecvMessageStream implements metrics.Reporter; the bytes were counted by LogRecvMessage.
func (*bandwidth) LogRecvMessageStream(int64, protocol.ID, peer.ID) {}

// GetBandwidthForPeer implements metrics.Reporter; it is not kept.
func (*bandwidth) GetBandwidthForPeer(peer.ID) metrics.Stats { return metrics.Stats{} }

// GetBandwidthForProtocol implements metrics.Reporter; it is not kept.
func (*bandwidth) GetBandwidthForProtocol(protocol.ID) metrics.Stats { return metrics.Stats{} }

// GetBandwidthTotals implements metrics.Reporter.
func (b *bandwidth) GetBandwidthTotals() metrics.Stats {
	return metrics.Stats{TotalIn: b.in.Load(), TotalOut: b.out.Load()}
}

// GetBandwidthByPeer implements metrics.Reporter; it is not kept.
func (*bandwidth) GetBandwidthByPeer() map[peer.ID]metrics.Stats { return nil }

// GetBandwidthByProtocol implements metrics.Reporter; it is not kept.
func (*bandwidth) GetBandwidthByProtocol() map[protocol.ID]metrics.Stats { return nil }

// Reset implements metrics.Reporter.
func (b *bandwidth) Reset() { b.in.Store(0); b.out.Store(0) }

// TrimIdle implements metrics.Reporter; nothing is kept per peer.
func (*bandwidth) TrimIdle(time.Time) {}
