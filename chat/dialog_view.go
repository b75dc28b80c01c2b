package chat

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/starling-chat/starling/chat/wire"
	"github.com/starling-chat/starling/storage"
)

// directMessage returns a direct message by its id.
func (s *Service) directMessage(ctx context.Context, id MessageID) (Message, error) {
	rec, err := s.store.Get(ctx, storage.ID(id))
	if errors.Is(err, storage.ErrNotFound) {
		return Message{}, fmt.Errorf("message %s: %w", id, ErrNotFound)
	}
	if err != nil {
		return Message{}, err
	}
	d := s.dialogs
	d.mu.RLock()
	g := d.byStream[rec.Stream]
	d.mu.RUnlock()
	if g == nil {
		return Message{}, fmt.Errorf("message %s: %w", id, ErrNotFound)
	}
	m, ok, err := d.shown(ctx, g, rec, s.namer())
	if err == nil && !ok {
		err = fmt.Errorf("message %s: %w", id, ErrNotFound)
	}
	return m, err
}

// show tells the subscribers that a message changed.
func (d *dialogs) show(ctx context.Context, id MessageID) {
	if m, err := d.s.directMessage(ctx, id); err == nil {
		d.s.events.publish(Event{Type: EventUpdate, Message: &m})
	}
}

// showOut tells the subscribers that messages in the outbox, or just out of it, changed. What was
// made in this run is not read again.
func (d *dialogs) showOut(ctx context.Context, g *dialog, list []*outgoingDM) {
	names := d.s.namer()
	events := make([]Event, 0, len(list))
	for _, o := range list {
		if o.row.Hidden {
			continue
		}
		var m Message
		var err error
		if o.line != nil {
			m, err = d.lineOf(ctx, g, o.line, names)
		} else {
			m, err = d.s.directMessage(ctx, o.id)
		}
		if err == nil {
			events = append(events, Event{Type: EventUpdate, Message: &m})
		}
	}
	d.s.events.publish(events...)
}

// namer remembers how accounts are called, for as long as one batch of messages is shown: who has a
// nick to themselves is a look at everybody.
type namer struct {
	s       *Service
	nicks   map[wire.AccountID]shownName
	targets map[wire.AccountID]string
}

func (s *Service) namer() *namer {
	return &namer{s: s, nicks: make(map[wire.AccountID]shownName, 2), targets: make(map[wire.AccountID]string, 1)}
}

func (n *namer) nick(account wire.AccountID) shownName {
	name, ok := n.nicks[account]
	if !ok {
		name = n.s.nick(account)
		n.nicks[account] = name
	}
	return name
}

func (n *namer) target(account wire.AccountID) string {
	text, ok := n.targets[account]
	if !ok {
		text = n.s.targetOf(account)
		n.targets[account] = text
	}
	return text
}

// shown turns a record into a message; false if it is no line of the conversation.
func (d *dialogs) shown(ctx context.Context, g *dialog, rec storage.Record, names *namer) (Message, bool, error) {
	if rec.Flags&recordShown == 0 {
		return Message{}, false, nil
	}
	r, err := decodeDMRecord(rec.Value)
	if err != nil {
		return Message{}, false, err
	}
	m, err := d.lineOf(ctx, g, &dmLine{g: g, id: MessageID(rec.ID), rec: r, flags: rec.Flags, time: rec.Time, arrival: rec.Arrival}, names)
	return m, err == nil, err
}

// lineOf turns a stored direct message into what is shown.
func (d *dialogs) lineOf(ctx context.Context, g *dialog, line *dmLine, names *namer) (Message, error) {
	r := line.rec
	author := g.account
	if r.Own {
		author = d.s.self.account
	}
	who := names.nick(author)
	m := Message{
		ID: line.id, ClientID: r.ClientID, Conversation: ConversationID(g.account), Target: names.target(g.account),
		Account: author, Device: r.Device, Nick: who.Nick, Fingerprint: who.Fingerprint, NickShared: who.Shared,
		Own: r.Own, Kind: KindUnknown, SentAt: storage.WallTime(line.time), ReceivedAt: r.Received, Seq: line.arrival,
		State: StateReceived, Path: r.Path,
	}
	if r.Content == nil {
		m.Kind, m.Text = KindNotice, r.Notice
		return m, nil
	}
	m.SentAt = r.Content.SentAt
	m.BackDated = m.SentAt.Sub(r.Received) > dmBackDatedSpan
	if r.Own {
		if err := d.stateInto(ctx, g, &m, r.Content.DeviceSeq, line.state); err != nil {
			return Message{}, err
		}
	}
	if r.Content.Kind != wire.DMMessage {
		return m, nil
	}
	return m, d.textInto(ctx, g, r, &m)
}

