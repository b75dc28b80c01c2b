package chat

import (
	"context"
	"slices"
	"sync"
	"time"

	roomsync "github.com/starling-chat/starling/chat/sync"
	"github.com/starling-chat/starling/chat/wire"
)

// Two groups of a room's members that gossip does not join are islands: each sees itself alone and
// all seems well. They are noticed by what sync brings: words of a moment ago, said while this node
// was here, by somebody whom gossip never brings. Then mirrors are asked often, so that messages cross
// at once, and the members of the other island are called, since a connection joins the islands. Known
// members who are not connected are called now and then in any case. docs/spec/chat.md, section 3.

const (
	// islandProof is how many recent events by one device must come by sync alone, over islandSpan at least: a
	// burst that gossip lost is no island.
	islandProof = 2
	islandSpan  = 20 * time.Second
	// islandFresh is how old such an event may be, and islandQuiet how long after the last one the
	// islands count as joined, or gone.
	islandFresh = 10 * time.Minute
	islandQuiet = 15 * time.Minute
	// islandSettled is how long a node must have been in a room before it draws conclusions: what was said
	// before comes by sync of course.
	islandSettled = time.Minute
	// islandPull is how often mirrors are asked while there are islands.
	islandPull = 20 * time.Second
	// callEvery is how often one known member that is not connected is called, callSoon while there are islands.
	callEvery = 10 * time.Minute
	callSoon  = time.Minute
	// callKnown is how long ago somebody may have spoken to be called.
	callKnown = 7 * 24 * time.Hour
	// maxForeign bounds the devices of other islands that are followed.
	maxForeign = 64
)

// island is what a room knows of members that gossip does not reach.
type island struct {
	mu      sync.Mutex // guards everything below
	began   time.Time  // when this node came into the room, or was alone for the last time
	foreign map[wire.DeviceID]*foreigner
	since   time.Time // when islands were noticed; zero while there are none
	pulled  time.Time
	called  time.Time
	turn    int
}

// foreigner is a device whose words come by sync alone.
type foreigner struct {
	account wire.AccountID
	events  int
	first   wire.HLC // of the oldest and the newest of them
	newest  wire.HLC
	last    time.Time // when the last one came
}

// hear notes how events came. From gossip means that there is a way to their authors.
func (r *room) hear(list []arrival) {
	i := &r.island
	now, clock := time.Now(), r.s.cfg.Clock.Now()
	i.mu.Lock()
	defer i.mu.Unlock()
	for k := range list {
		a := &list[k]
		if a.own || a.old || a.hidden || a.event == nil {
			continue
		}
		h := &a.event.Header
		if !a.synced {
			delete(i.foreign, h.Device())
			continue
		}
		age := clock.Sub(h.HLC.Time())
		if i.began.IsZero() || age > islandFresh || now.Add(-age).Before(i.began.Add(islandSettled)) {
			continue
		}
		f := i.foreign[h.Device()]
		if f == nil {
			if len(i.foreign) >= maxForeign {
				continue
			}
			if i.foreign == nil {
				i.foreign = make(map[wire.DeviceID]*foreigner)
			}
			f = &foreigner{account: h.Account(), first: h.HLC}
			i.foreign[h.Device()] = f
		}
		f.events++
		f.first, f.newest, f.last = min(f.first, h.HLC), max(f.newest, h.HLC), now
	}
}

// watchIslands looks once a second whether there are islands, and does what joins them.
func (r *room) watchIslands(ctx context.Context, around map[wire.DeviceID]bool) {
	i := &r.island
	now := time.Now()
	i.mu.Lock()
	if i.began.IsZero() {
		i.called = now
	}
	if i.began.IsZero() || len(around) == 0 && !r.s.syncer.mirrored(r.keys().Topic) {
		i.began = now // alone: what is said now comes by sync later, of course
	}
	for dev, f := range i.foreign {
		if around[dev] || now.Sub(f.last) > islandQuiet {
			delete(i.foreign, dev)
		}
	}
	others := i.proven()
	was := !i.since.IsZero()
	switch {
	case len(others) > 0 && !was:
		i.since = now
	case len(others) == 0:
		i.since = time.Time{}
	}
	changed := was != (len(others) > 0)
	pull := len(others) > 0 && now.Sub(i.pulled) >= islandPull
	if pull {
		i.pulled = now
	}
	every := callEvery
	if len(others) > 0 {
		every = callSoon
	}
	call := now.Sub(i.called) >= every
	if call {
		i.called = now
		i.turn++
	}
	turn := i.turn
	i.mu.Unlock()
	if changed {
		c := r.conversation()
		r.s.events.publish(Event{Type: EventConversation, Conversation: &c})
		r.log.Info("the members of a room are in several islands", "split", len(others) > 0, "devices", len(others))
	}
	if pull {
		r.s.syncer.confirm(r)
	}
	if call {
		r.callSomebody(ctx, others, around, turn)
	}
}

// proven lists the devices of other islands; mu is held.
func (i *island) proven() []wire.DeviceID {
	var list []wire.DeviceID
	for dev, f := range i.foreign {
		if f.events >= islandProof && f.newest.Time().Sub(f.first.Time()) >= islandSpan {
			list = append(list, dev)
		}
	}
	slices.SortFunc(list, compareDevices)
	return list
}

// callSomebody begins a session with a member that is not connected: one of another island, or else one that
// spoke lately. It goes over any path, a relayed one too, and the connection that it makes is what
// gossip needs.
func (r *room) callSomebody(ctx context.Context, others []wire.DeviceID, around map[wire.DeviceID]bool, turn int) {
	list := others
	if len(list) == 0 {
		limit := r.s.cfg.Clock.Now().Add(-callKnown)
		r.mu.RLock()
		for account, m := range r.roster.members {
			if account == r.s.self.account || !m.presentOnly() || m.Seen.Time().Before(limit) {
				continue
			}
			for dev := range m.Devices {
				if !around[dev] {
					list = append(list, dev)
				}
			}
		}
		r.mu.RUnlock()
		slices.SortFunc(list, compareDevices)
	}
	if len(list) == 0 {
		return
	}
	dev := list[turn%len(list)]
	run := &session{y: r.s.syncer, room: r, topic: r.keys().Topic, peer: syncPeer(dev)}
	r.s.running.Go(func() { // ends with the session, which has deadlines, or with ctx; Run waits for it
		report, err := run.begin(ctx, dev)
		switch {
		case err != nil:
			r.log.Debug("calling a member that is not connected failed", "error", err)
		case report.End == roomsync.EndViolation:
			r.s.syncer.mu.Lock()
			r.s.syncer.schedule.Blame(run.peer, report, time.Now())
			r.s.syncer.mu.Unlock()
		}
	})
}

func compareDevices(a, b wire.DeviceID) int { return slices.Compare(a[:], b[:]) }

// Split says that some members are reached by sync alone: gossip does not join all that are in the room.
type Split struct {
	Since    time.Time
	Accounts []wire.AccountID
	Nicks    []string
}

// split returns what front-ends are told of islands, or nil.
func (r *room) split() *Split {
	i := &r.island
	i.mu.Lock()
	if i.since.IsZero() {
		i.mu.Unlock()
		return nil
	}
	s := &Split{Since: r.s.cfg.Clock.Now().Add(-time.Since(i.since))}
	for _, dev := range i.proven() {
		if who := i.foreign[dev].account; !slices.Contains(s.Accounts, who) {
			s.Accounts = append(s.Accounts, who)
		}
	}
	i.mu.Unlock()
	for _, who := range s.Accounts {
		s.Nicks = append(s.Nicks, r.nick(who).Nick)
	}
	return s
}
