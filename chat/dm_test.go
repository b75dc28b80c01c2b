package chat_test

import (
	"fmt"
	"testing"
	"time"

	"github.com/starling-chat/starling/chat"
	"github.com/starling-chat/starling/chat/chattest"
)

// meet makes two nodes contacts of each other.
func meet(t *testing.T, a, b *chattest.Node) (toB, toA chat.Target) {
	t.Helper()
	for _, p := range [][2]*chattest.Node{{a, b}, {b, a}} {
		if _, err := p[0].Service().AddContact(t.Context(), p[1].Account().String(), p[1].Name); err != nil {
			t.Fatalf("%s adds %s: %v", p[0].Name, p[1].Name, err)
		}
	}
	idA, idB := a.Account(), b.Account()
	return chat.Target{Account: &idB}, chat.Target{Account: &idA}
}

func TestDirectMessages(t *testing.T) {
	world(t, 2, []string{"ada", "bob"}, func(t *testing.T, n *chattest.Network, nodes []*chattest.Node) {
		n.Set(chattest.Conditions{Delay: 20 * time.Millisecond, Jitter: 10 * time.Millisecond})
		ada, bob := nodes[0], nodes[1]
		toBob, toAda := meet(t, ada, bob)
		m := say(t, ada, toBob, "hello")
		if m.State != chat.StateQueued {
			t.Errorf("accepted with state %q, want queued", m.State)
		}
		m, err := ada.Service().WaitState(within(t, 10*time.Second), m.ID, chat.StateDelivered)
		if err != nil || m.State != chat.StateDelivered || m.Path != chat.PathLAN {
			t.Fatalf("waiting for delivery: %+v, %v", m, err)
		}
		eventually(t, time.Second, shows(t, bob, toAda, "hello"))
		for i := range 20 {
			say(t, bob, toAda, fmt.Sprint("answer ", i))
			say(t, ada, toBob, fmt.Sprint("again ", i))
		}
		eventually(t, 20*time.Second, func() error {
			a, b := texts(t, ada, toBob), texts(t, bob, toAda)
			if len(a) != 41 || fmt.Sprint(a) != fmt.Sprint(b) {
				return fmt.Errorf("ada shows %d, bob %d: %q %q", len(a), len(b), a, b)
			}
			return nil
		})
		eventually(t, 10*time.Second, func() error {
			out, err := ada.Service().Outbox(t.Context())
			if err == nil && len(out) != 0 {
				err = fmt.Errorf("ada's outbox still holds %d", len(out))
			}
			return err
		})
	})
}
