package chat_test

import (
	"fmt"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/starling-chat/starling/chat"
	"github.com/starling-chat/starling/chat/chattest"
	"github.com/starling-chat/starling/chat/wire"
)

// strangersThen runs a test with two nodes that never meet: bob was there for a moment, and is away when
// ada begins.
func strangersThen(t *testing.T, seed uint64, test func(t *testing.T, n *chattest.Network, ada, bob *chattest.Node, relay *chattest.Relay, link string)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		n := chattest.New(t, seed)
		relay := n.Relay()
		ada, bob := n.Node("ada"), n.Node("bob")
		defer func() {
			ada.Stop()
			bob.Stop()
		}()
		bob.Start()
		time.Sleep(20 * time.Second)
		link := bob.Service().Me().Link
		bob.Stop()
		test(t, n, ada, bob, relay, link)
	})
}

// whole checks the way of a first message to somebody who is away, and of the answer: the two are never
// there together.
func whole(t *testing.T, ada, bob *chattest.Node, m chat.Message) {
	t.Helper()
	toBob, toAda := to(bob), to(ada)
	eventually(t, 2*time.Minute, state(t, ada, m.ID, chat.StateStored))
	time.Sleep(20 * time.Second) // her records are out
	ada.Stop()
	bob.Start()
	eventually(t, 2*time.Minute, shows(t, bob, toAda, m.Text))
	contacts, err := bob.Service().Contacts(t.Context())
	if err != nil || len(contacts) != 1 || contacts[0].State != chat.ContactRequest {
		t.Fatalf("bob's contacts: %+v, %v", contacts, err)
	}
	if _, err := bob.Service().SetContact(t.Context(), ada.Account().String(), chat.ContactAccept, ""); err != nil {
		t.Fatal(err)
	}
	answer := say(t, bob, toAda, "glad you wrote")
	eventually(t, 2*time.Minute, state(t, bob, answer.ID, chat.StateStored))
	bob.Stop()
	ada.Start()
	eventually(t, 2*time.Minute, shows(t, ada, toBob, m.Text, "glad you wrote"))
	time.Sleep(20 * time.Second) // her receipt is at his mailbox
	ada.Stop()
	bob.Start()
	eventually(t, 10*time.Minute, state(t, bob, answer.ID, chat.StateDelivered))
}

func TestALinkReachesWhoIsAway(t *testing.T) {
	strangersThen(t, 71, func(t *testing.T, n *chattest.Network, ada, bob *chattest.Node, _ *chattest.Relay, link string) {
		n.Watch("the first words")
		ada.Start()
		if _, err := ada.Service().AddContact(t.Context(), link, "bob"); err != nil {
			t.Fatal(err)
		}
		whole(t, ada, bob, say(t, ada, to(bob), "the first words"))
		if seen := n.Seen(); len(seen) > 0 {
			t.Errorf("travelled in clear: %q", seen)
		}
	})
}

func TestAnAccountAloneReachesWhoIsAway(t *testing.T) {
	// The device list leads from the account to its device.
	strangersThen(t, 72, func(t *testing.T, _ *chattest.Network, ada, bob *chattest.Node, _ *chattest.Relay, _ string) {
		ada.Start()
		whole(t, ada, bob, say(t, ada, to(bob), "are you there?"))
	})
}

func TestLateMailOpens(t *testing.T) {
	// Bob has been away for 20 days: his record still holds. His mail waits 13 days more, and he rotated his
	// prekeys several times since they were used.
	strangersThen(t, 73, func(t *testing.T, _ *chattest.Network, ada, bob *chattest.Node, relay *chattest.Relay, link string) {
		time.Sleep(20 * 24 * time.Hour)
		ada.Start()
		m := say(t, ada, to(bob), "long ago")
		eventually(t, 2*time.Minute, state(t, ada, m.ID, chat.StateStored))
		ada.Stop()
		relay.Set(false) // and out of reach while he rotates
		bob.Start()
		time.Sleep(time.Minute)
		bob.Stop()
		time.Sleep(8 * 24 * time.Hour)
		bob.Start()
		time.Sleep(time.Minute)
		bob.Stop()
		time.Sleep(5 * 24 * time.Hour)
		relay.Set(true)
		bob.Start()
		eventually(t, 2*time.Minute, shows(t, bob, to(ada), "long ago"))
	})
}

