package chat

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/starling-chat/starling/chat/wire"
	"github.com/starling-chat/starling/storage"
)

const (
	// defaultPage and maxPage bound a page of history, in messages.
	defaultPage = 50
	maxPage     = 1000
	// scanStep is how many records are read at once on the way to a page; modifiers among them are
	// no lines of their own.
	scanStep = 256
)

// view is an event on its way to becoming a [Message].
type view struct {
	sealed   *wire.Sealed
	event    *wire.Event
	body     wire.Body
	arrival  uint64
	index    uint8
	received time.Time
	clientID string
}

// message folds an event with its modifiers into what is shown.
func (r *room) message(ctx context.Context, v view) (Message, error) {
	h := &v.event.Header
	who := r.nick(h.Account())
	m := Message{
		ID: MessageID(v.event.ID), ClientID: v.clientID, Conversation: ConversationID(r.id),
		Target: "#" + r.name(), Room: r.name(), Account: h.Account(), Device: h.Device(),
		Nick: who.Nick, Fingerprint: who.Fingerprint, NickShared: who.Shared,
		Own: h.Account() == r.s.self.account, Kind: KindUnknown, SentAt: h.HLC.Time(), ReceivedAt: v.received,
		Seq: v.arrival, State: StateReceived, BackDated: v.index&indexBackDated != 0,
	}
	if m.Own {
		m.State, m.Reason, m.ReadBy = r.standing(v.sealed.Topic, h, v.arrival)
	}
	switch h.Kind {
	case wire.KindJoin:
		m.Kind = KindJoin
	case wire.KindLeave:
		m.Kind = KindLeave
		if b, ok := v.body.(*wire.LeaveBody); ok {
			m.Text = b.Reason
		}
	case wire.KindTopic:
		m.Kind = KindTopic
		if b, ok := v.body.(*wire.TopicBody); ok {
			m.Text = b.Text
		}
	case wire.KindProfile:
		m.Kind = KindProfile
		if b, ok := v.body.(*wire.ProfileBody); ok {
			m.Text = b.Nick
		}
	case wire.KindMessage:
		return r.text(ctx, v, m)
	default:
		if text := r.memberText(v); text != "" {
			m.Kind, m.Text = KindMember, text
		}
	}
	return m, nil
}

// text completes a message proper.
func (r *room) text(ctx context.Context, v view, m Message) (Message, error) {
	m.Kind, m.ReplyTo = KindMessage, MessageID(v.event.Header.Ref)
	mods, err := r.modifiers(ctx, v.event.ID)
	if err != nil {
		return Message{}, err
	}
	text, names := "", false
	if b, ok := v.body.(*wire.MessageBody); ok {
		text, names, m.Style = messageText(b), r.s.mentions(b), styleOf(b)
	} else {
		m.Redacted = true // the body is not here: it was deleted, or only the stub could be fetched
	}
	for i := range mods {
		if mods[i].ByRole, err = r.overruled(ctx, &mods[i], m.Account, noEvent); err != nil {
			return Message{}, err
		}
	}
	f := foldMessage(m.Account, text, names, mods)
	m.Text, m.Edited, m.Mention = f.Text, f.Edited, f.Names && !m.Own
	if m.Redacted = m.Redacted || f.Redacted; m.Redacted {
		m.Text, m.Style, m.Edited, m.Mention, f.Reactions = "", "", false, false, nil
	}
	for _, re := range f.Reactions {
		shown := Reaction{Text: re.Symbol, Own: slices.Contains(re.By, r.s.self.account)}
		for _, by := range re.By {
			shown.Nicks = append(shown.Nicks, r.nick(by).Nick)
		}
		slices.Sort(shown.Nicks)
		m.Reactions = append(m.Reactions, shown)
	}
	return m, nil
}

// messageText is the text of a message as one line of conversation.
func messageText(b *wire.MessageBody) string {
	text := b.Text
	for i := range b.Files {
		if text != "" {
			text += "\n"
		}
		text += "[file: " + b.Files[i].Name + "]"
	}
	return text
}

// mentions says whether a message names this user.
func (s *Service) mentions(b *wire.MessageBody) bool {
	if slices.Contains(b.Mentions, s.self.account) {
		return true
	}
	nick := s.nickNow()
	return nick != "" && strings.Contains(strings.ToLower(b.Text), "@"+strings.ToLower(nick))
}

