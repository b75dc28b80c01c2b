package relay

import (
	"context"
	"errors"
	"sync"
	"time"

	"github.com/libp2p/go-libp2p/core/host"
	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/libp2p/go-libp2p/core/protocol"
	pbv2 "github.com/libp2p/go-libp2p/p2p/protocol/circuitv2/pb"
	relayv2 "github.com/libp2p/go-libp2p/p2p/protocol/circuitv2/relay"
	ma "github.com/multiformats/go-multiaddr"
	manet "github.com/multiformats/go-multiaddr/net"
	"golang.org/x/time/rate"
)

const (
	// circuitBuffer is what one direction of a circuit reads at a time, in bytes.
	circuitBuffer = 16 << 10
	// reservationLife is how long a reservation stands; clients renew it in time.
	reservationLife = time.Hour
)

var errOverQuota = errors.New("relay: the bytes of this day or month are used up")

// startCircuits runs libp2p's circuit relay on a view of the host whose circuit streams are slowed to
// the configured rates: the library bounds a circuit's bytes and time, not its speed.
func (s *Server) startCircuits() (stop func() error, err error) {
	c := s.cfg.Circuits
	r, err := relayv2.New(
		&shapedHost{Host: s.host, server: s},
		relayv2.WithResources(relayv2.Resources{
			Limit:                 &relayv2.RelayLimit{Duration: c.Duration, Data: c.Bytes},
			ReservationTTL:        reservationLife,
			MaxReservations:       c.Reservations,
			MaxCircuits:           c.PerPeer,
			BufferSize:            circuitBuffer,
			MaxReservationsPerIP:  c.PerIP,
			MaxReservationsPerASN: c.Reservations,
		}),
		relayv2.WithACL(access{s}),
		relayv2.WithMetricsTracer(&s.counts),
		relayv2.WithReservationAddressFilter(s.tellsAddress),
	)
	if err != nil {
		return nil, err
	}
	return r.Close, nil
}

// tellsAddress says which of its addresses the relay tells clients that reserve. Public ones; a relay
// on a private network has none, and tells what it has.
func (s *Server) tellsAddress(a ma.Multiaddr) bool {
	if manet.IsPublicAddr(a) {
		return true
	}
	for _, own := range s.host.Addrs() {
		if manet.IsPublicAddr(own) {
			return false
		}
	}
	return true
}

// access asks the operator's lists and the meter.
type access struct{ s *Server }

var _ relayv2.ACLFilter = access{}

// AllowReserve implements relayv2.ACLFilter.
func (a access) AllowReserve(p peer.ID, addr ma.Multiaddr) bool {
	return a.s.lists.Allows(p, addr) && a.s.meter.exceeded() == ""
}

// AllowConnect implements relayv2.ACLFilter.
func (a access) AllowConnect(src peer.ID, addr ma.Multiaddr, dest peer.ID) bool {
	return a.s.lists.Allows(src, addr) && a.s.lists.Allows(dest, nil) && a.s.meter.exceeded() == ""
}

// shapedHost is a host whose streams read no faster than the shaper allows.
type shapedHost struct {
	host.Host
	server *Server
}

// SetStreamHandler implements host.Host.
func (h *shapedHost) SetStreamHandler(p protocol.ID, f network.StreamHandler) {
	h.Host.SetStreamHandler(p, func(st network.Stream) { f(h.server.shape(st)) })
}

// NewStream implements host.Host.
func (h *shapedHost) NewStream(ctx context.Context, p peer.ID, protos ...protocol.ID) (network.Stream, error) {
	st, err := h.Host.NewStream(ctx, p, protos...)
	if err != nil {
		return nil, err
	}
	return h.server.shape(st), nil
}

func (s *Server) shape(st network.Stream) network.Stream {
	circuit, all, release := s.shaper.limits(st.Conn().RemotePeer())
	return &shapedStream{Stream: st, server: s, limits: append(all, circuit), release: release}
}

// shaper keeps the rates: one for everything, one for each peer, one for each circuit and direction.
type shaper struct {
	cfg Circuits
	all *rate.Limiter

	mu    sync.Mutex // guards peers
	peers map[peer.ID]*peerRate
}

