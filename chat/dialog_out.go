package chat

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"time"

	"github.com/starling-chat/starling/chat/wire"
	"github.com/starling-chat/starling/storage"
)

// submitDirect checks a direct message and queues it for the owner.
func (s *Service) submitDirect(ctx context.Context, req SendRequest) (*Submission, error) {
	account := *req.Target.Account
	switch {
	case account == s.self.account:
		return nil, fmt.Errorf("%w: that is your own account", ErrBadRequest)
	case s.people.blocked(account):
		return nil, ErrBlocked
	case s.people.suspended(account):
		return nil, ErrKeyChanged
	}
	list, err := s.prepareDirect(ctx, account, req)
	if err != nil {
		return nil, err
	}
	sub := newSubmission(req, s.dialogs.ended)
	sub.said = list
	select {
	case s.dialogs.submits <- sub:
		return sub, nil
	case <-ctx.Done():
		return nil, ctx.Err()
	case <-s.dialogs.ended:
		return nil, ErrStopped
	}
}

// prepareDirect checks a request and makes the bodies of its messages. The refs are message ids as
// shown; build turns them into those of the wire.
func (s *Service) prepareDirect(ctx context.Context, account wire.AccountID, req SendRequest) ([]said, error) {
	switch req.Action {
	case ActionMessage:
		if err := checkText(req.Text); err != nil {
			return nil, err
		}
		if !req.ReplyTo.IsZero() {
			if _, err := s.directIn(ctx, account, req.ReplyTo); err != nil {
				return nil, err
			}
		}
		style, err := req.Style.wire()
		if err != nil {
			return nil, err
		}
		return encodeSaid(&wire.MessageBody{Text: req.Text, Style: style}, wire.EventID(req.ReplyTo))
	case ActionEdit, ActionRedact, ActionReact:
	default:
		return nil, fmt.Errorf("%w: unknown action %.40q", ErrBadRequest, req.Action)
	}
	target, err := s.directIn(ctx, account, req.Ref)
	if err != nil {
		return nil, err
	}
	if err := checkTarget(req.Action, target); err != nil {
		return nil, err
	}
	switch req.Action {
	case ActionEdit:
		if err := checkText(req.Text); err != nil {
			return nil, err
		}
		return encodeSaid(&wire.EditBody{Text: req.Text}, wire.EventID(req.Ref))
	case ActionRedact:
		return encodeSaid(&wire.RedactBody{}, wire.EventID(req.Ref))
	default:
		return prepareReaction(req.Text, target, wire.EventID(req.Ref))
	}
}

// directIn returns a message of the conversation with an account.
func (s *Service) directIn(ctx context.Context, account wire.AccountID, id MessageID) (Message, error) {
	m, err := s.directMessage(ctx, id)
	if err == nil && m.Conversation != ConversationID(account) {
		err = fmt.Errorf("message %s: %w", id, ErrNotFound)
	}
	return m, err
}

// drafting is a batch of own direct messages on its way into the store.
type drafting struct {
	subs    []*Submission
	result  []MessageID
	clients map[string]MessageID // by conversation and client id
	batch   storage.Batch
	lines   *dmLines
	added   []drafted
	dialogs []*dialog
	undo    map[*dialog]dialogRow
	size    int
	after   []func() // once it is stored
}

type drafted struct {
	g *dialog
	o *outgoingDM
}

// accept takes an own message with what waits behind it, stores all of it in one transaction, answers,
// and sends what can be sent.
func (d *dialogs) accept(ctx context.Context, first *Submission) {
	m := &drafting{clients: make(map[string]MessageID), undo: make(map[*dialog]dialogRow), lines: newDMLines(d)}
	for sub := first; sub != nil; {
		if err := d.draft(ctx, m, sub); err != nil {
			if ctx.Err() != nil {
				err = ErrStopped
			}
			sub.finish(Message{}, err)
		}
		sub = nil
		if len(m.lines.list) < batchEvents && m.size < batchBytes {
			select {
			case sub = <-d.submits:
			default:
			}
		}
	}
	if len(m.subs) == 0 {
		return
	}
	flights := d.sealDrafted(ctx, m)
	m.lines.rows(&m.batch)
	m.batch.Guard()
	pending, err := d.s.store.Begin(context.WithoutCancel(ctx), &m.batch) // whoever submitted is told what became of it
	if err != nil {
		d.sealer.rollback()
		for _, f := range flights {
			unseal(f.work)
		}
		for g, row := range m.undo {
			d.mu.Lock()
			g.row = row
			d.mu.Unlock()
			d.unqueue(g, func(o *outgoingDM) bool { return m.holds(o) })
		}
		m.refuse(d.s.storeError(err))
		return
	}
	d.sealer.committed()
	d.drafts++
	d.whenDurable(pending, func(err error) {
		d.drafts--
		if err != nil {
			m.refuse(d.s.storeError(err))
			return
		}
		d.drafted(ctx, m, flights)
	})
}

