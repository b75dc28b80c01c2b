package chat

import (
	"context"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/starling-chat/starling/chat/ratchet"
	"github.com/starling-chat/starling/chat/wire"
	"github.com/starling-chat/starling/storage"
)

const (
	// bucketSeen remembers sealed direct messages that were opened, until no copy of one can come any
	// more. A key is half of the SHA-256, a value the UTC day 4 and the message's id.
	bucketSeen = "dmseen"
	seenLife   = prekeyLife
	// seenSweep is the pause between two looks at all of them, a 256th at a time.
	seenSweep = 24 * time.Hour
	// maxPendingDevices and maxPendingFrames bound the envelopes that wait for their sender's record.
	maxPendingDevices = 64
	maxPendingFrames  = 16
	maxPendingBytes   = 4 << 20
	// strangerEnvelope is the largest envelope that is opened for somebody who was not accepted.
	strangerEnvelope = 8 << 10
)

// receiving is a batch of frames on its way into the store.
type receiving struct {
	batch   storage.Batch
	lines   *dmLines
	acks    map[wire.DeviceID][]wire.MsgID
	rejects []rejection
	people  map[wire.AccountID]*contactRow // rows that change
	after   []func()                       // once it is stored
	seen    map[storage.ID]bool
	owed    []*outgoingDM // receipts for devices that are away
	told    []receipt     // of own messages
}

// rejection tells a device that an envelope was not taken.
type rejection struct {
	dev      wire.DeviceID
	reason   wire.RejectReason
	envelope []byte
}

// receive takes a frame with what waits behind it. Everything opened is stored in one transaction with
// the session states; only then is anything acknowledged.
func (d *dialogs) receive(ctx context.Context, first frameIn) {
	frames, size := []frameIn{first}, len(first.frame)
collect:
	for len(frames) < frameBatch && size < frameBytes {
		select {
		case f := <-d.frames:
			frames, size = append(frames, f), size+len(f.frame)
		default:
			break collect
		}
	}
	d.waiting.Add(int64(-size))
	d.takeFrames(ctx, frames)
}

// seenKey is an envelope's key in bucketSeen.
func seenKey(digest storage.ID) []byte { return digest[:16] }

func (d *dialogs) newReceiving() *receiving {
	return &receiving{
		lines: newDMLines(d), acks: make(map[wire.DeviceID][]wire.MsgID), people: make(map[wire.AccountID]*contactRow),
		seen: make(map[storage.ID]bool),
	}
}

func (d *dialogs) takeFrames(ctx context.Context, frames []frameIn) {
	in := d.newReceiving()
	for _, f := range frames {
		if err := d.takeFrame(ctx, in, f); err != nil && ctx.Err() == nil {
			d.s.log.Debug("a frame was not taken", "error", err)
		}
	}
	d.keepTaken(ctx, in)
}

// keepTaken stores what was taken in and shows it; what is acknowledged waits for the disk. It says
// whether it was stored, and the pending batch when that will be durable.
func (d *dialogs) keepTaken(ctx context.Context, in *receiving) (storage.Pending, bool) {
	in.lines.rows(&in.batch)
	d.sealer.store(&in.batch)
	var commits []func()
	for account, row := range in.people {
		commits = append(commits, d.s.people.putContact(&in.batch, account, row))
	}
	taken := in.batch.Len() > 0
	settlement := d.settle(ctx, &in.batch, in.told)
	var pending storage.Pending
	var err error
	if taken {
		pending, err = d.s.store.Begin(ctx, &in.batch)
	} else { // what somebody acknowledged is sent again should this be lost
		_, err = d.s.store.Commit(ctx, &in.batch, storage.Relaxed)
	}
	if err != nil {
		// Nothing was taken: nothing is acknowledged, and the senders try again.
		d.sealer.rollback()
		in.lines.rollback()
		d.forgetOwed(in)
		if ctx.Err() == nil {
			d.s.log.Warn("storing received direct messages failed", "error", err)
		}
		return pending, false
	}
	d.sealer.committed()
	for _, fn := range commits {
		fn()
	}
	if len(in.acks) > 0 {
		d.whenDurable(pending, func(err error) {
			if err != nil {
				return // the senders keep it
			}
			for dev, ids := range in.acks {
				d.sendAcks([]wire.DeviceID{dev}, wire.ReceiptDelivered, ids)
			}
		})
	}
	for _, r := range in.rejects {
		d.reject(r)
	}
	in.lines.announce(ctx)
	d.settled(ctx, settlement)
	for account := range in.people {
		d.s.showContact(account)
	}
	for _, fn := range in.after {
		fn()
	}
	return pending, true
}

