package relay

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"sync"
	"time"

	"github.com/libp2p/go-libp2p/core/host"
	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"
	ma "github.com/multiformats/go-multiaddr"

	"github.com/starling-chat/starling/chat/wire"
)

const (
	serviceName = "starling.relay"
	// Read deadlines of a client's stream: its first byte, and the next request.
	firstByteTimeout = 10 * time.Second
	idleTimeout      = 2 * time.Minute
	// answerTimeout bounds writing an answer.
	answerTimeout = 10 * time.Second
	// sweepEvery is how often leases that ran out are taken back and the lists looked at: a denied
	// peer is gone within five seconds.
	sweepEvery = 2 * time.Second
	// subscribePatience bounds the wait for the topic layer of a client that attaches, and subscribeLook is how
	// often it is looked at: its subscription comes on a stream of its own, mostly sooner than the request.
	subscribePatience = 2 * time.Second
	subscribeLook     = 10 * time.Millisecond
	// requestBurst is how many requests a client may make at once, out of a minute's.
	requestBurst = 20
)

// Forwarder passes the messages of a topic on without reading them. The node's topic layer is one.
type Forwarder interface {
	// Forward begins to take part in a topic; stop ends it. Several calls for one topic add up.
	Forward(topic wire.TopicKey) (stop func(), err error)
	// Subscribed says whether a peer takes part in a topic, so that it is handed what passes.
	Subscribed(topic wire.TopicKey, p peer.ID) bool
	// Pass hands a checked event that came by sync to those who take part in its topic, if it is forwarded.
	Pass(ctx context.Context, s *wire.Sealed) error
}

// Server serves wire.RelayProtocol on a host, and the circuit relay.
type Server struct {
	host    host.Host
	self    wire.DeviceID
	cfg     Config
	log     *slog.Logger
	lists   *Lists
	forward Forwarder
	meter   *meter
	shaper  *shaper
	counts  counts
	archive *Archive // nil: nothing is kept

	mu    sync.Mutex // guards table
	table *table
}

// Parts are what a Server works with.
type Parts struct {
	Host    host.Host
	Forward Forwarder
	Archive *Archive     // keeps events and mail for those who are away; nil keeps nothing
	Lists   *Lists       // nil admits everybody
	Sent    func() int64 // bytes this node has sent since its start, for the daily cap
	Store   UsageStore   // keeps what was used; nil forgets at a restart
	Now     func() time.Time
	Logger  *slog.Logger
}

// New makes a server. Nothing is served before Run.
func New(cfg Config, p Parts) (*Server, error) {
	cfg.Fill()
	self, err := wire.DeviceFromPeerID([]byte(p.Host.ID()))
	if err != nil {
		return nil, fmt.Errorf("making a relay: %w", err)
	}
	if p.Logger == nil {
		p.Logger = slog.New(slog.DiscardHandler)
	}
	if p.Now == nil {
		p.Now = time.Now
	}
	if p.Lists == nil {
		p.Lists = &Lists{log: p.Logger}
	}
	s := &Server{
		host: p.Host, self: self, cfg: cfg, log: p.Logger, lists: p.Lists, forward: p.Forward,
		archive: p.Archive,
		meter:   newMeter(cfg.Circuits, p.Sent, p.Store, p.Now),
		shaper:  newShaper(cfg.Circuits),
		table:   newTable(cfg),
	}
	if s.archive != nil && s.forward != nil {
		s.archive.pass = s.forward.Pass
	}
	return s, nil
}

// Run serves until ctx ends, then gives up all topics and circuits and returns nil.
func (s *Server) Run(ctx context.Context) error {
	if err := s.meter.load(ctx); err != nil {
		return err
	}
	stopCircuits, err := s.startCircuits()
	if err != nil {
		return fmt.Errorf("starting the circuit relay: %w", err)
	}
	var handlers sync.WaitGroup
	s.host.SetStreamHandler(wire.RelayProtocol, func(st network.Stream) {
		if ctx.Err() != nil {
			_ = st.Reset()
			return
		}
		handlers.Add(1)
		defer handlers.Done()
		end := context.AfterFunc(ctx, func() { _ = st.Reset() })
		defer end()
		s.serve(st)
	})
	archived := make(chan error, 1)
	if s.archive == nil {
		archived <- nil
	} else {
		go func() { // ends with ctx; waited for below
			archived <- s.archive.run(ctx, s.host, func(c network.Conn) bool {
				return s.lists.Allows(c.RemotePeer(), c.RemoteMultiaddr())
			})
		}()
	}
	tick := time.NewTicker(sweepEvery)
	defer tick.Stop()
	for done := false; !done; {
		select {
		case <-tick.C:
			s.sweep(time.Now())
			if err := s.meter.save(ctx); err != nil {
				s.log.Warn("usage not remembered", "err", err)
			}
			s.dropDenied()
		case <-ctx.Done():
			done = true
		}
	}
	s.host.RemoveStreamHandler(wire.RelayProtocol)
	handlers.Wait()
	s.mu.Lock()
	stops := s.table.clear()
	s.mu.Unlock()
	for _, stop := range stops {
		stop()
	}
	last := context.WithoutCancel(ctx)
	return errors.Join(<-archived, stopCircuits(), s.meter.save(last))
}

