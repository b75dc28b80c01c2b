package chat

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"github.com/starling-chat/starling/chat/wire"
	"github.com/starling-chat/starling/storage"
)

// room is one room this account has ever joined. While it is joined one goroutine, run, owns it:
// events from the network, own messages and requests reach it through bounded queues.
type room struct {
	s       *Service
	id      wire.RoomID
	ring    atomic.Pointer[[]*epoch]
	stream  storage.StreamID
	private bool
	log     *slog.Logger

	incoming chan incoming
	crowded  chan struct{} // there is enough in incoming for a batch; capacity 1
	submits  chan *Submission
	calls    chan func()
	pub      *publisher

	waiting atomic.Int64  // bytes in incoming
	dropped atomic.Uint64 // incoming events that found the queue full
	refused atomic.Uint64 // incoming events that only this node refused

	mu      sync.RWMutex // guards row, state, roster, tracker, modded, redacted, ledger
	row     roomRow
	state   stateRow
	roster  *roster
	tracker *tracker
	modded  map[wire.EventID]struct{} // messages that have modifiers
	// redacted are messages of a private room that somebody deleted and whose text may still be here, since
	// it was not known yet that they might.
	redacted map[wire.EventID]struct{}
	ledger   *ledger // who is a member; nil in a public room

	// Neighbours in the topic, and during which run they were seen; belong to the goroutine of Service.Run.
	around   map[wire.DeviceID]bool
	aroundIn <-chan struct{}
	aroundOf wire.TopicKey

	island island

	scrollMu   sync.Mutex // held while older history is fetched; guards scrolled
	scrolled   time.Time  // when nobody had any
	scrollTurn atomic.Int32

	// The rest belongs to the goroutine that runs the room.
	recent  *recentEvents
	limiter *limiter
	indexed bool               // the search index is up to date, and new records go to it at once
	held    *Submission        // the next own message, waiting for the author's allowance
	typed   time.Time          // when a typing signal was last sent
	taken   time.Time          // when the last batch of incoming events was done
	stop    context.CancelFunc // ends run; guarded by Service.mu
	ended   chan struct{}      // closed when run has returned; guarded by Service.mu
}

// incoming is an event from the network.
type incoming struct {
	sealed *wire.Sealed
	from   wire.DeviceID
	synced bool // it came by sync: no rate applies, and a missing body is taken
	old    bool // it was fetched or imported to be looked back at: it is no news
}

const (
	// callQueue is how many requests may wait for a room's owner; callers wait beyond it.
	callQueue = 16
	// batchEvents and batchBytes bound what is committed at once, well inside the store's bounds.
	batchEvents = 200
	batchBytes  = 384 << 10
	// joinRetry is the pause after a topic could not be joined.
	joinRetry = 5 * time.Second
	// incomingBytes bounds what waits for a room's owner besides its number.
	incomingBytes = 16 << 20
	// recentSize is how many event ids are remembered without asking the store.
	recentSize = 8192
)

// openRoom reads a room's state.
func (s *Service) openRoom(ctx context.Context, id wire.RoomID, row roomRow) (*room, error) {
	r := &room{
		s: s, id: id, row: row, private: row.Access == AccessPrivate, log: s.log,
		incoming: make(chan incoming, s.cfg.Limits.IncomingQueue),
		crowded:  make(chan struct{}, 1),
		submits:  make(chan *Submission, s.cfg.Limits.SubmitQueue),
		calls:    make(chan func(), callQueue),
		limiter:  newLimiter(s.cfg.Limits),
	}
	var err error
	if r.stream, err = s.store.Stream(ctx, "room/"+string(id[:])); err != nil {
		return nil, fmt.Errorf("opening a room: %w", err)
	}
	r.ring.Store(&[]*epoch{})
	if !r.private {
		keys, err := wire.DeriveRoomKeys(row.Secret)
		if err != nil {
			return nil, fmt.Errorf("opening a room: %w", err)
		}
		r.ring.Store(&[]*epoch{{keys: keys}})
	}
	r.pub = newPublisher(r)
	if err := r.load(ctx); err != nil {
		return nil, fmt.Errorf("opening a room: %w", err)
	}
	return r, nil
}

