package chat

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/starling-chat/starling/chat/wire"
	"github.com/starling-chat/starling/storage"
)

// Me returns who this device is.
func (s *Service) Me() Me {
	me := Me{
		Account: s.self.account, Device: s.self.device, Nick: s.nickNow(),
		Fingerprint: wire.Fingerprint(s.self.account), Addrs: s.cfg.Addrs(),
	}
	cert, err := s.certificate(s.cfg.Clock.Now())
	if err == nil {
		link := wire.ContactLink{Certificate: cert, Nick: me.Nick, Addresses: linkAddresses(me.Addrs)}
		me.Link, err = link.Text()
	}
	if err != nil {
		s.log.Warn("making the own contact link failed", "error", err)
	}
	return me
}

// linkAddresses picks the addresses that fit into a link.
func linkAddresses(addrs []string) []string {
	var list []string
	for _, a := range addrs {
		if a != "" && len(a) <= wire.MaxAddress && len(list) < wire.MaxLinkAddresses && !slices.Contains(list, a) {
			list = append(list, a)
		}
	}
	return list
}

// Conversation returns one conversation.
func (s *Service) Conversation(ctx context.Context, t Target) (Conversation, error) {
	if t.Account != nil {
		return s.dialogConversation(ctx, *t.Account)
	}
	if t.Room != nil {
		if p := s.warden.pendingRoom(*t.Room); p != nil {
			return s.warden.shown(p), nil
		}
	}
	r, err := s.knownRoom(t)
	if err != nil {
		return Conversation{}, err
	}
	if !r.joined() {
		return Conversation{}, ErrNotJoined
	}
	return r.conversation(), nil
}

// Conversations lists the joined rooms and the direct conversations, the latest active first.
func (s *Service) Conversations(ctx context.Context) ([]Conversation, error) {
	list, err := s.dialogConversations(ctx)
	if err != nil {
		return nil, err
	}
	for _, r := range s.joinedRooms() {
		list = append(list, r.conversation())
	}
	for _, p := range s.warden.waiting() {
		list = append(list, s.warden.shown(p))
	}
	slices.SortFunc(list, func(a, b Conversation) int {
		if c := b.LastAt.Compare(a.LastAt); c != 0 {
			return c
		}
		return slices.Compare(a.ID[:], b.ID[:])
	})
	return list, nil
}

// MarkRead moves a conversation's read mark forward to the arrival number seq.
func (s *Service) MarkRead(ctx context.Context, t Target, seq uint64) error {
	if t.Account != nil {
		return s.markDialogRead(ctx, *t.Account, seq)
	}
	r, err := s.knownRoom(t)
	if err != nil {
		return err
	}
	return r.do(ctx, func() error { return r.markRead(ctx, seq) })
}

// SetMuted mutes a conversation or ends that. Muting changes nothing but what front-ends do.
func (s *Service) SetMuted(ctx context.Context, t Target, muted bool) error {
	if t.Account != nil {
		return s.muteDialog(ctx, *t.Account, muted)
	}
	r, err := s.knownRoom(t)
	if err != nil {
		return err
	}
	s.joinMu.Lock()
	defer s.joinMu.Unlock()
	r.mu.RLock()
	row := r.row
	r.mu.RUnlock()
	row.Muted = muted
	if err := s.putRoom(ctx, r, row); err != nil {
		return err
	}
	c := r.conversation()
	s.events.publish(Event{Type: EventConversation, Conversation: &c})
	return nil
}

// History returns a page of a conversation, oldest first.
func (s *Service) History(ctx context.Context, q HistoryQuery) ([]Message, error) {
	if q.Target.Account != nil {
		return s.dialogHistory(ctx, *q.Target.Account, q)
	}
	r, err := s.knownRoom(q.Target)
	if err != nil {
		return nil, err
	}
	list, err := r.history(ctx, q)
	for err == nil && r.wantsOlder(ctx, q, list) && r.fetchOlder(ctx, q.N) {
		list, err = r.history(ctx, q)
	}
	return list, err
}

// Message returns one message of any conversation.
func (s *Service) Message(ctx context.Context, id MessageID) (Message, error) {
	for _, r := range s.allRooms() {
		m, err := r.byID(ctx, wire.EventID(id))
		if err == nil || !errors.Is(err, ErrNotFound) {
			return m, err
		}
	}
	return s.directMessage(ctx, id)
}

// Digest sums up what a conversation shows.
func (s *Service) Digest(ctx context.Context, t Target) (Digest, error) {
	if t.Account != nil {
		return s.dialogDigest(ctx, *t.Account)
	}
	r, err := s.knownRoom(t)
	if err != nil {
		return Digest{}, err
	}
	return r.digest(ctx)
}

const (
	defaultHits = 50
	maxHits     = 200
)

// Search finds messages whose text holds every word of the query, newest first.
func (s *Service) Search(ctx context.Context, q SearchQuery) ([]Message, error) {
	if q.Query == "" {
		return nil, fmt.Errorf("%w: empty query", ErrBadRequest)
	}
	limit := min(q.N, maxHits)
	if limit <= 0 {
		limit = defaultHits
	}
	sources := make(map[storage.StreamID]func(storage.Record) (Message, bool))
	if q.In.Account == nil {
		for _, r := range s.allRooms() {
			if q.In.Room == nil && r.joined() || q.In.Room != nil && *q.In.Room == r.id {
				sources[r.stream] = func(rec storage.Record) (Message, bool) { return r.found(ctx, rec, q.From) }
			}
		}
	}
	if q.In.Room == nil {
		if err := s.dialogSources(ctx, q, sources); err != nil {
			return nil, err
		}
	}
	streams := make([]storage.StreamID, 0, len(sources))
	for id := range sources {
		streams = append(streams, id)
	}
	var list []Message
	seen := make(map[MessageID]bool)
	_, err := s.store.Search(ctx, q.Query, streams, limit, func(rec storage.Record) bool {
		m, ok := sources[rec.Stream](rec)
		if !ok || seen[m.ID] || !storage.TextMatches(q.Query, m.Text) {
			return false
		}
		seen[m.ID] = true
		list = append(list, m)
		return true
	})
	if err != nil {
		return nil, fmt.Errorf("searching: %w", err)
	}
	slices.SortStableFunc(list, func(a, b Message) int { return b.SentAt.Compare(a.SentAt) })
	return list[:min(len(list), limit)], nil
}