func (d *dialogs) reject(r rejection) {
	frame, err := wire.EncodeFrame(&wire.DMReject{Reason: r.reason, Envelope: sha256.Sum256(r.envelope)})
	if err == nil {
		d.s.links.send(r.dev, frame, nil)
	}
}

// takeFrame does what one frame asks for.
func (d *dialogs) takeFrame(ctx context.Context, in *receiving, f frameIn) error {
	switch f.frame[0] {
	case prekeysWantedType:
		d.told[f.from] = false
		d.tellPrekeys(ctx, f.from)
		return nil
	case prekeysType:
		raw, err := parsePrekeys(f.frame)
		if err != nil {
			return err
		}
		return d.takePrekeys(ctx, in, f, raw)
	}
	frame, err := wire.ParseDMFrame(f.frame)
	if err != nil {
		return err
	}
	switch frame := frame.(type) {
	case *wire.DMHello:
		return d.takeHello(ctx, in, f, frame)
	case *wire.DMData:
		return d.takeData(ctx, in, f, frame.Envelope)
	case *wire.DMAck:
		return d.takeAck(ctx, in, f, frame)
	case *wire.DMReject:
		return d.takeReject(ctx, f, frame)
	}
	return nil
}

// takeHello learns whose a device is.
func (d *dialogs) takeHello(ctx context.Context, in *receiving, f frameIn, hello *wire.DMHello) error {
	if hello.Certificate.Device != f.from || !hello.Certificate.ValidAt(d.s.cfg.Clock.Now()) {
		return errors.New("the greeting's certificate is not that of the device, or not valid now")
	}
	if err := d.s.verifier.VerifyCertificate(&hello.Certificate); err != nil {
		return err
	}
	account := hello.Certificate.Account
	if d.s.people.revoked(f.from) {
		return errRevoked
	}
	if known, ok := d.s.people.account(f.from); ok && known != account {
		return d.otherAccount(ctx, in, known, account)
	}
	d.s.people.device(account, f.from)
	if d.s.people.blocked(account) {
		return nil
	}
	d.s.people.greeted(account, hello.Nick)
	if !d.greeted[f.from] {
		d.greeted[f.from] = true
		if g := d.s.Greeting(); g != nil {
			d.s.links.send(f.from, g, nil) // some greet only when they open a stream
		}
	}
	if row := d.contactRow(in, account); row != nil {
		if row.State == ContactFriend && len(d.sealer.boxes) > 0 {
			d.tellPrekeys(ctx, f.from) // where our mailboxes are may have changed while they were away
		}
		news := d.newDevices(ctx, in, account, row)
		if news || hello.Nick != "" && row.Nick != hello.Nick {
			if hello.Nick != "" {
				row.Nick = hello.Nick
			}
			row.LastSeen = d.s.cfg.Clock.Now()
			if g := d.find(account); g != nil {
				d.question(ctx, in, g, row)
			}
			in.people[account] = row
		}
	}
	if g := d.find(account); g != nil {
		in.after = append(in.after, func() {
			d.pump(ctx, g)
			d.tellRead(ctx, g)
		})
	}
	return nil
}

