package chat

import (
	"context"
	"errors"
	"slices"
	"time"

	"github.com/starling-chat/starling/chat/wire"
	"github.com/starling-chat/starling/storage"
)

// dmLines is the work of putting direct messages, own and received ones, into a batch with what
// follows from them, and of telling the subscribers afterwards. It is the counterpart of intake.
type dmLines struct {
	d       *dialogs
	now     time.Time
	list    []dmLine
	touched []*dialog
	undo    map[*dialog]dialogRow
	fresh   map[MessageID][]modifier // by the message they are about
	changed []dmTarget               // messages that changed, in order
}

// dmLine is one direct message in the batch.
type dmLine struct {
	g       *dialog
	id      MessageID
	rec     *dmRecord
	flags   uint8
	time    uint64 // its place in the order
	arrival uint64
	state   *outStateRow // of an own message that has just left the outbox; nil: look it up
}

// dmTarget is a message that others are about.
type dmTarget struct {
	g  *dialog
	id MessageID
}

func newDMLines(d *dialogs) *dmLines {
	return &dmLines{
		d: d, now: d.s.cfg.Clock.Now(), undo: make(map[*dialog]dialogRow), fresh: make(map[MessageID][]modifier),
	}
}

// has says whether the batch holds a message already.
func (l *dmLines) has(id MessageID) bool {
	return slices.ContainsFunc(l.list, func(line dmLine) bool { return line.id == id })
}

// touch remembers a dialog's row as it was.
func (l *dmLines) touch(g *dialog) {
	if _, ok := l.undo[g]; !ok {
		l.undo[g] = g.row
		l.touched = append(l.touched, g)
	}
}

// rollback puts the rows back after a transaction that failed.
func (l *dmLines) rollback() {
	l.d.mu.Lock()
	defer l.d.mu.Unlock()
	for g, row := range l.undo {
		g.row = row
	}
}

// add appends one message's record.
func (l *dmLines) add(ctx context.Context, b *storage.Batch, g *dialog, id MessageID, r *dmRecord) error {
	r.Received = time.UnixMilli(r.Received.UnixMilli()).UTC() // as it will be read
	value, err := r.encode()
	if err != nil {
		return err
	}
	l.touch(g)
	line := dmLine{g: g, id: id, rec: r, flags: recordShown}
	at := dmTime(r.Received, 0)
	if c := r.Content; c != nil {
		line.flags = dmFlags(c.Kind, r.Own)
		// Whatever claims to come from the future is put where it arrived.
		if c.SentAt.Before(l.now.Add(wire.MaxAhead)) {
			at = dmTime(c.SentAt, c.DeviceSeq)
		}
	}
	b.Append(storage.Record{Stream: g.stream, Time: at, ID: storage.ID(id), Flags: line.flags, Value: value})
	line.time, line.arrival = at, l.count(g, r, line.flags)
	l.list = append(l.list, line)
	return l.modify(ctx, b, &line, at)
}

// count moves the conversation's row on and returns the arrival number.
func (l *dmLines) count(g *dialog, r *dmRecord, flags uint8) uint64 {
	l.d.mu.Lock()
	defer l.d.mu.Unlock()
	g.row.Arrival++
	if flags&recordText != 0 {
		g.row.LastAt = l.now
		if !r.Own {
			g.row.Unread++
		}
	}
	if c := r.Content; c != nil && !r.Own {
		ms := uint64(max(c.SentAt.UnixMilli(), 0))
		if ms >= g.row.Newest && c.SentAt.Before(l.now.Add(wire.MaxAhead)) {
			g.row.Newest, g.row.Theirs = ms, true
		}
	}
	return g.row.Arrival
}

// modify notes what a message does to another one, and drops bodies that a deletion reaches.
func (l *dmLines) modify(ctx context.Context, b *storage.Batch, line *dmLine, at uint64) error {
	c := line.rec.Content
	if c == nil {
		return nil
	}
	target := line.id
	if body := dmBody(c); body != nil && c.Kind != wire.DMMessage {
		author := line.g.account
		if line.rec.Own {
			author = l.d.s.self.account
		}
		m, ok := modifierOf(stamp{wire.HLC(at), wire.SealedID(line.id)}, wire.EventID(line.id), author, body, l.d.s.self.account)
		if !ok {
			return nil
		}
		target = directID(line.g.conversation, c.Ref)
		b.Put(bucketModifier, m.key(line.g.stream, wire.EventID(target)), m.encode())
		l.fresh[target] = append(l.fresh[target], m)
		l.changed = append(l.changed, dmTarget{line.g, target})
		l.d.mu.Lock()
		line.g.modded[wire.EventID(target)] = struct{}{}
		l.d.mu.Unlock()
	} else if c.Kind != wire.DMMessage {
		return nil
	}
	mods, err := l.d.modifiers(ctx, line.g, target)
	if err != nil {
		return err
	}
	return l.redact(ctx, b, line.g, target, append(mods, l.fresh[target]...))
}

