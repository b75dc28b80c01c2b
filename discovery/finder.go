package discovery

import (
	"context"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"
	ma "github.com/multiformats/go-multiaddr"
	"golang.org/x/sync/errgroup"
)

// Built-in groups of the cache that have no rendezvous key.
var (
	// RelayGroup holds relays and bootstraps.
	RelayGroup = Key{0: 'r', 1: 'e', 2: 'l', 3: 'a', 4: 'y', 5: 's'}
	// ContactGroup holds devices that somebody asked for by name.
	ContactGroup = Key{0: 'c', 1: 'o', 2: 'n', 3: 't', 4: 'a', 5: 'c', 6: 't', 7: 's'}
)

// diskQueue bounds uses of the cache that wait for the disk. When it is full, a new address is not
// cached, and comes again with the next connection; loading and clearing a group wait.
const diskQueue = 256

// Finder merges the sources and dials. See the package documentation.
type Finder struct {
	cfg    Config
	policy Policy
	cache  cache
	log    *slog.Logger
	kick   chan struct{}                  // wakes the dialler; capacity 1
	disk   chan func(ctx context.Context) // uses of the cache
	stats  counters

	mu     sync.Mutex // guards sched, groups, saved, launch
	sched  *schedule
	groups map[Key]*following
	saved  map[string]savedAddrs // cache key -> what was written last
	launch func(*following)      // starts a group's loops; nil before and after Run
}

type savedAddrs struct {
	at    time.Time
	addrs []ma.Multiaddr
}

type counters struct {
	dials, failures atomic.Uint64
	found           [len(sources)]atomic.Uint64
}

// Stats counts what a Finder did since it was made.
type Stats struct {
	Dials    uint64
	Failures uint64
	Found    map[Source]uint64 // peers reported by each source, repeats included
	Known    int               // candidates now
}

var sources = [...]Source{SourceBootstrap, SourceHint, SourceLAN, SourceCache, SourceDHT}

// New checks the configuration. Nothing is dialled before Run.
func New(cfg Config) (*Finder, error) {
	if cfg.Self == "" || cfg.Network == nil {
		return nil, fmt.Errorf("making a finder: own peer id and network are required")
	}
	if cfg.Limits == (Limits{}) {
		cfg.Limits = DefaultLimits()
	}
	if cfg.Now == nil {
		cfg.Now = time.Now
	}
	if cfg.Logger == nil {
		cfg.Logger = slog.New(slog.DiscardHandler)
	}
	if cfg.Seed == 0 {
		cfg.Seed = rand.Uint64()
	}
	return &Finder{
		cfg:    cfg,
		policy: PolicyFor(cfg.Bootstraps),
		cache:  cache{store: cfg.Store, max: cfg.Limits.CachePerGroup},
		log:    cfg.Logger,
		kick:   make(chan struct{}, 1),
		disk:   make(chan func(context.Context), diskQueue),
		sched:  newSchedule(cfg.Self, cfg.Limits, cfg.Seed),
		groups: make(map[Key]*following),
		saved:  make(map[string]savedAddrs),
	}, nil
}

// Run looks and dials until ctx ends, and returns nil then. It may be called once.
func (f *Finder) Run(ctx context.Context) error {
	g, ctx := errgroup.WithContext(ctx)
	for _, b := range f.cfg.Bootstraps {
		f.offer(b, SourceBootstrap, &RelayGroup)
	}
	f.offerCached(ctx, RelayGroup)
	f.offerCached(ctx, ContactGroup)

	f.mu.Lock()
	f.launch = func(fol *following) { f.runGroup(ctx, g, fol) }
	names := make([]Key, 0, len(f.groups))
	for name, fol := range f.groups {
		f.launch(fol)
		names = append(names, name)
	}
	f.mu.Unlock()
	for _, name := range names {
		f.offerCached(ctx, name)
	}

	if f.cfg.LAN != nil {
		g.Go(func() error {
			return f.cfg.LAN.Run(ctx, func(info peer.AddrInfo) { f.offer(info, SourceLAN, nil) })
		})
	}
	g.Go(func() error {
		f.useDisk(ctx)
		return nil
	})
	g.Go(func() error {
		f.dial(ctx, g)
		return nil
	})
	<-ctx.Done()
	f.mu.Lock()
	f.launch = nil
	f.mu.Unlock()
	return g.Wait()
}

// dial starts dials as the schedule allows. Each ends within the dial timeout or with ctx, and
// Run waits for it.
func (f *Finder) dial(ctx context.Context, g *errgroup.Group) {
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-f.kick:
		case <-timer.C:
		}
		for {
			f.mu.Lock()
			info, wait, ok := f.sched.next(time.Now(), f.cfg.Network.Connected)
			f.mu.Unlock()
			if !ok {
				timer.Reset(wait)
				break
			}
			g.Go(func() error {
				f.dialOne(ctx, info)
				return nil
			})
		}
	}
}

func (f *Finder) dialOne(ctx context.Context, info peer.AddrInfo) {
	f.stats.dials.Add(1)
	dialCtx, cancel := context.WithTimeout(ctx, f.cfg.Limits.DialTimeout)
	err := f.cfg.Network.Connect(dialCtx, info)
	cancel()
	if err != nil {
		f.stats.failures.Add(1)
		f.log.Debug("dial failed", "peer", info.ID, "err", err)
	}
	f.mu.Lock()
	f.sched.done(time.Now(), info.ID, err != nil)
	f.mu.Unlock()
	f.wake()
}

