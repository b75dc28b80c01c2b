package chat

import (
	"context"
	"errors"
	"time"

	roomsync "github.com/starling-chat/starling/chat/sync"
	"github.com/starling-chat/starling/chat/wire"
	"github.com/starling-chat/starling/storage"
)

// A room's history is complete from its floor on: a newcomer fetched that much, and sync compares it.
// Whoever scrolls back further asks members and mirrors for older pages; the floor follows, so that
// sync looks after what came, and nothing is fetched twice.

const (
	// scrollEvents is how many events are fetched at once, so that the next pages are here already.
	scrollEvents = 1000
	// scrollTimeout bounds the wait of who scrolls.
	scrollTimeout = 12 * time.Second
	// scrollPause is the pause before those are asked again who were busy: mostly they compared with us a
	// moment ago.
	scrollPause = 2 * time.Second
	// scrollPeers bounds how many are asked for one page, and scrollAgain is how long nobody is asked again
	// after nobody had anything.
	scrollPeers = 4
	scrollAgain = 15 * time.Second
)

// wantsOlder says whether a page may lack messages because nobody was asked for them yet.
func (r *room) wantsOlder(ctx context.Context, q HistoryQuery, page []Message) bool {
	if q.Local || q.Before.IsZero() || !q.After.IsZero() || !r.joined() {
		return false
	}
	want := q.N
	if want <= 0 {
		want = defaultPage
	}
	r.mu.RLock()
	floor, kept := r.state.Floor, r.state.Kept
	r.mu.RUnlock()
	from := max(kept, 1)
	if !q.Since.IsZero() {
		from = max(from, storage.ClockTime(q.Since))
	}
	if len(page) >= min(want, maxPage) {
		from = max(from, storage.ClockTime(page[0].SentAt))
	}
	if from >= floor {
		return false
	}
	known, err := r.s.store.Complete(ctx, r.stream)
	if err != nil {
		return false
	}
	var list []roomsync.Interval
	for _, k := range known {
		list = append(list, roomsync.Interval{From: roomsync.Time(k.From), To: roomsync.Time(k.To)})
	}
	return !roomsync.NewComplete(list).Covers(roomsync.Interval{From: roomsync.Time(from), To: roomsync.Time(floor)})
}

// fetchOlder asks for the pages before the room's floor, and says whether the floor is lower now. It is
// for callers other than the room's owner.
func (r *room) fetchOlder(ctx context.Context, want int) bool {
	ctx, cancel := context.WithTimeout(ctx, scrollTimeout)
	defer cancel()
	r.scrollMu.Lock()
	defer r.scrollMu.Unlock()
	if time.Since(r.scrolled) < scrollAgain {
		return false
	}
	r.mu.RLock()
	floor, kept := r.state.Floor, max(r.state.Kept, 1<<16)
	r.mu.RUnlock()
	moved := false
	for busy := true; busy && !moved && ctx.Err() == nil; {
		busy = false
		epochs := r.epochs()
		for i := len(epochs) - 1; i >= 0 && !moved; i-- {
			var later bool
			moved, later = r.fetchFrom(ctx, epochs[i].keys.Topic, floor, kept, max(want, scrollEvents))
			busy = busy || later
		}
		if busy && !moved {
			pause := time.NewTimer(scrollPause)
			select {
			case <-pause.C:
			case <-ctx.Done():
			}
			pause.Stop()
		}
	}
	if !moved {
		r.scrolled = time.Now()
	}
	return moved
}

// fetchFrom asks mirrors and members of a topic in turn, until one had something; busy says that some are to
// be asked later.
func (r *room) fetchFrom(ctx context.Context, topic wire.TopicKey, floor, kept uint64, want int) (moved, busy bool) {
	y := r.s.syncer
	list := r.s.cfg.Gossip.Peers(topic)
	if r.s.cfg.Relays != nil {
		list = append(list, r.s.cfg.Relays.Mirrors(topic)...)
	}
	first := int(r.scrollTurn.Add(1))
	for i := range min(len(list), scrollPeers) {
		if ctx.Err() != nil {
			return false, false
		}
		dev := list[(first+i)%len(list)]
		run := &session{
			y: y, room: r, topic: topic, peer: syncPeer(dev), floor: kept,
			older: &roomsync.Pages{Events: want, Before: roomsync.Item{Time: roomsync.Time(floor)}},
		}
		report, err := run.begin(ctx, dev)
		if err != nil {
			if ctx.Err() == nil {
				r.log.Debug("asking for older history failed", "error", err)
			}
			continue
		}
		if report.Fault != nil {
			y.mu.Lock()
			y.schedule.Blame(run.peer, report, time.Now())
			y.mu.Unlock()
		}
		if lower := run.reached(report); lower < floor {
			return r.lowerFloor(ctx, lower, floor, report) == nil, false
		}
		busy = busy || report.End == roomsync.EndBusy
	}
	return false, busy
}

// reached returns how far back a session for older history went.
func (n *session) reached(report *roomsync.Report) uint64 {
	lower := ^uint64(0)
	if n.first != (roomsync.Item{}) {
		lower = uint64(n.first.Time)
	}
	for _, c := range report.Complete {
		lower = min(lower, uint64(c.From))
	}
	if report.PageEnd && report.End == roomsync.EndFinished {
		lower = min(lower, uint64(report.Floor))
	}
	return lower
}

// lowerFloor notes that the room's history begins earlier now. What a peer said is complete is no more than
// what that peer had: reconciliation with others over the wider window follows.
func (r *room) lowerFloor(ctx context.Context, lower, floor uint64, report *roomsync.Report) error {
	lower = lower >> 16 << 16 // whole milliseconds, as windows are
	err := r.do(ctx, func() error {
		var b storage.Batch
		r.mu.Lock()
		if r.state.Floor == floor {
			r.state.Floor = max(lower, r.state.Kept, 1<<16)
		}
		r.mu.Unlock()
		if report.PageEnd && !r.private {
			b.MarkComplete(r.stream, storage.Interval{From: uint64(report.Floor), To: floor})
		}
		r.putState(&b)
		_, err := r.s.store.Commit(ctx, &b, storage.Relaxed)
		return err
	})
	if err != nil && !errors.Is(err, ErrNotJoined) && ctx.Err() == nil {
		r.log.Warn("noting how far the history goes back failed", "error", err)
	}
	r.s.syncer.gap(r)
	return err
}
