package chat_test

import (
	"crypto/rand"
	"errors"
	"slices"
	"testing"
	"time"

	"github.com/starling-chat/starling/chat"
	"github.com/starling-chat/starling/chat/chattest"
	"github.com/starling-chat/starling/chat/wire"
)

// TestRoomBinding seals events that name something else than where and by whom they are said, with keys that a
// member has: none may be shown. What the ratchet binds a direct message to stands in its own package.
func TestRoomBinding(t *testing.T) {
	world(t, 35, []string{"ada", "bob", "cy"}, func(t *testing.T, n *chattest.Network, nodes []*chattest.Node) {
		ada, bob, cy := nodes[0], nodes[1], nodes[2]
		target := create(t, chat.HistoryAll, ada, bob, cy)
		admit(t, ada, target, bob, cy)
		keys := chat.NewestKeys(ada.Service(), target)
		old := chat.NewestEpoch(ada.Service(), target)
		remove(t, ada, target, cy) // the next epoch
		eventually(t, time.Minute, stands(t, bob, target, chat.MembershipMember, 2))
		next := chat.NewestKeys(ada.Service(), target)
		if next.Topic == keys.Topic {
			t.Fatal("the key did not change")
		}
		n.Partition([]*chattest.Node{ada}, []*chattest.Node{bob}, []*chattest.Node{cy})
		certify := func(of *chattest.Node, dev wire.DeviceID) wire.Certificate {
			c, err := of.CertifyDevice(dev, time.Now())
			if err != nil {
				t.Fatal(err)
			}
			return c
		}
		seq := uint64(1000)
		deliver := func(text string, keys *wire.RoomKeys, change func(h *wire.Header)) {
			seq++
			h := wire.Header{
				Kind: wire.KindMessage, Room: *target.Room, Certificate: certify(bob, bob.ID()), HLC: wire.HLCFromTime(time.Now()),
				DeviceSeq: seq, Previous: wire.EventID{1}, Epoch: old + 1,
			}
			change(&h)
			body, err := wire.EncodeBody(&wire.MessageBody{Text: text})
			if err != nil {
				t.Fatal(err)
			}
			ev, err := wire.NewEvent(h, body, bob.Config.Device.PrivateKey(), rand.Reader)
			if err != nil {
				t.Logf("%s: no event can be made of it: %v", text, err)
				return
			}
			sealed, err := keys.Seal(ev)
			if err != nil {
				t.Fatal(err)
			}
			ada.Deliver(chattest.Recorded{Topic: keys.Topic, Sealed: sealed.Bytes()})
			time.Sleep(time.Second)
		}
		deliver("as it should be", next, func(*wire.Header) {})
		deliver("another room", next, func(h *wire.Header) { h.Room = wire.RoomID{9} })
		deliver("an earlier epoch, under the new key", next, func(h *wire.Header) { h.Epoch = old })
		deliver("a later epoch", next, func(h *wire.Header) { h.Epoch = old + 2 })
		deliver("the new epoch, under the old key", keys, func(*wire.Header) {})
		deliver("another sender's certificate", next, func(h *wire.Header) { h.Certificate = certify(ada, ada.ID()) })
		deliver("another account for the device", next, func(h *wire.Header) { h.Certificate = certify(cy, bob.ID()) })
		deliver("another device of the account", next, func(h *wire.Header) { h.Certificate = certify(bob, cy.ID()) })
		deliver("a certificate that was changed", next, func(h *wire.Header) { h.Certificate.Account = ada.Account() })
		deliver("a certificate that is not valid yet", next, func(h *wire.Header) {
			c, err := bob.CertifyDevice(bob.ID(), time.Now().Add(365*24*time.Hour))
			if err != nil {
				t.Fatal(err)
			}
			h.Certificate = c
		})
		if got := texts(t, ada, target); !slices.Equal(got, []string{"as it should be"}) {
			t.Errorf("ada shows %q", got)
		}
	})
}

// TestInviteBinding changes each thing that a link says: no such link lets anybody in.
func TestInviteBinding(t *testing.T) {
	world(t, 36, []string{"ada", "bob", "cy"}, func(t *testing.T, n *chattest.Network, nodes []*chattest.Node) {
		ada, bob, cy := nodes[0], nodes[1], nodes[2]
		target := create(t, chat.HistoryAll, ada, bob, cy)
		admit(t, ada, target, bob)
		parsed, err := wire.ParseLink(link(t, ada, target, true).Link)
		if err != nil {
			t.Fatal(err)
		}
		good := parsed.(*wire.InviteLink)
		if err := good.Verify(); err != nil {
			t.Fatal(err)
		}
		cert, err := bob.CertifyDevice(bob.ID(), time.Now())
		if err != nil {
			t.Fatal(err)
		}
		for name, change := range map[string]func(l *wire.InviteLink){
			"room":        func(l *wire.InviteLink) { l.Room = wire.RoomID{9} },
			"inviter":     func(l *wire.InviteLink) { l.Inviter = cert },
			"token":       func(l *wire.InviteLink) { l.Token[0] ^= 1 },
			"expiry":      func(l *wire.InviteLink) { l.Expires = l.Expires.Add(time.Hour) },
			"name":        func(l *wire.InviteLink) { l.Name = "another" },
			"addresses":   func(l *wire.InviteLink) { l.Addresses = append(l.Addresses, "/ip4/192.0.2.1/udp/1/quic-v1") },
			"reusability": func(l *wire.InviteLink) { l.Reusable = !l.Reusable },
			"doors": func(l *wire.InviteLink) {
				l.Doors = append(l.Doors, wire.Door{Account: cy.Account(), Device: cy.ID()})
			},
			"signature": func(l *wire.InviteLink) { l.Signature[0] ^= 1 },
		} {
			changed := *good
			changed.Addresses, changed.Doors = slices.Clone(good.Addresses), slices.Clone(good.Doors)
			change(&changed)
			if err := changed.Verify(); !errors.Is(err, wire.ErrInvalid) {
				t.Errorf("another %s: %v", name, err)
			}
		}
	})
}
