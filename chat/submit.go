package chat

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/starling-chat/starling/chat/wire"
	"github.com/starling-chat/starling/storage"
)

// MaxClientID bounds a client id, in bytes.
const MaxClientID = 128

// Submission is a message on its way to being accepted.
type Submission struct {
	req      SendRequest
	said     []said
	accepted chan struct{}   // closed when msg and err are valid
	ended    <-chan struct{} // closed when nobody is left to accept it
	msg      Message
	err      error
}

// said is one event or direct message that a submission makes.
type said struct {
	kind    wire.Kind
	content []byte
	ref     wire.EventID
}

func newSubmission(req SendRequest, ended <-chan struct{}) *Submission {
	return &Submission{req: req, accepted: make(chan struct{}), ended: ended}
}

func (s *Submission) finish(m Message, err error) {
	s.msg, s.err = m, err
	close(s.accepted)
}

// Wait returns once the message is durable, with state accepted or later, or was refused. An edit, a
// redaction or a reaction returns the message it changed. When ctx ends first, the message may still
// be accepted: ask again with the same client id.
func (s *Submission) Wait(ctx context.Context) (Message, error) {
	var err error
	select {
	case <-s.accepted:
	case <-ctx.Done():
		err = ctx.Err()
	case <-s.ended:
		err = ErrStopped
	}
	select {
	case <-s.accepted:
		return s.msg, s.err
	default:
		return Message{}, err
	}
}

// Submit queues a message; messages to one conversation are accepted in the order of the calls. It
// returns early errors (a text over its limit, a room that is not joined) and waits while the
// conversation's queue is full.
func (s *Service) Submit(ctx context.Context, req SendRequest) (*Submission, error) {
	if len(req.ClientID) > MaxClientID {
		return nil, fmt.Errorf("client id of %d bytes, at most %d: %w", len(req.ClientID), MaxClientID, ErrTooLarge)
	}
	if req.Action == "" {
		req.Action = ActionMessage
	}
	switch {
	case req.Target.Room != nil:
		return s.submitRoom(ctx, req)
	case req.Target.Account != nil:
		return s.submitDirect(ctx, req)
	default:
		return nil, fmt.Errorf("%w: no target", ErrBadRequest)
	}
}

// Send is Submit and Wait: it returns when the message is durable. Concurrent calls share commits.
func (s *Service) Send(ctx context.Context, req SendRequest) (Message, error) {
	sub, err := s.Submit(ctx, req)
	if err != nil {
		return Message{}, err
	}
	return sub.Wait(ctx)
}

func (s *Service) submitRoom(ctx context.Context, req SendRequest) (*Submission, error) {
	r, err := s.joinedRoom(*req.Target.Room)
	if err == nil {
		err = r.awaitKey(ctx)
	}
	if err != nil {
		return nil, err
	}
	list, err := r.prepare(ctx, req)
	if err != nil {
		return nil, err
	}
	return r.submit(ctx, req, list)
}

// submit queues events for the room's owner.
func (r *room) submit(ctx context.Context, req SendRequest, list []said) (*Submission, error) {
	ended, err := r.s.roomEnded(ctx, r)
	if err != nil {
		return nil, err
	}
	sub := newSubmission(req, ended)
	sub.said = list
	select {
	case r.submits <- sub:
		return sub, nil
	case <-ctx.Done():
		return nil, ctx.Err()
	case <-ended:
		return nil, ErrStopped
	}
}

// checkText says what is wrong with a message's text.
func checkText(text string) error {
	switch {
	case text == "":
		return ErrEmpty
	case len(text) > wire.MaxText:
		return fmt.Errorf("text of %d bytes, at most %d: %w", len(text), wire.MaxText, ErrTooLarge)
	case !utf8.ValidString(text) || strings.ContainsRune(text, 0):
		return ErrInvalidUTF8
	}
	return nil
}

// checkReaction says what is wrong with a reaction.
func checkReaction(text string) error {
	switch {
	case len(text) > wire.MaxReaction:
		return fmt.Errorf("reaction of %d bytes, at most %d: %w", len(text), wire.MaxReaction, ErrTooLarge)
	case !utf8.ValidString(text) || strings.ContainsRune(text, 0):
		return ErrInvalidUTF8
	}
	return nil
}

