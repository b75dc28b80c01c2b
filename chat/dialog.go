package chat

import (
	"context"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/starling-chat/starling/chat/wire"
	"github.com/starling-chat/starling/storage"
)

// dialogs is all direct conversations. One goroutine, run, owns them: frames from devices, own
// messages and requests reach it through bounded queues.
type dialogs struct {
	s *Service

	frames  chan frameIn
	waiting atomic.Int64 // bytes in frames
	submits chan *Submission
	calls   chan func()
	peers   chan peerChange
	wake    chan struct{}
	// mailWake makes the own mailboxes be looked into now; capacity 1.
	mailWake chan struct{}
	// relayWake says that relays came or went: mailboxes are placed now; capacity 1.
	relayWake chan struct{}
	looked    time.Time     // when somebody who came made the mailboxes be looked into
	ended     chan struct{} // closed when run has returned
	awaiting  chan awaited  // batches on their way to the disk
	durable   chan func()   // what follows for those that arrived
	drafts    int           // batches of own messages among them

	mu        sync.RWMutex // guards byAccount, byStream, live, and of each dialog: row, modded, runs, and the length of out
	byAccount map[wire.AccountID]*dialog
	byStream  map[storage.StreamID]*dialog
	live      map[MessageID]liveOut // of what is in the outbox

	// The rest belongs to the goroutine that runs.
	sealer    *sealer
	greeted   map[wire.DeviceID]bool      // greeted since they connected
	told      map[wire.DeviceID]bool      // given our record since they connected
	asked     map[wire.DeviceID]time.Time // asked for their record
	pending   map[wire.DeviceID][]frameIn // envelopes waiting for the sender's record
	strangers []time.Time                 // when new strangers wrote
	typed     map[wire.AccountID]time.Time
	sweeping  byte                        // where the next look for old envelopes begins
	nextSweep time.Time                   // not before
	relaySeen map[wire.DeviceID]time.Time // when relays were connected last
	mailings  int                         // under way
	troubles  map[wire.MailboxID]trouble
}

// liveOut is a message in the outbox.
type liveOut struct {
	outStateRow
	seq uint64
}

// frameIn is a frame that a device sent.
type frameIn struct {
	from  wire.DeviceID
	path  Path
	frame []byte
	// mail says that the frame lay in a mailbox: nothing but its content proves who it is from.
	mail bool
}

// peerChange says how a device is reached now.
type peerChange struct {
	dev  wire.DeviceID
	path Path
	was  Path
}

// dialog is one direct conversation.
type dialog struct {
	account      wire.AccountID
	conversation wire.ConversationID
	stream       storage.StreamID
	row          dialogRow
	modded       map[wire.EventID]struct{}
	runs         outRuns       // how far own messages came that left the outbox; replaced, never changed
	out          []*outgoingDM // not acknowledged yet, in order
	outBytes     int           // of the bodies in out

	// Belongs to the goroutine that runs the dialogs.
	connected bool      // a device of theirs was connected when last looked
	nextTry   time.Time // when to look at out again
	knocks    int       // attempts to reach them since they were last connected
	nextKnock time.Time
	searching bool // a look-up in the directory runs
	looking   bool // a look-up of their records runs
	looked    time.Time
	handed    *handedRow // what they were given last; nil: not read yet
	held      bool       // they do not take more before they accept us
	unreached bool       // no path was found since they were last connected
	mailing   bool       // a batch is on its way to their mailboxes
}

// dialogRow is the state of a direct conversation that changes with every message.
type dialogRow struct {
	Version  int       `json:"v"`
	Seq      uint64    `json:"seq"`     // own last sequence number
	Arrival  uint64    `json:"arrival"` // the last arrival that this state includes
	Read     uint64    `json:"read"`
	Unread   int       `json:"unread"`
	Mentions int       `json:"mentions"`
	Told     uint64    `json:"told"`    // the other side was told that we read up to here
	LastAt   time.Time `json:"last_at"` // when the newest message arrived
	Newest   uint64    `json:"newest"`  // greatest time of sending seen, Unix ms
	Theirs   bool      `json:"theirs"`  // which was theirs
	Muted    bool      `json:"muted,omitempty"`
}