// stateInto fills in how far an own message came.
func (d *dialogs) stateInto(ctx context.Context, g *dialog, m *Message, seq uint64, known *outStateRow) error {
	d.mu.RLock()
	live, waits := d.live[m.ID]
	d.mu.RUnlock()
	row := live.outStateRow
	if known != nil {
		row = *known
	} else if !waits {
		var err error
		if row, err = d.outState(ctx, g, m.ID, seq); err != nil {
			return err
		}
		if row.State == "" {
			row.State = StateAccepted
		}
	}
	m.State, m.Reason = row.State, row.Reason
	if row.Path != PathNone {
		m.Path = row.Path
	}
	return nil
}

// textInto fills in a message proper, folded with what was said about it.
func (d *dialogs) textInto(ctx context.Context, g *dialog, r *dmRecord, m *Message) error {
	m.Kind = KindMessage
	if !r.Content.Ref.IsZero() {
		m.ReplyTo = directID(g.conversation, r.Content.Ref)
	}
	mods, err := d.modifiers(ctx, g, m.ID)
	if err != nil {
		return err
	}
	text := ""
	if body, ok := dmBody(r.Content).(*wire.MessageBody); ok {
		text, m.Style = messageText(body), styleOf(body)
	} else {
		m.Redacted = true
	}
	f := foldMessage(m.Account, text, false, mods)
	m.Text, m.Edited = f.Text, f.Edited
	if m.Redacted = m.Redacted || f.Redacted; m.Redacted {
		m.Text, m.Style, m.Edited, f.Reactions = "", "", false, nil
	}
	for _, re := range f.Reactions {
		shown := Reaction{Text: re.Symbol, Own: slices.Contains(re.By, d.s.self.account)}
		for _, by := range re.By {
			shown.Nicks = append(shown.Nicks, d.s.nick(by).Nick)
		}
		slices.Sort(shown.Nicks)
		m.Reactions = append(m.Reactions, shown)
	}
	return nil
}

// targetOf returns a text that resolves to the account: its petname, its nick if nobody else claims
// it, else its id.
func (s *Service) targetOf(account wire.AccountID) string {
	name := s.nick(account).Nick
	if found, err := s.resolvePerson(name); err == nil && found == account {
		return "@" + name
	}
	return "@" + account.String()
}

// conversationOf returns a dialog as a list of conversations shows it.
func (d *dialogs) conversationOf(g *dialog) Conversation { return d.conversationAs(g, d.s.namer()) }

func (d *dialogs) conversationAs(g *dialog, names *namer) Conversation {
	d.mu.RLock()
	row := g.row
	d.mu.RUnlock()
	c := Conversation{
		ID: ConversationID(g.account), Target: names.target(g.account), Kind: ConversationDM, Account: g.account,
		Members: 2, Unread: row.Unread, Mentions: row.Mentions, ReadSeq: row.Read, LastSeq: row.Arrival,
		LastAt: row.LastAt, Muted: row.Muted, Trust: TrustUnverified,
	}
	if d.s.people.pathTo(g.account) != PathNone {
		c.Peers = 1
	}
	if k := d.s.people.contact(g.account); k != nil {
		c.Trust, c.Request = k.Trust, k.State == ContactRequest
	}
	return c
}

// dialogConversation returns the conversation with an account, which may still be empty.
func (s *Service) dialogConversation(_ context.Context, account wire.AccountID) (Conversation, error) {
	if g := s.dialogs.find(account); g != nil {
		return s.dialogs.conversationOf(g), nil
	}
	if account == s.self.account {
		return Conversation{}, fmt.Errorf("%w: that is your own account", ErrBadRequest)
	}
	return s.dialogs.conversationOf(&dialog{account: account}), nil
}

// dialogConversations lists the conversations in which something was said, without blocked accounts.
func (s *Service) dialogConversations(context.Context) ([]Conversation, error) {
	var list []Conversation
	for _, g := range s.dialogs.all() {
		if c := s.dialogs.conversationOf(g); c.LastSeq > 0 && !s.people.blocked(g.account) {
			list = append(list, c)
		}
	}
	return list, nil
}

// dialogHistory returns a page of the conversation with an account.
func (s *Service) dialogHistory(ctx context.Context, account wire.AccountID, q HistoryQuery) ([]Message, error) {
	g := s.dialogs.find(account)
	if g == nil {
		return nil, nil
	}
	rng, err := historyRange(ctx, q, func(ctx context.Context, id MessageID) (storage.Position, error) {
		if id.IsZero() {
			return storage.Position{}, nil
		}
		rec, err := s.store.Get(ctx, storage.ID(id))
		if errors.Is(err, storage.ErrNotFound) || err == nil && rec.Stream != g.stream {
			err = fmt.Errorf("message %s: %w", id, ErrNotFound)
		}
		return rec.Position(), err
	})
	if err != nil {
		return nil, err
	}
	names := s.namer()
	return page(ctx, s.store, g.stream, rng, q, func(rec storage.Record) (Message, bool, error) {
		return s.dialogs.shown(ctx, g, rec, names)
	})
}

