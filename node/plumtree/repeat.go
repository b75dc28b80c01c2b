package plumtree

import (
	"slices"
	"time"
)

// This file is the second announcement. The first one goes to a few neighbours, so in a large topic there is
// always somebody whom nobody chose; if all of their eager links have just died, unnoticed as yet, they would
// hear of a message by sync alone, minutes later. A second later it is no matter of haste any more, and what
// was said meanwhile shares a frame: everybody is told who may not have it.

// RepeatAfter is when a message is announced the second time.
const RepeatAfter = time.Second

// repeat is a message that was announced once.
type repeat struct {
	fresh
	told []Peer // by us; or us by them
	at   time.Time
}

// needs says whether a neighbour may not have the message, nor know of it.
func (r *repeat) needs(n *neighbour) bool { return !r.had(n) && !slices.Contains(r.told, n.peer) }

// remember plans the second announcement, if there is somebody for it. Of too many the oldest give way.
func (t *Tree) remember(now time.Time, r *repeat) {
	if !slices.ContainsFunc(t.peers, r.needs) {
		return
	}
	if len(t.repeats) >= maxFresh {
		t.drop(1)
	}
	if t.repeated == nil {
		t.repeated = make(map[ID]*repeat)
	}
	r.at = now
	t.repeats = append(t.repeats, r)
	t.repeated[r.id] = r
}

// drop forgets the oldest that are to be announced again.
func (t *Tree) drop(n int) {
	for _, r := range t.repeats[:n] {
		delete(t.repeated, r.id)
	}
	t.repeats = slices.Delete(t.repeats, 0, n)
	if len(t.repeats) == 0 {
		t.repeats, t.repeated = nil, nil
	}
}

// knows notes that a neighbour announced a message that is known here: it need not be told.
func (t *Tree) knows(n *neighbour, id ID) {
	if r := t.repeated[id]; r != nil && !slices.Contains(r.told, n.peer) {
		r.told = append(r.told, n.peer)
	}
}

// announceAgain tells everybody else of what was announced a while ago. What is half as old goes with it, so
// that there are not more frames than one a neighbour and half a second.
func (t *Tree) announceAgain(now time.Time) {
	count := 0
	for count < len(t.repeats) && now.Sub(t.repeats[count].at) >= RepeatAfter/2 {
		count++
	}
	var ids []ID
	for _, n := range t.peers {
		ids = ids[:0]
		for _, r := range t.repeats[:count] {
			if r.needs(n) {
				ids = append(ids, r.id)
			}
		}
		for part := range slices.Chunk(ids, MaxHave) {
			t.out.Control(n.peer, KindHave, part)
		}
	}
	t.drop(count)
}
