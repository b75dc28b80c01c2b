package chat

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"sync"
	"time"

	roomsync "github.com/starling-chat/starling/chat/sync"
	"github.com/starling-chat/starling/chat/sync/drive"
	"github.com/starling-chat/starling/chat/wire"
	"github.com/starling-chat/starling/storage"
)

// syncer brings rooms to the same set of events at every member: it runs sessions of package
// chat/sync over streams to single devices, when the schedule says so and when others ask.
type syncer struct {
	s *Service

	mu       sync.Mutex // guards schedule, serving, settle, mirrors
	schedule *roomsync.Schedule
	serving  int                            // streams of others that are open
	settle   map[wire.TopicKey]settleBefore // rooms to look at once more
	mirrors  map[wire.TopicKey][]wire.DeviceID
}

// settleBefore is when a room in which a neighbour appeared is looked at again: what was on its way by
// gossip while it came is younger than a session's cut, and might be lost otherwise.
type settleBefore struct{ at time.Time }

const (
	// settleAfter is how long after a neighbour appeared that is.
	settleAfter = roomsync.CutDelay + time.Second
	// aloneFor is how long a newcomer who meets nobody counts as one. After that whoever comes is compared
	// with, since there is something to compare.
	aloneFor = 15 * time.Second
	// busyPause is how long a session that a peer had no room for counts as running.
	busyPause = 2 * time.Second
	// sessionFirst bounds the wait for a stream.
	sessionFirst = 10 * time.Second
	// doubtAfter is how long a peer may be silent before its connections are asked whether they still work.
	doubtAfter = 3 * time.Second
	// maxServing bounds the streams that others have open at once, refused ones included.
	maxServing = 16
)

func newSyncer(s *Service) (*syncer, error) {
	var seed [16]byte
	if _, err := io.ReadFull(s.cfg.Rand, seed[:]); err != nil {
		return nil, fmt.Errorf("reading randomness: %w", err)
	}
	random := rand.New(rand.NewPCG(binary.LittleEndian.Uint64(seed[:]), binary.LittleEndian.Uint64(seed[8:])))
	return &syncer{
		s: s, schedule: roomsync.NewSchedule(roomsync.DefaultScheduleConfig(syncPeer(s.self.device)), random),
		settle: make(map[wire.TopicKey]settleBefore), mirrors: make(map[wire.TopicKey][]wire.DeviceID),
	}, nil
}

// syncPeer is a device's name in sync: its peer id as bytes.
func syncPeer(dev wire.DeviceID) roomsync.PeerID { return roomsync.PeerID(dev.PeerID()) }

// joined notes that a room was joined.
func (y *syncer) joined(r *room) {
	y.mu.Lock()
	defer y.mu.Unlock()
	for _, e := range r.epochs() {
		delete(y.mirrors, e.keys.Topic) // so that they are noted in this plan
		y.schedule.Join(roomsync.Topic(e.keys.Topic), time.Now())
	}
}

// left notes that a room was left.
func (y *syncer) left(r *room) {
	y.mu.Lock()
	defer y.mu.Unlock()
	for _, e := range r.epochs() {
		y.schedule.Leave(roomsync.Topic(e.keys.Topic))
		delete(y.settle, e.keys.Topic)
		delete(y.mirrors, e.keys.Topic)
	}
}

// around notes which neighbours in a topic came and went.
func (y *syncer) around(key wire.TopicKey, came, went []wire.DeviceID) {
	y.mu.Lock()
	defer y.mu.Unlock()
	topic := roomsync.Topic(key)
	for _, dev := range went {
		y.schedule.RemovePeer(topic, syncPeer(dev))
	}
	for _, dev := range came {
		y.schedule.MeshPeer(topic, syncPeer(dev), time.Now())
	}
	if len(came) > 0 {
		y.settle[key] = settleBefore{time.Now().Add(settleAfter)}
	}
}

// gap notes that something is known to be missing in a room.
func (y *syncer) gap(r *room) {
	y.mu.Lock()
	defer y.mu.Unlock()
	for _, e := range r.active() {
		y.schedule.Gap(roomsync.Topic(e.keys.Topic))
	}
}