const (
	// frameQueue is how many frames may wait for the owner of direct messages; more are dropped, and
	// their senders try again.
	frameQueue      = 1024
	frameQueueBytes = 8 << 20
	// frameBatch and frameBytes bound the frames taken in with one transaction.
	frameBatch = 256
	frameBytes = 384 << 10
	// pumpEvery is how often messages that wait are looked at.
	pumpEvery = time.Second
)

func newDialogs(ctx context.Context, s *Service) (*dialogs, error) {
	d := &dialogs{
		s: s, frames: make(chan frameIn, frameQueue), submits: make(chan *Submission, s.cfg.Limits.SubmitQueue),
		calls: make(chan func(), callQueue), ended: make(chan struct{}), peers: make(chan peerChange, frameQueue), wake: make(chan struct{}, 1),
		byAccount: make(map[wire.AccountID]*dialog), byStream: make(map[storage.StreamID]*dialog),
		live: make(map[MessageID]liveOut), awaiting: make(chan awaited, awaitQueue), durable: make(chan func()),
		greeted: make(map[wire.DeviceID]bool), told: make(map[wire.DeviceID]bool),
		asked: make(map[wire.DeviceID]time.Time), pending: make(map[wire.DeviceID][]frameIn),
		typed: make(map[wire.AccountID]time.Time), relaySeen: make(map[wire.DeviceID]time.Time),
		mailWake: make(chan struct{}, 1), relayWake: make(chan struct{}, 1), troubles: make(map[wire.MailboxID]trouble),
	}
	var err error
	if d.sealer, err = newSealer(ctx, s); err != nil {
		return nil, err
	}
	for kv, err := range s.store.ScanBucket(ctx, bucketDialogs, nil) {
		if err != nil {
			return nil, err
		}
		row, err := decodeRow[dialogRow]("direct conversation", kv.Value)
		if err != nil {
			return nil, err
		}
		if _, err := d.open(ctx, wire.AccountID(kv.Key), row); err != nil {
			return nil, err
		}
	}
	if err := moveQueues(ctx, s.store); err != nil {
		return nil, fmt.Errorf("moving direct messages' queues to their present form: %w", err)
	}
	if err := d.loadOutbox(ctx); err != nil {
		return nil, fmt.Errorf("reading the outbox: %w", err)
	}
	return d, nil
}

// open makes a dialog known.
func (d *dialogs) open(ctx context.Context, account wire.AccountID, row dialogRow) (*dialog, error) {
	stream, err := d.s.store.Stream(ctx, "dm/"+string(account[:]))
	if err != nil {
		return nil, fmt.Errorf("opening a direct conversation: %w", d.s.storeError(err))
	}
	g := &dialog{
		account: account, conversation: wire.DirectConversation(d.s.self.account, account), stream: stream,
		row: row, modded: make(map[wire.EventID]struct{}),
	}
	for kv, err := range d.s.store.ScanBucket(ctx, bucketModifier, stream[:]) {
		if err != nil {
			return nil, err
		}
		target, _, err := decodeModifier(kv.Key, kv.Value)
		if err != nil {
			return nil, err
		}
		g.modded[target] = struct{}{}
	}
	if g.runs, err = loadOutRuns(ctx, d.s.store, stream); err != nil {
		return nil, err
	}
	if n := len(g.runs); n > 0 {
		g.row.Seq = max(g.row.Seq, g.runs[n-1].last) // a row that damage took back must not repeat numbers
	}
	info, err := d.s.store.Info(ctx, stream)
	if err != nil {
		return nil, err
	}
	g.row.Arrival = max(g.row.Arrival, info.Arrival) // records that damage left without their state
	d.mu.Lock()
	defer d.mu.Unlock()
	d.byAccount[account], d.byStream[stream] = g, g
	return g, nil
}

// with returns the dialog with an account, making it if need be. For the owner only.
func (d *dialogs) with(ctx context.Context, account wire.AccountID) (*dialog, error) {
	if g := d.find(account); g != nil {
		return g, nil
	}
	return d.open(ctx, account, dialogRow{Version: rowVersion})
}

// find returns the dialog with an account, or nil.
func (d *dialogs) find(account wire.AccountID) *dialog {
	d.mu.RLock()
	defer d.mu.RUnlock()
	return d.byAccount[account]
}

