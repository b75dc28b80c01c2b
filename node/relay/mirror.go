package relay

import (
	"cmp"
	"context"
	"crypto/rand"
	"encoding/binary"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/libp2p/go-libp2p/core/network"

	roomsync "github.com/starling-chat/starling/chat/sync"
	"github.com/starling-chat/starling/chat/sync/drive"
	"github.com/starling-chat/starling/chat/wire"
	"github.com/starling-chat/starling/storage"
)

// mirrorQueue bounds the sealed events that wait to be kept. What overflows is counted and comes
// back by sync with any member.
const mirrorQueue = 4096

// kept is an event and who handed it over.
type kept struct {
	sealed *wire.Sealed
	from   wire.DeviceID
}

// Keep offers a checked sealed event of a forwarded topic, with the device that handed it over. It
// never blocks and may be called for any topic.
func (a *Archive) Keep(s *wire.Sealed, from wire.DeviceID) {
	if s.Ephemeral || !a.wants(s.Topic) {
		return
	}
	select {
	case a.queue <- kept{s, from}:
	default:
		a.counts.dropped.Add(1)
	}
}

// mirrorBatch bounds the events of one commit.
const mirrorBatch = 256

// keepAll stores what Keep was offered and holds the quotas, until ctx ends.
func (a *Archive) keepAll(ctx context.Context) {
	tick := time.NewTicker(maintainEvery)
	defer tick.Stop()
	grown := map[wire.TopicKey]int{}
	for {
		var err error
		select {
		case <-ctx.Done():
			return
		case k := <-a.queue:
			batch := []kept{k}
			for len(batch) < mirrorBatch && len(a.queue) > 0 {
				batch = append(batch, <-a.queue)
			}
			if err = a.keep(ctx, batch); err == nil {
				err = a.trimGrown(ctx, grown, batch)
			}
		case <-tick.C:
			err = a.maintain(ctx)
		}
		if err != nil && ctx.Err() == nil {
			a.log.Warn("archive not maintained", "err", err)
		}
	}
}

// The value of a mirrored record is a tag of the device that handed the event over (8 bytes), then
// the sealed event. The tag lets a quota be shared fairly; it is not served.
const depositorSize = 8

func depositorTag(d wire.DeviceID) uint64 { return binary.BigEndian.Uint64(d[:depositorSize]) }

func encodeMirrored(from wire.DeviceID, sealed []byte) []byte {
	return append(binary.BigEndian.AppendUint64(make([]byte, 0, depositorSize+len(sealed)), depositorTag(from)), sealed...)
}

func splitMirrored(value []byte) (depositor uint64, sealed []byte, err error) {
	if len(value) < depositorSize {
		return 0, nil, errors.New("mirrored record is too short")
	}
	return binary.BigEndian.Uint64(value), value[depositorSize:], nil
}

func (a *Archive) mirrorStream(ctx context.Context, topic wire.TopicKey) (storage.StreamID, error) {
	return a.store.Stream(ctx, mirrorPrefix+topic.String())
}

// keep commits events. They may ride on a later sync: members still have them.
func (a *Archive) keep(ctx context.Context, batch []kept) error {
	var b storage.Batch
	for _, k := range batch {
		stream, err := a.mirrorStream(ctx, k.sealed.Topic)
		if err != nil {
			return err
		}
		b.Append(storage.Record{
			Stream: stream, Time: uint64(k.sealed.HLC), ID: storage.ID(k.sealed.ID),
			Value: encodeMirrored(k.from, k.sealed.Bytes()),
		})
	}
	res, err := a.store.Commit(ctx, &b, storage.Relaxed)
	if err != nil {
		return err
	}
	for _, r := range res.Appended {
		if r.New {
			a.counts.mirrored.Add(1)
		}
	}
	return nil
}

// trimSlack is how far over its quota a topic may be before it is trimmed, as a part of it: a trim
// reads the whole topic.
const trimSlack = 20

// trimGrown trims the topics that grew by their slack since they were last looked at.
func (a *Archive) trimGrown(ctx context.Context, grown map[wire.TopicKey]int, batch []kept) error {
	for _, k := range batch {
		topic := k.sealed.Topic
		if grown[topic]++; grown[topic] <= a.cfg.Events/trimSlack {
			continue
		}
		delete(grown, topic)
		if err := a.trim(ctx, topic); err != nil {
			return err
		}
	}
	return nil
}