// serve answers one client's stream.
func (s *Server) serve(st network.Stream) {
	if err := s.answerAll(st); err != nil {
		s.log.Debug("relay stream ended", "peer", st.Conn().RemotePeer(), "err", err)
		_ = st.Reset()
		return
	}
	_ = st.Close()
}

func (s *Server) answerAll(st network.Stream) error {
	if err := st.SetReadDeadline(time.Now().Add(firstByteTimeout)); err != nil {
		return err
	}
	if err := st.Scope().SetService(serviceName); err != nil {
		return err
	}
	if err := st.Scope().ReserveMemory(wire.MaxFrame, network.ReservationPriorityMedium); err != nil {
		return err
	}
	p := st.Conn().RemotePeer()
	client, err := wire.DeviceFromPeerID([]byte(p))
	if err != nil {
		return err
	}
	in := bufio.NewReaderSize(st, 4<<10)
	for {
		payload, err := wire.ReadFrame(in, wire.MaxFrame)
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
		answer, err := s.answer(p, st.Conn().RemoteMultiaddr(), client, payload)
		if err != nil {
			return err
		}
		b, err := wire.AppendFrame(nil, answer)
		if err != nil {
			return err
		}
		if err := st.SetWriteDeadline(time.Now().Add(answerTimeout)); err != nil {
			return err
		}
		if _, err := st.Write(b); err != nil {
			return err
		}
		if err := st.SetReadDeadline(time.Now().Add(idleTimeout)); err != nil {
			return err
		}
	}
}

// answer decides about one request. An error means that the stream is no use any more.
func (s *Server) answer(p peer.ID, addr ma.Multiaddr, client wire.DeviceID, payload []byte) (*wire.RelayAttached, error) {
	s.counts.requests.Add(1)
	if !s.lists.Allows(p, addr) {
		s.counts.refused.Add(1)
		return s.refusal(wire.RelayDenied, "this relay's operator does not admit you"), nil
	}
	s.mu.Lock()
	within := s.table.request(p, time.Now())
	s.mu.Unlock()
	if !within {
		s.counts.refused.Add(1)
		return s.refusal(wire.RelayRateLimit, fmt.Sprintf("at most %d requests a minute", s.cfg.Requests)), nil
	}
	f, err := wire.ParseRelayFrame(payload)
	switch {
	case errors.Is(err, wire.ErrUnsupported):
		return s.refusal(wire.RelayNotOffered, "this relay does not know that request"), nil
	case err != nil:
		s.counts.malformed.Add(1)
		return nil, err
	}
	switch f := f.(type) {
	case *wire.RelayAttach:
		answer := s.attach(p, client, f)
		s.awaitSubscriptions(p, answer.Grants)
		return answer, nil
	case *wire.RelayDetach:
		s.detach(p, f.Topics)
		return &wire.RelayAttached{Code: wire.RelayOK, Limits: s.limits()}, nil
	default:
		return nil, errors.New("a client does not answer")
	}
}

func (s *Server) refusal(code wire.RelayCode, detail string) *wire.RelayAttached {
	return &wire.RelayAttached{Code: code, Limits: s.limits(), Detail: detail}
}

func (s *Server) limits() wire.RelayLimits {
	l := wire.RelayLimits{
		Topics:          uint32(s.cfg.TopicsPerPeer),
		EventsPerSecond: uint32(s.cfg.EventsPerSecond),
		BytesPerSecond:  uint32(s.cfg.BytesPerSecond),
	}
	if s.archive != nil {
		s.archive.limits(&l)
	}
	return l
}