// redact drops the bodies of a message and of its edits where their author deleted it.
func (l *dmLines) redact(ctx context.Context, b *storage.Batch, g *dialog, target MessageID, mods []modifier) error {
	redactors := make(map[wire.AccountID]bool)
	for i := range mods {
		if mods[i].Kind == wire.KindRedact {
			redactors[mods[i].Account] = true
		}
	}
	if len(redactors) == 0 {
		return nil
	}
	for i := range mods {
		if m := &mods[i]; m.Kind == wire.KindEdit && redactors[m.Account] && m.Text != "" {
			if err := l.dropBody(ctx, b, g, MessageID(m.ID), redactors); err != nil {
				return err
			}
			bare := *m
			bare.Text = ""
			b.Put(bucketModifier, m.key(g.stream, wire.EventID(target)), bare.encode())
		}
	}
	return l.dropBody(ctx, b, g, target, redactors)
}

// dropBody replaces a message's record by one without its text.
func (l *dmLines) dropBody(ctx context.Context, b *storage.Batch, g *dialog, id MessageID, authors map[wire.AccountID]bool) error {
	var r *dmRecord
	var arrival uint64
	var flags uint8
	for i := range l.list {
		if line := &l.list[i]; line.id == id {
			r, flags = line.rec, line.flags
		}
	}
	if r == nil {
		rec, err := l.d.s.store.Get(ctx, storage.ID(id))
		if errors.Is(err, storage.ErrNotFound) || err == nil && rec.Flags&recordBodily != 0 {
			return nil
		}
		if err != nil {
			return err
		}
		if r, err = decodeDMRecord(rec.Value); err != nil {
			return err
		}
		arrival, flags = rec.Arrival, rec.Flags
	}
	author := g.account
	if r.Own {
		author = l.d.s.self.account
	}
	if !authors[author] || r.Content == nil || len(r.Content.Body) == 0 {
		return nil
	}
	if arrival != 0 {
		if err := l.d.s.store.Unindex(ctx, g.stream, arrival, searchText(dmBody(r.Content))); err != nil {
			l.d.s.log.Warn("taking a deleted message out of the index failed", "error", err)
		}
	}
	bare := *r
	content := *r.Content
	content.Body, content.Attachments = nil, nil
	bare.Content = &content
	value, err := bare.encode()
	if err != nil {
		return err
	}
	b.Replace(storage.ID(id), flags|recordBodily, value)
	for i := range l.list {
		if line := &l.list[i]; line.id == id {
			line.rec = &bare
		}
	}
	for _, o := range g.out {
		if o.id == id {
			o.line = nil // what lies in the store holds now
		}
	}
	return nil
}

// rows adds the conversations' rows to the batch.
func (l *dmLines) rows(b *storage.Batch) {
	for _, g := range l.touched {
		l.d.putRow(b, g)
	}
}

// announce indexes what was stored, tells the subscribers, and returns the new lines as shown.
func (l *dmLines) announce(ctx context.Context) map[MessageID]Message {
	events := make([]Event, 0, len(l.list)+len(l.changed)+len(l.touched))
	shown := make(map[MessageID]Message, len(l.list))
	names := l.d.s.namer()
	for i := range l.list {
		line := &l.list[i]
		text := ""
		if line.rec.Content != nil {
			text = searchText(dmBody(line.rec.Content))
		}
		if err := l.d.s.store.Index(ctx, line.g.stream, line.arrival, text); err != nil {
			l.d.s.log.Warn("indexing a message failed", "error", err)
		}
		if line.flags&recordShown == 0 {
			continue
		}
		if m, err := l.d.lineOf(ctx, line.g, line, names); err == nil {
			shown[line.id] = m
			events = append(events, Event{Type: EventMessage, Message: &m})
		}
	}
	for _, t := range l.changed {
		if m, err := l.d.s.directMessage(ctx, t.id); err == nil && !l.has(t.id) {
			events = append(events, Event{Type: EventUpdate, Message: &m})
		}
	}
	for _, g := range l.touched {
		c := l.d.conversationAs(g, names)
		events = append(events, Event{Type: EventConversation, Conversation: &c})
	}
	l.d.s.events.publish(events...)
	return shown
}

// modifiers returns the stored modifiers of a direct message.
func (d *dialogs) modifiers(ctx context.Context, g *dialog, id MessageID) ([]modifier, error) {
	d.mu.RLock()
	_, any := g.modded[wire.EventID(id)]
	d.mu.RUnlock()
	if !any {
		return nil, nil
	}
	return readModifiers(ctx, d.s.store, g.stream, wire.EventID(id))
}