func (f *Finder) wake() {
	select {
	case f.kick <- struct{}{}:
	default:
	}
}

// offer filters what a source found and hands it to the schedule.
func (f *Finder) offer(info peer.AddrInfo, source Source, group *Key) {
	f.stats.found[slices.Index(sources[:], source)].Add(1)
	if source == SourceDHT {
		info.Addrs = f.policy.dialable(info.Addrs, parseSubnets(f.cfg.Network.LocalSubnets()))
	}
	if len(info.Addrs) > maxAddrs {
		info.Addrs = info.Addrs[:maxAddrs]
	}
	f.mu.Lock()
	f.sched.offer(time.Now(), info, source, group, false)
	f.mu.Unlock()
	f.wake()
}

func (f *Finder) offerCached(ctx context.Context, group Key) {
	records, err := f.cache.load(ctx, group, f.cfg.Now())
	if err != nil {
		f.log.Warn("address cache unreadable", "err", err)
		return
	}
	for _, r := range records {
		f.offer(peer.AddrInfo{ID: r.peer, Addrs: r.addrs}, SourceCache, &group)
	}
}

// Hint remembers addresses of a peer without dialling it.
func (f *Finder) Hint(info peer.AddrInfo) { f.offer(info, SourceHint, nil) }

// Want makes the Finder keep trying to connect to a peer until Release, at any address it knows or
// learns; with none, the dialler has to find one.
func (f *Finder) Want(p peer.ID) {
	f.mu.Lock()
	f.sched.offer(time.Now(), peer.AddrInfo{ID: p}, SourceHint, nil, true)
	f.mu.Unlock()
	f.wake()
}

// Release undoes Want; the peer stays known.
func (f *Finder) Release(p peer.ID) {
	f.mu.Lock()
	f.sched.release(p)
	f.mu.Unlock()
}

// Known returns the addresses remembered for a peer, best first.
func (f *Finder) Known(p peer.ID) []ma.Multiaddr {
	f.mu.Lock()
	defer f.mu.Unlock()
	if c := f.sched.peers[p]; c != nil {
		return slices.Clone(c.addrs)
	}
	return nil
}

// Good says that a member of a group is connected and where it was reached, so that a later start
// finds it by itself. Addresses of strangers' choosing must not be given.
func (f *Finder) Good(group Key, info peer.AddrInfo) {
	if f.cfg.Store == nil || len(info.Addrs) == 0 || info.ID == f.cfg.Self {
		return
	}
	addrs := make([]ma.Multiaddr, 0, len(info.Addrs))
	for _, a := range info.Addrs {
		if len(a.Bytes()) <= maxAddrSize {
			addrs = append(addrs, a)
		}
	}
	addrs = mergeAddrs(addrs, nil)
	now := f.cfg.Now()
	key := string(cacheKey(group, info.ID))
	f.mu.Lock()
	old, ok := f.saved[key]
	if ok && now.Sub(old.at) < cacheRefresh && slices.EqualFunc(old.addrs, addrs, ma.Multiaddr.Equal) {
		f.mu.Unlock()
		return
	}
	f.saved[key] = savedAddrs{at: now, addrs: addrs}
	f.mu.Unlock()
	r := &record{peer: info.ID, good: now, addrs: addrs}
	save := func(ctx context.Context) {
		if err := f.cache.save(ctx, group, r); err != nil {
			f.log.Warn("address not cached", "err", err)
		}
	}
	select {
	case f.disk <- save:
	default:
		f.mu.Lock()
		delete(f.saved, key)
		f.mu.Unlock()
	}
}

// useDisk works through the disk queue; what waits when ctx ends is still done.
func (f *Finder) useDisk(ctx context.Context) {
	for {
		select {
		case use := <-f.disk:
			use(ctx)
		case <-ctx.Done():
			last := context.WithoutCancel(ctx)
			for {
				select {
				case use := <-f.disk:
					use(last)
				default:
					return
				}
			}
		}
	}
}

// Lost says that a connection to a peer ended.
func (f *Finder) Lost(p peer.ID) {
	f.mu.Lock()
	f.sched.lost(time.Now(), p)
	f.mu.Unlock()
	f.wake()
}

// Wake says that the network may have changed: every back-off is forgotten, this peer is announced
// anew, and the rooms are looked up again.
func (f *Finder) Wake() {
	f.mu.Lock()
	f.sched.reset(time.Now())
	for _, fol := range f.groups {
		fol.nudge()
	}
	f.mu.Unlock()
	if f.cfg.LAN != nil {
		f.cfg.LAN.Restart()
	}
	f.wake()
}

// Reannounce tells the rendezvous this peer's addresses of now.
func (f *Finder) Reannounce() {
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, fol := range f.groups {
		fol.nudgeAnnounce()
	}
}

// Stats returns the counters.
func (f *Finder) Stats() Stats {
	s := Stats{
		Dials:    f.stats.dials.Load(),
		Failures: f.stats.failures.Load(),
		Found:    make(map[Source]uint64, len(sources)),
	}
	for i, source := range sources {
		s.Found[source] = f.stats.found[i].Load()
	}
	f.mu.Lock()
	s.Known = len(f.sched.peers)
	f.mu.Unlock()
	return s
}