func TestAnExpiredRecordIsNotUsed(t *testing.T) {
	strangersThen(t, 74, func(t *testing.T, _ *chattest.Network, ada, bob *chattest.Node, relay *chattest.Relay, link string) {
		time.Sleep(22 * 24 * time.Hour)
		ada.Start()
		m := say(t, ada, to(bob), "too late")
		time.Sleep(10 * time.Minute)
		if err := state(t, ada, m.ID, chat.StateQueued)(); err != nil || relay.Mail() != 0 {
			t.Errorf("%v; %d deposits", err, relay.Mail())
		}
		bob.Start() // and there he is
		eventually(t, 2*time.Minute, shows(t, bob, to(ada), "too late"))
	})
}

func TestForgedRecordsAreNotTaken(t *testing.T) {
	// The table hands out what it likes: another device's record, a damaged one, an older one.
	strangersThen(t, 75, func(t *testing.T, n *chattest.Network, ada, bob *chattest.Node, relay *chattest.Relay, link string) {
		eve := n.Node("eve")
		eve.Start()
		time.Sleep(20 * time.Second)
		defer eve.Stop()
		key := wire.PrekeysKey(bob.ID())
		good := n.TableRecord(key)
		for name, bad := range map[string][]byte{
			"eve's":   n.TableRecord(wire.PrekeysKey(eve.ID())),
			"damaged": append(append([]byte{}, good[:len(good)-1]...), good[len(good)-1]^1),
			"cut":     good[:100],
			"empty":   {},
		} {
			n.SetTableRecord(key, bad)
			n.SetTableRecord(wire.DeviceListKey(bob.Account()), n.TableRecord(wire.DeviceListKey(eve.Account())))
			ada.Start()
			m := say(t, ada, to(bob), "is it you? "+name)
			if _, err := ada.Service().AddContact(t.Context(), link, ""); err != nil {
				t.Fatal(err)
			}
			time.Sleep(3 * time.Minute)
			if err := state(t, ada, m.ID, chat.StateQueued)(); err != nil || relay.Mail() != 0 {
				t.Errorf("%s record: %v; %d deposits", name, err, relay.Mail())
			}
			ada.Stop()
		}
		n.SetTableRecord(key, good)
		ada.Start()
		eventually(t, time.Hour, func() error {
			if relay.Mail() < 4 {
				return fmt.Errorf("%d deposits", relay.Mail())
			}
			return nil
		})
	})
}

func TestARevokedDeviceSpeaksForNobody(t *testing.T) {
	world(t, 76, []string{"ada", "bob"}, func(t *testing.T, n *chattest.Network, nodes []*chattest.Node) {
		ada, bob := nodes[0], nodes[1]
		toBob, _ := friends(t, ada, bob)
		time.Sleep(10 * time.Second)
		l, err := wire.ParseDeviceList(n.TableRecord(wire.DeviceListKey(bob.Account()))[1:])
		if err != nil || len(l.Devices) != 1 {
			t.Fatalf("bob's device list: %+v, %v", l, err)
		}
		l.Sequence += 10
		l.Devices, l.Revoked = nil, []wire.DeviceID{bob.ID()}
		raw, err := bob.Config.SignDeviceList(l)
		if err != nil {
			t.Fatal(err)
		}
		key, value := wire.EncodeLookup(&wire.LookupRecord{DeviceList: l, Raw: raw})
		bob.Stop()
		n.SetTableRecord(key, value)
		time.Sleep(2 * time.Hour)
		say(t, ada, toBob, "to whom?")
		time.Sleep(5 * time.Minute)
		bob.Start()
		time.Sleep(5 * time.Minute)
		if got := texts(t, bob, to(ada)); strings.Contains(fmt.Sprint(got), "to whom?") {
			t.Errorf("the revoked device was written to: %q", got)
		}
		ada.Stop()
		ada.Start() // and it stays so
		time.Sleep(5 * time.Minute)
		if got := texts(t, bob, to(ada)); strings.Contains(fmt.Sprint(got), "to whom?") {
			t.Errorf("the revoked device was written to after a restart: %q", got)
		}
	})
}