// refuse tells who submitted what was drafted that it could not be stored.
func (m *drafting) refuse(err error) {
	for _, sub := range m.subs {
		sub.finish(Message{}, fmt.Errorf("storing direct messages: %w", err))
	}
}

// drafted sends what is durable now, shows it, and answers.
func (d *dialogs) drafted(ctx context.Context, m *drafting, flights []flight) {
	for _, f := range flights {
		d.dispatch(ctx, f.g, f.work)
	}
	for _, fn := range m.after {
		fn()
	}
	kept := context.WithoutCancel(ctx) // it is answered also while everything stops
	shown := m.lines.announce(kept)
	for i, sub := range m.subs {
		msg, ok := shown[m.result[i]]
		var err error
		if !ok {
			msg, err = d.s.directMessage(kept, m.result[i])
		}
		sub.finish(msg, err)
	}
	for _, g := range m.dialogs {
		g.nextTry = time.Time{}
		d.pump(ctx, g)
	}
}

// flight is messages of one conversation on their way to their devices.
type flight struct {
	g    *dialog
	work []outWork
}

// sealDrafted seals what was drafted for those who are connected, so that one transaction stores the
// messages and the states of the sessions, and puts everything drafted into the outbox.
func (d *dialogs) sealDrafted(ctx context.Context, m *drafting) []flight {
	var flights []flight
	for _, g := range m.dialogs {
		devices := d.connectedDevices(g.account)
		if len(devices) == 0 || !g.connected {
			continue // pump finds out what there is to do
		}
		if work, _ := d.pick(ctx, g, devices); len(work) > 0 {
			flights = append(flights, flight{g, work})
		}
	}
	d.sealer.store(&m.batch)
	for _, a := range m.added {
		a.o.keep(&m.batch)
	}
	return flights
}

// holds says whether a message was drafted in this batch.
func (m *drafting) holds(o *outgoingDM) bool {
	return slices.ContainsFunc(m.added, func(a drafted) bool { return a.o == o })
}

// draft adds one submission to the batch.
func (d *dialogs) draft(ctx context.Context, m *drafting, sub *Submission) error {
	account := *sub.req.Target.Account
	conversation := ConversationID(account)
	if id := sub.req.ClientID; id != "" {
		made, ok := m.clients[string(account[:])+id]
		if ok {
			m.subs, m.result = append(m.subs, sub), append(m.result, made)
			return nil
		}
		made, ok, err := d.s.remembered(ctx, conversation, id)
		if err != nil {
			return err
		}
		if ok {
			msg, err := d.s.directMessage(ctx, made)
			if err == nil {
				sub.finish(msg, nil)
			}
			return err
		}
	}
	g, err := d.with(ctx, account)
	if err != nil {
		return err
	}
	if len(g.out) >= d.s.cfg.Limits.Outbox || g.outBytes >= d.s.cfg.Limits.OutboxBytes {
		return fmt.Errorf("%w messages wait for this contact: at most %d", ErrTooMany, d.s.cfg.Limits.Outbox)
	}
	if _, ok := m.undo[g]; !ok {
		m.undo[g] = g.row
		m.dialogs = append(m.dialogs, g)
		d.befriend(m, account)
	}
	var result MessageID
	for _, one := range sub.said {
		if result, err = d.write(ctx, m, g, one, sub.req.ClientID); err != nil {
			return err
		}
	}
	if sub.req.Action != ActionMessage {
		result = sub.req.Ref
	}
	m.subs, m.result = append(m.subs, sub), append(m.result, result)
	if id := sub.req.ClientID; id != "" {
		m.clients[string(account[:])+id] = result
		m.batch.Put(bucketClients, clientKey(conversation, id), result[:])
	}
	return nil
}

// write makes one direct message: its record, its outbox entry, and what follows for the conversation.
func (d *dialogs) write(ctx context.Context, m *drafting, g *dialog, one said, clientID string) (MessageID, error) {
	now := d.s.cfg.Clock.Now()
	c, err := d.content(ctx, g, one, now)
	if err != nil {
		return MessageID{}, err
	}
	r := &dmRecord{Content: c, Own: true, Device: d.s.self.device, Received: now, ClientID: clientID}
	id := directID(g.conversation, c.ID)
	if err := m.lines.add(ctx, &m.batch, g, id, r); err != nil {
		return MessageID{}, err
	}
	o := &outgoingDM{id: id, copies: make(map[wire.DeviceID]*sealedCopy), row: outboxRow{
		Version: rowVersion, Account: g.account, Msg: c.ID, Seq: c.DeviceSeq, Size: len(c.Body), Created: now, State: StateQueued,
	}}
	line := m.lines.list[len(m.lines.list)-1]
	o.line = &line
	d.enlist(g, o)
	m.added = append(m.added, drafted{g, o})
	m.size += len(c.Body) + wire.MaxHeader
	return id, nil
}