// contactRow returns an account's row as this batch leaves it, or nil.
func (d *dialogs) contactRow(in *receiving, account wire.AccountID) *contactRow {
	if row := in.people[account]; row != nil {
		return row
	}
	return d.s.people.contact(account)
}

// takeData opens an envelope.
func (d *dialogs) takeData(ctx context.Context, in *receiving, f frameIn, envelope []byte) error {
	h, err := ratchet.ReadHeader(envelope)
	if err != nil {
		return err
	}
	account := wire.AccountID(h.Account)
	if wire.DeviceID(h.Device) != f.from {
		return errors.New("an envelope names another device than the stream")
	}
	if d.s.people.revoked(f.from) {
		return errRevoked
	}
	if d.s.people.blocked(account) {
		return nil // in silence: a blocked account is not told
	}
	digest := storage.ID(sha256.Sum256(envelope))
	if known := d.sealer.peers[f.from]; known == nil || !known.set.Fresh(envelope) {
		if done, err := d.repeated(ctx, in, f.from, account, digest); done || err != nil {
			return err
		}
	}
	if reason, ok := d.admit(in, account, len(envelope)); !ok {
		if f.mail {
			return mailRefusal(reason)
		}
		in.rejects = append(in.rejects, rejection{f.from, reason, envelope})
		return nil
	}
	p, err := d.sealer.peer(ctx, f.from)
	if err != nil {
		return err
	}
	if p == nil && !f.mail {
		d.park(f)
		return nil
	}
	if p != nil && p.record.Certificate.Account != account {
		return errors.New("an envelope names another account than the device's")
	}
	var opened ratchet.Opened
	if p != nil {
		opened, err = d.sealer.open(ctx, f.from, envelope)
	} else if opened, err = d.sealer.openFirst(ctx, h, envelope); err != nil {
		return err
	}
	if err != nil {
		d.unopened(ctx, in, f, account, envelope, err)
		return err
	}
	d.s.people.device(account, f.from)
	g, err := d.with(ctx, account)
	if err != nil {
		return err
	}
	if len(opened.Replaced) > 0 {
		in.after = append(in.after, func() { d.sealAnew(ctx, g, f.from) })
	}
	return d.takeContent(ctx, in, f, g, opened.Content, digest)
}

// repeated acknowledges an envelope again that was opened before.
func (d *dialogs) repeated(ctx context.Context, in *receiving, from wire.DeviceID, account wire.AccountID, digest storage.ID) (bool, error) {
	if in.seen[digest] {
		return true, nil
	}
	seen, err := d.s.store.GetBucket(ctx, bucketSeen, seenKey(digest))
	if errors.Is(err, storage.ErrNotFound) {
		return false, nil
	}
	if err != nil {
		return false, err
	}
	if len(seen) == 4+len(wire.MsgID{}) {
		d.acknowledge(in, from, account, wire.MsgID(seen[4:]))
	}
	return true, nil
}

// acknowledge plans an acknowledgement, unless the sender was not accepted: strangers learn nothing.
func (d *dialogs) acknowledge(in *receiving, dev wire.DeviceID, account wire.AccountID, id wire.MsgID) {
	row := d.contactRow(in, account)
	if row == nil && !d.s.roommate(account) || row != nil && (row.Trust == TrustChanged || row.State == ContactRequest && !d.s.roommate(account)) {
		return
	}
	if !slices.Contains(in.acks[dev], id) {
		in.acks[dev] = append(in.acks[dev], id)
	}
}

// admit says whether somebody's envelope may be opened: anybody's that the user knows, a few of a
// stranger's.
func (d *dialogs) admit(in *receiving, account wire.AccountID, size int) (wire.RejectReason, bool) {
	if reason, ok := d.admitStranger(in, account, size); ok || !d.s.roommate(account) {
		return reason, ok
	}
	return 0, true
}