// trim brings one topic under its quota. What goes is the oldest of whoever handed over most, so
// that one device that floods a topic pushes out its own events and nobody else's.
func (a *Archive) trim(ctx context.Context, topic wire.TopicKey) error {
	stream, err := a.mirrorStream(ctx, topic)
	if err != nil {
		return err
	}
	info, err := a.store.Info(ctx, stream)
	if err != nil {
		return err
	}
	overEvents := int(info.Count) - a.cfg.Events
	overBytes := int64(info.Bytes) - a.cfg.Bytes
	if overEvents <= 0 && overBytes <= 0 {
		return nil
	}
	var all []share
	for r, err := range a.store.Scan(ctx, stream, storage.Range{}) {
		if err != nil {
			return err
		}
		who, _, err := splitMirrored(r.Value)
		if err != nil {
			return err
		}
		all = append(all, share{r.ID, who, len(r.Value)})
	}
	for victims := range slices.Chunk(choose(all, overEvents, overBytes), storage.MaxBatchOps/2) {
		var b storage.Batch
		for _, id := range victims {
			b.Remove(id)
		}
		if _, err := a.store.Commit(ctx, &b, storage.Relaxed); err != nil {
			return err
		}
	}
	return nil
}

// share is one kept event: its id, who handed it over, its size in bytes.
type share struct {
	id   storage.ID
	who  uint64
	size int
}

// choose picks what to drop from events sorted from the oldest: always the oldest event of the
// depositor that holds most bytes, until both excesses are gone.
func choose(all []share, overEvents int, overBytes int64) []storage.ID {
	held := map[uint64]int64{}
	queues := map[uint64][]share{}
	for _, s := range all {
		held[s.who] += int64(s.size)
		queues[s.who] = append(queues[s.who], s)
	}
	order := make([]uint64, 0, len(held))
	for who := range held {
		order = append(order, who)
	}
	greediest := func() uint64 {
		return slices.MaxFunc(order, func(a, b uint64) int {
			return cmp.Or(cmp.Compare(held[a], held[b]), cmp.Compare(a, b))
		})
	}
	var out []storage.ID
	for len(order) > 0 && len(out) < len(all) && (overEvents > 0 || overBytes > 0) {
		who := greediest()
		q := queues[who]
		s := q[0]
		queues[who] = q[1:]
		held[who] -= int64(s.size)
		overEvents--
		overBytes -= int64(s.size)
		out = append(out, s.id)
	}
	return out
}

// serveSync answers a member's sync session: it gives out what the mirror keeps and takes what it
// lacks. Only members get anything: they prove that they hold the topic's key.
func (a *Archive) serveSync(ctx context.Context, st network.Stream, client wire.DeviceID) error {
	if !a.within(st.Conn().RemotePeer()) {
		return errBusy
	}
	var nonce roomsync.Nonce
	if _, err := rand.Read(nonce[:]); err != nil {
		return err
	}
	link := roomsync.Link{Self: roomsync.PeerID(a.self.PeerID()), Peer: roomsync.PeerID(client.PeerID()), Nonce: nonce}
	run := &mirrorSession{a: a, client: client, machine: roomsync.NewResponder(link)}
	defer run.end()
	a.counts.sessions.Add(1)
	_, err := drive.Run(ctx, st, run.machine, run.answer)
	return err
}

// mirrorSession is one sync session with a member.
type mirrorSession struct {
	a       *Archive
	client  wire.DeviceID
	machine *roomsync.Session
	topic   wire.TopicKey
	open    bool
	checked map[roomsync.ID]*wire.Sealed // of the batch that was checked last
}

func (n *mirrorSession) end() {
	if n.open {
		n.a.mu.Lock()
		defer n.a.mu.Unlock()
		delete(n.a.busy, n.topic)
	}
}

func (n *mirrorSession) answer(ctx context.Context, effect roomsync.Effect) error {
	switch e := effect.(type) {
	case roomsync.OpenRoom:
		return n.openRoom(ctx, e)
	case roomsync.ReadRecords:
		return n.read(ctx, e)
	case roomsync.CommitRecords:
		return n.commit(ctx, e)
	default:
		return fmt.Errorf("unknown effect %T", effect)
	}
}

