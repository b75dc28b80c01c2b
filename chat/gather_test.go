package chat

import (
	"testing"
	"testing/synctest"
	"time"

	"github.com/starling-chat/starling/chat/wire"
)

// TestGather: events that follow a batch wait for its gatherTime to be over, the first after a lull does not,
// and a crowd ends the wait.
func TestGather(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := &room{incoming: make(chan incoming, 8), crowded: make(chan struct{}, 1)}
		gather := func() time.Duration {
			began := time.Now()
			r.gather(t.Context())
			return time.Since(began)
		}
		if d := gather(); d != 0 {
			t.Errorf("the first event waited for %s", d)
		}
		r.taken = time.Now()
		if d := gather(); d != gatherTime {
			t.Errorf("the next one waited for %s, want %s", d, gatherTime)
		}
		offer := func() {
			for range r.crowd() {
				if !r.offer(incoming{sealed: &wire.Sealed{}}) {
					t.Error("the queue is full")
				}
			}
		}
		r.taken = time.Now()
		go func() { time.Sleep(gatherTime / 4); offer() }() // in virtual time; the bubble waits for it
		if d := gather(); d != gatherTime/4 {
			t.Errorf("a crowd that came after %s waited for %s", gatherTime/4, d)
		}
		r.taken = time.Now()
		if d := gather(); d != 0 {
			t.Errorf("a crowd that was there waited for %s", d)
		}
		for len(r.incoming) > 0 {
			<-r.incoming
		}
		r.taken = time.Now()
		if d := gather(); d != gatherTime {
			t.Errorf("after a crowd that was taken, an event waited for %s, want %s", d, gatherTime)
		}
	})
}