func (d *dialogs) admitStranger(in *receiving, account wire.AccountID, size int) (wire.RejectReason, bool) {
	row := d.contactRow(in, account)
	if row != nil && row.State != ContactRequest || d.s.cfg.AcceptStrangers {
		return 0, true
	}
	l := d.s.cfg.Limits
	if row != nil && (row.Messages >= l.RequestMessages || row.Bytes >= l.RequestBytes) || size > strangerEnvelope {
		return wire.RejectStranger, false
	}
	if row != nil {
		return 0, true
	}
	now := d.s.cfg.Clock.Now()
	d.strangers = slices.DeleteFunc(d.strangers, func(t time.Time) bool { return now.Sub(t).Abs() > time.Hour })
	if len(d.strangers) >= l.Strangers {
		return wire.RejectBusy, false
	}
	return 0, true
}

// park keeps an envelope until its sender's record has come.
func (d *dialogs) park(f frameIn) {
	size := 0
	for _, list := range d.pending {
		for i := range list {
			size += len(list[i].frame)
		}
	}
	if size > maxPendingBytes || len(d.pending[f.from]) >= maxPendingFrames || len(d.pending) >= maxPendingDevices && d.pending[f.from] == nil {
		return
	}
	d.pending[f.from] = append(d.pending[f.from], f)
	d.wantPrekeys(f.from)
}

// notice adds a line made by this node to a conversation.
func (d *dialogs) notice(ctx context.Context, b *storage.Batch, lines *dmLines, g *dialog, text string) error {
	now := d.s.cfg.Clock.Now()
	d.mu.Lock()
	n := g.row.Arrival + 1
	d.mu.Unlock()
	id := MessageID(sha256.Sum256(fmt.Appendf(nil, "starling/notice/1 %x %d %d %s", g.account[:], n, now.UnixNano(), text)))
	return lines.add(ctx, b, g, id, &dmRecord{Notice: text, Device: d.s.self.device, Received: now})
}

// takeContent does what an opened message says.
func (d *dialogs) takeContent(ctx context.Context, in *receiving, f frameIn, g *dialog, raw []byte, digest storage.ID) error {
	c, err := wire.ParseDMContent(raw)
	if err != nil {
		return err
	}
	if c.Conversation != g.conversation {
		return errors.New("a direct message of another conversation")
	}
	if len(c.Acks) > 0 {
		in.told = append(in.told, receipt{g, c.Acks, StateDelivered, f.path})
	}
	now := d.s.cfg.Clock.Now()
	if c.Kind < wire.DMTyping {
		in.seen[digest] = true
		in.batch.Put(bucketSeen, seenKey(digest), append(binary.BigEndian.AppendUint32(nil, uint32(wire.UTCDay(now))), c.ID[:]...))
	}
	switch c.Kind {
	case wire.DMTyping:
		d.s.events.live(Event{Type: EventTyping, Typing: &Typing{
			Conversation: ConversationID(g.account), Account: g.account, Nick: d.s.nick(g.account).Nick,
		}})
		return nil
	case wire.DMReceipt:
		if f.mail {
			return nil // receipts by mail are not acknowledged, or it would never end
		}
	case wire.DMRead:
		in.told = append(in.told, receipt{g, c.Acks, StateRead, f.path})
	case wire.DMRecords:
		return d.takeRecords(ctx, in, f, g, c)
	case wire.DMAccept:
		d.accepted(in, g)
	case wire.DMProfile:
		d.takeProfile(in, g, c)
	case wire.DMRoomSecret, wire.DMJoinRequest, wire.DMRoomLog, wire.DMRoomWanted, wire.DMRoomRefused:
		return d.takeRoomMail(ctx, in, f, g, c)
	default:
		if _, ok := d.admitStranger(in, g.account, len(raw)); !ok {
			return nil // they are let in for what concerns a room only; this comes again once they are accepted
		}
		return d.takeMessage(ctx, in, f, g, c)
	}
	d.acknowledge(in, f.from, g.account, c.ID)
	return nil
}