// waitPoll is how often WaitState looks at a room message, whose state changes without an event of
// its own.
const waitPoll = 50 * time.Millisecond

// WaitState waits until an own message has reached a state or a later one, or has failed. A room's
// message is never delivered: it has no one recipient. When ctx ends first, the message as it is then is
// returned with ctx's error.
func (s *Service) WaitState(ctx context.Context, id MessageID, want State) (Message, error) {
	sub := s.Events(0)
	defer sub.Close()
	for {
		m, err := s.Message(ctx, id)
		if err != nil {
			return Message{}, err
		}
		switch {
		case !m.Own:
			return m, fmt.Errorf("%w: the message is by somebody else", ErrBadRequest)
		case m.Room != "" && want == StateDelivered:
			return m, fmt.Errorf("%w: a room's message is delivered to nobody in particular; wait for %q", ErrBadRequest, StateStored)
		case m.State == StateFailed || m.State.rank() >= want.rank():
			return m, nil
		}
		if err := s.waitUpdate(ctx, sub, m); err != nil {
			return m, err
		}
	}
}

// waitUpdate returns when a message may have changed.
func (s *Service) waitUpdate(ctx context.Context, sub *Subscription, m Message) error {
	if m.Room != "" {
		pctx, cancel := context.WithTimeout(ctx, waitPoll)
		defer cancel()
		<-pctx.Done()
		return ctx.Err()
	}
	for {
		e, err := sub.Next(ctx)
		if err != nil {
			return err
		}
		if e.Type == EventReset || e.Message != nil && e.Message.ID == m.ID {
			return nil
		}
	}
}

// maxSetting bounds a front-end's setting, in bytes.
const maxSetting = 64 << 10

// Setting returns a front-end's stored text, or "" if there is none.
func (s *Service) Setting(ctx context.Context, key string) (string, error) {
	b, err := s.store.GetBucket(ctx, bucketSettings, []byte(key))
	if errors.Is(err, storage.ErrNotFound) {
		return "", nil
	}
	return string(b), err
}

// SetSetting stores a front-end's text under a key; the empty text removes it.
func (s *Service) SetSetting(ctx context.Context, key, value string) error {
	if key == "" || len(key) > storage.MaxKeySize/2 || len(value) > maxSetting {
		return fmt.Errorf("setting: %w: a key has 1 to %d bytes, a value at most %d", ErrTooLarge, storage.MaxKeySize/2, maxSetting)
	}
	var b storage.Batch
	if value == "" {
		b.Delete(bucketSettings, []byte(key))
	} else {
		b.Put(bucketSettings, []byte(key), []byte(value))
	}
	_, err := s.store.Commit(ctx, &b, storage.Durable)
	return s.storeError(err)
}

// Stats counts what the service holds.
func (s *Service) Stats() Stats {
	state := s.store.State()
	st := Stats{StorageState: state.Mode.String(), FreeBytes: state.Free}
	ctx, cancel := context.WithTimeout(context.Background(), time.Second) // Stats has no caller to cancel it; bounded here
	defer cancel()
	for _, r := range s.joinedRooms() {
		st.Rooms++
		st.Unpublished += r.pub.waiting()
		st.Dropped += r.dropped.Load()
		st.Refused += r.refused.Load()
		r.mu.RLock()
		st.Gaps += r.tracker.missing()
		st.Unread += r.state.Unread
		target := "#" + r.row.Name
		r.mu.RUnlock()
		if r.split() != nil {
			st.Split = append(st.Split, target)
		}
	}
	s.dialogStats(&st)
	streams, err := s.store.Streams(ctx)
	if err != nil {
		s.log.Warn("reading the store's counts failed", "error", err)
	}
	for _, info := range streams {
		st.Messages += int(info.Count)
		st.Bytes += int64(info.Bytes)
	}
	return st
}

// maxProtected bounds the devices worth keeping connected.
const maxProtected = 64

// Owner says whose a device is and how that account is called here; false until the device has shown its
// certificate, in a greeting or by an event of a room.
func (s *Service) Owner(dev wire.DeviceID) (account wire.AccountID, name string, known bool) {
	if account, known = s.people.account(dev); known {
		name = s.nick(account).Nick
	}
	return account, name, known
}

// Protect lists the devices whose connections are worth keeping: contacts first, then members of
// joined rooms, at most 64.
func (s *Service) Protect() []wire.DeviceID {
	var list []wire.DeviceID
	seen := make(map[wire.DeviceID]bool)
	add := func(d wire.DeviceID) {
		if !seen[d] && d != s.self.device && len(list) < maxProtected {
			seen[d] = true
			list = append(list, d)
		}
	}
	for id, c := range s.people.list() {
		if c.State == ContactFriend || c.State == ContactAsked {
			for _, d := range s.people.devicesOf(id) {
				add(d)
			}
		}
	}
	for _, r := range s.joinedRooms() {
		for _, d := range s.cfg.Gossip.Peers(r.keys().Topic) {
			add(d)
		}
	}
	return list
}
