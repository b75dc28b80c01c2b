package relay

import (
	"context"
	"crypto/ed25519"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/libp2p/go-libp2p/core/host"
	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/libp2p/go-libp2p/core/protocol"
	"golang.org/x/time/rate"

	roomsync "github.com/starling-chat/starling/chat/sync"
	"github.com/starling-chat/starling/chat/wire"
	"github.com/starling-chat/starling/storage"
)

// Archive keeps, for those who are away, what it cannot read: the sealed events of attached topics
// (the mirror) and sealed direct messages (mailboxes). It serves wire.MailboxProtocol and the sync
// protocol. Its methods may be called from any goroutine.
type Archive struct {
	cfg      ArchiveConfig
	store    *storage.Store
	self     wire.DeviceID
	key      ed25519.PrivateKey // of self
	now      func() time.Time
	log      *slog.Logger
	verifier *wire.Verifier
	counts   archiveCounts
	// pass hands on what members brought by sync while it was fresh; nil hands on nothing.
	pass func(ctx context.Context, s *wire.Sealed) error

	queue chan kept // sealed events on their way to the store

	mu     sync.Mutex                  // guards wanted, rates
	wanted map[wire.TopicKey]time.Time // topics to keep, until when
	rates  map[peer.ID]*rate.Limiter   // requests of one peer
	busy   map[wire.TopicKey]struct{}  // topics with a sync session; guarded by mu too
	slots  chan struct{}               // one for each stream that is served
}

// ArchiveConfig are the limits of an archive. Zero fields take the default.
type ArchiveConfig struct {
	// Events, Bytes and Age bound what is kept of one topic (10,000; 64 MiB; 14 days).
	Events int
	Bytes  int64
	Age    time.Duration
	// MailboxItems, MailboxBytes and MailboxAge bound one mailbox (20,000; 64 MiB; 14 days).
	MailboxItems int
	MailboxBytes int64
	MailboxAge   time.Duration
	// Total bounds the disk that all of it takes (5 GiB). Over it the oldest of the biggest topics
	// goes; mailboxes are left alone, and take no deposit.
	Total int64
	// Requests bounds what one peer may ask a minute (3,000).
	Requests int
	// Streams bounds the streams served at once (512).
	Streams int
}

func (c *ArchiveConfig) fill() {
	setDefault(&c.Events, 10_000)
	setDefault(&c.Bytes, 64<<20)
	setDefault(&c.Age, 14*24*time.Hour)
	setDefault(&c.MailboxItems, 20_000)
	setDefault(&c.MailboxBytes, 64<<20)
	setDefault(&c.MailboxAge, wire.MaxMailboxLife)
	setDefault(&c.Total, 5<<30)
	setDefault(&c.Requests, 3000)
	setDefault(&c.Streams, 512)
}

// The names of an archive's streams in its store.
const (
	mirrorPrefix  = "mirror/"
	mailboxPrefix = "mailbox/"
)

// maintainEvery is how often quotas are enforced and old records dropped.
const maintainEvery = time.Minute

// NewArchive makes an archive on a store of its own: expired records are swept out of it. key is the
// relay's device key, which signs receipts.
func NewArchive(cfg ArchiveConfig, store *storage.Store, key ed25519.PrivateKey, now func() time.Time, log *slog.Logger) *Archive {
	cfg.fill()
	if now == nil {
		now = time.Now
	}
	if log == nil {
		log = slog.New(slog.DiscardHandler)
	}
	return &Archive{
		cfg: cfg, store: store, self: wire.DeviceID(key.Public().(ed25519.PublicKey)), key: key, now: now, log: log,
		verifier: wire.NewVerifier(wire.DefaultVerifierLimits()),
		queue:    make(chan kept, mirrorQueue),
		wanted:   make(map[wire.TopicKey]time.Time),
		rates:    make(map[peer.ID]*rate.Limiter),
		busy:     make(map[wire.TopicKey]struct{}),
		slots:    make(chan struct{}, cfg.Streams),
	}
}

// run serves on a host until ctx ends. allows says whom the operator admits.
func (a *Archive) run(ctx context.Context, h host.Host, allows func(network.Conn) bool) error {
	var handlers sync.WaitGroup
	for id, serve := range map[protocol.ID]func(context.Context, network.Stream, wire.DeviceID) error{
		wire.MailboxProtocol: a.serveMailbox,
		roomsync.Protocol:    a.serveSync,
	} {
		h.SetStreamHandler(id, func(st network.Stream) {
			if ctx.Err() != nil || !allows(st.Conn()) {
				_ = st.Reset()
				return
			}
			handlers.Add(1)
			defer handlers.Done()
			end := context.AfterFunc(ctx, func() { _ = st.Reset() })
			defer end()
			if err := a.admit(ctx, st, serve); err != nil {
				a.log.Debug("archive stream ended", "err", err)
				_ = st.Reset()
				return
			}
			_ = st.Close()
		})
	}
	a.keepAll(ctx)
	h.RemoveStreamHandler(wire.MailboxProtocol)
	h.RemoveStreamHandler(roomsync.Protocol)
	handlers.Wait()
	return nil
}