// accepted notes that somebody whom we wrote to accepted it.
func (d *dialogs) accepted(in *receiving, g *dialog) {
	g.held = false
	if row := d.contactRow(in, g.account); row != nil && row.State == ContactAsked {
		row.State = ContactFriend
		in.people[g.account] = row
	}
	for _, o := range g.out {
		if o.row.Reason != "" && o.row.State != StateFailed {
			o.row.Reason, o.next = "", time.Time{}
			d.setLive(o)
		}
	}
	g.nextTry = time.Time{}
}

func (d *dialogs) takeProfile(in *receiving, g *dialog, c *wire.DMContent) {
	body, ok := dmBody(c).(*wire.ProfileBody)
	if !ok {
		return
	}
	d.s.people.greeted(g.account, body.Nick)
	if row := d.contactRow(in, g.account); row != nil && row.Nick != body.Nick {
		row.Nick = body.Nick
		in.people[g.account] = row
	}
}

// takeMessage stores a message, once.
func (d *dialogs) takeMessage(ctx context.Context, in *receiving, f frameIn, g *dialog, c *wire.DMContent) error {
	if _, ok := c.Kind.EventKind(); ok && dmBody(c) == nil || c.Kind > wire.DMTyping {
		return errors.New("a direct message with a bad body")
	}
	id := directID(g.conversation, c.ID)
	has, err := d.s.store.Has(ctx, []storage.ID{storage.ID(id)})
	if err != nil {
		return err
	}
	if !has[0] && !in.lines.has(id) {
		r := &dmRecord{Content: c, Device: f.from, Path: f.path, Received: d.s.cfg.Clock.Now()}
		if err := in.lines.add(ctx, &in.batch, g, id, r); err != nil {
			return err
		}
		d.heard(ctx, in, g, len(c.Body))
	}
	d.acknowledge(in, f.from, g.account, c.ID)
	return nil
}

// heard brings the contact's row up to date with a message of theirs.
func (d *dialogs) heard(ctx context.Context, in *receiving, g *dialog, size int) {
	now := d.s.cfg.Clock.Now()
	row := d.contactRow(in, g.account)
	switch {
	case row == nil:
		state := ContactRequest
		if d.s.cfg.AcceptStrangers {
			state = ContactFriend
		}
		row = &contactRow{State: state, Added: now}
		d.strangers = append(d.strangers, now)
	case row.State == ContactAsked:
		row.State = ContactFriend // they answer
	case row.State == ContactFriend && now.Sub(row.LastSeen).Abs() < time.Minute:
		return // not worth a write for every message
	}
	if row.State == ContactRequest {
		row.Messages++
		row.Bytes += size
	}
	row.LastSeen = now
	if row.Nick == "" {
		row.Nick = d.s.people.claimed(g.account)
	}
	d.question(ctx, in, g, row)
	in.people[g.account] = row
}

// takeAck notes that messages of ours arrived or were read.
func (d *dialogs) takeAck(ctx context.Context, in *receiving, f frameIn, ack *wire.DMAck) error {
	account, ok := d.s.people.account(f.from)
	if !ok {
		return errors.New("an acknowledgement by an unknown device")
	}
	g := d.find(account)
	if g == nil {
		return nil
	}
	state := StateDelivered
	if ack.Kind == wire.ReceiptRead {
		state = StateRead
	}
	in.told = append(in.told, receipt{g, ack.IDs, state, f.path})
	if row := d.s.people.contact(account); row != nil && row.State == ContactAsked {
		row.State = ContactFriend // strangers acknowledge nothing
		return d.s.storeContact(ctx, account, row)
	}
	return nil
}

