package plumtree

import (
	"slices"
	"time"
)

// This file is what goes over lazy links: who is told of a message, and who is asked for one.

// missing is a message that was announced.
type missing struct {
	id    ID
	from  []Peer    // announcers that were not asked yet, in order
	asked Peer      // "": nobody
	since time.Time // it was announced first
	at    time.Time // when to ask
	found bool
}

// lateness is by how much messages come later than their first announcement: its mean and mean deviation, as
// TCP has them for its round trips. Where the tree is fast, what it lost is asked for soon.
type lateness struct {
	mean, deviation time.Duration
	known           bool
}

func (l *lateness) add(d time.Duration) {
	if !l.known {
		*l = lateness{mean: d, deviation: d / 2, known: true}
		return
	}
	l.deviation += ((d - l.mean).Abs() - l.deviation) / 4
	l.mean += (d - l.mean) / 8
}

// patience is how long to wait for an announced message.
func (l *lateness) patience() time.Duration {
	if !l.known {
		return GraftAfter
	}
	return min(max(GraftSoonest, l.mean+4*l.deviation), GraftLatest)
}

// fresh is a message that is not announced yet.
type fresh struct {
	id    ID
	from  Peer
	cover []Mark // of those that its author hands it to
	given bool   // by this node, who is the author: cover says to whom
}

// had says whether a neighbour gave us the message, or was given it by us.
func (f *fresh) had(n *neighbour) bool {
	covered := slices.Contains(f.cover, mark(n.hash, f.id))
	return n.peer == f.from || covered == f.given && (f.given || n.eager)
}

// tell has a message announced, if there is somebody who should know: a leaf need not wake up for nobody.
func (t *Tree) tell(now time.Time, f fresh) {
	if !slices.ContainsFunc(t.peers, func(n *neighbour) bool { return !f.had(n) }) {
		return
	}
	t.fresh = append(t.fresh, f)
	if now.Sub(t.announced) >= AnnounceEvery || len(t.fresh) >= maxFresh {
		t.announce(now)
	}
}

// owe remembers that a neighbour has to be told of a message that its queue had no room for.
func (t *Tree) owe(n *neighbour, id ID) {
	if len(n.owed) == 0 {
		t.owing++
	}
	if len(n.owed) < MaxHave {
		n.owed = append(n.owed, id)
	}
}

func (t *Tree) settleDebt(n *neighbour) {
	if len(n.owed) > 0 {
		n.owed = nil
		t.owing--
	}
}

// found ends the wait for an announced message.
func (t *Tree) found(now time.Time, id ID) {
	m := t.missing[id]
	if m == nil {
		return
	}
	delete(t.missing, id)
	m.found = true
	if m.asked == "" { // otherwise nobody knows which way it came
		t.late.add(now.Sub(m.since))
	}
	for _, p := range append(m.from, m.asked) {
		t.release(p)
	}
}

// release counts one promise of a neighbour less. One that went and came back has none.
func (t *Tree) release(p Peer) {
	if n := t.byPeer[p]; n != nil && n.promises > 0 {
		n.promises--
	}
}

// announce tells some neighbours, by turns, of what is new and they were not given, and everybody of what the
// queue had no room for.
func (t *Tree) announce(now time.Time) {
	t.announced = now
	if t.owing > 0 {
		for _, n := range t.peers {
			if len(n.owed) > 0 && t.out.Control(n.peer, KindHave, n.owed) {
				t.settleDebt(n)
			}
		}
	}
	if len(t.peers) > 0 {
		t.turn = t.cfg.Random.IntN(len(t.peers))
	}
	var ids []ID
	var chosen []Peer
	for i, told := 0, 0; i < len(t.peers) && told < t.cfg.Announce; i++ {
		n := t.peers[(t.turn+i)%len(t.peers)]
		ids = ids[:0]
		for k := range t.fresh {
			if !t.fresh[k].had(n) {
				ids = append(ids, t.fresh[k].id)
			}
		}
		if len(ids) > 0 {
			told++
			chosen = append(chosen, n.peer)
		}
		for part := range slices.Chunk(ids, MaxHave) {
			t.out.Control(n.peer, KindHave, part)
		}
	}
	for k := range t.fresh {
		t.remember(now, &repeat{fresh: t.fresh[k], told: slices.Clone(chosen)})
	}
	clear(t.fresh)
	t.fresh = t.fresh[:0]
}