// load reads everything from the store anew, and takes in records that a crash left without the
// state that goes with them.
func (r *room) load(ctx context.Context) error {
	state := stateRow{Version: rowVersion}
	b, err := r.s.store.GetBucket(ctx, bucketState, r.id[:])
	if err == nil {
		state, err = decodeRow[stateRow]("room state", b)
	}
	if err != nil && !errors.Is(err, storage.ErrNotFound) {
		return err
	}
	if r.private {
		if err := r.loadPrivate(ctx); err != nil {
			return err
		}
	}
	ros, err := r.loadRoster(ctx)
	if err != nil {
		return err
	}
	ros.topic = register[string]{state.Topic, state.TopicAt}
	tr, err := r.loadTracker(ctx)
	if err != nil {
		return err
	}
	tr.heads = state.Heads
	modded, redacted := make(map[wire.EventID]struct{}), make(map[wire.EventID]struct{})
	for kv, err := range r.s.store.ScanBucket(ctx, bucketModifier, r.stream[:]) {
		if err != nil {
			return err
		}
		target, m, err := decodeModifier(kv.Key, kv.Value)
		if err != nil {
			return err
		}
		modded[target] = struct{}{}
		if m.Kind == wire.KindRedact && r.private {
			redacted[target] = struct{}{}
		}
	}
	r.mu.Lock()
	r.state, r.roster, r.tracker, r.modded, r.redacted = state, ros, tr, modded, redacted
	r.mu.Unlock()
	r.recent = newRecentEvents(recentSize)
	return r.replay(ctx)
}

func (r *room) loadRoster(ctx context.Context) (*roster, error) {
	ros := newRoster()
	for kv, err := range r.s.store.ScanBucket(ctx, bucketMembers, r.id[:]) {
		if err != nil {
			return nil, err
		}
		row, err := decodeRow[memberRow]("member", kv.Value)
		if err != nil {
			return nil, err
		}
		m := &member{
			Nick: register[string]{row.Nick, row.NickAt}, Present: register[bool]{row.Present, row.At},
			Seen: row.Seen, Devices: make(map[wire.DeviceID]bool),
		}
		account := wire.AccountID(kv.Key[len(r.id):])
		for _, d := range row.Devices {
			m.Devices[d] = true
			r.s.people.device(account, d)
		}
		ros.put(account, m)
	}
	return ros, nil
}

func (r *room) loadTracker(ctx context.Context) (*tracker, error) {
	t := newTracker()
	for kv, err := range r.s.store.ScanBucket(ctx, bucketDevices, r.id[:]) {
		if err != nil {
			return nil, err
		}
		row, err := decodeRow[deviceRow]("device", kv.Value)
		if err != nil {
			return nil, err
		}
		t.devices[wire.DeviceID(kv.Key[len(r.id):])] = &track{Account: row.Account, Spans: row.Spans, Gone: row.Gone, Read: row.Read}
	}
	for kv, err := range r.s.store.ScanBucket(ctx, bucketWaiting, r.id[:]) {
		if err != nil {
			return nil, err
		}
		row, err := decodeRow[waitingRow]("missing event", kv.Value)
		if err != nil {
			return nil, err
		}
		t.wait(wire.EventID(kv.Key[len(r.id):]), &waiting{Children: row.Children, Account: row.Account, Counted: row.Counted})
	}
	return t, nil
}

// replay takes in records that are in the stream and not in the state: those that the store put back
// from its journal after damage.
func (r *room) replay(ctx context.Context) error {
	info, err := r.s.store.Info(ctx, r.stream)
	if err != nil {
		return err
	}
	if info.Arrival <= r.state.Arrival {
		return nil
	}
	for {
		var list []arrival
		for rec, err := range r.s.store.ScanArrival(ctx, r.stream, r.state.Arrival, batchEvents) {
			if err != nil {
				return err
			}
			sealed, err := r.parse(ctx, rec)
			if err != nil {
				return err
			}
			a := r.open(sealed)
			a.stored = rec.Arrival
			list = append(list, a)
		}
		if len(list) == 0 {
			return nil
		}
		if _, err := r.take(ctx, list, storage.Durable, nil); err != nil {
			return err
		}
	}
}

// run owns the room until ctx ends.
func (r *room) run(ctx context.Context) error {
	defer r.leaveTopics()
	rejoin := r.joinTopics(ctx, 0)
	var publishing sync.WaitGroup
	publishing.Go(func() { r.pub.run(ctx) })      // ends with ctx; waited for below
	publishing.Go(func() { r.catchUpIndex(ctx) }) // likewise
	defer publishing.Wait()
	var resume <-chan time.Time // fires when held may go on
	for {
		submits := r.submits
		if r.held != nil {
			submits = nil
		}
		select {
		case in := <-r.incoming:
			r.receive(ctx, in)
		case sub := <-submits:
			resume = r.accept(ctx, sub)
		case <-resume:
			sub := r.held
			r.held = nil
			resume = r.accept(ctx, sub)
		case fn := <-r.calls:
			fn()
		case <-rejoin:
			rejoin = r.joinTopics(ctx, joinRetry)
		case <-ctx.Done():
			r.flush()
			return nil
		}
	}
}

// flush answers what was still queued when the room stopped.
func (r *room) flush() {
	if r.held != nil {
		r.held.finish(Message{}, ErrStopped)
		r.held = nil
	}
	for {
		select {
		case sub := <-r.submits:
			sub.finish(Message{}, ErrStopped)
		default:
			return
		}
	}
}

// deliver takes an event from gossip. It does not block: when the owner is behind, the event is
// dropped and counted, and sync fetches it.
func (r *room) deliver(in Incoming) {
	if !r.offer(incoming{sealed: in.Sealed, from: in.From}) {
		r.dropped.Add(1)
	}
}

