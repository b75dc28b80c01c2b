package chat

import (
	"context"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"slices"
	"time"

	"github.com/starling-chat/starling/chat/wire"
	"github.com/starling-chat/starling/storage"
)

// outboxQueue holds the own direct messages that nobody has acknowledged.
const outboxQueue = "outbox"

// outgoingDM is an own direct message until it is acknowledged.
type outgoingDM struct {
	id   MessageID
	row  outboxRow
	next time.Time // when it may be tried again

	// line is the message as it was stored in this run, so that it need not be read again; nil when it
	// has to be.
	line *dmLine

	// What was sealed for each device in this run, to be sent again as it is.
	copies map[wire.DeviceID]*sealedCopy
	sends  int // since it was sealed

	kept   []wire.MailboxID // where it lies
	stored time.Time        // since when, in this run
	again  bool             // some mailbox did not take it
}

// outboxRow is what the outbox keeps of a message; its text is in the record.
type outboxRow struct {
	Version  int            `json:"v"`
	Account  wire.AccountID `json:"account"`
	Msg      wire.MsgID     `json:"msg"`
	Seq      uint64         `json:"seq"`
	Size     int            `json:"size"`
	Created  time.Time      `json:"created"`
	Attempts int            `json:"attempts,omitempty"`
	State    State          `json:"state"`
	Reason   string         `json:"reason,omitempty"`
	// Hidden messages are made by this node, such as the answer to a request, and shown nowhere; their
	// content lies here.
	Hidden  bool   `json:"hidden,omitempty"`
	Content []byte `json:"content,omitempty"`
	// Receipt messages are hidden ones that nobody acknowledges: they are gone once a mailbox has them.
	Receipt bool `json:"receipt,omitempty"`
}

const (
	// dmWindow is how many messages to one account may be on their way without acknowledgement: half
	// of what the session layer lets be passed over.
	dmWindow = 512
	// sealBatch and sealBytes bound what is sealed with one transaction for mailboxes; for streams it is
	// streamBatch and sealBytes.
	sealBatch   = 64
	streamBatch = 256
	sealBytes   = 384 << 10
	// sendsPerSeal is how often one sealed form is sent before the message is sealed anew.
	sendsPerSeal = 3
	// keysPause is the pause for a message that waits for the recipient's prekeys: the request, or the
	// answer, may have been lost with a connection.
	keysPause = 5 * time.Second
	// heldPause is the pause for a message that the other side does not take before it accepts us.
	heldPause = time.Hour
	// maxRecipients bounds the devices of one account that a message is sealed for.
	maxRecipients = 4
)

// retryPauses are the pauses between attempts; the last one repeats.
var retryPauses = []time.Duration{
	2 * time.Second, 5 * time.Second, 15 * time.Second, time.Minute, 5 * time.Minute,
	15 * time.Minute, 30 * time.Minute, time.Hour,
}

// retryPause returns the pause after a number of attempts, varied by a fifth so that many do not come
// at once.
func (s *Service) retryPause(attempts int) time.Duration {
	pause := retryPauses[min(max(attempts-1, 0), len(retryPauses)-1)]
	var b [2]byte
	if _, err := io.ReadFull(s.cfg.Rand, b[:]); err != nil {
		return pause
	}
	part := float64(uint16(b[0])<<8|uint16(b[1])) / 65535
	return time.Duration(float64(pause) * (0.8 + 0.4*part))
}

// loadOutbox reads what earlier runs left undelivered.
func (d *dialogs) loadOutbox(ctx context.Context) error {
	for it, err := range d.s.store.Queue(ctx, outboxQueue) {
		if err != nil {
			return err
		}
		row, err := decodeRow[outboxRow]("outbox entry", it.Value)
		if err != nil {
			return err
		}
		g, err := d.with(ctx, row.Account)
		if err != nil {
			return err
		}
		o := &outgoingDM{id: MessageID(it.ID), row: row, copies: make(map[wire.DeviceID]*sealedCopy)}
		if row.State == StateSent {
			o.row.State = StateQueued // whether it arrived will show
		}
		g.out = append(g.out, o)
		g.outBytes += o.row.Size
		d.setLive(o)
		g.row.Seq = max(g.row.Seq, row.Seq) // a row that damage took back must not repeat numbers
	}
	for _, g := range d.all() {
		slices.SortFunc(g.out, func(a, b *outgoingDM) int {
			if a.row.Seq < b.row.Seq {
				return -1
			}
			return 1
		})
	}
	return nil
}