// all returns every dialog.
func (d *dialogs) all() []*dialog {
	d.mu.RLock()
	defer d.mu.RUnlock()
	list := make([]*dialog, 0, len(d.byAccount))
	for _, g := range d.byAccount {
		list = append(list, g)
	}
	slices.SortFunc(list, func(a, b *dialog) int { return slices.Compare(a.account[:], b.account[:]) })
	return list
}

// run owns the direct messages until ctx ends.
func (d *dialogs) run(ctx context.Context) {
	defer close(d.ended)
	d.s.running.Go(d.awaitDisk) // ends with finishAwaited
	defer d.finishAwaited()
	tick := time.NewTicker(pumpEvery)
	defer tick.Stop()
	d.keepPrekeys(ctx)
	for {
		submits := d.submits
		if d.drafts >= maxDrafts {
			submits = nil
		}
		select {
		case f := <-d.frames:
			d.receive(ctx, f)
		case sub := <-submits:
			d.accept(ctx, sub)
		case done := <-d.durable:
			done()
		case fn := <-d.calls:
			fn()
		case p := <-d.peers:
			d.peerChanged(ctx, p)
		case <-d.wake:
			for _, g := range d.all() {
				g.connected, g.knocks, g.nextKnock, g.nextTry = false, 0, time.Time{}, time.Time{}
				d.pump(ctx, g)
			}
		case <-tick.C:
			d.keepPrekeys(ctx)
			d.handOver(ctx)
			d.sweepSeen(ctx)
			for _, g := range d.all() {
				d.pump(ctx, g)
			}
		case <-ctx.Done():
			return
		}
	}
}

func (d *dialogs) keepPrekeys(ctx context.Context) {
	if err := d.sealer.rotate(ctx); err != nil && ctx.Err() == nil {
		d.s.log.Warn("renewing prekeys failed", "error", err)
	}
}

// do runs fn in the goroutine that owns the direct messages and waits for it.
func (d *dialogs) do(ctx context.Context, fn func() error) error {
	done := make(chan error, 1)
	select {
	case d.calls <- func() { done <- fn() }:
	case <-ctx.Done():
		return ctx.Err()
	case <-d.ended:
		return ErrStopped
	}
	select {
	case err := <-done:
		return err
	case <-ctx.Done():
		return ctx.Err()
	case <-d.ended:
		select {
		case err := <-done:
			return err
		default:
			return ErrStopped
		}
	}
}

// later runs fn in the goroutine that owns the direct messages, from a goroutine that may wait.
func (d *dialogs) later(fn func()) {
	select {
	case d.calls <- fn:
	case <-d.ended:
	}
}

// HandleFrame takes a frame that a device sent over the stream of direct messages, and the path it
// came by. It does not block: what finds the queue full is dropped, and its sender tries again.
func (s *Service) HandleFrame(from wire.DeviceID, path Path, frame []byte) {
	if len(frame) == 0 || len(frame) > wire.MaxFrame {
		return
	}
	switch frame[0] {
	case progressType:
		if p, err := parseProgress(frame); err == nil {
			if r := s.roomByTopic(p.Topic); r != nil {
				r.pub.reported(from, p.Seq)
			}
		}
		return
	case eventType:
		s.takeEvent(from, frame)
		return
	case standingType:
		s.takeStanding(from, frame)
		return
	}
	if !s.dialogs.offer(frameIn{from: from, path: path, frame: frame}) {
		s.log.Debug("a frame was dropped: too many are waiting")
	}
}

// offer queues a frame for the owner, or says that the queue is full.
func (d *dialogs) offer(f frameIn) bool {
	size := int64(len(f.frame))
	if d.waiting.Add(size) <= frameQueueBytes {
		select {
		case d.frames <- f:
			return true
		default:
		}
	}
	d.waiting.Add(-size)
	return false
}

// takeEvent takes a room's event that a neighbour sent straight to us, as if it had come by gossip.
func (s *Service) takeEvent(from wire.DeviceID, frame []byte) {
	topic, raw, err := parseEventFrame(frame)
	if err != nil {
		return
	}
	r := s.roomByTopic(topic)
	if r == nil {
		return
	}
	sealed, err := s.verifier.CheckSealed(topic, raw)
	if err != nil || sealed.IsStub() || sealed.Ephemeral {
		return
	}
	r.deliver(Incoming{Sealed: sealed, From: from})
}