// heads notes which neighbours lack own events that they should have by now.
func (y *syncer) heads(topic wire.TopicKey, behind map[wire.DeviceID]bool) {
	y.mu.Lock()
	defer y.mu.Unlock()
	for dev, differ := range behind {
		y.schedule.Heads(roomsync.Topic(topic), syncPeer(dev), differ, time.Now())
	}
}

// resume notes that the machine slept or changed its network.
func (y *syncer) resume() {
	y.mu.Lock()
	defer y.mu.Unlock()
	y.schedule.Resume(time.Now())
}

// begin starts the sessions that are due. Each runs in a goroutine that ends with ctx or with its
// deadline; Run waits for it.
func (y *syncer) begin(ctx context.Context) {
	y.lookForMirrors()
	now := time.Now()
	y.mu.Lock()
	for topic, b := range y.settle {
		if !now.Before(b.at) {
			y.schedule.Join(roomsync.Topic(topic), now)
			delete(y.settle, topic)
		}
	}
	starts, _ := y.schedule.Next(now)
	y.mu.Unlock()
	for _, start := range starts {
		y.s.running.Go(func() { y.initiate(ctx, start) })
	}
}

func (y *syncer) ended(topic roomsync.Topic, peer roomsync.PeerID, incoming bool, report *roomsync.Report) {
	if report != nil {
		y.s.log.Debug("a sync session ended", "incoming", incoming, "end", report.End, "fault", report.Fault, "equal", report.Equal,
			"accepted", report.Accepted, "known", report.Known, "refused", report.Refused, "unavailable", report.Unavailable,
			"served", report.Served, "partial", report.Partial, "sent", report.Sent.Total(), "received", report.Received.Total())
	}
	y.mu.Lock()
	defer y.mu.Unlock()
	y.schedule.Ended(topic, peer, incoming, report, time.Now())
}

// initiate runs a session that this side begins.
func (y *syncer) initiate(ctx context.Context, start roomsync.Start) {
	report, err := y.initiated(ctx, start)
	if report != nil && report.End == roomsync.EndBusy {
		// Mostly the peer refused because it begins with us at this moment. Only once its own session had the
		// time to come is ours over: the schedule keeps sessions apart and would refuse it.
		pause := time.NewTimer(busyPause)
		select {
		case <-pause.C:
		case <-ctx.Done():
		}
		pause.Stop()
	}
	y.ended(start.Topic, start.Peer, false, report)
	if err != nil && ctx.Err() == nil {
		y.s.log.Debug("a sync session failed", "error", err)
	}
}

func (y *syncer) initiated(ctx context.Context, start roomsync.Start) (*roomsync.Report, error) {
	dev, err := wire.DeviceFromPeerID([]byte(start.Peer))
	if err != nil {
		return nil, err
	}
	topic := wire.TopicKey(start.Topic)
	r := y.s.roomByTopic(topic)
	if r == nil {
		return nil, ErrNotJoined
	}
	run := &session{y: y, room: r, topic: topic, peer: start.Peer}
	return run.begin(ctx, dev)
}

// begin runs a session that this side begins with a device.
func (n *session) begin(ctx context.Context, dev wire.DeviceID) (*roomsync.Report, error) {
	y, r := n.y, n.room
	silence := time.AfterFunc(doubtAfter, func() { y.s.doubt(dev) })
	defer silence.Stop()
	octx, cancel := context.WithTimeout(ctx, sessionFirst)
	st, err := y.s.cfg.Direct.Open(octx, dev, roomsync.Protocol)
	cancel()
	if err != nil {
		y.s.doubt(dev)
		return nil, fmt.Errorf("opening a stream for sync: %w", err)
	}
	n.st = &answered{Stream: st, silence: silence}
	room, paged, err := r.syncRoom(ctx, n)
	if err != nil {
		_ = st.Reset()
		return nil, err
	}
	nonce, err := y.nonce()
	if err != nil {
		_ = st.Reset()
		return nil, err
	}
	room.AcceptUnproven = y.isMirror(n.topic, dev)
	pages := n.older
	switch {
	case pages != nil:
		room.Floor = roomsync.Time(n.floor)
	case !paged:
		pages = &roomsync.Pages{Events: y.s.cfg.Limits.HistoryEvents}
	}
	link := roomsync.Link{Self: syncPeer(y.s.self.device), Peer: n.peer, Nonce: nonce}
	n.machine = roomsync.NewInitiator(link, room, pages)
	report := n.drive(ctx)
	if n.older == nil {
		r.synced(ctx, n, &report, pages)
	}
	return &report, nil
}