// takeReject does what the receiver's reason asks for.
func (d *dialogs) takeReject(ctx context.Context, f frameIn, reject *wire.DMReject) error {
	account, ok := d.s.people.account(f.from)
	g := d.find(account)
	if !ok || g == nil {
		return nil
	}
	now := d.s.cfg.Clock.Now()
	for _, o := range g.out {
		c := o.copies[f.from]
		if c == nil || sha256.Sum256(c.envelope) != reject.Envelope {
			continue
		}
		delete(o.copies, f.from)
		switch reject.Reason {
		case wire.RejectUndecryptable: // sealed anew at the next attempt, which is planned
			d.notOpened(ctx, f, account)
		case wire.RejectStranger:
			o.row.Reason, o.next, g.held, g.nextTry = "waiting to be accepted", now.Add(heldPause), true, now.Add(heldPause)
		case wire.RejectTooLarge, wire.RejectUnsupported:
			return d.refused(ctx, o, reject.Reason)
		default:
			o.next = now.Add(d.s.retryPause(o.row.Attempts + 2))
		}
		d.setLive(o)
		d.show(ctx, o.id)
		return nil
	}
	return nil
}

// refused gives a message up that the other side will never take.
func (d *dialogs) refused(ctx context.Context, o *outgoingDM, reason wire.RejectReason) error {
	o.row.State, o.row.Reason = StateFailed, "the other side needs a newer version of starling"
	if reason == wire.RejectTooLarge {
		o.row.Reason = "too large for the other side"
	}
	var b storage.Batch
	o.keep(&b)
	if _, err := d.s.store.Commit(ctx, &b, storage.Relaxed); err != nil {
		return d.s.storeError(err)
	}
	d.setLive(o)
	d.show(ctx, o.id)
	return nil
}

// peerChanged notes that a device came or went, or is reached by another path. What was sent by a better
// path that is gone may be lost with it: it goes again at once, and dies at the other side if it came.
func (d *dialogs) peerChanged(ctx context.Context, p peerChange) {
	dev := p.dev
	if p.path == PathNone {
		delete(d.greeted, dev)
		delete(d.told, dev)
		delete(d.asked, dev)
	}
	account, ok := d.s.people.account(dev)
	if !ok {
		return
	}
	g := d.find(account)
	if g == nil {
		return
	}
	if p.was == PathNone && p.path != PathNone && time.Since(d.looked) > mailPause {
		// What they could not bring may lie in a mailbox, and is not sent again for a while.
		d.looked = time.Now()
		select {
		case d.mailWake <- struct{}{}:
		default: // one is under way
		}
	}
	if p.path == PathRelayed && p.was != PathNone {
		for _, o := range g.out {
			if o.row.State == StateSent || o.row.State == StateQueued {
				o.next = time.Time{}
			}
		}
		g.nextTry = time.Time{}
		delete(d.asked, dev)
	}
	d.pump(ctx, g)
	if p.path != PathNone {
		d.tellRead(ctx, g)
	}
}

// sweepSeen forgets what can come no more: each time those envelopes whose digest begins with the next
// byte, and after all of them nothing for a while.
func (d *dialogs) sweepSeen(ctx context.Context) {
	now := d.s.cfg.Clock.Now()
	if now.Before(d.nextSweep) && d.nextSweep.Sub(now) <= seenSweep {
		return
	}
	oldest := wire.UTCDay(now.Add(-seenLife)) - 1
	var b storage.Batch
	for kv, err := range d.s.store.ScanBucket(ctx, bucketSeen, []byte{d.sweeping}) {
		if err != nil || b.Len() == batchEvents {
			break
		}
		if len(kv.Value) < 4 || int64(binary.BigEndian.Uint32(kv.Value)) < oldest {
			b.Delete(bucketSeen, kv.Key)
		}
	}
	if b.Len() < batchEvents { // else there may be more
		if d.sweeping++; d.sweeping == 0 {
			d.nextSweep = now.Add(seenSweep)
		}
	}
	if _, err := d.s.store.Commit(ctx, &b, storage.Relaxed); err != nil && ctx.Err() == nil {
		d.s.log.Warn("forgetting old envelopes failed", "error", err)
	}
}
