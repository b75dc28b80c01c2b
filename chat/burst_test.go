package chat_test

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/starling-chat/starling/chat"
	"github.com/starling-chat/starling/chat/chattest"
)

// batch submits texts as `send --batch` does, one goroutine submitting and one collecting the answers,
// and returns how many were accepted.
func batch(t *testing.T, nd *chattest.Node, target chat.Target, count int) int {
	t.Helper()
	svc := nd.Service()
	subs := make(chan *chat.Submission, 4096)
	go func() { // ends when everything is submitted; the loop below waits for it
		defer close(subs)
		pad := strings.Repeat("x", 190)
		for i := range count {
			sub, err := svc.Submit(t.Context(), chat.SendRequest{
				Target: target, Text: fmt.Sprintf("%s %06d", pad, i), ClientID: fmt.Sprint("burst ", i),
			})
			if err != nil {
				t.Errorf("submitting message %d: %v", i, err)
				return
			}
			subs <- sub
		}
	}()
	accepted := 0
	for sub := range subs {
		if _, err := sub.Wait(t.Context()); err != nil {
			t.Errorf("message %d: %v", accepted, err)
			continue
		}
		accepted++
	}
	return accepted
}

func TestBurst(t *testing.T) {
	// Two nodes whose gossip takes in 3,000 messages a second through a queue of 1,000, far fewer than are
	// submitted: the publisher must not overrun them.
	const count = 20_000
	world(t, 40, []string{"ada", "bob"}, func(t *testing.T, n *chattest.Network, nodes []*chattest.Node) {
		n.Set(chattest.Conditions{Delay: 5 * time.Millisecond, Rate: 3000, Queue: 1000})
		ada, bob := nodes[0], nodes[1]
		room := join(t, "lobby", ada, bob)
		began := time.Now()
		if got := batch(t, ada, room, count); got != count {
			t.Fatalf("%d of %d accepted", got, count)
		}
		eventually(t, time.Minute, func() error {
			c, err := bob.Service().Conversation(t.Context(), room)
			if err == nil && c.Unread != count {
				err = fmt.Errorf("bob has %d", c.Unread)
			}
			return err
		})
		eventually(t, time.Minute, equalDigests(t, count, room, ada, bob))
		st := n.Count()
		t.Logf("%d messages arrived after %v; the network took %d, %d found a queue full; bob dropped %d",
			count, time.Since(began), st.Published, st.Overrun, bob.Service().Stats().Dropped)
		if st.Overrun > count/100 {
			t.Errorf("the publisher overran its neighbour: %d messages lost", st.Overrun)
		}
		// The author's order is kept.
		got := texts(t, bob, room)
		for i := range got {
			if want := fmt.Sprintf(" %06d", i); !strings.HasSuffix(got[i], want) {
				t.Fatalf("message %d ends in %q, want %q", i, got[i][len(got[i])-7:], want)
			}
		}
	})
}