// answered is a stream that stops a timer as soon as something is read from it.
type answered struct {
	Stream
	silence *time.Timer
}

func (a *answered) Read(p []byte) (int, error) {
	n, err := a.Stream.Read(p)
	if n > 0 {
		a.silence.Stop()
	}
	return n, err
}

func (y *syncer) nonce() (n roomsync.Nonce, err error) {
	if _, err = io.ReadFull(y.s.cfg.Rand, n[:]); err != nil {
		err = fmt.Errorf("reading randomness for a sync session: %w", err)
	}
	return n, err
}

// ServeStream answers a stream that a device opened, for the protocols that chat knows, and returns
// when it is over. The caller has authenticated the device.
func (s *Service) ServeStream(ctx context.Context, from wire.DeviceID, protocol string, st Stream) {
	y := s.syncer
	y.mu.Lock()
	admitted := protocol == roomsync.Protocol && y.serving < maxServing
	if admitted {
		y.serving++
	}
	y.mu.Unlock()
	if !admitted {
		_ = st.Reset()
		return
	}
	defer func() {
		y.mu.Lock()
		defer y.mu.Unlock()
		y.serving--
	}()
	nonce, err := y.nonce()
	if err != nil {
		s.log.Error("answering a sync session failed", "error", err)
		_ = st.Reset()
		return
	}
	link := roomsync.Link{Self: syncPeer(s.self.device), Peer: syncPeer(from), Nonce: nonce}
	run := &session{y: y, st: st, machine: roomsync.NewResponder(link), peer: link.Peer}
	report := run.drive(ctx)
	if run.room != nil {
		y.ended(roomsync.Topic(run.topic), link.Peer, true, &report)
		run.room.synced(ctx, run, &report, nil)
	}
}

// session drives one run of the protocol over a stream.
type session struct {
	y       *syncer
	st      Stream
	machine *roomsync.Session
	room    *room // of the topic; nil at a responder until it is asked for
	topic   wire.TopicKey
	peer    roomsync.PeerID
	checked map[roomsync.ID]*wire.Sealed // of the batch that was checked last
	own     wire.HLC                     // the newest own clock reading in the set that is compared

	// A session for older history; see scroll.go.
	older *roomsync.Pages
	floor uint64        // where the history that may be kept begins
	first roomsync.Item // the oldest that came
}

// drive runs the session over the stream until it is over, and closes it.
func (n *session) drive(ctx context.Context) roomsync.Report {
	report, err := drive.Run(ctx, n.st, n.machine, n.answer)
	if err != nil {
		n.y.s.log.Debug("a sync session was cut", "error", err)
	}
	return report
}

// answer carries out what the session asks for.
func (n *session) answer(ctx context.Context, effect roomsync.Effect) error {
	switch e := effect.(type) {
	case roomsync.OpenRoom:
		return n.open(ctx, e)
	case roomsync.ReadRecords:
		return n.read(ctx, e)
	case roomsync.CommitRecords:
		return n.commit(ctx, e)
	default:
		return fmt.Errorf("unknown effect %T", effect)
	}
}

// open answers which room a peer's session is about.
func (n *session) open(ctx context.Context, e roomsync.OpenRoom) error {
	r := n.y.s.roomByTopic(wire.TopicKey(e.Topic))
	if r == nil {
		return n.machine.Refuse(roomsync.ReasonRefused)
	}
	n.y.mu.Lock()
	admitted := n.y.schedule.Admit(e.Topic, n.peer, time.Now())
	n.y.mu.Unlock()
	if !admitted {
		return n.machine.Refuse(roomsync.ReasonBusy)
	}
	n.room, n.topic = r, wire.TopicKey(e.Topic) // from here on its end is reported
	room, _, err := r.syncRoom(ctx, n)
	if err != nil {
		return err
	}
	return n.machine.Opened(room)
}