// dialogDigest sums up the messages of the conversation with an account.
func (s *Service) dialogDigest(ctx context.Context, account wire.AccountID) (Digest, error) {
	var ids []storage.ID
	if g := s.dialogs.find(account); g != nil {
		for rec, err := range s.store.Scan(ctx, g.stream, storage.Range{}) {
			if err != nil {
				return Digest{}, err
			}
			if rec.Flags&recordText != 0 {
				ids = append(ids, rec.ID)
			}
		}
	}
	slices.SortFunc(ids, func(a, b storage.ID) int { return bytes.Compare(a[:], b[:]) })
	h := sha256.New()
	for i := range ids {
		h.Write(ids[i][:])
	}
	return Digest{Count: len(ids), SHA256: [32]byte(h.Sum(nil))}, nil
}

// dialogSources adds the direct conversations that a search looks through.
func (s *Service) dialogSources(ctx context.Context, q SearchQuery, sources map[storage.StreamID]func(storage.Record) (Message, bool)) error {
	for _, g := range s.dialogs.all() {
		if q.In.Account != nil && *q.In.Account != g.account {
			continue
		}
		sources[g.stream] = func(rec storage.Record) (Message, bool) {
			r, err := decodeDMRecord(rec.Value)
			if err != nil || r.Content == nil {
				return Message{}, false
			}
			id := MessageID(rec.ID)
			if r.Content.Kind == wire.DMEdit {
				id = directID(g.conversation, r.Content.Ref)
			}
			m, err := s.directMessage(ctx, id)
			return m, err == nil && !m.Redacted && (q.From.IsZero() || m.Account == q.From)
		}
	}
	return nil
}

// dialogStats counts what waits and what is unread.
func (s *Service) dialogStats(st *Stats) {
	d := s.dialogs
	d.mu.RLock()
	defer d.mu.RUnlock()
	st.Outbox = len(d.live)
	for _, g := range d.byAccount {
		st.Unread += g.row.Unread
	}
}

// markDialogRead moves a dialog's read mark, and tells the other side, unless the user keeps that to
// themselves.
func (s *Service) markDialogRead(ctx context.Context, account wire.AccountID, seq uint64) error {
	return s.dialogs.do(ctx, func() error { return s.dialogs.markRead(ctx, account, seq) })
}

func (d *dialogs) markRead(ctx context.Context, account wire.AccountID, seq uint64) error {
	g := d.find(account)
	if g == nil {
		return nil
	}
	d.mu.RLock()
	row := g.row
	d.mu.RUnlock()
	seq = min(seq, row.Arrival)
	if seq <= row.Read {
		return nil
	}
	unread := 0
	for rec, err := range d.s.store.ScanArrival(ctx, g.stream, seq, 0) {
		if err != nil {
			return err
		}
		if rec.Flags&(recordText|recordOwn|recordBodily) == recordText {
			unread++
		}
	}
	row.Read, row.Unread = seq, unread
	if err := d.setRow(ctx, g, row); err != nil {
		return err
	}
	d.tellRead(ctx, g)
	return nil
}

// setRow stores a dialog's row and shows it.
func (d *dialogs) setRow(ctx context.Context, g *dialog, row dialogRow) error {
	var b storage.Batch
	b.Put(bucketDialogs, g.account[:], encodeRow(row))
	if _, err := d.s.store.Commit(ctx, &b, storage.Relaxed); err != nil {
		return d.s.storeError(err)
	}
	d.mu.Lock()
	g.row = row
	d.mu.Unlock()
	c := d.conversationOf(g)
	d.s.events.publish(Event{Type: EventConversation, Conversation: &c})
	return nil
}

// tellRead tells a contact what was read since it was last told, if it is connected.
func (d *dialogs) tellRead(ctx context.Context, g *dialog) {
	contact := d.s.people.contact(g.account)
	devices := d.connectedDevices(g.account)
	off, err := d.s.Setting(ctx, settingReceipts)
	if err != nil || off == "off" || contact == nil || contact.State != ContactFriend || len(devices) == 0 {
		return
	}
	d.mu.RLock()
	row := g.row
	d.mu.RUnlock()
	var ids []wire.MsgID
	for rec, err := range d.s.store.ScanArrival(ctx, g.stream, row.Told, 0) {
		if err != nil || rec.Arrival > row.Read {
			break
		}
		if r, err := decodeDMRecord(rec.Value); err == nil && !r.Own && r.Content != nil && rec.Flags&recordText != 0 {
			ids = append(ids, r.Content.ID)
		}
	}
	d.sendAcks(devices, wire.ReceiptRead, ids)
	row.Told = row.Read
	var b storage.Batch
	b.Put(bucketDialogs, g.account[:], encodeRow(row))
	if _, err := d.s.store.Commit(ctx, &b, storage.Relaxed); err != nil {
		return // they are told again
	}
	d.mu.Lock()
	g.row = row
	d.mu.Unlock()
}

