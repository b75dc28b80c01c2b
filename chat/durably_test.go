package chat_test

import (
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/starling-chat/starling/chat"
	"github.com/starling-chat/starling/chat/chattest"
)

// TestStopInAFlood stops the sender while direct messages are on their way into the store: each is
// answered, what was accepted is kept once and arrives after the next start, and stopping takes no time.
func TestStopInAFlood(t *testing.T) {
	for _, there := range []bool{true, false} {
		t.Run(fmt.Sprintf("there=%v", there), func(t *testing.T) { stopInAFlood(t, there) })
	}
}

func stopInAFlood(t *testing.T, there bool) {
	world(t, 71, []string{"ada", "bob"}, func(t *testing.T, n *chattest.Network, nodes []*chattest.Node) {
		ada, bob := nodes[0], nodes[1]
		toBob, toAda := meet(t, ada, bob)
		delivered(t, ada, say(t, ada, toBob, "first").ID, time.Minute)
		if !there {
			bob.Stop()
		}
		var subs []*chat.Submission
		for i := range 700 {
			sub, err := ada.Service().Submit(t.Context(), chat.SendRequest{Target: toBob, Text: fmt.Sprint("flood ", i)})
			if errors.Is(err, chat.ErrStopped) {
				break
			}
			if err != nil {
				t.Fatal(err)
			}
			subs = append(subs, sub)
			if i == 300 {
				if _, err := subs[0].Wait(t.Context()); err != nil {
					t.Fatal(err)
				}
			}
			if i == 600 {
				began := time.Now()
				ada.Stop()
				if took := time.Since(began); took > 5*time.Second {
					t.Errorf("stopping took %s", took)
				}
			}
		}
		accepted := map[string]bool{"first": true}
		for _, sub := range subs {
			switch m, err := sub.Wait(within(t, time.Second)); {
			case err == nil:
				accepted[m.Text] = true
			case !errors.Is(err, chat.ErrStopped):
				t.Errorf("a submission ended with %v", err)
			}
		}
		if len(accepted) < 2 {
			t.Fatal("nothing was accepted before the stop")
		}
		ada.Start()
		if !there {
			bob.Start()
		}
		eventually(t, 10*time.Minute, emptyOutbox(t, ada))
		got := make(map[string]int)
		for _, text := range texts(t, bob, toAda) {
			got[text]++
		}
		for text := range accepted {
			if got[text] != 1 {
				t.Errorf("%q was accepted and arrived %d times", text, got[text])
			}
		}
	})
}