// prepare checks a request and makes the contents of its events.
func (r *room) prepare(ctx context.Context, req SendRequest) ([]said, error) {
	var body wire.Body
	ref := wire.EventID(req.Ref)
	switch req.Action {
	case ActionMessage:
		if err := checkText(req.Text); err != nil {
			return nil, err
		}
		style, err := req.Style.wire()
		if err != nil {
			return nil, err
		}
		body, ref = &wire.MessageBody{Text: req.Text, Mentions: r.mentioned(req.Text), Style: style}, wire.EventID(req.ReplyTo)
	case ActionEdit, ActionRedact, ActionReact:
		target, err := r.byID(ctx, ref)
		if err != nil {
			return nil, err
		}
		if err := r.checkTarget(req.Action, target); err != nil {
			return nil, err
		}
		switch req.Action {
		case ActionEdit:
			if err := checkText(req.Text); err != nil {
				return nil, err
			}
			body = &wire.EditBody{Text: req.Text, Mentions: r.mentioned(req.Text)}
		case ActionRedact:
			body = &wire.RedactBody{}
		default:
			return prepareReaction(req.Text, target, ref)
		}
	default:
		return nil, fmt.Errorf("%w: unknown action %.40q", ErrBadRequest, req.Action)
	}
	return encodeSaid(body, ref)
}

func encodeSaid(body wire.Body, ref wire.EventID) ([]said, error) {
	content, err := wire.EncodeBody(body)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrBadRequest, err)
	}
	return []said{{kind: body.EventKind(), content: content, ref: ref}}, nil
}

// checkTarget says whether a message of the room may be edited, deleted or reacted to by this user.
func (r *room) checkTarget(action SendAction, target Message) error {
	if action == ActionRedact && target.Kind == KindMessage && !target.Own {
		return r.mayRedact(target.Account)
	}
	return checkTarget(action, target)
}

// checkTarget says whether an author may do something to a message; whoever moderates may do more.
func checkTarget(action SendAction, target Message) error {
	switch {
	case target.Kind != KindMessage:
		return fmt.Errorf("%w: only messages can be edited, deleted or reacted to", ErrBadRequest)
	case action != ActionReact && !target.Own:
		return fmt.Errorf("%w: the message is by somebody else", ErrDenied)
	case target.Redacted && action != ActionRedact:
		return fmt.Errorf("%w: the message was deleted", ErrConflict)
	}
	return nil
}

// prepareReaction makes one reaction, or takes back all of one's own.
func prepareReaction(text string, target Message, ref wire.EventID) ([]said, error) {
	if err := checkReaction(text); err != nil {
		return nil, err
	}
	if text != "" {
		return encodeSaid(&wire.ReactBody{Symbol: text}, ref)
	}
	var list []said
	for _, re := range target.Reactions {
		if !re.Own {
			continue
		}
		one, err := encodeSaid(&wire.ReactBody{Symbol: re.Text, Remove: true}, ref)
		if err != nil {
			return nil, err
		}
		list = append(list, one...)
	}
	if len(list) == 0 {
		return nil, fmt.Errorf("%w: no reaction to take back", ErrConflict)
	}
	return list, nil
}

// mentioned finds the members that a text names as @nick.
func (r *room) mentioned(text string) []wire.AccountID {
	if !strings.ContainsRune(text, '@') {
		return nil
	}
	lower := strings.ToLower(text)
	var list []wire.AccountID
	r.mu.RLock()
	for id, m := range r.roster.members {
		if m.Nick.Value != "" && m.presentOnly() && strings.Contains(lower, "@"+foldNick(m.Nick.Value)) {
			list = append(list, id)
		}
	}
	r.mu.RUnlock()
	slices.SortFunc(list, func(a, b wire.AccountID) int { return bytes.Compare(a[:], b[:]) })
	return list[:min(len(list), wire.MaxMentions)]
}

// clientKey is where a client id is remembered.
func clientKey(c ConversationID, clientID string) []byte {
	sum := sha256.Sum256([]byte(clientID))
	return joinKey(c[:], sum[:])
}

// remembered returns what was made under a client id before.
func (s *Service) remembered(ctx context.Context, c ConversationID, clientID string) (MessageID, bool, error) {
	if clientID == "" {
		return MessageID{}, false, nil
	}
	b, err := s.store.GetBucket(ctx, bucketClients, clientKey(c, clientID))
	if errors.Is(err, storage.ErrNotFound) {
		return MessageID{}, false, nil
	}
	if err == nil && len(b) != len(MessageID{}) {
		err = fmt.Errorf("remembered client id of %d bytes: %w", len(b), storage.ErrCorrupt)
	}
	if err != nil {
		return MessageID{}, false, err
	}
	return MessageID(b), true, nil
}

// making is a batch of submissions on its way into the room.
type making struct {
	subs    []*Submission
	result  []MessageID // what each of subs answers with; zero if it failed already
	list    []arrival
	clients map[string]MessageID
	size    int
}

