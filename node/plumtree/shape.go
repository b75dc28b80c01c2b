package plumtree

import (
	"bytes"
	"encoding/binary"
	"time"
)

const (
	// ShapeAfter is the least time between a change of the neighbourhood and laying the tree anew, twice of it
	// the most; ShapeEvery is the least time between two times that a node begins it, and ShapeTake between
	// two that it takes part in, unless the number is lower.
	ShapeAfter = 4 * time.Second
	ShapeEvery = 30 * time.Second
	ShapeTake  = 10 * time.Second
	// maxShapes bounds the lower numbers that a node follows within ShapeTake.
	maxShapes = 4
)

// shape is the way in which the tree was laid last. Pruning makes a tree of what there is, a different one for
// each author that comes first, and in the end a deep one. So after changes somebody sends a number along all
// links, everybody passes it on once, and the ways by which it came first are the eager links from then on:
// from one node they are the shortest to all others, and so short between any two.
type shape struct {
	number ID
	parent Peer      // by whom it came; "": this node began it
	at     time.Time // when it was taken
	taken  int       // numbers, since the first one within ShapeTake
	due    time.Time // when this node begins, unless another one does before; zero: nothing changed
}

// disturbed notes that the tree may not be what it should.
func (t *Tree) disturbed(now time.Time) {
	if !t.shape.due.IsZero() {
		return
	}
	t.shape.due = now.Add(ShapeAfter + time.Duration(t.cfg.Random.Int64N(int64(ShapeAfter))))
	if next := t.shape.at.Add(ShapeEvery); !t.shape.at.IsZero() && t.shape.due.Before(next) {
		t.shape.due = next.Add(time.Duration(t.cfg.Random.Int64N(int64(ShapeAfter))))
	}
}

// layAnew begins to lay the tree.
func (t *Tree) layAnew(now time.Time) {
	t.shape.due = time.Time{}
	if len(t.peers) < 2 {
		return // whoever else is there does it
	}
	var number ID
	for i := 0; i < len(number); i += 8 {
		binary.BigEndian.PutUint64(number[i:], t.cfg.Random.Uint64())
	}
	t.take(now, "", number)
}

// Shape takes a neighbour's number.
func (t *Tree) Shape(now time.Time, from Peer, number ID) {
	n := t.byPeer[from]
	if n == nil || !t.cfg.Trusted(from) {
		return
	}
	s := &t.shape
	recent := !s.at.IsZero() && now.Sub(s.at) < ShapeTake
	switch {
	case recent && number == s.number:
		switch {
		case from == s.parent:
		case n.told: // both have sent it to each other: no link of the tree
			t.setEager(n, false)
		default:
			t.prune(now, n)
		}
	case !recent:
		s.taken = 0
		t.take(now, from, number)
	case bytes.Compare(number[:], s.number[:]) < 0 && s.taken < maxShapes:
		t.take(now, from, number) // two began at once: the lower number wins everywhere
	}
}

// take passes a number on to as many as may have an eager link.
func (t *Tree) take(now time.Time, from Peer, number ID) {
	t.shape = shape{number: number, parent: from, at: now, taken: t.shape.taken + 1}
	start, told := t.cfg.Random.IntN(len(t.peers)), 0
	for i := range t.peers {
		n := t.peers[(start+i)%len(t.peers)]
		n.told = false
		switch {
		case n.peer == from:
			t.open(now, n)
		case told < t.cfg.MaxEager && t.cfg.Trusted(n.peer):
			told++
			n.told = true
			t.open(now, n)
			t.out.Control(n.peer, KindShape, []ID{number})
		}
	}
}
