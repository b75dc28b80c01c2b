package tui

import (
	"fmt"
	"runtime"
	"testing"

	"github.com/starling-chat/starling/node/api"
)

const manyMessages = 100_000

func crowded(b *testing.B) (*fakeNode, *fakeConversation, *driver) {
	b.Helper()
	n := newFakeNode(b)
	c := n.room("crowded")
	n.fill(c, manyMessages)
	return n, c, newDriver(b, n, 80, 24)
}

// BenchmarkOpen goes to a room of 100,000 messages and draws it, the node's answers included.
func BenchmarkOpen(b *testing.B) {
	_, c, d := crowded(b)
	lobby := d.findTarget("#lobby").ID
	for b.Loop() {
		d.run(d.open(c.ID))
		d.View()
		b.StopTimer()
		d.run(d.open(lobby))
		delete(d.rooms, c.ID)
		b.StartTimer()
	}
}

// BenchmarkScrollBack goes a page back and draws it; every few pages more is loaded from the node.
func BenchmarkScrollBack(b *testing.B) {
	_, c, d := crowded(b)
	d.run(d.open(c.ID))
	key := keyPress("pgup")
	for b.Loop() {
		if r := d.rooms[c.ID]; r.atStart && r.bottom < pageSize {
			b.StopTimer()
			d.keys("end")
			b.StartTimer()
		}
		d.send(key)
		d.View()
	}
}

// BenchmarkKeyInAFlood presses a key between two batches of a flood of 200 messages a second, drawn 60
// times a second, and draws the screen.
func BenchmarkKeyInAFlood(b *testing.B) {
	n, c, d := crowded(b)
	d.run(d.open(c.ID))
	key, clear := keyPress("x"), keyPress("ctrl+u")
	at, i := len(n.log), 0
	for b.Loop() {
		b.StopTimer()
		var batch eventsMsg
		for range 200/60 + 1 {
			i++
			n.say(c, "bob", fmt.Sprintf("flood %d, with enough words in it to take more than one line of a window", i))
		}
		n.mu.Lock()
		for _, ev := range n.log[at:] {
			batch = append(batch, fed{event: ev})
		}
		at = len(n.log)
		n.mu.Unlock()
		b.StartTimer()
		d.Update(batch)
		d.Update(key)
		d.View()
		if i%64 == 0 {
			d.Update(clear)
		}
	}
}

// BenchmarkMemory gives what the model holds of ten rooms of 10,000 messages each, after it has looked
// through all of them and through a flood.
func BenchmarkMemory(b *testing.B) {
	for b.Loop() {
		n := newFakeNode(b)
		var before, after runtime.MemStats
		rooms := make([]*fakeConversation, 10)
		for i := range rooms {
			rooms[i] = n.room(fmt.Sprintf("room%d", i))
			n.fill(rooms[i], manyMessages/10)
		}
		runtime.GC()
		runtime.ReadMemStats(&before)
		d := newDriver(b, n, 200, 50)
		for _, c := range rooms {
			d.run(d.open(c.ID))
			for range 40 {
				d.keys("pgup")
				d.View()
			}
		}
		for i := range 2000 {
			m := rooms[9].messages[i]
			m.ID = fmt.Sprintf("%064x", i)
			d.event(api.Event{Type: api.EventMessage, Message: &m})
		}
		d.View()
		runtime.GC()
		runtime.ReadMemStats(&after)
		b.ReportMetric(float64(after.HeapAlloc-before.HeapAlloc)/(1<<20), "MiB")
		runtime.KeepAlive(d)
	}
}
