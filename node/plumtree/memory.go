package plumtree

import (
	"iter"
	"time"
)

// generations is a bounded set that forgets what is old: of its two parts the older one goes when the
// younger one is full or old enough.
type generations struct {
	most       int
	young, old map[ID]struct{}
}

func (g *generations) has(id ID) bool {
	if _, ok := g.young[id]; ok {
		return true
	}
	_, ok := g.old[id]
	return ok
}

func (g *generations) add(id ID) {
	if len(g.young) >= g.most {
		g.age()
	}
	if g.young == nil {
		g.young = make(map[ID]struct{})
	}
	g.young[id] = struct{}{}
}

func (g *generations) remove(id ID) {
	delete(g.young, id)
	delete(g.old, id)
}

func (g *generations) age() {
	g.old, g.young = g.young, nil
}

func (g *generations) empty() bool { return len(g.young)+len(g.old) == 0 }

// cache holds the latest messages, in the order of their arrival.
type cache struct {
	list  []kept
	byID  map[ID]int // place in list, counted from the first one ever
	base  int        // how many were dropped
	bytes int
}

type kept struct {
	m    *Message
	from Peer // "": the node itself
	at   time.Time
}

func (c *cache) add(now time.Time, from Peer, m *Message) {
	if c.byID == nil {
		c.byID = make(map[ID]int)
	}
	c.byID[m.ID] = c.base + len(c.list)
	c.list = append(c.list, kept{m, from, now})
	c.bytes += len(m.Frame)
	for len(c.list) > MaxKept || c.bytes > MaxKeptBytes {
		c.drop()
	}
}

func (c *cache) get(id ID) *Message {
	if i, ok := c.byID[id]; ok {
		return c.list[i-c.base].m
	}
	return nil
}

// first returns what is known of the first copy of a message, or nil.
func (c *cache) first(id ID) *kept {
	if i, ok := c.byID[id]; ok {
		return &c.list[i-c.base]
	}
	return nil
}

// since yields what came at a time and later, newest first.
func (c *cache) since(at time.Time) iter.Seq[*kept] {
	return func(yield func(*kept) bool) {
		for i := len(c.list) - 1; i >= 0 && !c.list[i].at.Before(at); i-- {
			if !yield(&c.list[i]) {
				return
			}
		}
	}
}

func (c *cache) oldest() time.Time {
	if len(c.list) == 0 {
		return time.Time{}
	}
	return c.list[0].at
}

func (c *cache) expire(now time.Time) {
	for len(c.list) > 0 && now.Sub(c.list[0].at) >= KeepFor {
		c.drop()
	}
}

func (c *cache) drop() {
	k := c.list[0]
	c.list[0] = kept{}
	c.list = c.list[1:]
	c.base++
	c.bytes -= len(k.m.Frame)
	delete(c.byID, k.m.ID)
	if len(c.list) == 0 {
		c.list, c.byID = nil, nil
	}
}