// offer queues an event for the owner, or says that the queue is full.
func (r *room) offer(in incoming) bool {
	size := int64(len(in.sealed.Bytes()))
	if r.waiting.Add(size) <= incomingBytes {
		select {
		case r.incoming <- in:
			if len(r.incoming) >= r.crowd() {
				select {
				case r.crowded <- struct{}{}:
				default:
				}
			}
			return true
		default:
		}
	}
	r.waiting.Add(-size)
	return false
}

// do runs fn in the goroutine that owns the room and waits for it.
func (r *room) do(ctx context.Context, fn func() error) error {
	done := make(chan error, 1)
	ended, err := r.s.roomEnded(ctx, r)
	if err != nil {
		return err
	}
	select {
	case r.calls <- func() { done <- fn() }:
	case <-ctx.Done():
		return ctx.Err()
	case <-ended:
		return ErrStopped
	}
	select {
	case err := <-done:
		return err
	case <-ctx.Done():
		return ctx.Err()
	case <-ended:
		select {
		case err := <-done:
			return err
		default:
			return ErrStopped
		}
	}
}

// joined says whether the room is joined.
func (r *room) joined() bool {
	r.mu.RLock()
	defer r.mu.RUnlock()
	return r.row.Joined
}

// name returns the room's canonical name.
func (r *room) name() string {
	r.mu.RLock()
	defer r.mu.RUnlock()
	return r.row.Name
}

// recentEvents remembers the clock readings of the newest events taken in.
type recentEvents struct {
	half       int
	young, old map[wire.EventID]wire.HLC
}

func newRecentEvents(size int) *recentEvents {
	return &recentEvents{half: size / 2, young: make(map[wire.EventID]wire.HLC)}
}

func (r *recentEvents) get(id wire.EventID) (wire.HLC, bool) {
	if h, ok := r.young[id]; ok {
		return h, true
	}
	h, ok := r.old[id]
	return h, ok
}

func (r *recentEvents) put(id wire.EventID, h wire.HLC) {
	if len(r.young) >= r.half {
		r.old, r.young = r.young, make(map[wire.EventID]wire.HLC)
	}
	r.young[id] = h
}

// limiter bounds what is taken from each author: a bucket of events and one of bytes.
type limiter struct {
	rate, burst, bytes float64
	authors            map[wire.AccountID]*allowance
}

type allowance struct {
	events, bytes float64
	at            time.Time
}

// maxLimited bounds the authors followed; beyond it those with a full bucket are forgotten.
const maxLimited = 4096

func newLimiter(l Limits) *limiter {
	return &limiter{
		rate: l.AuthorRate, burst: l.AuthorBurst, bytes: l.AuthorBytes,
		authors: make(map[wire.AccountID]*allowance),
	}
}

// paceSlack is how much longer than by a room's own pace an author may have spoken, as far as what comes at
// once is concerned: it may have been held up on the way for so long.
const paceSlack = 10 * time.Minute

// set makes the limiter follow another pace.
func (l *limiter) set(rate, burst float64) { l.rate, l.burst = rate, burst }

// wait returns how long an author must wait before allow says yes to one event of a size.
func (l *limiter) wait(author wire.AccountID, size int, now time.Time) time.Duration {
	a := l.authors[author]
	if a == nil {
		return 0
	}
	l.refill(a, now)
	events := max(0, 1-a.events) / l.rate
	bytes := max(0, float64(size)-a.bytes) / (l.bytes * bytesPerSecond)
	return time.Duration(max(events, bytes) * float64(time.Second))
}

// allow takes one event of a size from an author's allowance, or says no.
func (l *limiter) allow(author wire.AccountID, size int, now time.Time) bool {
	a := l.authors[author]
	if a == nil {
		if len(l.authors) >= maxLimited {
			l.forget(now)
		}
		a = &allowance{events: l.burst, bytes: l.bytes, at: now}
		l.authors[author] = a
	}
	l.refill(a, now)
	if a.events < 1 || a.bytes < float64(size) {
		return false
	}
	a.events--
	a.bytes -= float64(size)
	return true
}

// bytesPerSecond is the part of the bytes' burst that comes back in a second.
const bytesPerSecond = 1.0 / 1000

func (l *limiter) refill(a *allowance, now time.Time) {
	if d := now.Sub(a.at).Seconds(); d > 0 {
		a.events = min(l.burst, a.events+d*l.rate)
		a.bytes = min(l.bytes, a.bytes+d*l.bytes*bytesPerSecond)
	}
	a.at = now
}

func (l *limiter) forget(now time.Time) {
	for id, a := range l.authors {
		if l.refill(a, now); a.events == l.burst && a.bytes == l.bytes {
			delete(l.authors, id)
		}
	}
	if len(l.authors) >= maxLimited {
		clear(l.authors) // so many busy authors: nobody is worse off than at the start
	}
}