// queue adds an own message to the outbox.
func (d *dialogs) queue(b *storage.Batch, g *dialog, o *outgoingDM) {
	o.keep(b)
	d.enlist(g, o)
}

// keep writes what the outbox keeps of a message: when it is made, and when its state changes for good.
func (o *outgoingDM) keep(b *storage.Batch) { b.Hold(outboxQueue, storage.ID(o.id), encodeRow(o.row)) }

// enlist adds an own message to the outbox in memory alone.
func (d *dialogs) enlist(g *dialog, o *outgoingDM) {
	d.mu.Lock()
	defer d.mu.Unlock()
	g.out = append(g.out, o)
	g.outBytes += o.row.Size
	d.live[o.id] = liveOut{outStateRow{State: o.row.State}, o.row.Seq}
}

// setLive makes a message's state in the outbox visible to whoever shows it.
func (d *dialogs) setLive(o *outgoingDM) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.live[o.id] = liveOut{outStateRow{State: o.row.State, Reason: o.row.Reason}, o.row.Seq}
}

// unqueue takes messages out of the list in memory.
func (d *dialogs) unqueue(g *dialog, gone func(*outgoingDM) bool) {
	d.mu.Lock()
	defer d.mu.Unlock()
	g.out = slices.DeleteFunc(g.out, func(o *outgoingDM) bool {
		out := gone(o)
		if out {
			delete(d.live, o.id)
			g.outBytes -= o.row.Size
		}
		return out
	})
}

// pump looks at what waits for an account and sends what can be sent.
func (d *dialogs) pump(ctx context.Context, g *dialog) {
	if len(g.out) == 0 || d.s.people.suspended(g.account) {
		return
	}
	now := d.s.cfg.Clock.Now()
	devices := d.connectedDevices(g.account)
	if len(devices) == 0 {
		g.connected = false
		d.giveUp(ctx, g, now)
		d.knock(ctx, g, now)
		d.mail(ctx, g)
		return
	}
	if !g.connected {
		g.connected, g.unreached, g.knocks, g.nextKnock = true, false, 0, time.Time{}
		for _, o := range g.out {
			o.next = time.Time{}
			if o.row.State == StateStored && now.Sub(o.stored).Abs() > freshMail {
				o.next = now.Add(collectPatience)
			}
		}
		g.nextTry = time.Time{}
		for _, dev := range devices {
			delete(d.asked, dev) // on a connection that is gone
		}
	}
	if now.Before(g.nextTry) && g.nextTry.Sub(now) <= retryPauses[len(retryPauses)-1]*2 {
		return
	}
	d.giveUp(ctx, g, now)
	for d.sendSome(ctx, g, devices) {
	}
}

// connectedDevices returns the devices of an account that can be written to now.
func (d *dialogs) connectedDevices(account wire.AccountID) []wire.DeviceID {
	var list []wire.DeviceID
	for _, dev := range d.s.people.devicesOf(account) {
		if dev != d.s.self.device && d.s.people.online(dev) != PathNone && len(list) < maxRecipients {
			list = append(list, dev)
		}
	}
	return list
}

