package chattest

import (
	"sync"
	"testing"

	"github.com/starling-chat/starling/chat/wire"
)

// TestOrderInRealTime puts more on a line than timers keep in order: outside virtual time many of them end
// at once and run in any order. TestEventsOverTheAPI once saw three messages in another order than sent.
func TestOrderInRealTime(t *testing.T) {
	const count = 20_000
	n := New(t, 1)
	from, to := wire.DeviceID{1}, wire.DeviceID{2}
	var mu sync.Mutex // guards got
	var got []int
	var all sync.WaitGroup
	all.Add(count)
	n.mu.Lock()
	for i := range count {
		n.carry(n.gossip, from, to, 0, func() {
			defer all.Done()
			mu.Lock()
			defer mu.Unlock()
			got = append(got, i)
		})
	}
	n.mu.Unlock()
	all.Wait()
	for i, v := range got {
		if v != i {
			t.Fatalf("in place %d came %d", i, v)
		}
	}
}
