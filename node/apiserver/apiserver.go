// Package apiserver serves the local API of package node/api from a chat service and the node
// around it: HTTP and JSON over a unix socket, events as server-sent events, an OpenAPI document
// generated from the Go types.
//
// It holds no state of its own besides the connections, decides nothing, and translates: chat
// types to api types, chat errors to an [api.Error] with a hint. docs/spec/api.md is the contract
// in words.
package apiserver

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"sync"
	"time"

	"github.com/starling-chat/starling/chat"
	"github.com/starling-chat/starling/node/api"
)

// Node is what the server needs to know from the node besides its chat service. All methods may be
// called from any goroutine.
type Node interface {
	// Status describes the process and its network. The server fills in what the chat service knows:
	// account, nick, rooms, outbox, gaps, unread and storage.
	Status(ctx context.Context) (api.Status, error)
	// Peers lists the connected peers.
	Peers(ctx context.Context) ([]api.Peer, error)
	// Ping measures one round trip to a peer given by peer id, or by multiaddr with one.
	// chat.ErrUnreachable says that there is no path.
	Ping(ctx context.Context, peer string) (api.PingResult, error)
	// Doctor reports on reachability within ctx.
	Doctor(ctx context.Context) (api.Doctor, error)
}

// Maintenance is what the server may do to the process and its store.
type Maintenance interface {
	// Stop asks the process to end and returns at once.
	Stop()
	// Check verifies the store while it is in use.
	Check(ctx context.Context) (api.CheckReport, error)
	// Backup returns what a backup holds besides the account.
	Backup(ctx context.Context, history bool) (api.Backup, error)
	// Purge rewrites the store without what was deleted from it.
	Purge(ctx context.Context) error
}

// Config is what a [Server] is made of.
type Config struct {
	// Chat is the service; nil on a relay that does not chat, and then everything about
	// conversations is refused with a reason.
	Chat *chat.Service
	// Node and Maintenance are required.
	Node        Node
	Maintenance Maintenance
	// Version of the program, for the OpenAPI document.
	Version string
	// Logger gets defects and nothing about content; nil discards.
	Logger *slog.Logger
	// Limits of the server; a zero field takes its default.
	Limits Limits
}

// Limits bound what front-ends may use.
type Limits struct {
	// Connections at once (64). Each costs a goroutine and some 10 KiB; more wait to be accepted.
	Connections int
	// Streams are the connections that may carry an event stream or a batch at once (48), so that
	// some are always left for calls.
	Streams int
	// Body is the largest request body in bytes (1 MiB), except that a batch is a stream.
	Body int64
	// BatchLine is the longest line of a batch in bytes (128 KiB): the longest text, escaped.
	BatchLine int
	// BatchAhead is how many messages of a batch may wait for their acceptance (256). It bounds
	// memory to that many texts a batch; below a few hundred it costs throughput.
	BatchAhead int
	// Header is how long a client may take to send a request's header (5 s), and Read its body (10 s).
	Header time.Duration
	Read   time.Duration
	// Write is how long one event may take to write before its reader is cut off (20 s).
	Write time.Duration
	// StatusPeriod is how often the status is looked at for a change that an event stream tells (2 s).
	StatusPeriod time.Duration
}

// DefaultLimits are meant for one person's front-ends on one machine.
func DefaultLimits() Limits {
	return Limits{
		Connections: 64, Streams: 48,
		Body: 1 << 20, BatchLine: 128 << 10, BatchAhead: 256,
		Header: 5 * time.Second, Read: 10 * time.Second, Write: 20 * time.Second,
		StatusPeriod: 2 * time.Second,
	}
}

func setDefault[T int | int64 | time.Duration](v *T, def T) {
	if *v <= 0 {
		*v = def
	}
}

func (l *Limits) fill() {
	d := DefaultLimits()
	setDefault(&l.Connections, d.Connections)
	setDefault(&l.Streams, d.Streams)
	setDefault(&l.Body, d.Body)
	setDefault(&l.BatchLine, d.BatchLine)
	setDefault(&l.BatchAhead, d.BatchAhead)
	setDefault(&l.Header, d.Header)
	setDefault(&l.Read, d.Read)
	setDefault(&l.Write, d.Write)
	setDefault(&l.StatusPeriod, d.StatusPeriod)
}

// stopGrace is how long calls under way may take to end after Run's context did.
const stopGrace = 2 * time.Second

// Server serves the API. Its handler is safe for concurrent use.
type Server struct {
	cfg     Config
	handler func() http.Handler // makes the routes when the first request comes: milliseconds
	streams chan struct{}       // one token for each event stream or batch
	closing chan struct{}       // closed when Run ends: streams end, calls have their grace
}

// New makes a server; it neither listens nor starts anything.
func New(cfg Config) (*Server, error) {
	if cfg.Node == nil || cfg.Maintenance == nil {
		return nil, errors.New("making the api server: node and maintenance are required")
	}
	if cfg.Logger == nil {
		cfg.Logger = slog.New(slog.DiscardHandler)
	}
	cfg.Limits.fill()
	s := &Server{
		cfg:     cfg,
		streams: make(chan struct{}, cfg.Limits.Streams),
		closing: make(chan struct{}),
	}
	s.handler = sync.OnceValue(s.routes)
	return s, nil
}

// ServeHTTP answers one request, whatever it came over.
func (s *Server) ServeHTTP(w http.ResponseWriter, r *http.Request) { s.handler().ServeHTTP(w, r) }

// Run serves ln, for instance a [Listener], until ctx ends, and closes it. It returns nil after a
// cancel, when every call ended or was cut off after a grace of two seconds. It may be called once.
func (s *Server) Run(ctx context.Context, ln net.Listener) error {
	base, cut := context.WithCancel(context.WithoutCancel(ctx))
	defer cut()
	srv := &http.Server{
		Handler:           s,
		ReadHeaderTimeout: s.cfg.Limits.Header,
		IdleTimeout:       2 * time.Minute,
		MaxHeaderBytes:    16 << 10,
		BaseContext:       func(net.Listener) context.Context { return base },
		ErrorLog:          slog.NewLogLogger(s.cfg.Logger.Handler(), slog.LevelDebug),
	}
	done := make(chan error, 1)
	go func() { done <- srv.Serve(limit(ln, s.cfg.Limits.Connections)) }() // ends with srv
	select {
	case err := <-done:
		return fmt.Errorf("serving the api: %w", err)
	case <-ctx.Done():
	}
	close(s.closing)
	grace, cancel := context.WithTimeout(base, stopGrace)
	defer cancel()
	if err := srv.Shutdown(grace); err != nil {
		cut()
		srv.Close()
	}
	<-done
	return nil
}