// sendSome seals one batch of what is due, stores the session states with it, and sends it. It says
// whether there may be more.
func (d *dialogs) sendSome(ctx context.Context, g *dialog, devices []wire.DeviceID) bool {
	work, more := d.pick(ctx, g, devices)
	if len(work) == 0 {
		return false
	}
	var b storage.Batch
	d.sealer.store(&b)
	pending, err := d.s.store.Begin(ctx, &b)
	if err != nil {
		d.sealer.rollback()
		d.unsent(ctx, g, work, err)
		return false
	}
	d.sealer.committed()
	d.whenDurable(pending, func(err error) {
		if err != nil {
			d.unsent(ctx, g, work, err)
			return
		}
		d.dispatch(ctx, g, work)
	})
	return more
}

// unsent notes that what was sealed could not be stored.
func (d *dialogs) unsent(ctx context.Context, g *dialog, work []outWork, err error) {
	unseal(work)
	g.nextTry = d.s.cfg.Clock.Now().Add(retryPauses[0])
	if ctx.Err() == nil {
		d.s.log.Warn("storing session states failed; nothing was sent", "error", err)
	}
}

// unseal forgets sealed forms whose session states were not stored.
func unseal(work []outWork) {
	for _, w := range work {
		w.o.copies, w.o.next = make(map[wire.DeviceID]*sealedCopy), time.Time{}
	}
}

// outWork is one message on its way to one device.
type outWork struct {
	o    *outgoingDM
	dev  wire.DeviceID
	copy *sealedCopy
}

// pick chooses what to send now and seals what has no sealed form. It sets when to look again.
func (d *dialogs) pick(ctx context.Context, g *dialog, devices []wire.DeviceID) (work []outWork, more bool) {
	now := d.s.cfg.Clock.Now()
	next := now.Add(retryPauses[len(retryPauses)-1])
	flying, size := 0, 0
	for _, o := range g.out {
		if o.row.State == StateFailed {
			continue
		}
		if flying == dmWindow {
			break // acknowledgements open the window again
		}
		flying++
		if now.Before(o.next) && o.next.Sub(now) <= heldPause*2 {
			if o.next.Before(next) {
				next = o.next
			}
			continue
		}
		if len(work) >= streamBatch || size >= sealBytes || g.held && len(work) > 0 {
			more = true
			break
		}
		chosen, n := d.sealFor(ctx, g, o, devices)
		if len(chosen) == 0 {
			if again := now.Add(keysPause); again.Before(next) {
				next = again
			}
			continue
		}
		size += n
		o.row.Attempts++
		o.sends++
		o.next = now.Add(d.s.retryPause(o.row.Attempts))
		if o.next.Before(next) {
			next = o.next
		}
		work = append(work, chosen...)
	}
	g.nextTry = next
	return work, more
}

// sealFor returns a message's sealed form for each device that can open one.
func (d *dialogs) sealFor(ctx context.Context, g *dialog, o *outgoingDM, devices []wire.DeviceID) (work []outWork, size int) {
	if o.sends >= sendsPerSeal {
		o.copies, o.sends = make(map[wire.DeviceID]*sealedCopy), 0
	}
	var content []byte
	for _, dev := range devices {
		if c := o.copies[dev]; c != nil && d.sealer.holds(dev, c.session) {
			work, size = append(work, outWork{o, dev, c}), size+len(c.envelope)
			continue
		}
		ready, err := d.sealer.ready(ctx, dev)
		if err == nil && !ready {
			d.wantPrekeys(dev)
			continue
		}
		if err == nil && content == nil {
			content, err = d.contentOf(ctx, g, o)
		}
		var c sealedCopy
		if err == nil {
			c, err = d.sealer.seal(ctx, dev, content)
		}
		if errors.Is(err, errNoKeys) {
			d.wantPrekeys(dev)
			continue
		}
		if err != nil {
			d.s.log.Error("sealing a direct message failed", "error", err)
			continue
		}
		o.copies[dev] = &c
		work, size = append(work, outWork{o, dev, &c}), size+len(c.envelope)
	}
	return work, size
}