// directID is the id under which a direct message is shown and stored, the same at both sides:
// SHA-256("starling/direct-message/1" || conversation || message id).
func directID(c wire.ConversationID, id wire.MsgID) MessageID {
	h := sha256.New()
	h.Write([]byte("starling/direct-message/1"))
	h.Write(c[:])
	h.Write(id[:])
	return MessageID(h.Sum(nil))
}

// dmRecord is a direct message as it lies in its stream. Encoding: version, type, flags, path, device
// 32, received 8 (Unix ms), length of the client id, client id, then the encoded content, or the text
// of a notice.
type dmRecord struct {
	Notice   string          // a line made by this node; else Content
	Content  *wire.DMContent // without padding
	Own      bool
	Device   wire.DeviceID
	Path     Path
	Received time.Time
	ClientID string
}

const (
	dmRecordSize    = 4 + 32 + 8 + 1
	dmTypeContent   = 1
	dmTypeNotice    = 2
	dmFlagOwn       = 1
	dmBackDatedSpan = 2 * time.Minute
)

func (r *dmRecord) encode() ([]byte, error) {
	typ, rest := byte(dmTypeNotice), []byte(r.Notice)
	if r.Content != nil {
		bare := *r.Content
		bare.Acks = nil
		var err error
		if rest, err = bare.Encode(); err != nil {
			return nil, err
		}
		typ = dmTypeContent
	}
	flags := byte(0)
	if r.Own {
		flags = dmFlagOwn
	}
	b := make([]byte, 0, dmRecordSize+len(r.ClientID)+len(rest))
	b = append(b, rowVersion, typ, flags, byte(max(pathRank(r.Path), 0)))
	b = append(b, r.Device[:]...)
	b = binary.BigEndian.AppendUint64(b, uint64(r.Received.UnixMilli()))
	b = append(append(b, byte(len(r.ClientID))), r.ClientID...)
	return append(b, rest...), nil
}

func decodeDMRecord(b []byte) (*dmRecord, error) {
	bad := fmt.Errorf("reading a stored direct message of %d bytes: %w", len(b), storage.ErrCorrupt)
	if len(b) < dmRecordSize || b[0] != rowVersion || int(b[3]) >= len(pathOrder) {
		return nil, bad
	}
	r := &dmRecord{
		Own: b[2]&dmFlagOwn != 0, Path: pathOrder[b[3]],
		Received: time.UnixMilli(int64(binary.BigEndian.Uint64(b[36:]))).UTC(),
	}
	copy(r.Device[:], b[4:])
	n := int(b[44])
	if len(b) < dmRecordSize+n {
		return nil, bad
	}
	r.ClientID = string(b[dmRecordSize : dmRecordSize+n])
	rest := b[dmRecordSize+n:]
	switch b[1] {
	case dmTypeNotice:
		r.Notice = string(rest)
		return r, nil
	case dmTypeContent:
		var err error
		if r.Content, err = wire.ParseDMContent(rest); err != nil {
			return nil, fmt.Errorf("reading a stored direct message: %w", errors.Join(storage.ErrCorrupt, err))
		}
		return r, nil
	}
	return nil, bad
}

// dmFlags returns the flags of a direct message's record.
func dmFlags(kind wire.DMKind, own bool) uint8 {
	flags := uint8(0)
	switch kind {
	case wire.DMMessage:
		flags = recordShown | recordText
	case wire.DMEdit, wire.DMRedact, wire.DMReact:
	default:
		flags = recordShown
	}
	if own {
		flags |= recordOwn
	}
	return flags
}

// dmBody decodes what a direct message shares with room events; nil for other kinds and when it was
// deleted.
func dmBody(c *wire.DMContent) wire.Body {
	kind, ok := c.Kind.EventKind()
	if !ok || len(c.Body) == 0 && c.Kind != wire.DMRedact {
		return nil
	}
	body, err := wire.ParseBody(kind, c.Body)
	if err != nil {
		return nil
	}
	return body
}

// dmTime is a direct message's place in the order: its time of sending, then its number.
func dmTime(sent time.Time, seq uint64) uint64 {
	return storage.ClockTime(sent) | seq&0xffff
}
