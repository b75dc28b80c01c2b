package chat

import (
	"context"
	"errors"
	"fmt"
	"time"

	roomsync "github.com/starling-chat/starling/chat/sync"
	"github.com/starling-chat/starling/chat/wire"
	"github.com/starling-chat/starling/storage"
)

// epoch is one epoch of a room: the keys of its secret, and the set of what was said under them. A
// public room has one for ever; a private room gets another whenever its key changes. All share the
// room's stream and its order.
type epoch struct {
	number uint32
	keys   *wire.RoomKeys

	// Neighbours in the topic of an epoch that is not the newest; belongs to the goroutine of Service.Run.
	around map[wire.DeviceID]bool

	// Belongs to the goroutine that runs the room.
	set    *roomsync.Snapshot // everything in the set; nil until a session needs it
	joined bool               // its topic is joined
}

// maxActive is how many of a room's newest epochs are listened to. Older ones are served to whoever
// asks; whoever was away for longer asks for the new key first.
const maxActive = 16

// epochs returns the epochs that are held, the one to write under last.
func (r *room) epochs() []*epoch { return *r.ring.Load() }

// active returns those whose topics are joined, oldest first.
func (r *room) active() []*epoch {
	list := r.epochs()
	return list[max(0, len(list)-maxActive):]
}

// current returns the epoch under which the room is written.
func (r *room) current() *epoch {
	list := r.epochs()
	return list[len(list)-1]
}

// keys returns the keys under which the room is written.
func (r *room) keys() *wire.RoomKeys { return r.current().keys }

// epochOf returns the epoch of a topic, or nil.
func (r *room) epochOf(topic wire.TopicKey) *epoch {
	for _, e := range r.epochs() {
		if e.keys.Topic == topic {
			return e
		}
	}
	return nil
}

// bucketTopics says under which topic a private room's record was sealed: stream, sealed id: topic key.
const bucketTopics = "topics"

// topicOf returns the topic under which a record of the room was sealed.
func (r *room) topicOf(ctx context.Context, id storage.ID) (wire.TopicKey, error) {
	if !r.private {
		return r.keys().Topic, nil
	}
	b, err := r.s.store.GetBucket(ctx, bucketTopics, joinKey(r.stream[:], id[:]))
	if err == nil && len(b) != len(wire.TopicKey{}) {
		err = fmt.Errorf("topic of a stored event, %d bytes: %w", len(b), storage.ErrCorrupt)
	}
	if err != nil {
		return wire.TopicKey{}, err
	}
	return wire.TopicKey(b), nil
}

// parse reads a stored record of the room.
func (r *room) parse(ctx context.Context, rec storage.Record) (*wire.Sealed, error) {
	topic, err := r.topicOf(ctx, rec.ID)
	if err != nil {
		return nil, err
	}
	return parseStored(topic, wire.SealedID(rec.ID), rec.Value)
}

// unseal decrypts an event under the keys of its topic.
func (r *room) unseal(sealed *wire.Sealed) (*wire.Event, error) {
	e := r.epochOf(sealed.Topic)
	if e == nil {
		return nil, fmt.Errorf("%w: no key of its epoch is held", wire.ErrOpen)
	}
	return e.keys.Open(sealed)
}

// openSet returns an epoch's set, read from the store the first time. For the owner only.
func (r *room) openSet(ctx context.Context, e *epoch) (*roomsync.Snapshot, error) {
	if e.set != nil {
		return e.set, nil
	}
	topics := make(map[storage.ID]wire.TopicKey)
	if r.private {
		for kv, err := range r.s.store.ScanBucket(ctx, bucketTopics, r.stream[:]) {
			if err != nil {
				return nil, err
			}
			if len(kv.Key) == len(r.stream)+len(storage.ID{}) && len(kv.Value) == len(wire.TopicKey{}) {
				topics[storage.ID(kv.Key[len(r.stream):])] = wire.TopicKey(kv.Value)
			}
		}
	}
	var items []roomsync.Item
	for p, err := range r.s.store.Keys(ctx, r.stream, storage.Range{}) {
		if err != nil {
			return nil, err
		}
		if !r.private || topics[p.ID] == e.keys.Topic {
			items = append(items, roomsync.Item{Time: roomsync.Time(p.Time), ID: roomsync.ID(p.ID)})
		}
	}
	e.set = roomsync.NewSnapshot(items)
	return e.set, nil
}

// enlist adds what was stored to the sets that are open.
func (r *room) enlist(list []arrival) {
	items := make(map[*epoch][]roomsync.Item)
	for i := range list {
		if e := r.epochOf(list[i].sealed.Topic); e != nil && e.set != nil {
			items[e] = append(items[e], roomsync.Item{Time: roomsync.Time(list[i].sealed.HLC), ID: roomsync.ID(list[i].sealed.ID)})
		}
	}
	for e, add := range items {
		e.set.AddAll(add)
	}
}

// joinTopics joins the topics of the active epochs and leaves the others. Where that fails own messages
// wait, sync works all the same, and the answer says when to try again.
func (r *room) joinTopics(ctx context.Context, before time.Duration) <-chan time.Time {
	active := make(map[*epoch]bool)
	var errs []error
	for _, e := range r.active() {
		active[e] = true
		if e.joined {
			continue
		}
		if err := r.s.cfg.Gossip.Join(ctx, e.keys, r.deliver); err != nil {
			errs = append(errs, err)
			continue
		}
		e.joined = true
	}
	for _, e := range r.epochs() {
		if e.joined && !active[e] {
			r.s.cfg.Gossip.Leave(e.keys.Topic)
			e.joined = false
		}
	}
	if len(errs) == 0 || ctx.Err() != nil {
		return nil
	}
	if before == 0 {
		r.log.Warn("joining a room's topic failed; it is tried again", "error", errors.Join(errs...))
	}
	return time.After(joinRetry)
}

// leaveTopics leaves what joinTopics joined.
func (r *room) leaveTopics() {
	for _, e := range r.epochs() {
		r.s.cfg.Gossip.Leave(e.keys.Topic)
		e.joined = false
	}
}

// lookAtOlder notices neighbours that came to the topics of older epochs or left them.
func (r *room) lookAtOlder(anew bool) {
	active := r.active()
	for _, e := range active[:len(active)-1] {
		if anew {
			e.around = nil
		}
		now := make(map[wire.DeviceID]bool)
		var came, went []wire.DeviceID
		for _, d := range r.s.cfg.Gossip.Peers(e.keys.Topic) {
			if now[d] = true; !e.around[d] {
				came = append(came, d)
			}
		}
		for d := range e.around {
			if !now[d] {
				went = append(went, d)
			}
		}
		e.around = now
		if len(came)+len(went) > 0 {
			r.s.syncer.around(e.keys.Topic, came, went)
		}
	}
}

// checkAny finds the topic of sealed bytes whose topic was not kept, by their signature.
func (r *room) checkAny(raw []byte) (*wire.Sealed, error) {
	err := fmt.Errorf("%w: no topic", wire.ErrInvalid)
	for _, e := range r.epochs() {
		var sealed *wire.Sealed
		if sealed, err = r.s.verifier.CheckSealed(e.keys.Topic, raw); err == nil {
			return sealed, nil
		}
	}
	return nil, err
}
