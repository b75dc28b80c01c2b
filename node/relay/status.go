package relay

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"strings"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promhttp"
)

const (
	headerTimeout = 5 * time.Second
	bodyTimeout   = 10 * time.Second
	maxHeader     = 8 << 10
	shutdownGrace = time.Second
)

// counts is what a relay counts. Nothing in it names a topic or a peer.
type counts struct {
	requests, granted, refused, malformed atomic.Uint64
	forwarded, forwardedBytes, throttled  atomic.Uint64
	circuits, reservations                atomic.Int64
	circuitsOpened, circuitsRefused       atomic.Uint64
	reservationsRefused, circuitBytes     atomic.Uint64
}

// Snapshot is the state of a relay in numbers.
type Snapshot struct {
	Topics, Clients, Leases int
	Circuits, Reservations  int64
	SentToday, SentMonth    int64
	Over                    string // why nothing is granted now; empty while all is well
}

// Snapshot returns the state now.
func (s *Server) Snapshot() Snapshot {
	s.mu.Lock()
	sn := Snapshot{Topics: len(s.table.topics), Clients: s.table.holders()}
	for _, tl := range s.table.topics {
		sn.Leases += len(tl.holders)
	}
	s.mu.Unlock()
	sn.Circuits, sn.Reservations = s.counts.circuits.Load(), s.counts.reservations.Load()
	sn.SentToday, sn.SentMonth = s.meter.used()
	sn.Over = s.meter.exceeded()
	return sn
}

// Register adds the relay's metrics to a registry. It may be called once for a registry.
func (s *Server) Register(reg prometheus.Registerer) error {
	var errs []error
	gauge := func(name, help string, f func(Snapshot) float64) {
		errs = append(errs, reg.Register(prometheus.NewGaugeFunc(
			prometheus.GaugeOpts{Namespace: "starling", Subsystem: "relay", Name: name, Help: help},
			func() float64 { return f(s.Snapshot()) },
		)))
	}
	counter := func(name, help string, v *atomic.Uint64) {
		errs = append(errs, reg.Register(prometheus.NewCounterFunc(
			prometheus.CounterOpts{Namespace: "starling", Subsystem: "relay", Name: name, Help: help},
			func() float64 { return float64(v.Load()) },
		)))
	}
	gauge("topics", "Topics forwarded now.", func(sn Snapshot) float64 { return float64(sn.Topics) })
	gauge("clients", "Peers that hold a lease.", func(sn Snapshot) float64 { return float64(sn.Clients) })
	gauge("leases", "Leases that stand.", func(sn Snapshot) float64 { return float64(sn.Leases) })
	gauge("circuits", "Circuits open now.", func(sn Snapshot) float64 { return float64(sn.Circuits) })
	gauge("reservations", "Circuit reservations that stand.", func(sn Snapshot) float64 { return float64(sn.Reservations) })
	gauge("sent_today_bytes", "Bytes sent in this UTC day.", func(sn Snapshot) float64 { return float64(sn.SentToday) })
	gauge("sent_month_bytes", "Bytes sent in this UTC month.", func(sn Snapshot) float64 { return float64(sn.SentMonth) })
	if s.archive != nil {
		s.archive.register(gauge, counter)
	}
	c := &s.counts
	counter("requests_total", "Requests of clients.", &c.requests)
	counter("leases_granted_total", "Leases given or renewed.", &c.granted)
	counter("refused_total", "Requests and topics refused.", &c.refused)
	counter("malformed_total", "Frames that no client of ours sends.", &c.malformed)
	counter("forwarded_total", "Messages admitted for forwarding.", &c.forwarded)
	counter("forwarded_bytes_total", "Their bytes, before fan-out.", &c.forwardedBytes)
	counter("throttled_total", "Messages over a topic's limits.", &c.throttled)
	counter("circuits_opened_total", "Circuits opened.", &c.circuitsOpened)
	counter("circuits_refused_total", "Circuits refused.", &c.circuitsRefused)
	counter("circuit_bytes_total", "Bytes carried over circuits.", &c.circuitBytes)
	counter("reservations_refused_total", "Reservations refused.", &c.reservationsRefused)
	return errors.Join(errs...)
}