// attach grants leases for the topics whose key the client holds. A relay without an archive
// forwards what it is asked to mirror: its limits say that it keeps nothing.
func (s *Server) attach(p peer.ID, client wire.DeviceID, f *wire.RelayAttach) *wire.RelayAttached {
	answer := &wire.RelayAttached{Code: wire.RelayOK, Limits: s.limits()}
	if over := s.meter.exceeded(); over != "" {
		s.counts.refused.Add(1)
		return s.refusal(wire.RelayQuota, over)
	}
	lease := min(f.Lease, s.cfg.Lease)
	proved := f.VerifyAttach(s.self, client)
	for i, t := range f.Topics {
		g := wire.RelayGrant{Topic: t.Topic, Code: wire.RelayBadProof}
		if proved[i] {
			until := time.Now().Add(lease)
			g.Code = s.grant(p, t.Topic, until)
			if g.Code == wire.RelayOK && f.Want == wire.WantMirror && s.archive != nil {
				s.archive.want(t.Topic, until)
			}
		}
		switch g.Code {
		case wire.RelayOK:
			g.Lease = lease
			s.counts.granted.Add(1)
		default:
			s.counts.refused.Add(1)
			answer.Detail = s.explain(g.Code)
		}
		answer.Grants = append(answer.Grants, g)
	}
	return answer
}

// awaitSubscriptions makes an answer mean what it says: from here on the client is handed what passes in the
// topics that it was granted. What passed before it fetches by sync.
func (s *Server) awaitSubscriptions(p peer.ID, grants []wire.RelayGrant) {
	if s.forward == nil {
		return
	}
	patience := time.NewTimer(subscribePatience)
	defer patience.Stop()
	look := time.NewTicker(subscribeLook)
	defer look.Stop()
	for _, g := range grants {
		for g.Code == wire.RelayOK && !s.forward.Subscribed(g.Topic, p) {
			select {
			case <-look.C:
			case <-patience.C:
				s.log.Debug("a client was granted topics that it has not subscribed to", "peer", p)
				return // it may have no topic layer at all
			}
		}
	}
}

// explain names the limit behind a code.
func (s *Server) explain(code wire.RelayCode) string {
	switch code {
	case wire.RelayTopicLimit:
		return fmt.Sprintf("at most %d rooms for each client", s.cfg.TopicsPerPeer)
	case wire.RelayFull:
		return fmt.Sprintf("full: at most %d rooms and %d clients", s.cfg.Topics, s.cfg.Clients)
	case wire.RelayBadProof:
		return "the proof does not show that you hold the room's key"
	default:
		return "refused"
	}
}

// grant gives or renews one lease. Joining a topic takes a few steps in the topic layer, so the table
// is not locked meanwhile: two first leases at once both join, and both are counted.
func (s *Server) grant(p peer.ID, topic wire.TopicKey, until time.Time) wire.RelayCode {
	s.mu.Lock()
	code, join := s.table.grant(p, topic, until)
	s.mu.Unlock()
	if code != wire.RelayOK || !join {
		return code
	}
	stop, err := s.forward.Forward(topic)
	if err != nil {
		s.log.Warn("topic not forwarded", "err", err)
		s.detach(p, []wire.TopicKey{topic})
		return wire.RelayFull
	}
	s.mu.Lock()
	kept := s.table.joined(topic, stop)
	s.mu.Unlock()
	if !kept {
		stop() // the lease was given back meanwhile, or somebody else joined first
	}
	return wire.RelayOK
}

func (s *Server) detach(p peer.ID, topics []wire.TopicKey) {
	s.mu.Lock()
	stops := s.table.release(p, topics)
	s.mu.Unlock()
	for _, stop := range stops {
		stop()
	}
}

func (s *Server) sweep(now time.Time) {
	s.mu.Lock()
	stops := s.table.expire(now)
	s.mu.Unlock()
	for _, stop := range stops {
		stop()
	}
}

// Admit says whether one message of a topic is within its limits. It is called for every message and
// takes no lock that is held for long.
func (s *Server) Admit(topic wire.TopicKey, size int) bool {
	s.mu.Lock()
	b := s.table.bucket(topic)
	s.mu.Unlock()
	if b == nil {
		return true // not ours to limit: the mesh knows the topic from somebody else
	}
	if s.meter.exceeded() != "" || !b.take(time.Now(), size) {
		s.counts.throttled.Add(1)
		return false
	}
	s.counts.forwarded.Add(1)
	s.counts.forwardedBytes.Add(uint64(size))
	return true
}

// dropDenied closes connections of peers that the lists do not admit any more.
func (s *Server) dropDenied() {
	if !s.lists.reload() {
		return
	}
	for _, c := range s.host.Network().Conns() {
		if !s.lists.Allows(c.RemotePeer(), c.RemoteMultiaddr()) {
			s.mu.Lock()
			stops := s.table.releaseAll(c.RemotePeer())
			s.mu.Unlock()
			for _, stop := range stops {
				stop()
			}
			_ = c.Close()
		}
	}
}
