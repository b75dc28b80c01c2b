package discovery

import (
	"context"
	"math/rand/v2"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"
	"golang.org/x/sync/errgroup"
)

const (
	// provideLife is how long the DHT keeps a provider record of ours.
	provideLife = 4 * time.Hour
	// provideEvery leaves a missed round and its retries before the record dies.
	provideEvery = provideLife/2 - 20*time.Minute
	// provideTimeout bounds one announcement: a lookup and a write to the closest servers.
	provideTimeout = 30 * time.Second
	// findTimeout bounds one lookup.
	findTimeout = 20 * time.Second
	// findLimit bounds the members one lookup returns.
	findLimit = 32
	// findLonely and findSocial are the pauses between lookups of a room in which nobody, or
	// somebody, is connected. A lookup costs about 4 kB, and ten rooms are to cost an idle laptop
	// little.
	findLonely = 2 * time.Minute
	findSocial = 30 * time.Minute
	// readyPoll is how often an empty routing table is looked at again.
	readyPoll = 250 * time.Millisecond
	// retryMax bounds the pause after a failed announcement: 1, 2, 4 ... 30 s.
	retryMax = 30 * time.Second
)

// firstFinds are the pauses after each of a room's first lookups: the first can miss members that
// have just announced themselves, so it is repeated soon and then ever more rarely.
var firstFinds = []time.Duration{
	time.Second, 2 * time.Second, 4 * time.Second, 8 * time.Second, 15 * time.Second, 30 * time.Second,
}

// following is one group that is being looked for.
type following struct {
	group  Group
	cancel context.CancelFunc // nil until started
	wakes  [2]chan struct{}   // for the announcing and the finding loop; capacity 1
}

func newFollowing(g Group) *following {
	return &following{group: g, wakes: [2]chan struct{}{make(chan struct{}, 1), make(chan struct{}, 1)}}
}

func (fol *following) nudge() {
	fol.nudgeAnnounce()
	trigger(fol.wakes[1])
}

func (fol *following) nudgeAnnounce() { trigger(fol.wakes[0]) }

func trigger(wake chan struct{}) {
	select {
	case wake <- struct{}{}:
	default:
	}
}

// Follow begins to look for the members of a group: cached addresses at once, the rendezvous as
// long as it is followed. Following twice replaces Keys.
func (f *Finder) Follow(g Group) {
	f.mu.Lock()
	if old := f.groups[g.Name]; old != nil {
		f.stop(old)
	}
	fol := newFollowing(g)
	f.groups[g.Name] = fol
	running := f.launch != nil
	if running {
		f.launch(fol)
	}
	f.mu.Unlock()
	if running && f.cfg.Store != nil { // otherwise Run loads it
		f.disk <- func(ctx context.Context) { f.offerCached(ctx, g.Name) }
	}
}

// Unfollow stops looking. What the cache holds of the group stays until it is too old: a node that
// stops unfollows too. It is idempotent.
func (f *Finder) Unfollow(name Key) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if fol := f.groups[name]; fol != nil {
		f.stop(fol)
		delete(f.groups, name)
	}
	f.sched.dropGroup(name)
}

// Member says that a peer was seen in a followed group by other means, such as its own
// subscription; addrs may be empty.
func (f *Finder) Member(name Key, info peer.AddrInfo) {
	f.mu.Lock()
	if _, ok := f.groups[name]; ok {
		f.sched.offer(time.Now(), info, SourceCache, &name, false)
	}
	f.mu.Unlock()
	f.wake()
}

// runGroup starts the loops of a group; g waits for them. The caller holds mu.
func (f *Finder) runGroup(ctx context.Context, g *errgroup.Group, fol *following) {
	if f.cfg.Rendezvous == nil || fol.group.Keys == nil || fol.cancel != nil {
		return
	}
	ctx, fol.cancel = context.WithCancel(ctx)
	g.Go(func() error {
		f.announceGroup(ctx, fol)
		return nil
	})
	g.Go(func() error {
		f.findGroup(ctx, fol)
		return nil
	})
}

func (f *Finder) stop(fol *following) {
	if fol.cancel != nil {
		fol.cancel()
	}
}

// announceGroup keeps this peer announced under today's key, and from the first minutes of a new
// day under that day's.
func (f *Finder) announceGroup(ctx context.Context, fol *following) {
	f.announce(ctx, fol.wakes[0], func() Key { return fol.group.Keys(f.cfg.Now())[0] })
}