// contentOf returns what is to be sealed for a message.
func (d *dialogs) contentOf(ctx context.Context, g *dialog, o *outgoingDM) ([]byte, error) {
	if o.row.Hidden {
		return o.row.Content, nil
	}
	if o.line != nil && o.line.rec.Content != nil {
		return o.line.rec.Content.Encode()
	}
	rec, err := d.s.store.Get(ctx, storage.ID(o.id))
	if err != nil {
		return nil, err
	}
	r, err := decodeDMRecord(rec.Value)
	if err != nil {
		return nil, err
	}
	if r.Content == nil {
		return nil, fmt.Errorf("outbox entry %s: %w", o.id, storage.ErrCorrupt)
	}
	return r.Content.Encode()
}

// dispatch hands sealed messages to the links, those for one device together; what became of them
// comes back later.
func (d *dialogs) dispatch(ctx context.Context, g *dialog, work []outWork) {
	frames, list := make(map[wire.DeviceID][][]byte), make(map[wire.DeviceID][]*outgoingDM)
	var order []wire.DeviceID
	for _, w := range work {
		frame, err := wire.EncodeFrame(&wire.DMData{Envelope: w.copy.envelope})
		if err != nil {
			d.s.log.Error("encoding a direct message failed", "error", err)
			continue
		}
		if frames[w.dev] == nil {
			order = append(order, w.dev)
		}
		if w.copy.first {
			d.tellPrekeys(ctx, w.dev)
		}
		frames[w.dev], list[w.dev] = append(frames[w.dev], frame), append(list[w.dev], w.o)
	}
	for _, dev := range order {
		sent := list[dev]
		if slices.ContainsFunc(sent, func(o *outgoingDM) bool { return o.sends > 1 }) {
			d.s.doubt(dev)
		}
		queued := d.s.links.sendAll(dev, frames[dev], func(err error) {
			d.later(func() { d.sent(ctx, g, sent, err) })
		})
		if !queued {
			g.nextTry = d.s.cfg.Clock.Now().Add(retryPauses[0])
			for _, o := range sent {
				o.next = g.nextTry
			}
		}
	}
}

// doubt has the connections to a device asked whether they still work: something was not answered.
func (s *Service) doubt(dev wire.DeviceID) {
	if p, ok := s.cfg.Direct.(Prober); ok {
		p.Probe(dev)
	}
}

// sent notes what became of frames.
func (d *dialogs) sent(ctx context.Context, g *dialog, list []*outgoingDM, err error) {
	if err != nil {
		return // the next attempt is planned already
	}
	changed := list[:0]
	for _, o := range list {
		if !d.waits(o) || o.row.State == StateFailed || o.row.State.rank() >= StateSent.rank() {
			continue // acknowledged, cancelled or given up meanwhile, or sent before
		}
		o.row.State = StateSent
		d.setLive(o)
		changed = append(changed, o)
	}
	d.showOut(ctx, g, changed)
}

// waits says whether a message is in the outbox still.
func (d *dialogs) waits(o *outgoingDM) bool {
	d.mu.RLock()
	defer d.mu.RUnlock()
	_, ok := d.live[o.id]
	return ok
}

// wantPrekeys asks a device for its record, at most every few seconds.
func (d *dialogs) wantPrekeys(dev wire.DeviceID) {
	now := time.Now()
	last, asked := d.asked[dev]
	if asked && now.Sub(last) < retryPauses[0] {
		return
	}
	if asked {
		d.s.doubt(dev) // it was not answered
	}
	if d.s.links.send(dev, prekeysWanted, nil) {
		d.asked[dev] = now
	}
}

// tellPrekeys gives a device our record, once while it is connected. It names the mailboxes that there can
// be by now: we may be gone before it is told anything newer, and it could leave nothing for us.
func (d *dialogs) tellPrekeys(ctx context.Context, dev wire.DeviceID) {
	if d.told[dev] {
		return
	}
	if d.s.cfg.Relays != nil {
		if err := d.place(ctx, d.s.cfg.Relays.Relays()); err != nil && ctx.Err() == nil {
			d.s.log.Warn("placing mailboxes failed", "error", err)
		}
	}
	d.tellRecord(dev)
}