// accept takes a submission with what waits behind it, stores all of it in one transaction and answers.
// When the own allowance is used up it keeps the next one in r.held and returns when to go on.
func (r *room) accept(ctx context.Context, first *Submission) (resume <-chan time.Time) {
	m := &making{clients: make(map[string]MessageID)}
	chain := r.chain()
	for sub := first; sub != nil; {
		wait, err := r.make(ctx, m, &chain, sub)
		if wait > 0 {
			r.held, resume = sub, time.After(wait)
			break
		}
		if err != nil {
			sub.finish(Message{}, err)
		}
		sub = nil
		if len(m.list) < batchEvents && m.size < batchBytes {
			select {
			case sub = <-r.submits:
			default:
			}
		}
	}
	if len(m.subs) == 0 {
		return resume
	}
	shown, err := r.take(ctx, m.list, storage.Durable, func(b *storage.Batch) {
		for id, made := range m.clients {
			b.Put(bucketClients, clientKey(ConversationID(r.id), id), made[:])
		}
		b.Guard()
	})
	if err == nil {
		r.pub.add(m.list)
	}
	for i, sub := range m.subs {
		if err != nil {
			sub.finish(Message{}, err)
			continue
		}
		msg, ok := shown[wire.EventID(m.result[i])]
		var gone error
		if !ok {
			msg, gone = r.byID(ctx, wire.EventID(m.result[i]))
		}
		if errors.Is(gone, ErrNotFound) && len(sub.said) > 0 && sub.said[len(sub.said)-1].kind == wire.KindProfile {
			gone = nil // said, and no line of its own: see introductions
		}
		sub.finish(msg, gone)
	}
	return resume
}

// chain is the end of this device's sequence of events in a room.
type chain struct {
	seq      uint64
	previous wire.EventID
	clock    wire.HLC
	parents  []wire.EventID
	clocks   []wire.HLC
}

func (r *room) chain() chain {
	r.mu.RLock()
	defer r.mu.RUnlock()
	c := chain{seq: r.state.Seq, previous: r.state.Previous, clock: r.state.Clock}
	c.parents, c.clocks = r.tracker.parents(c.previous)
	return c
}

// make turns one submission into events. A positive duration says to come back later.
func (r *room) make(ctx context.Context, m *making, c *chain, sub *Submission) (time.Duration, error) {
	id := sub.req.ClientID
	if made, ok := m.clients[id]; ok && id != "" {
		m.subs, m.result = append(m.subs, sub), append(m.result, made)
		return 0, nil
	}
	made, ok, err := r.s.remembered(ctx, ConversationID(r.id), id)
	if err != nil {
		return 0, err
	}
	if ok {
		msg, err := r.byID(ctx, wire.EventID(made))
		if err == nil {
			sub.finish(msg, nil)
		}
		return 0, err
	}
	size := 0
	for _, one := range sub.said {
		size += len(one.content) + wire.MaxHeader
	}
	now := r.s.cfg.Clock.Now()
	r.limiter.set(r.pace(false))
	if wait := r.limiter.wait(r.s.self.account, size, now); wait > 0 {
		return wait, nil
	}
	var list []arrival
	next := *c
	for _, one := range sub.said {
		a, err := r.compose(&next, one, now)
		if err != nil {
			return 0, err
		}
		r.limiter.allow(r.s.self.account, len(a.sealed.Bytes()), now)
		list = append(list, a)
	}
	*c = next
	result := MessageID(list[len(list)-1].event.ID)
	if sub.req.Action != ActionMessage {
		result = sub.req.Ref
	}
	list[len(list)-1].clientID = id
	m.subs, m.result, m.list, m.size = append(m.subs, sub), append(m.result, result), append(m.list, list...), m.size+size
	if id != "" {
		m.clients[id] = result
	}
	return 0, nil
}

// compose builds, signs and seals one event at the end of the chain.
func (r *room) compose(c *chain, one said, now time.Time) (arrival, error) {
	cert, err := r.s.certificate(now)
	if err != nil {
		return arrival{}, err
	}
	e := r.current()
	if r.private {
		if e, err = r.placeNext(c, one.kind); err != nil {
			return arrival{}, err
		}
	}
	h := wire.Header{
		Kind: one.kind, Room: r.id, Certificate: cert, HLC: wire.Next(now, c.clock, c.clocks...),
		DeviceSeq: c.seq + 1, Previous: c.previous, Parents: c.parents, Ref: one.ref, Epoch: e.number,
	}
	if r.private {
		if err := r.mayPostNow(one.kind, h.HLC); err != nil {
			return arrival{}, err
		}
	}
	ev, err := wire.NewEvent(h, one.content, r.s.cfg.Device.PrivateKey(), r.s.cfg.Rand)
	if err != nil {
		return arrival{}, err
	}
	sealed, err := e.keys.Seal(ev)
	if err != nil {
		return arrival{}, err
	}
	body, err := ev.Body()
	if err != nil {
		return arrival{}, err
	}
	*c = chain{seq: h.DeviceSeq, previous: ev.ID, clock: h.HLC}
	return arrival{sealed: sealed, event: ev, body: body, own: true}, nil
}
