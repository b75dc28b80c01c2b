package chat

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"github.com/starling-chat/starling/chat/wire"
	"github.com/starling-chat/starling/storage"
)

// Service is all conversations of one device. Create it with [New], then call [Service.Run].
type Service struct {
	cfg      Config
	log      *slog.Logger
	store    *storage.Store
	verifier *wire.Verifier
	self     self
	events   *eventLog
	people   *people
	links    *links
	early    *earlyEvents
	dialogs  *dialogs
	syncer   *syncer
	warden   *warden

	boxes atomic.Int64 // own mailboxes
	left  atomic.Bool  // the own records lie in the lookup table
	// disowned says that another device of the account revoked this one.
	disowned atomic.Bool
	listMu   sync.Mutex // held while the own device list is made

	certMu sync.Mutex // guards cert, certAt
	cert   wire.Certificate
	certAt time.Time

	nickMu sync.RWMutex // guards nickText
	own    string       // the own nick

	mu      sync.Mutex // guards rooms, ctx, and stop and ended of each room
	rooms   map[wire.RoomID]*room
	ctx     context.Context // of Run; nil before
	started chan struct{}   // closed once ctx is set
	running sync.WaitGroup  // the goroutines of Run
	joinMu  sync.Mutex      // held while a room is joined or left
}

// self is who this device is.
type self struct {
	account wire.AccountID
	device  wire.DeviceID
}

// tickEvery is how often the service looks for neighbours that came and events that fell due.
const tickEvery = time.Second

// New reads the persisted state. It joins nothing and sends nothing until Run.
func New(cfg Config) (*Service, error) {
	if err := cfg.fill(); err != nil {
		return nil, fmt.Errorf("starting chat: %w", err)
	}
	s := &Service{
		cfg: cfg, log: cfg.Logger, store: cfg.Store, verifier: wire.NewVerifier(wire.DefaultVerifierLimits()),
		people: newPeople(cfg.Store), links: newLinks(cfg.Direct), rooms: make(map[wire.RoomID]*room),
		started: make(chan struct{}),
	}
	cert, err := s.certificate(cfg.Clock.Now())
	if err != nil {
		return nil, fmt.Errorf("starting chat: %w", err)
	}
	s.self = self{account: cert.Account, device: cert.Device}
	ctx := context.Background() // New has no caller to cancel it and is bounded by the size of the store
	if err := s.loadAll(ctx); err != nil {
		return nil, fmt.Errorf("starting chat: %w", err)
	}
	return s, nil
}

func (s *Service) loadAll(ctx context.Context) error {
	first, err := s.firstCursor(ctx)
	if err != nil {
		return err
	}
	s.events = newEventLog(first, s.cfg.Limits.EventLog, s.cfg.Limits.EventLogBytes)
	if err := s.people.load(ctx); err != nil {
		return err
	}
	s.people.device(s.self.account, s.self.device)
	if s.own, err = s.profileText(ctx, profileNick); err != nil {
		return err
	}
	if s.early, err = loadEarly(ctx, s); err != nil {
		return err
	}
	if s.syncer, err = newSyncer(s); err != nil {
		return err
	}
	if s.warden, err = newWarden(ctx, s); err != nil {
		return err
	}
	if s.dialogs, err = newDialogs(ctx, s); err != nil {
		return err
	}
	for kv, err := range s.store.ScanBucket(ctx, bucketRooms, nil) {
		if err != nil {
			return err
		}
		row, err := decodeRow[roomRow]("room", kv.Value)
		if err != nil {
			return err
		}
		id := wire.RoomID(kv.Key)
		if s.rooms[id], err = s.openRoom(ctx, id, row); err != nil {
			return err
		}
		s.rooms[id].pub.resume()
	}
	return nil
}

// firstCursor returns a cursor above all that earlier runs gave out, whatever the clock says: a run
// gives out fewer than cursorsPerRun, or fewer than one a microsecond.
func (s *Service) firstCursor(ctx context.Context) (uint64, error) {
	const cursorsPerRun = 1 << 24
	first := uint64(max(s.cfg.Clock.Now().UnixMicro(), 1))
	b, err := s.store.GetBucket(ctx, bucketProfile, []byte(profileCursor))
	switch {
	case errors.Is(err, storage.ErrNotFound):
	case err != nil:
		return 0, err
	case len(b) == 8:
		first = max(first, binary.BigEndian.Uint64(b)+cursorsPerRun)
	}
	var batch storage.Batch
	batch.Put(bucketProfile, []byte(profileCursor), binary.BigEndian.AppendUint64(nil, first))
	_, err = s.store.Commit(ctx, &batch, storage.Relaxed)
	if err != nil && !errors.Is(s.storeError(err), ErrReadOnly) {
		return 0, err
	}
	return first, nil
}

