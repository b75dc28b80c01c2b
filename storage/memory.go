package storage

import (
	"bytes"
	"hash/maphash"
	"sync/atomic"
)

// memoryEngine is a persistent treap: a write copies the path to its key, so a
// snapshot is one pointer and readers need no lock.
type memoryEngine struct {
	root atomic.Pointer[treap]
	seed maphash.Seed
}

type treap struct {
	key, value  []byte
	priority    uint64
	left, right *treap
}

func newMemoryEngine() *memoryEngine { return &memoryEngine{seed: maphash.MakeSeed()} }

func (e *memoryEngine) snapshot() snapshot { return memorySnapshot{e.root.Load()} }
func (e *memoryEngine) sync() error        { return nil }
func (e *memoryEngine) close() error       { e.root.Store(nil); return nil }

func (e *memoryEngine) apply(writes []write) error {
	root := e.root.Load()
	for _, w := range writes {
		if w.value == nil {
			root = root.remove(w.key)
			continue
		}
		root = root.insert(&treap{key: w.key, value: w.value, priority: maphash.Bytes(e.seed, w.key)})
	}
	e.root.Store(root)
	return nil
}

// insert returns a treap with n in it, replacing an equal key.
func (t *treap) insert(n *treap) *treap {
	if t == nil {
		return n
	}
	c := *t
	switch bytes.Compare(n.key, t.key) {
	case 0:
		c.key, c.value = n.key, n.value
		return &c
	case -1:
		c.left = t.left.insert(n)
		if c.left.priority > c.priority { // rotate right; c.left is our own copy
			l := c.left
			c.left, l.right = l.right, &c
			return l
		}
	default:
		c.right = t.right.insert(n)
		if c.right.priority > c.priority {
			r := c.right
			c.right, r.left = r.left, &c
			return r
		}
	}
	return &c
}

func (t *treap) remove(key []byte) *treap {
	if t == nil {
		return nil
	}
	switch bytes.Compare(key, t.key) {
	case 0:
		return merge(t.left, t.right)
	case -1:
		left := t.left.remove(key)
		if left == t.left {
			return t
		}
		c := *t
		c.left = left
		return &c
	default:
		right := t.right.remove(key)
		if right == t.right {
			return t
		}
		c := *t
		c.right = right
		return &c
	}
}

// merge joins two treaps, all keys of l being smaller than those of r.
func merge(l, r *treap) *treap {
	switch {
	case l == nil:
		return r
	case r == nil:
		return l
	case l.priority > r.priority:
		c := *l
		c.right = merge(l.right, r)
		return &c
	default:
		c := *r
		c.left = merge(l, r.left)
		return &c
	}
}

type memorySnapshot struct{ root *treap }

func (memorySnapshot) release() {}

func (s memorySnapshot) get(key []byte) ([]byte, error) {
	for t := s.root; t != nil; {
		switch bytes.Compare(key, t.key) {
		case 0:
			return bytes.Clone(t.value), nil
		case -1:
			t = t.left
		default:
			t = t.right
		}
	}
	return nil, nil
}

func (s memorySnapshot) scan(sp span, fn func(key []byte, value func() ([]byte, error)) bool) error {
	s.root.walk(sp, fn)
	return nil
}

// walk visits the span in order and returns false once fn did.
func (t *treap) walk(sp span, fn func(key []byte, value func() ([]byte, error)) bool) bool {
	if t == nil {
		return true
	}
	below := bytes.Compare(t.key, sp.from) < 0
	above := bytes.Compare(t.key, sp.to) >= 0
	first, second := t.left, t.right
	skipFirst, skipSecond := below, above
	if sp.reverse {
		first, second = t.right, t.left
		skipFirst, skipSecond = above, below
	}
	if !skipFirst && !first.walk(sp, fn) {
		return false
	}
	if !below && !above && !fn(t.key, func() ([]byte, error) { return t.value, nil }) {
		return false
	}
	return skipSecond || second.walk(sp, fn)
}