// content fills in a direct message's fields and moves the conversation's row on.
func (d *dialogs) content(ctx context.Context, g *dialog, one said, now time.Time) (*wire.DMContent, error) {
	c := &wire.DMContent{Conversation: g.conversation, Kind: wire.DMKind(one.kind), Body: one.content}
	if _, err := io.ReadFull(d.s.cfg.Rand, c.ID[:]); err != nil {
		return nil, fmt.Errorf("reading randomness for an id: %w", err)
	}
	if !one.ref.IsZero() {
		rec, err := d.s.store.Get(ctx, storage.ID(one.ref))
		if err != nil {
			return nil, err
		}
		target, err := decodeDMRecord(rec.Value)
		if err != nil {
			return nil, err
		}
		if target.Content == nil {
			return nil, fmt.Errorf("%w: the line was made by this node", ErrBadRequest)
		}
		c.Ref = target.Content.ID
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	g.row.Seq++
	c.DeviceSeq = g.row.Seq
	// Like the rooms' clock: an answer comes after what it answers, unless that lies in the future.
	ms := uint64(now.UnixMilli())
	if newest := g.row.Newest; newest >= ms && newest < ms+uint64(wire.MaxAhead/time.Millisecond) {
		ms = newest
		if g.row.Theirs {
			ms++
		}
	}
	if ms >= g.row.Newest {
		g.row.Newest, g.row.Theirs = ms, false
	}
	c.SentAt = time.UnixMilli(int64(ms)).UTC()
	return c, nil
}

// befriend makes the contact that writing to somebody implies: one that was asked, or, if they had
// asked, an accepted one.
func (d *dialogs) befriend(m *drafting, account wire.AccountID) {
	row := d.s.people.contact(account)
	switch {
	case row == nil:
		row = &contactRow{State: ContactAsked, Added: d.s.cfg.Clock.Now()}
	case row.State == ContactRequest:
		row.State, row.Messages, row.Bytes = ContactFriend, 0, 0
		m.after = append(m.after, func() { d.acknowledgeAll(account) })
	default:
		return
	}
	commit := d.s.people.putContact(&m.batch, account, row)
	m.after = append(m.after, commit, func() { d.s.showContact(account) })
}

// whisper queues a message that this node makes for the other one and shows nowhere.
func (d *dialogs) whisper(ctx context.Context, account wire.AccountID, kind wire.DMKind) error {
	return d.whisperBody(ctx, account, kind, nil)
}

// whisperBody is whisper with a body.
func (d *dialogs) whisperBody(ctx context.Context, account wire.AccountID, kind wire.DMKind, body []byte) error {
	g, err := d.with(ctx, account)
	if err != nil {
		return err
	}
	var b storage.Batch
	return d.whisperWith(ctx, &b, g, kind, body)
}

// whisperWith is whisper with a body, in one transaction with what b holds.
func (d *dialogs) whisperWith(ctx context.Context, b *storage.Batch, g *dialog, kind wire.DMKind, body []byte) error {
	now := d.s.cfg.Clock.Now()
	undo := g.row
	c, err := d.content(ctx, g, said{kind: wire.Kind(kind), content: body}, now)
	if err != nil {
		return err
	}
	content, err := c.Encode()
	if err != nil {
		return err
	}
	o := &outgoingDM{id: directID(g.conversation, c.ID), copies: make(map[wire.DeviceID]*sealedCopy), row: outboxRow{
		Version: rowVersion, Account: g.account, Msg: c.ID, Seq: c.DeviceSeq, Created: now, State: StateQueued,
		Hidden: true, Content: content,
	}}
	d.queue(b, g, o)
	d.putRow(b, g)
	if _, err := d.s.store.Commit(ctx, b, storage.Durable); err != nil {
		d.unqueue(g, func(q *outgoingDM) bool { return q == o })
		d.mu.Lock()
		g.row = undo
		d.mu.Unlock()
		return d.s.storeError(err)
	}
	g.nextTry = time.Time{}
	d.pump(ctx, g)
	return nil
}

// putRow adds the conversation's row to a batch.
func (d *dialogs) putRow(b *storage.Batch, g *dialog) {
	d.mu.RLock()
	defer d.mu.RUnlock()
	b.Put(bucketDialogs, g.account[:], encodeRow(g.row))
}

// acknowledgeAll tells an accepted stranger's devices that their first messages are here.
func (d *dialogs) acknowledgeAll(account wire.AccountID) {
	g := d.find(account)
	if g == nil {
		return
	}
	ctx, cancel := context.WithTimeout(context.Background(), time.Second) // bounded: a few records
	defer cancel()
	var ids []wire.MsgID
	for rec, err := range d.s.store.Scan(ctx, g.stream, storage.Range{Reverse: true, Limit: wire.MaxAcks}) {
		if err != nil {
			d.s.log.Warn("reading a request's messages failed", "error", err)
			break
		}
		if r, err := decodeDMRecord(rec.Value); err == nil && !r.Own && r.Content != nil {
			ids = append(ids, r.Content.ID)
		}
	}
	d.sendAcks(d.connectedDevices(account), wire.ReceiptDelivered, ids)
}

// sendAcks acknowledges messages to devices.
func (d *dialogs) sendAcks(devices []wire.DeviceID, kind wire.ReceiptKind, ids []wire.MsgID) {
	for len(ids) > 0 {
		n := min(len(ids), wire.MaxAcks)
		frame, err := wire.EncodeFrame(&wire.DMAck{Kind: kind, IDs: ids[:n]})
		ids = ids[n:]
		if err != nil {
			d.s.log.Error("encoding an acknowledgement failed", "error", err)
			return
		}
		for _, dev := range devices {
			d.s.links.send(dev, frame, nil) // one that is lost is asked for by the message's repetition
		}
	}
}

// typingPause is the least time between two typing signals to one contact.
const typingPause = 3 * time.Second

// Typing tells the other side that the user is typing, if the setting "typing" is "on"; off is the
// default. It is a live signal: where it cannot be sent at once it is dropped.
func (s *Service) Typing(ctx context.Context, t Target) error {
	if on, err := s.Setting(ctx, settingTyping); err != nil || on != "on" {
		return err
	}
	if t.Account != nil {
		account := *t.Account
		return s.dialogs.do(ctx, func() error { return s.dialogs.typing(ctx, account) })
	}
	r, err := s.knownRoom(t)
	if err != nil {
		return err
	}
	if !r.joined() {
		return ErrNotJoined
	}
	return r.do(ctx, func() error { return r.typing(ctx) })
}

// Settings that the service itself looks at; front-ends set them with [Service.SetSetting].
const (
	settingTyping   = "typing"   // "on" sends typing signals
	settingReceipts = "receipts" // "off" keeps it to ourselves what was read
)

// typing sends a signal to the connected devices of a contact with whom a session stands.
func (d *dialogs) typing(ctx context.Context, account wire.AccountID) error {
	g := d.find(account)
	row := d.s.people.contact(account)
	now := time.Now()
	if g == nil || row == nil || row.State != ContactFriend || row.Trust == TrustChanged || now.Sub(d.typed[account]) < typingPause {
		return nil
	}
	d.typed[account] = now
	c := &wire.DMContent{Conversation: g.conversation, Kind: wire.DMTyping, SentAt: d.s.cfg.Clock.Now(), DeviceSeq: max(g.row.Seq, 1)}
	if _, err := io.ReadFull(d.s.cfg.Rand, c.ID[:]); err != nil {
		return fmt.Errorf("reading randomness for an id: %w", err)
	}
	content, err := c.Encode()
	if err != nil {
		return err
	}
	var b storage.Batch
	copies := make(map[wire.DeviceID]sealedCopy)
	for _, dev := range d.connectedDevices(account) {
		if p := d.sealer.peers[dev]; p == nil || !p.live {
			continue
		}
		one, err := d.sealer.seal(ctx, dev, content)
		if err != nil {
			return errors.Join(err, ctx.Err())
		}
		copies[dev] = one
	}
	d.sealer.store(&b)
	if _, err := d.s.store.Commit(ctx, &b, storage.Durable); err != nil {
		d.sealer.rollback()
		return d.s.storeError(err)
	}
	d.sealer.committed()
	for dev, one := range copies {
		if frame, err := wire.EncodeFrame(&wire.DMData{Envelope: one.envelope}); err == nil {
			d.s.links.send(dev, frame, nil)
		}
	}
	return nil
}

// typing sends a signal to the room. It takes no place in the device's sequence: it carries the number
// of the next stored event.
func (r *room) typing(ctx context.Context) error {
	now := time.Now()
	if now.Sub(r.typed) < typingPause {
		return nil
	}
	r.typed = now
	content, err := wire.EncodeBody(&wire.TypingBody{})
	if err != nil {
		return err
	}
	next := r.chain() // a copy: what follows takes the same place
	a, err := r.compose(&next, said{kind: wire.KindTyping, content: content}, r.s.cfg.Clock.Now())
	if err != nil {
		return err
	}
	pctx, cancel := context.WithTimeout(ctx, publishTimeout)
	defer cancel()
	if err := r.s.cfg.Gossip.Publish(pctx, a.sealed.Topic, a.sealed.Bytes()); err != nil {
		r.log.Debug("a typing signal was not sent", "error", err)
	}
	return nil
}