// Names in the profile bucket.
const (
	profileNick   = "nick"
	profileCursor = "cursor"
)

func (s *Service) profileText(ctx context.Context, name string) (string, error) {
	b, err := s.store.GetBucket(ctx, bucketProfile, []byte(name))
	if errors.Is(err, storage.ErrNotFound) {
		return "", nil
	}
	return string(b), err
}

// Run joins the persisted rooms and serves until ctx ends. It returns after everything it started has
// ended. It may be called once.
func (s *Service) Run(ctx context.Context) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	s.links.start(ctx)
	s.mu.Lock()
	s.ctx = ctx
	for _, r := range s.rooms {
		if r.joined() {
			s.startRoom(r)
		}
	}
	close(s.started)
	s.mu.Unlock()
	s.running.Go(func() { s.dialogs.run(ctx) })  // ends with ctx; waited for below
	s.running.Go(func() { s.announceSelf(ctx) }) // likewise
	s.running.Go(func() { s.warden.run(ctx) })   // likewise
	if s.cfg.Relays != nil {
		s.running.Go(func() { s.collectMail(ctx) }) // likewise
	}
	s.running.Go(func() { s.restoreContacts(ctx) }) // likewise
	s.running.Go(func() { s.publishRecords(ctx) })  // likewise
	s.running.Go(func() { s.keepBounds(ctx) })      // likewise
	tick := time.NewTicker(tickEvery)
	defer tick.Stop()
	for ctx.Err() == nil {
		select {
		case <-tick.C:
			s.early.release(ctx)
			for _, r := range s.joinedRooms() {
				r.lookAround(ctx)
			}
			s.syncer.begin(ctx)
		case <-ctx.Done():
		}
	}
	s.running.Wait()
	s.links.wait()
	s.events.close()
	return nil
}

// startRoom starts a room's goroutine; mu is held and Run is running. The goroutine ends with stop or
// with Run, which waits for it.
func (s *Service) startRoom(r *room) {
	ctx, cancel := context.WithCancel(s.ctx)
	r.stop, r.ended = cancel, make(chan struct{})
	s.syncer.joined(r)
	ended := r.ended
	s.running.Go(func() {
		defer close(ended)
		defer cancel()
		if err := r.run(ctx); err != nil {
			s.log.Error("a room stopped", "error", err)
		}
	})
}