// openRoom opens a topic that somebody attached or that is still kept. One session at a time for each:
// two that bring the same records would fetch them twice.
func (n *mirrorSession) openRoom(ctx context.Context, e roomsync.OpenRoom) error {
	a, topic := n.a, wire.TopicKey(e.Topic)
	stream, err := a.store.LookupStream(ctx, mirrorPrefix+topic.String())
	if errors.Is(err, storage.ErrNotFound) && a.wants(topic) {
		stream, err = a.mirrorStream(ctx, topic)
	}
	if errors.Is(err, storage.ErrNotFound) {
		return n.machine.Refuse(roomsync.ReasonRefused)
	} else if err != nil {
		return err
	}
	a.mu.Lock()
	_, taken := a.busy[topic]
	if !taken {
		a.busy[topic] = struct{}{}
		n.topic, n.open = topic, true
	}
	a.mu.Unlock()
	if taken {
		return n.machine.Refuse(roomsync.ReasonBusy)
	}
	var items []roomsync.Item
	for p, err := range a.store.Keys(ctx, stream, storage.Range{}) {
		if err != nil {
			return err
		}
		items = append(items, roomsync.Item{Time: roomsync.Time(p.Time), ID: roomsync.ID(p.ID)})
	}
	info, err := a.store.Info(ctx, stream)
	if err != nil {
		return err
	}
	floor := max(info.Floor, storage.ClockTime(a.now().Add(-a.cfg.Age)))
	return n.machine.Opened(roomsync.Room{
		Topic: e.Topic,
		Set:   roomsync.NewSnapshot(items).View(),
		Floor: roomsync.DayStart(roomsync.Time(floor).Day()),
		Cut:   roomsync.TimeAt(a.now().Add(-roomsync.CutDelay)),
		Proven: func(message, proof []byte) bool {
			return len(proof) == len(wire.Signature{}) && wire.VerifySync(topic, message, wire.Signature(proof))
		},
		Check: n.check,
	})
}

// check verifies records as the gossip validator does.
func (n *mirrorSession) check(records []roomsync.Record) {
	raws := make([][]byte, len(records))
	for i := range records {
		raws[i] = records[i].Bytes
	}
	n.checked = make(map[roomsync.ID]*wire.Sealed, len(records))
	sealed, errs := n.a.verifier.CheckSealedBatch(n.topic, raws)
	for i := range records {
		switch {
		case errs[i] != nil:
			records[i].Err = errs[i]
		case sealed[i].Ephemeral:
			records[i].Err = errEphemeral
		default:
			records[i].Item = roomsync.Item{Time: roomsync.Time(sealed[i].HLC), ID: roomsync.ID(sealed[i].ID)}
			n.checked[records[i].Item.ID] = sealed[i]
		}
	}
}

// errEphemeral is what is wrong with a record of an event that is never stored.
var errEphemeral = errors.New("ephemeral event in a set")

func (n *mirrorSession) read(ctx context.Context, e roomsync.ReadRecords) error {
	list := make([][]byte, 0, len(e.Items))
	size := 0
	for _, it := range e.Items {
		rec, err := n.a.store.Get(ctx, storage.ID(it.ID))
		switch {
		case errors.Is(err, storage.ErrNotFound):
			list = append(list, nil) // trimmed meanwhile
		case err != nil:
			return err
		default:
			_, sealed, err := splitMirrored(rec.Value)
			if err != nil {
				return err
			}
			list = append(list, sealed)
			size += len(sealed)
		}
		if size >= e.Enough {
			break
		}
	}
	return n.machine.Read(list)
}

func (n *mirrorSession) commit(ctx context.Context, e roomsync.CommitRecords) error {
	outcomes := make([]roomsync.Outcome, len(e.Records))
	var batch []kept
	latest := n.a.now().Add(wire.MaxAhead)
	for i, r := range e.Records {
		sealed := n.checked[r.Item.ID]
		if sealed == nil {
			return errors.New("a record to be stored was not checked")
		}
		if sealed.HLC.Time().After(latest) {
			outcomes[i] = roomsync.Refused
			continue
		}
		batch = append(batch, kept{sealed, n.client})
	}
	if err := n.a.keep(ctx, batch); err != nil {
		return err
	}
	n.a.passFresh(ctx, batch)
	return n.machine.Committed(outcomes)
}

// passAge is how old an event may be that is handed on when it came by sync, and passMost how many of one
// batch are. Somebody said it while this relay was away, and the others need not wait for their next
// session; what is older they have asked for already.
const (
	passAge  = time.Minute
	passMost = 64
)

func (a *Archive) passFresh(ctx context.Context, batch []kept) {
	if a.pass == nil {
		return
	}
	oldest := a.now().Add(-passAge)
	passed := 0
	for _, k := range batch {
		if passed == passMost || ctx.Err() != nil {
			return
		}
		if k.sealed.HLC.Time().Before(oldest) || k.sealed.IsStub() {
			continue
		}
		passed++
		if err := a.pass(ctx, k.sealed); err != nil {
			a.log.Debug("an event was not passed on", "err", err)
		}
	}
}