// read gives out records. What is kept as a refused stub is unavailable.
func (n *session) read(ctx context.Context, e roomsync.ReadRecords) error {
	list := make([][]byte, 0, len(e.Items))
	size := 0
	for _, it := range e.Items {
		rec, err := n.y.s.store.Get(ctx, storage.ID(it.ID))
		switch {
		case errors.Is(err, storage.ErrNotFound):
			list = append(list, nil)
		case err != nil:
			return err
		default:
			list = append(list, rec.Value)
			size += len(rec.Value)
		}
		if size >= e.Enough {
			break
		}
	}
	return n.machine.Read(list)
}

// commit makes records durable that a peer gave us.
func (n *session) commit(ctx context.Context, e roomsync.CommitRecords) error {
	var outcomes []roomsync.Outcome
	err := n.room.do(ctx, func() error {
		var err error
		outcomes, err = n.room.takeSynced(ctx, e.Records, n.checked, n.older != nil)
		return err
	})
	if err != nil {
		return err
	}
	for _, rec := range e.Records {
		if n.first == (roomsync.Item{}) || rec.Item.Compare(n.first) < 0 {
			n.first = rec.Item
		}
	}
	return n.machine.Committed(outcomes)
}

// syncRoom returns what a session needs to know of the room, and whether its recent history was
// fetched once.
func (r *room) syncRoom(ctx context.Context, n *session) (room roomsync.Room, paged bool, err error) {
	type known struct {
		room  roomsync.Room
		paged bool
		own   wire.HLC
	}
	found := make(chan known, 1) // the room's goroutine may still be at it when do gives up
	err = r.do(ctx, func() error {
		e := r.epochOf(n.topic)
		if e == nil {
			return ErrNotJoined
		}
		set, err := r.openSet(ctx, e)
		if err != nil {
			return err
		}
		r.mu.RLock()
		defer r.mu.RUnlock()
		f := known{own: r.state.Clock}
		f.paged = r.state.Paged || r.s.cfg.Clock.Now().Sub(r.row.JoinedAt).Abs() > aloneFor
		f.room = roomsync.Room{
			Topic: roomsync.Topic(n.topic), Set: set.View(), Floor: roomsync.Time(r.state.Floor),
			Cut: roomsync.TimeAt(r.s.cfg.Clock.Now().Add(-roomsync.CutDelay)),
			Prove: func(message []byte) ([]byte, error) {
				proof := e.keys.ProveSync(message)
				return proof[:], nil
			},
			Proven: func(message, proof []byte) bool {
				return len(proof) == len(wire.Signature{}) && wire.VerifySync(n.topic, message, wire.Signature(proof))
			},
			Check: n.check,
		}
		found <- f
		return nil
	})
	if err != nil {
		return roomsync.Room{}, false, err
	}
	f := <-found
	n.own = f.own
	return f.room, f.paged, nil
}

// errEphemeral is what is wrong with a record of an event that is never stored.
var errEphemeral = errors.New("ephemeral event in a set")

// check verifies records as the gossip validator does, and keeps what it has parsed for commit.
func (n *session) check(records []roomsync.Record) {
	r := n.room
	raws := make([][]byte, len(records))
	for i := range records {
		raws[i] = records[i].Bytes
	}
	n.checked = make(map[roomsync.ID]*wire.Sealed, len(records))
	sealed, errs := r.s.verifier.CheckSealedBatch(n.topic, raws)
	for i := range records {
		switch {
		case errs[i] != nil:
			records[i].Err = errs[i]
		case sealed[i].Ephemeral:
			records[i].Err = errEphemeral
		default:
			records[i].Item = roomsync.Item{Time: roomsync.Time(sealed[i].HLC), ID: roomsync.ID(sealed[i].ID)}
			n.checked[records[i].Item.ID] = sealed[i]
		}
	}
}

