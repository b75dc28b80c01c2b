//go:build unix

package chat_test

import (
	"crypto/ed25519"
	"crypto/rand"
	"runtime"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/starling-chat/starling/chat"
	"github.com/starling-chat/starling/chat/chattest"
)

// What is measured here are counts and processor time, which the load of the machine moves little; the
// bounds leave room for the rest. They are to catch a change that doubles a cost, not a slow day.

// spent is what a process used.
type spent struct {
	cpu            time.Duration
	objects, bytes uint64
}

func spending(t *testing.T) spent {
	t.Helper()
	var ru unix.Rusage
	if err := unix.Getrusage(unix.RUSAGE_SELF, &ru); err != nil {
		t.Fatal(err)
	}
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return spent{time.Duration(ru.Utime.Nano() + ru.Stime.Nano()), m.Mallocs, m.TotalAlloc}
}

// verification is the anchor: the processor time of one Ed25519 verification here and now.
func verification(t *testing.T) time.Duration {
	t.Helper()
	public, private, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	text := make([]byte, 600)
	signature := ed25519.Sign(private, text)
	const turns = 300
	before := spending(t)
	for range turns {
		ed25519.Verify(public, text, signature)
	}
	return max((spending(t).cpu-before.cpu)/turns, 20*time.Microsecond)
}

// sendMany submits texts as fast as they are taken, and returns the last message once all are accepted.
func sendMany(t *testing.T, svc *chat.Service, to chat.Target, count int) chat.Message {
	t.Helper()
	text := strings.Repeat("x", 300)
	subs := make([]*chat.Submission, count)
	for i := range subs {
		var err error
		if subs[i], err = svc.Submit(t.Context(), chat.SendRequest{Target: to, Text: text}); err != nil {
			t.Fatal(err)
		}
	}
	var last chat.Message
	for _, sub := range subs {
		var err error
		if last, err = sub.Wait(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	return last
}

// A direct message, both sides together, from the call until it is acknowledged: sealed, opened, stored
// twice, shown, acknowledged. Stores lie in memory.
func TestCostOfDirectMessage(t *testing.T) {
	if testing.Short() {
		t.Skip("-short goes with the race detector, which changes what things cost")
	}
	const (
		count      = 1000
		mostObject = 650     // 480 measured
		mostBytes  = 120_000 // 79,000 measured, most of them the store's
		mostCPU    = 15      // verifications; 4 measured
	)
	n := chattest.New(t, 2)
	ada, bob := n.Node("ada"), n.Node("bob")
	bob.Config.AcceptStrangers = true
	svc := ada.Start()
	bob.Start()
	defer ada.Stop()
	defer bob.Stop()
	deliver := func(count int) {
		last := sendMany(t, svc, to(bob), count)
		if _, err := svc.WaitState(t.Context(), last.ID, chat.StateDelivered); err != nil {
			t.Fatal(err)
		}
	}
	deliver(1) // the handshake
	anchor := verification(t)
	before := spending(t)
	deliver(count)
	after := spending(t)
	objects, bytes := (after.objects-before.objects)/count, (after.bytes-before.bytes)/count
	cpu := (after.cpu - before.cpu) / count
	t.Logf("a direct message: %d objects, %d bytes, %s of processor time; one verification %s", objects, bytes, cpu, anchor)
	if objects > mostObject || bytes > mostBytes {
		t.Errorf("%d objects and %d bytes allocated for a message, at most %d and %d", objects, bytes, mostObject, mostBytes)
	}
	if cpu > mostCPU*anchor {
		t.Errorf("%s of processor time for a message, at most %d verifications of %s", cpu, mostCPU, anchor)
	}
}

// A room's message, at its author and at one member: signed, sealed, checked, opened, verified, stored
// twice, shown.
func TestCostOfRoomMessage(t *testing.T) {
	if testing.Short() {
		t.Skip("-short goes with the race detector, which changes what things cost")
	}
	const (
		count      = 1000
		mostObject = 390    // 257 measured
		mostBytes  = 76_000 // 50,000 measured, most of them the store's
		mostCPU    = 20     // verifications; 3 to 6 measured, of which it verifies two and signs two
	)
	n := chattest.New(t, 3)
	ada, bob := n.Node("ada"), n.Node("bob")
	svc := ada.Start()
	other := bob.Start()
	defer ada.Stop()
	defer bob.Stop()
	for _, s := range []*chat.Service{svc, other} {
		if _, err := s.Join(t.Context(), "costs", ""); err != nil {
			t.Fatal(err)
		}
	}
	room, err := svc.Resolve("costs")
	if err != nil {
		t.Fatal(err)
	}
	sub := other.Events(0)
	defer sub.Close()
	deliver := func(count int) {
		sendMany(t, svc, room, count)
		for got := 0; got < count; {
			e, err := sub.Next(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			if e.Type == chat.EventMessage && e.Message.Kind == chat.KindMessage {
				got++
			}
		}
	}
	deliver(1)
	anchor := verification(t)
	before := spending(t)
	deliver(count)
	after := spending(t)
	objects, bytes := (after.objects-before.objects)/count, (after.bytes-before.bytes)/count
	cpu := (after.cpu - before.cpu) / count
	t.Logf("a room's message: %d objects, %d bytes, %s of processor time; one verification %s", objects, bytes, cpu, anchor)
	if objects > mostObject || bytes > mostBytes {
		t.Errorf("%d objects and %d bytes allocated for a message, at most %d and %d", objects, bytes, mostObject, mostBytes)
	}
	if cpu > mostCPU*anchor {
		t.Errorf("%s of processor time for a message, at most %d verifications of %s", cpu, mostCPU, anchor)
	}
}