// tellRecord is tellPrekeys with the record as it is.
func (d *dialogs) tellRecord(dev wire.DeviceID) {
	if !d.told[dev] && d.sealer.own.Record != nil && d.s.links.send(dev, prekeysFrame(d.sealer.own.Record), nil) {
		d.told[dev] = true
	}
}

// knock tries to reach an account of which no device is connected, ever more rarely.
func (d *dialogs) knock(ctx context.Context, g *dialog, now time.Time) {
	if now.Before(g.nextKnock) && g.nextKnock.Sub(now) <= retryPauses[len(retryPauses)-1]*2 || !g.waits() {
		return
	}
	g.knocks++
	g.nextKnock = now.Add(d.s.retryPause(g.knocks))
	greeting := d.s.Greeting()
	devices := d.s.people.devicesOf(g.account)
	for _, dev := range devices[:min(len(devices), maxRecipients)] {
		d.s.links.send(dev, greeting, func(err error) { // when it works, the node reports the connection
			if err != nil {
				d.later(func() { d.away(ctx, g) })
			}
		})
	}
	d.lookUp(ctx, g)
	if !g.searching {
		g.searching = true
		d.s.running.Go(func() { d.search(ctx, g) }) // ends with ctx or its time-out; Run waits for it
	}
}

// waits says whether something is to be delivered.
func (g *dialog) waits() bool {
	return slices.ContainsFunc(g.out, func(o *outgoingDM) bool { return o.row.State != StateFailed })
}

// searchTimeout bounds one look-up in the directory.
const searchTimeout = 30 * time.Second

// search looks for an account's devices in the directory and greets what it finds; their greeting in
// answer proves whose they are.
func (d *dialogs) search(ctx context.Context, g *dialog) {
	sctx, cancel := context.WithTimeout(ctx, searchTimeout)
	defer cancel()
	now := d.s.cfg.Clock.Now()
	for _, day := range []int64{wire.UTCDay(now), wire.UTCDay(now) - 1} {
		found, err := d.s.cfg.Directory.Find(sctx, accountRendezvous(g.account, day))
		if err != nil && ctx.Err() == nil {
			d.s.log.Debug("looking an account up failed", "error", err)
		}
		for _, dev := range found[:min(len(found), wire.MaxDevices)] {
			if dev != d.s.self.device {
				d.s.links.send(dev, d.s.Greeting(), nil)
			}
		}
		if len(found) > 0 {
			break
		}
	}
	d.later(func() { g.searching = false })
}

// giveUp marks what has waited too long as failed. It stays, to be tried again by hand.
func (d *dialogs) giveUp(ctx context.Context, g *dialog, now time.Time) {
	var b storage.Batch
	var list []*outgoingDM
	for _, o := range g.out {
		if o.row.State != StateFailed && now.Sub(o.row.Created) > d.s.cfg.Limits.OutboxLife {
			list = append(list, o)
		}
		if len(list) == sealBatch {
			break
		}
	}
	for _, o := range list {
		o.row.State, o.row.Reason = StateFailed, "not delivered in time"
		o.keep(&b)
	}
	if len(list) == 0 {
		return
	}
	if _, err := d.s.store.Commit(ctx, &b, storage.Relaxed); err != nil {
		d.s.log.Warn("giving up messages failed", "error", err)
		return
	}
	for _, o := range list {
		d.setLive(o)
		d.show(ctx, o.id)
	}
}

// accountRendezvous is the key under which an account's devices can be found on a day:
// SHA-256("starling/account-rendezvous/1" || account || day as 8 bytes, big-endian). It hides nothing
// from who knows the account, and from others who is looked for.
func accountRendezvous(account wire.AccountID, day int64) [32]byte {
	h := sha256.New()
	h.Write([]byte("starling/account-rendezvous/1"))
	h.Write(account[:])
	h.Write(binary.BigEndian.AppendUint64(nil, uint64(day)))
	return [32]byte(h.Sum(nil))
}