// announce provides key() until ctx ends: again when it changes, when woken, and well before the
// record dies. After a failure it tries again in 1, 2, 4 ... 30 s; the routing table may be empty,
// and an announcement that reached nobody returns no error, so it first waits for one peer.
func (f *Finder) announce(ctx context.Context, woken <-chan struct{}, key func() Key) {
	retry := time.Second
	for ctx.Err() == nil {
		if !f.waitReady(ctx) {
			return
		}
		k := key()
		provideCtx, cancel := context.WithTimeout(ctx, provideTimeout)
		err := f.cfg.Rendezvous.Provide(provideCtx, k)
		cancel()
		if err != nil {
			f.log.Debug("announcement failed", "err", err)
			if !pause(ctx, retry, woken) {
				return
			}
			retry = min(2*retry, retryMax)
			continue
		}
		retry = time.Second
		until := time.Now().Add(spread(provideEvery))
		for time.Now().Before(until) && key() == k {
			step := min(time.Until(until), time.Minute)
			again, ok := pauseOrWake(ctx, step, woken)
			if !ok {
				return
			}
			if again {
				break
			}
		}
	}
}

// findGroup looks the group up, often at first and rarely later.
func (f *Finder) findGroup(ctx context.Context, fol *following) {
	for round := 0; ctx.Err() == nil; round++ {
		if !f.waitReady(ctx) {
			return
		}
		for _, k := range fol.group.Keys(f.cfg.Now()) {
			f.findOnce(ctx, fol, k)
		}
		wait := findLonely
		switch {
		case round < len(firstFinds):
			wait = firstFinds[round]
		case f.connectedMembers(fol.group.Name) > 0:
			wait = findSocial
		}
		again, ok := pauseOrWake(ctx, spread(wait), fol.wakes[1])
		if !ok {
			return
		}
		if again {
			round = 0
		}
	}
}

func (f *Finder) findOnce(ctx context.Context, fol *following, k Key) {
	findCtx, cancel := context.WithTimeout(ctx, findTimeout)
	defer cancel()
	infos, err := f.cfg.Rendezvous.Find(findCtx, k, findLimit)
	if err != nil {
		f.log.Debug("lookup failed", "err", err)
	}
	for _, info := range infos {
		if info.ID == f.cfg.Self {
			continue
		}
		if len(info.Addrs) == 0 {
			full, err := f.cfg.Rendezvous.FindPeer(findCtx, info.ID)
			if err != nil {
				continue
			}
			info = full
		}
		f.offer(info, SourceDHT, &fol.group.Name)
	}
}

func (f *Finder) connectedMembers(name Key) int {
	f.mu.Lock()
	defer f.mu.Unlock()
	perGroup, _ := f.sched.count(f.cfg.Network.Connected)
	return perGroup[name]
}

// Announce keeps this peer findable under key until ctx ends; it returns then. Without a
// rendezvous it returns at once.
func (f *Finder) Announce(ctx context.Context, key Key) {
	if f.cfg.Rendezvous == nil {
		return
	}
	f.announce(ctx, nil, func() Key { return key })
}

// Find asks the rendezvous once for peers under key and remembers their addresses without dialling
// them. Nobody found is no error.
func (f *Finder) Find(ctx context.Context, key Key) ([]peer.AddrInfo, error) {
	if f.cfg.Rendezvous == nil || !f.cfg.Rendezvous.Ready() {
		return nil, nil
	}
	infos, err := f.cfg.Rendezvous.Find(ctx, key, findLimit)
	subnets := parseSubnets(f.cfg.Network.LocalSubnets())
	out := infos[:0]
	for _, info := range infos {
		if info.ID == f.cfg.Self {
			continue
		}
		info.Addrs = f.policy.dialable(info.Addrs, subnets)
		out = append(out, info)
	}
	return out, err
}

// FindPeer asks the rendezvous for the addresses of one peer that may be dialled; none is no error.
func (f *Finder) FindPeer(ctx context.Context, p peer.ID) ([]peer.AddrInfo, error) {
	if f.cfg.Rendezvous == nil || !f.cfg.Rendezvous.Ready() {
		return nil, nil
	}
	info, err := f.cfg.Rendezvous.FindPeer(ctx, p)
	if err != nil {
		return nil, err
	}
	info.Addrs = f.policy.dialable(info.Addrs, parseSubnets(f.cfg.Network.LocalSubnets()))
	return []peer.AddrInfo{info}, nil
}

// waitReady returns false when ctx ended first.
func (f *Finder) waitReady(ctx context.Context) bool {
	for !f.cfg.Rendezvous.Ready() {
		if !pause(ctx, readyPoll, nil) {
			return false
		}
	}
	return ctx.Err() == nil
}

// pause waits for d or a wake; false when ctx ended.
func pause(ctx context.Context, d time.Duration, woken <-chan struct{}) bool {
	_, ok := pauseOrWake(ctx, d, woken)
	return ok
}

func pauseOrWake(ctx context.Context, d time.Duration, woken <-chan struct{}) (again, ok bool) {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return false, true
	case <-woken:
		return true, true
	case <-ctx.Done():
		return false, false
	}
}

// spread varies a pause by a tenth, so that peers that started together drift apart.
func spread(d time.Duration) time.Duration {
	return d*9/10 + time.Duration(rand.Int64N(int64(d)/5+1))
}