// show turns a stored record into a message; false if it is no line of the conversation.
func (r *room) show(ctx context.Context, rec storage.Record) (Message, bool, error) {
	if rec.Flags&recordShown == 0 || rec.Flags&storage.FlagStub != 0 {
		return Message{}, false, nil
	}
	sealed, err := r.parse(ctx, rec)
	if err != nil {
		return Message{}, false, err
	}
	a := r.open(sealed)
	if a.event == nil {
		return Message{}, false, fmt.Errorf("opening stored event %s: %w", rec.ID, storage.ErrCorrupt)
	}
	v := view{sealed: sealed, event: a.event, body: a.body, arrival: rec.Arrival}
	row, ok, err := r.lookup(ctx, a.event.ID)
	if err != nil {
		return Message{}, false, err
	}
	if ok {
		v.index, v.received, v.clientID = row.Flags, row.Received, row.ClientID
	}
	if !r.hadEffect(a.event) {
		return Message{}, false, nil
	}
	m, err := r.message(ctx, v)
	return m, err == nil, err
}

// byID returns a message of the room.
func (r *room) byID(ctx context.Context, id wire.EventID) (Message, error) {
	row, ok, err := r.lookup(ctx, id)
	if err != nil {
		return Message{}, err
	}
	if !ok || row.Flags&(indexRefused|indexVoid) != 0 {
		return Message{}, fmt.Errorf("message %s: %w", id, ErrNotFound)
	}
	rec, err := r.s.store.Get(ctx, storage.ID(row.Sealed))
	if err != nil {
		return Message{}, err
	}
	m, ok, err := r.show(ctx, rec)
	if err == nil && !ok {
		err = fmt.Errorf("message %s: %w", id, ErrNotFound)
	}
	return m, err
}

// place finds where a message stands in the room's order.
func (r *room) place(ctx context.Context, id MessageID) (storage.Position, error) {
	if id.IsZero() {
		return storage.Position{}, nil
	}
	row, ok, err := r.lookup(ctx, wire.EventID(id))
	if err == nil && !ok {
		err = fmt.Errorf("message %s: %w", id, ErrNotFound)
	}
	return row.position(), err
}

// history returns a page of the room.
func (r *room) history(ctx context.Context, q HistoryQuery) ([]Message, error) {
	rng, err := historyRange(ctx, q, r.place)
	if err != nil {
		return nil, err
	}
	return page(ctx, r.s.store, r.stream, rng, q, func(rec storage.Record) (Message, bool, error) {
		return r.show(ctx, rec)
	})
}

// historyRange turns a query into a range; place finds a message's position.
func historyRange(ctx context.Context, q HistoryQuery, place func(context.Context, MessageID) (storage.Position, error)) (storage.Range, error) {
	var rng storage.Range
	var err error
	if rng.After, err = place(ctx, q.After); err != nil {
		return rng, err
	}
	if rng.Before, err = place(ctx, q.Before); err != nil {
		return rng, err
	}
	if !q.Since.IsZero() {
		// Just before the first reading of that millisecond.
		since := storage.Position{Time: max(storage.ClockTime(q.Since), 1) - 1, ID: lastID}
		if rng.After.Compare(since) < 0 {
			rng.After = since
		}
	}
	// Without a lower bound, or with both, the newest messages are wanted.
	rng.Reverse = q.After.IsZero()
	return rng, nil
}

// lastID sorts after every record id but itself.
var lastID = storage.ID(slices.Repeat([]byte{0xff}, 32))

// page collects the shown messages of a range, oldest first, at most the query's number.
func page(ctx context.Context, store *storage.Store, stream storage.StreamID, rng storage.Range, q HistoryQuery,
	show func(storage.Record) (Message, bool, error),
) ([]Message, error) {
	want := q.N
	if want <= 0 {
		want = defaultPage
	}
	want = min(want, maxPage)
	var list []Message
	rng.Limit = min(scanStep, want+want/4)
	for len(list) < want {
		n := 0
		var last storage.Position
		for rec, err := range store.Scan(ctx, stream, rng) {
			if err != nil {
				return nil, err
			}
			n++
			last = rec.Position()
			m, ok, err := show(rec)
			if err != nil {
				return nil, err
			}
			if ok {
				list = append(list, m)
			}
			if len(list) == want {
				break
			}
		}
		if n < rng.Limit {
			break
		}
		if rng.Reverse {
			rng.Before = last
		} else {
			rng.After = last
		}
	}
	if rng.Reverse {
		slices.Reverse(list)
	}
	return list, nil
}

// digest sums up the shown messages of the room: SHA-256 over their ids, 32 bytes each, ascending.
func (r *room) digest(ctx context.Context) (Digest, error) {
	var d Digest
	h := sha256.New()
	for kv, err := range r.s.store.ScanBucket(ctx, bucketEvents, r.stream[:]) {
		if err != nil {
			return Digest{}, err
		}
		row, err := decodeIndexRow(kv.Value)
		if err != nil {
			return Digest{}, err
		}
		if row.Record&recordText == 0 || row.Flags&indexRefused != 0 {
			continue
		}
		d.Count++
		h.Write(kv.Key[len(r.stream):])
	}
	d.SHA256 = [32]byte(h.Sum(nil))
	r.mu.RLock()
	defer r.mu.RUnlock()
	d.Gaps = r.tracker.missing()
	return d, nil
}