type peerRate struct {
	limiter *rate.Limiter
	streams int
}

func newShaper(c Circuits) *shaper {
	return &shaper{cfg: c, all: newRate(c.Rate), peers: make(map[peer.ID]*peerRate)}
}

// newRate allows a second's worth at once, and at least one read.
func newRate(bytes int64) *rate.Limiter {
	return rate.NewLimiter(rate.Limit(bytes), max(int(bytes), circuitBuffer))
}

// limits returns the limiters for a stream from a peer; release must be called once it ended.
func (s *shaper) limits(p peer.ID) (circuit *rate.Limiter, shared []*rate.Limiter, release func()) {
	s.mu.Lock()
	defer s.mu.Unlock()
	pr := s.peers[p]
	if pr == nil {
		pr = &peerRate{limiter: newRate(s.cfg.PeerRate)}
		s.peers[p] = pr
	}
	pr.streams++
	return newRate(s.cfg.CircuitRate), []*rate.Limiter{pr.limiter, s.all}, sync.OnceFunc(func() {
		s.mu.Lock()
		defer s.mu.Unlock()
		if pr.streams--; pr.streams == 0 {
			delete(s.peers, p)
		}
	})
}

// shapedStream is one end of a circuit.
type shapedStream struct {
	network.Stream
	server  *Server
	limits  []*rate.Limiter
	release func()
}

// Read implements network.Stream: what was read is paid for before it is handed on.
func (st *shapedStream) Read(b []byte) (int, error) {
	n, err := st.Stream.Read(b[:min(len(b), circuitBuffer)])
	if err != nil {
		st.release()
	}
	if n > 0 {
		if st.server.meter.exceeded() != "" {
			_ = st.Reset()
			return 0, errOverQuota
		}
		st.wait(n)
	}
	return n, err
}

// wait sleeps until every limiter has granted n bytes.
func (st *shapedStream) wait(n int) {
	now := time.Now()
	var longest time.Duration
	for _, l := range st.limits {
		if d := l.ReserveN(now, n).DelayFrom(now); d < time.Minute {
			longest = max(longest, d)
		}
	}
	if longest > 0 {
		time.Sleep(longest) // bounded by the burst over the rate; a reset stream fails at its next read
	}
}

// Close implements network.Stream.
func (st *shapedStream) Close() error {
	st.release()
	return st.Stream.Close()
}

// Reset implements network.Stream.
func (st *shapedStream) Reset() error {
	st.release()
	return st.Stream.Reset()
}

var _ relayv2.MetricsTracer = (*counts)(nil)

// RelayStatus implements relayv2.MetricsTracer.
func (*counts) RelayStatus(bool) {}

// ConnectionOpened implements relayv2.MetricsTracer.
func (c *counts) ConnectionOpened() { c.circuits.Add(1); c.circuitsOpened.Add(1) }

// ConnectionClosed implements relayv2.MetricsTracer.
func (c *counts) ConnectionClosed(time.Duration) { c.circuits.Add(-1) }

// ConnectionRequestHandled implements relayv2.MetricsTracer.
func (c *counts) ConnectionRequestHandled(status pbv2.Status) {
	if status != pbv2.Status_OK {
		c.circuitsRefused.Add(1)
	}
}

// ReservationAllowed implements relayv2.MetricsTracer.
func (c *counts) ReservationAllowed(renewal bool) {
	if !renewal {
		c.reservations.Add(1)
	}
}

// ReservationClosed implements relayv2.MetricsTracer.
func (c *counts) ReservationClosed(n int) { c.reservations.Add(-int64(n)) }

// ReservationRequestHandled implements relayv2.MetricsTracer.
func (c *counts) ReservationRequestHandled(status pbv2.Status) {
	if status != pbv2.Status_OK {
		c.reservationsRefused.Add(1)
	}
}

// BytesTransferred implements relayv2.MetricsTracer.
func (c *counts) BytesTransferred(n int) { c.circuitBytes.Add(uint64(n)) }