func (s *Service) muteDialog(ctx context.Context, account wire.AccountID, muted bool) error {
	return s.dialogs.do(ctx, func() error {
		g, err := s.dialogs.with(ctx, account)
		if err != nil {
			return err
		}
		row := g.row
		row.Muted = muted
		return s.dialogs.setRow(ctx, g, row)
	})
}

// Outbox lists the own direct messages that were not acknowledged, the oldest first in each conversation.
func (s *Service) Outbox(ctx context.Context) ([]OutboxEntry, error) {
	var list []OutboxEntry
	err := s.dialogs.do(ctx, func() error {
		for _, g := range s.dialogs.all() {
			target, why := s.targetOf(g.account), ""
			if len(g.out) > 0 {
				why = s.dialogs.obstacle(ctx, g)
			}
			for _, o := range g.out {
				if o.row.Hidden {
					continue
				}
				e := OutboxEntry{
					ID: o.id, Target: target, Account: g.account, State: o.row.State, Attempts: o.row.Attempts,
					CreatedAt: o.row.Created, Reason: o.row.Reason,
				}
				if o.row.State == StateQueued && e.Reason == "" {
					e.Reason = why
				}
				if o.row.State != StateFailed {
					e.Attempts = max(e.Attempts, g.knocks)
					e.NextAttempt = o.next
					if !g.connected && e.NextAttempt.Before(g.nextKnock) {
						e.NextAttempt = g.nextKnock
					}
				}
				list = append(list, e)
			}
		}
		return nil
	})
	return list, err
}

// obstacle says why nothing can be sent to an account now; "" if something can.
func (d *dialogs) obstacle(ctx context.Context, g *dialog) string {
	if d.s.people.suspended(g.account) {
		return "their key changed: look at it and accept it first"
	}
	if len(d.connectedDevices(g.account)) > 0 {
		return ""
	}
	keys, boxes := false, false
	for _, dev := range d.s.people.devicesOf(g.account) {
		if p, err := d.sealer.peer(ctx, dev); err == nil && p != nil {
			keys, boxes = true, boxes || len(p.record.Mailboxes) > 0
		}
	}
	switch {
	case boxes:
		return "they are away; it goes to their mailbox"
	case keys:
		return "they are away, and no mailbox of theirs is known: both have to be online"
	}
	return "they were never met: their keys are looked for"
}

// OutboxAction cancels a message that was not acknowledged, or tries it again now. A cancelled message
// that was sent before may arrive all the same; it stays in the history here, as failed.
func (s *Service) OutboxAction(ctx context.Context, id MessageID, action string) error {
	if action != OutboxCancel && action != OutboxRetry {
		return fmt.Errorf("%w: unknown action %.40q", ErrBadRequest, action)
	}
	d := s.dialogs
	return d.do(ctx, func() error {
		for _, g := range d.all() {
			for _, o := range g.out {
				if o.id == id && !o.row.Hidden {
					return d.outboxAction(ctx, g, o, action)
				}
			}
		}
		if m, err := s.directMessage(ctx, id); err == nil && m.Own {
			return fmt.Errorf("%w: the message is not in the outbox", ErrConflict)
		}
		return fmt.Errorf("message %s: %w", id, ErrNotFound)
	})
}

func (d *dialogs) outboxAction(ctx context.Context, g *dialog, o *outgoingDM, action string) error {
	var b storage.Batch
	row := o.row
	if action == OutboxCancel {
		b.Release(outboxQueue, storage.ID(o.id))
		b.Put(bucketOutState, o.id[:], outStateRow{State: StateFailed, Reason: "cancelled"}.encode())
	} else {
		row.State, row.Reason, row.Created = StateQueued, "", d.s.cfg.Clock.Now()
		b.Hold(outboxQueue, storage.ID(o.id), encodeRow(row))
	}
	if _, err := d.s.store.Commit(ctx, &b, storage.Durable); err != nil {
		return d.s.storeError(err)
	}
	if action == OutboxCancel {
		d.unqueue(g, func(q *outgoingDM) bool { return q == o })
	} else {
		o.row, o.next = row, time.Time{}
		d.setLive(o)
		g.nextTry, g.nextKnock = time.Time{}, time.Time{}
		d.pump(ctx, g)
	}
	d.show(ctx, o.id)
	return nil
}