// Have takes a neighbour's announcement.
func (t *Tree) Have(now time.Time, from Peer, ids []ID) {
	n := t.byPeer[from]
	if n == nil || !t.cfg.Trusted(from) {
		return
	}
	for _, id := range ids {
		if t.seen.has(id) {
			t.knows(n, id)
			continue
		}
		if t.refused.has(id) || n.promises >= maxPromises {
			continue
		}
		m := t.missing[id]
		if m == nil {
			if len(t.missing) >= maxMissing {
				return
			}
			m = &missing{id: id, since: now, at: now.Add(t.late.patience())}
			t.missing[id] = m
			t.first = append(t.first, m)
		}
		if len(m.from) < maxAnnouncers && m.asked != from && !slices.Contains(m.from, from) {
			m.from = append(m.from, from)
			n.promises++
		}
	}
}

// Graft answers a neighbour that wants an eager link and some messages.
func (t *Tree) Graft(now time.Time, from Peer, ids []ID) {
	n := t.byPeer[from]
	if n == nil {
		return
	}
	switch {
	case n.eager:
	case t.eager < t.cfg.MaxEager && t.cfg.Trusted(from):
		t.open(now, n)
	default:
		t.prune(now, n)
	}
	n.answers = min(answerBurst, n.answers+answersPerSecond*now.Sub(n.refilled).Seconds())
	n.refilled = now
	for _, id := range ids {
		if m := t.kept.get(id); m != nil && n.answers >= 1 {
			n.answers--
			t.out.Message(from, m)
		}
	}
}

func (t *Tree) unannounced() bool { return len(t.fresh) > 0 || t.owing > 0 }

// front returns the first message of a queue that is still missing, and drops those before it.
func front(queue *[]*missing) *missing {
	for len(*queue) > 0 && (*queue)[0].found {
		*queue = (*queue)[1:]
	}
	if len(*queue) == 0 {
		*queue = nil
		return nil
	}
	return (*queue)[0]
}

// fetch grafts those who announced what is missing.
func (t *Tree) fetch(now time.Time) (broken []Peer) {
	wants := make(map[Peer][]ID)
	for _, queue := range []*[]*missing{&t.again, &t.first} {
		for m := front(queue); m != nil && !m.at.After(now); m = front(queue) {
			*queue = (*queue)[1:]
			if t.byPeer[m.asked] != nil {
				t.release(m.asked)
				if !slices.Contains(broken, m.asked) {
					broken = append(broken, m.asked)
				}
			}
			if t.ask(m, wants) {
				m.at = now.Add(GraftAgain)
				t.again = append(t.again, m)
			} else {
				delete(t.missing, m.id) // sync has to find it
			}
		}
	}
	for _, p := range broken {
		if n := t.byPeer[p]; n.eager {
			t.prune(now, n)
		}
	}
	for _, n := range slices.Clone(t.peers) { // a map has no order
		ids := wants[n.peer]
		if len(ids) == 0 {
			continue
		}
		if !n.eager && t.eager >= t.cfg.Eager {
			t.yield(now, n)
		}
		if t.eager < t.cfg.MaxEager {
			t.open(now, n)
		}
		t.out.Control(n.peer, KindGraft, ids)
		t.disturbed(now)
	}
	if len(broken) > 0 {
		t.keepOne(now, "")
	}
	return broken
}

// ask chooses whom to ask for a message: the first announcer that is still there. False: there is none.
func (t *Tree) ask(m *missing, wants map[Peer][]ID) bool {
	m.asked = ""
	for len(m.from) > 0 && m.asked == "" {
		if n := t.byPeer[m.from[0]]; n != nil {
			if t.cfg.Trusted(n.peer) && len(wants[n.peer]) < MaxGraft {
				m.asked = n.peer
				wants[n.peer] = append(wants[n.peer], m.id)
			} else {
				t.release(n.peer)
			}
		}
		m.from = m.from[1:]
	}
	return m.asked != ""
}