var errBusy = errors.New("too many streams at once")

// admit takes a slot and the stream's resources before anything is read.
func (a *Archive) admit(ctx context.Context, st network.Stream, serve func(context.Context, network.Stream, wire.DeviceID) error) error {
	select {
	case a.slots <- struct{}{}:
		defer func() { <-a.slots }()
	default:
		return errBusy
	}
	if err := st.Scope().SetService(serviceName); err != nil {
		return err
	}
	if err := st.Scope().ReserveMemory(4*wire.MaxFrame, network.ReservationPriorityMedium); err != nil {
		return err
	}
	client, err := wire.DeviceFromPeerID([]byte(st.Conn().RemotePeer()))
	if err != nil {
		return err
	}
	return serve(ctx, st, client)
}

// within says whether a peer is within its request rate.
func (a *Archive) within(p peer.ID) bool {
	a.mu.Lock()
	l := a.rates[p]
	if l == nil {
		l = rate.NewLimiter(rate.Limit(a.cfg.Requests)/60, max(a.cfg.Requests/2, 1))
		a.rates[p] = l
	}
	a.mu.Unlock()
	return l.AllowN(time.Now(), 1)
}

// want keeps a topic's events from now until a time.
func (a *Archive) want(topic wire.TopicKey, until time.Time) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if until.After(a.wanted[topic]) {
		a.wanted[topic] = until
	}
}

func (a *Archive) wants(topic wire.TopicKey) bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	return time.Now().Before(a.wanted[topic])
}

// forget drops the topics nobody wants any more and the limiters that are full again.
func (a *Archive) forget(now time.Time) {
	a.mu.Lock()
	defer a.mu.Unlock()
	for topic, until := range a.wanted {
		if now.After(until) {
			delete(a.wanted, topic)
		}
	}
	for p, l := range a.rates {
		if l.TokensAt(now) >= float64(l.Burst()) {
			delete(a.rates, p)
		}
	}
}

// maintain drops what is too old or over a quota. Only the goroutine of keepAll calls it.
func (a *Archive) maintain(ctx context.Context) error {
	a.forget(time.Now())
	if _, err := a.store.Sweep(ctx, nil); err != nil {
		return err
	}
	streams, err := a.store.Streams(ctx)
	if err != nil {
		return err
	}
	before := storage.ClockTime(a.now().Add(-a.cfg.Age))
	var bytes uint64
	for _, info := range streams {
		if strings.HasPrefix(info.Name, mirrorPrefix) {
			if _, err := a.store.Trim(ctx, info.ID, storage.Retention{Before: before}); err != nil {
				return err
			}
		}
		if info.Count == 0 && info.Arrival > 0 { // emptied; a new deposit makes it again
			if err := a.store.DropStream(ctx, info.ID); err != nil {
				return err
			}
		}
		bytes += info.Bytes
	}
	a.counts.bytes.Store(int64(bytes))
	_, err = a.store.Cap(ctx, uint64(a.cfg.Total), func(info storage.StreamInfo) bool {
		return strings.HasPrefix(info.Name, mailboxPrefix)
	})
	return err
}

// full says that deposits would go over the archive's disk.
func (a *Archive) full() bool { return a.counts.bytes.Load() >= a.cfg.Total }

// limits are what clients may count on.
func (a *Archive) limits(l *wire.RelayLimits) {
	l.MirrorEvents = uint32(a.cfg.Events)
	l.MirrorSeconds = uint32(a.cfg.Age / time.Second)
}

// refusalOf puts a failed store operation into words, or returns the error when it is not the disk.
func refusalOf(err error) (string, error) {
	if errors.Is(err, storage.ErrNoSpace) {
		return "this relay's disk is full", nil
	}
	return "", fmt.Errorf("archive: %w", err)
}

// register adds the archive's metrics.
func (a *Archive) register(gauge func(name, help string, f func(Snapshot) float64), counter func(name, help string, v *atomic.Uint64)) {
	c := &a.counts
	gauge("archive_bytes", "Bytes kept in mirrors and mailboxes.", func(Snapshot) float64 { return float64(c.bytes.Load()) })
	counter("mirrored_events_total", "Sealed events kept.", &c.mirrored)
	counter("mirror_dropped_total", "Sealed events not kept because too many came at once.", &c.dropped)
	counter("deposits_total", "Deposits into mailboxes.", &c.deposits)
	counter("archive_refused_total", "Requests to the archive refused.", &c.refused)
	counter("sync_sessions_total", "Sync sessions with members.", &c.sessions)
}