// StatusPage serves /healthz, /metrics and a page in words. Peers is the number of connections.
type StatusPage struct {
	Server  *Server
	Metrics prometheus.Gatherer
	Peers   func() int
	ID      string
	Version string

	ln net.Listener
}

// Listen opens the address, a "host:port".
func (p *StatusPage) Listen(addr string) error {
	ln, err := net.Listen("tcp", addr)
	if err != nil {
		return fmt.Errorf("opening the status page: %w", err)
	}
	p.ln = ln
	return nil
}

// Addr returns where the page is served.
func (p *StatusPage) Addr() string { return p.ln.Addr().String() }

// Close stops listening, for a page that is never run. It is idempotent.
func (p *StatusPage) Close() error {
	if p.ln == nil {
		return nil
	}
	if err := p.ln.Close(); err != nil && !errors.Is(err, net.ErrClosed) {
		return err
	}
	return nil
}

// Run serves until ctx ends.
func (p *StatusPage) Run(ctx context.Context) error {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /healthz", p.health)
	mux.Handle("GET /metrics", promhttp.HandlerFor(p.Metrics, promhttp.HandlerOpts{MaxRequestsInFlight: 4, Timeout: bodyTimeout}))
	mux.HandleFunc("GET /{$}", p.words)
	srv := &http.Server{
		Handler: mux, ReadHeaderTimeout: headerTimeout, ReadTimeout: bodyTimeout, WriteTimeout: bodyTimeout,
		IdleTimeout: time.Minute, MaxHeaderBytes: maxHeader,
	}
	done := make(chan error, 1)
	go func() { done <- srv.Serve(p.ln) }() // ends with Shutdown or Close below
	select {
	case err := <-done:
		return fmt.Errorf("serving the status page: %w", err)
	case <-ctx.Done():
	}
	grace, cancel := context.WithTimeout(context.WithoutCancel(ctx), shutdownGrace)
	defer cancel()
	if err := srv.Shutdown(grace); err != nil {
		srv.Close()
	}
	<-done
	return nil
}

func (p *StatusPage) health(w http.ResponseWriter, _ *http.Request) {
	if over := p.Server.Snapshot().Over; over != "" {
		http.Error(w, over, http.StatusServiceUnavailable)
		return
	}
	fmt.Fprintln(w, "ok")
}

func (p *StatusPage) words(w http.ResponseWriter, _ *http.Request) {
	sn := p.Server.Snapshot()
	w.Header().Set("Content-Type", "text/plain; charset=utf-8")
	w.Header().Set("X-Content-Type-Options", "nosniff")
	var b strings.Builder
	fmt.Fprintf(&b, "starling relay %s %s\n\n", p.ID, p.Version)
	fmt.Fprintf(&b, "%d connections; %d clients hold %d leases on %d topics (of %d).\n",
		p.Peers(), sn.Clients, sn.Leases, sn.Topics, p.Server.cfg.Topics)
	fmt.Fprintf(&b, "%d circuits are open, %d places reserved (of %d).\n", sn.Circuits, sn.Reservations, p.Server.cfg.Circuits.Reservations)
	fmt.Fprintf(&b, "%s sent today, %s this month.\n", size(sn.SentToday), size(sn.SentMonth))
	c := &p.Server.counts
	fmt.Fprintf(&b, "%d messages forwarded, %d over their topic's limits; %d requests refused.\n",
		c.forwarded.Load(), c.throttled.Load(), c.refused.Load())
	if sn.Over != "" {
		fmt.Fprintf(&b, "\nNothing new is granted: %s.\n", sn.Over)
	}
	fmt.Fprint(w, b.String())
}

// size renders bytes for people.
func size(n int64) string {
	v, unit := float64(n), 0
	for units := len(" KMGT") - 1; v >= 1024 && unit < units; unit++ {
		v /= 1024
	}
	return strings.TrimSpace(fmt.Sprintf("%.1f %s", v, strings.TrimSpace(" KMGT"[unit:unit+1])+"B"))
}