// waitStarted returns once Run runs.
func (s *Service) waitStarted(ctx context.Context) error {
	select {
	case <-s.started:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// roomEnded returns a channel that is closed when the room's goroutine has ended. Without one that is
// ErrNotJoined.
func (s *Service) roomEnded(ctx context.Context, r *room) (<-chan struct{}, error) {
	if err := s.waitStarted(ctx); err != nil {
		return nil, err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if r.ended == nil {
		return nil, ErrNotJoined
	}
	return r.ended, nil
}

// certificate returns the device's certificate, renewed once a day.
func (s *Service) certificate(now time.Time) (wire.Certificate, error) {
	const renew = 24 * time.Hour
	s.certMu.Lock()
	defer s.certMu.Unlock()
	if age := now.Sub(s.certAt); !s.certAt.IsZero() && age >= 0 && age < renew {
		return s.cert, nil
	}
	cert, err := s.cfg.Certificate(now)
	if err == nil {
		err = cert.Verify()
	}
	if err == nil && (cert.Device != s.cfg.Device.ID() || s.self.account != cert.Account && !s.self.account.IsZero()) {
		err = errors.New("it is not that of this device and account")
	}
	if err != nil {
		return wire.Certificate{}, fmt.Errorf("getting own certificate: %w", err)
	}
	s.cert, s.certAt = cert, now
	return cert, nil
}

// storeError turns the store's errors into those that callers branch on.
func (s *Service) storeError(err error) error {
	switch {
	case errors.Is(err, storage.ErrNoSpace), errors.Is(err, storage.ErrNotWritable), errors.Is(err, storage.ErrClosed):
		return fmt.Errorf("%w: %w", ErrReadOnly, err)
	case errors.Is(err, storage.ErrTooBig):
		return fmt.Errorf("%w: %w", ErrTooLarge, err)
	}
	return err
}

// roomByID returns a room that was ever joined, or nil.
func (s *Service) roomByID(id wire.RoomID) *room {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.rooms[id]
}

// roomByTopic returns a joined room by the topic key of any of its epochs, or nil.
func (s *Service) roomByTopic(topic wire.TopicKey) *room {
	for _, r := range s.joinedRooms() {
		if r.epochOf(topic) != nil {
			return r
		}
	}
	return nil
}

// roomByName returns the room of a canonical name, a joined one first, or nil.
func (s *Service) roomByName(name string) *room {
	var found *room
	for _, r := range s.allRooms() {
		if r.name() == name && (found == nil || r.joined()) {
			found = r
		}
	}
	return found
}

// allRooms returns every room that was ever joined.
func (s *Service) allRooms() []*room {
	s.mu.Lock()
	defer s.mu.Unlock()
	list := make([]*room, 0, len(s.rooms))
	for _, r := range s.rooms {
		list = append(list, r)
	}
	return list
}

// joinedRooms returns the rooms that are joined now.
func (s *Service) joinedRooms() []*room {
	list := s.allRooms()
	n := 0
	for _, r := range list {
		if r.joined() {
			list[n] = r
			n++
		}
	}
	return list[:n]
}

// joinedRoom returns a joined room, or ErrNotJoined.
func (s *Service) joinedRoom(id wire.RoomID) (*room, error) {
	r := s.roomByID(id)
	if (r == nil || !r.joined()) && s.warden.pendingRoom(id) != nil {
		return nil, fmt.Errorf("%w: you are waiting to be admitted to that room", ErrConflict)
	}
	if r == nil || !r.joined() {
		return nil, ErrNotJoined
	}
	return r, nil
}

// knownRoom returns a room that was ever joined, or ErrNotFound.
func (s *Service) knownRoom(t Target) (*room, error) {
	if t.Room == nil {
		return nil, fmt.Errorf("%w: not a room", ErrBadRequest)
	}
	r := s.roomByID(*t.Room)
	if r == nil && s.warden.pendingRoom(*t.Room) != nil {
		return nil, fmt.Errorf("%w: you are waiting to be admitted to that room", ErrConflict)
	}
	if r == nil {
		return nil, fmt.Errorf("room: %w", ErrNotFound)
	}
	return r, nil
}

// nickNow returns the own nick, or "".
func (s *Service) nickNow() string {
	s.nickMu.RLock()
	defer s.nickMu.RUnlock()
	return s.own
}

// PeerChanged says that a device is connected now, that its path changed, or, with PathNone, that it
// is gone. It does not block.
func (s *Service) PeerChanged(dev wire.DeviceID, path Path) {
	was, changed := s.people.connected(dev, path)
	if !changed {
		return
	}
	if path == PathNone {
		for _, r := range s.joinedRooms() {
			r.pub.gone(dev)
		}
	}
	select {
	case s.dialogs.peers <- peerChange{dev, path, was}:
	default: // the next look at the outbox notices
	}
}

// announceSelf keeps this device findable under its account, by a key that changes every day.
func (s *Service) announceSelf(ctx context.Context) {
	for ctx.Err() == nil {
		day := wire.UTCDay(s.cfg.Clock.Now())
		dctx, cancel := context.WithCancel(ctx)
		s.cfg.Directory.Announce(dctx, accountRendezvous(s.self.account, day))
		tick := time.NewTicker(time.Minute)
		for wire.UTCDay(s.cfg.Clock.Now()) == day && ctx.Err() == nil {
			select {
			case <-tick.C:
			case <-ctx.Done():
			}
		}
		tick.Stop()
		cancel()
	}
}

// restoreContacts tells the network the addresses that contacts' links carried.
func (s *Service) restoreContacts(ctx context.Context) {
	for _, c := range s.people.list() {
		for _, d := range c.Devices {
			if ctx.Err() == nil && len(c.Addrs) > 0 {
				s.cfg.Direct.Hint(d, c.Addrs)
			}
		}
	}
}

// Wake says that the machine slept or that its network changed: everything that waits is tried now.
func (s *Service) Wake(reason string) {
	s.log.Debug("waking up", "reason", reason)
	select {
	case s.dialogs.wake <- struct{}{}:
	default: // one is under way
	}
	select {
	case s.dialogs.mailWake <- struct{}{}:
	default: // likewise
	}
	s.syncer.resume()
}

// RelaysChanged says that the list of [Relays] is not what it was: this device's mailboxes are placed anew and
// those who have its record are told at once, since it may be gone a moment later. It does not block.
func (s *Service) RelaysChanged() {
	select {
	case s.dialogs.relayWake <- struct{}{}:
	default: // one is under way
	}
}

// Greeting returns the first frame of every stream of direct messages that this device opens or
// answers: its certificate and nick.
func (s *Service) Greeting() []byte {
	cert, err := s.certificate(s.cfg.Clock.Now())
	if err == nil {
		var b []byte
		if b, err = wire.EncodeFrame(&wire.DMHello{Certificate: cert, Nick: s.nickNow()}); err == nil {
			return b
		}
	}
	s.log.Error("making the greeting failed", "error", err)
	return nil
}

// Events subscribes to what follows the event with cursor since; 0 means from now on. Close the
// subscription when done.
func (s *Service) Events(since uint64) *Subscription { return s.events.subscribe(since) }