// index gives the texts of new records to the search index.
func (r *room) index(ctx context.Context, list []arrival) {
	if !r.indexed {
		return
	}
	for i := range list {
		a := &list[i]
		if a.number == 0 {
			continue
		}
		if err := r.s.store.Index(ctx, r.stream, a.number, searchText(a.body)); err != nil {
			r.log.Warn("indexing a message failed", "error", err)
			return // the index goes on from here at the next start
		}
	}
}

// searchText is what can be found of an event.
func searchText(body wire.Body) string {
	switch b := body.(type) {
	case *wire.MessageBody:
		return messageText(b)
	case *wire.EditBody:
		return b.Text
	}
	return ""
}

func (r *room) unindex(ctx context.Context, arrival uint64, body wire.Body) {
	if text := searchText(body); text != "" {
		if err := r.s.store.Unindex(ctx, r.stream, arrival, text); err != nil {
			r.log.Warn("taking a deleted message out of the index failed", "error", err)
		}
	}
}

// catchUpIndex indexes what a crash left out, and then lets new records be indexed as they come.
func (r *room) catchUpIndex(ctx context.Context) {
	err := r.reindex(ctx)
	if err == nil {
		err = r.do(ctx, func() error {
			if err := r.reindex(ctx); err != nil {
				return err
			}
			r.indexed = true
			return nil
		})
	}
	if err != nil && ctx.Err() == nil {
		r.log.Warn("indexing a room for search failed", "error", err)
	}
}

// reindex brings the search index up to the newest record.
func (r *room) reindex(ctx context.Context) error {
	at, err := r.s.store.IndexedTo(ctx, r.stream)
	for err == nil {
		n := 0
		for rec, serr := range r.s.store.ScanArrival(ctx, r.stream, at, scanStep) {
			if serr != nil {
				return serr
			}
			n++
			at = rec.Arrival
			text := ""
			if sealed, perr := r.parse(ctx, rec); perr == nil && rec.Flags&recordHidden == 0 {
				text = searchText(r.open(sealed).body)
			}
			if err = r.s.store.Index(ctx, r.stream, at, text); err != nil {
				break
			}
		}
		if n < scanStep {
			break
		}
	}
	return err
}

// found turns a search hit into the message it is about; an edit stands for its message.
func (r *room) found(ctx context.Context, rec storage.Record, from wire.AccountID) (Message, bool) {
	sealed, err := r.parse(ctx, rec)
	if err != nil || rec.Flags&recordHidden != 0 {
		return Message{}, false
	}
	a := r.open(sealed)
	if a.event == nil || !from.IsZero() && a.event.Header.Account() != from {
		return Message{}, false
	}
	id := a.event.ID
	if a.event.Header.Kind == wire.KindEdit {
		id = a.event.Header.Ref
	}
	m, err := r.byID(ctx, id)
	return m, err == nil && m.Kind == KindMessage && !m.Redacted
}

// markRead moves the read mark and counts what remains.
func (r *room) markRead(ctx context.Context, seq uint64) error {
	r.mu.RLock()
	state := r.state
	r.mu.RUnlock()
	seq = min(seq, state.Arrival)
	if seq <= state.Read {
		return nil
	}
	unread, mentions := 0, 0
	if seq < state.Arrival {
		var err error
		if unread, mentions, err = r.unreadAfter(ctx, seq); err != nil {
			return err
		}
	}
	if err := r.tellRead(ctx, state.Read, seq); err != nil {
		r.log.Warn("saying what was read failed", "error", err)
	}
	var b storage.Batch
	r.mu.Lock()
	r.state.Read, r.state.Unread, r.state.Mentions = seq, unread, mentions
	r.mu.Unlock()
	r.putState(&b)
	if _, err := r.s.store.Commit(ctx, &b, storage.Relaxed); err != nil {
		return errors.Join(r.s.storeError(err), r.load(context.WithoutCancel(ctx)))
	}
	c := r.conversation()
	r.s.events.publish(Event{Type: EventConversation, Conversation: &c})
	return nil
}

// unreadAfter counts the messages by others that came after an arrival, and those that name this user.
func (r *room) unreadAfter(ctx context.Context, seq uint64) (unread, mentions int, err error) {
	for rec, err := range r.s.store.ScanArrival(ctx, r.stream, seq, 0) {
		if err != nil {
			return 0, 0, err
		}
		if rec.Flags&(recordText|recordOwn|recordBodily) != recordText {
			continue
		}
		unread++
		if m, ok, err := r.show(ctx, rec); err == nil && ok && m.Mention {
			mentions++
		}
	}
	return unread, mentions, nil
}