// takeSynced takes in records that came by sync and passed check, which left them parsed. What is old was
// asked for, to look back at: it is no news.
func (r *room) takeSynced(ctx context.Context, records []roomsync.Record, checked map[roomsync.ID]*wire.Sealed, old bool) ([]roomsync.Outcome, error) {
	outcomes := make([]roomsync.Outcome, len(records))
	place := make(map[wire.SealedID]int, len(records))
	var batch []incoming
	size := 0
	flush := func() error {
		list, err := r.sift(ctx, batch)
		if err == nil {
			_, err = r.take(ctx, list, storage.Durable, nil)
		}
		for i := range list {
			if list[i].refused {
				outcomes[place[list[i].sealed.ID]] = roomsync.Refused
			} else {
				outcomes[place[list[i].sealed.ID]] = roomsync.Accepted
			}
		}
		batch, size = nil, 0
		return err
	}
	for i := range records {
		sealed := checked[records[i].Item.ID]
		if sealed == nil {
			return nil, errors.New("a record to be stored was not checked")
		}
		outcomes[i] = roomsync.Known
		if sealed.HLC.Timeliness(r.s.cfg.Clock.Now()) != wire.OnTime {
			outcomes[i] = roomsync.Refused
		}
		place[sealed.ID] = i
		batch = append(batch, incoming{sealed: sealed, synced: true, old: old})
		if size += len(records[i].Bytes); len(batch) >= batchEvents || size >= batchBytes {
			if err := flush(); err != nil {
				return nil, err
			}
		}
	}
	return outcomes, flush()
}

// synced notes what came of a session.
func (r *room) synced(ctx context.Context, n *session, report *roomsync.Report, pages *roomsync.Pages) {
	if report.End != roomsync.EndFinished {
		return
	}
	dev, err := wire.DeviceFromPeerID([]byte(n.peer))
	if err != nil {
		return
	}
	mirror := r.s.syncer.isMirror(n.topic, dev)
	r.pub.compared(dev, wire.HLC(report.Cut), report.Served)
	r.s.syncer.heads(n.topic, map[wire.DeviceID]bool{dev: false})
	if !mirror {
		r.pub.oweDevice(dev)
	}
	handed := false
	err = r.do(ctx, func() error {
		var b storage.Batch
		compared := pages == nil && (report.Equal || report.Rounds > 0) // and no pages were served
		if compared {
			handed = r.handed(n.topic, report, n.own, mirror)
		}
		changed := handed
		r.mu.Lock()
		if !r.state.Paged && (pages != nil || !report.Partial) {
			r.state.Paged = true
			changed = true
			if first, ok := oldest(report); ok && pages != nil && !report.PageEnd {
				r.state.Floor = max(r.state.Floor, first)
			}
		}
		var uncounted []wire.EventID
		if compared && !report.Partial && report.Unserved == 0 {
			uncounted = r.tracker.forget(wire.HLC(report.Cut))
		}
		for _, id := range uncounted {
			r.waitingRow(&b, id)
			changed = true
		}
		missing := r.tracker.missing()
		r.mu.Unlock()
		if missing > 0 {
			r.s.syncer.gap(r)
		}
		if !changed {
			return nil
		}
		r.putState(&b)
		_, err := r.s.store.Commit(ctx, &b, storage.Relaxed)
		if len(uncounted) > 0 {
			c := r.conversation()
			r.s.events.publish(Event{Type: EventConversation, Conversation: &c})
		}
		return err
	})
	if err != nil && ctx.Err() == nil && !errors.Is(err, ErrNotJoined) {
		r.log.Warn("noting a sync session failed", "error", err)
	}
	if handed && mirror && report.Equal {
		r.pub.settled(ctx, func(o outgoing) bool {
			return r.storedByNow(o)
		}, false)
	}
}

// oldest returns where the history fetched by pages begins.
func oldest(report *roomsync.Report) (uint64, bool) {
	first, found := ^uint64(0), false
	for _, c := range report.Complete {
		first, found = min(first, uint64(c.From)), true
	}
	return first, found
}
