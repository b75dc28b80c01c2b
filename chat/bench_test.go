package chat_test

import (
	"crypto/rand"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/starling-chat/starling/chat"
	"github.com/starling-chat/starling/chat/chattest"
	"github.com/starling-chat/starling/storage"
)

// onDisk gives a node a store in a directory, in place of the one in memory.
func onDisk(b *testing.B, nd *chattest.Node) {
	b.Helper()
	key := make([]byte, storage.KeySize)
	if _, err := rand.Read(key); err != nil {
		b.Fatal(err)
	}
	store, err := storage.Open(b.Context(), storage.DefaultOptions(b.TempDir(), key))
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() {
		if err := store.Close(); err != nil {
			b.Error(err)
		}
	})
	nd.Store, nd.Config.Store = store, store
}

// BenchmarkAccept measures durable acceptance of room messages of 200 bytes on disk, submitted as
// `send --batch` does, and their publication to nobody.
func BenchmarkAccept(b *testing.B) {
	nd := chattest.New(b, 1).Node("ada")
	onDisk(b, nd)
	svc := nd.Start()
	defer nd.Stop()
	if _, err := svc.Join(b.Context(), "bench", ""); err != nil {
		b.Fatal(err)
	}
	room, err := svc.Resolve("bench")
	if err != nil {
		b.Fatal(err)
	}
	text := strings.Repeat("x", 200)
	b.ResetTimer()
	subs := make(chan *chat.Submission, 4096)
	go func() { // ends when everything is submitted; the loop below waits for it
		defer close(subs)
		for i := range b.N {
			sub, err := svc.Submit(b.Context(), chat.SendRequest{Target: room, Text: text, ClientID: fmt.Sprint(i)})
			if err != nil {
				b.Error(err)
				return
			}
			subs <- sub
		}
	}()
	for sub := range subs {
		if _, err := sub.Wait(b.Context()); err != nil {
			b.Fatal(err)
		}
	}
	b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "messages/s")
}

// BenchmarkDirect measures direct messages from one node to another, both on disk: encrypted, stored,
// acknowledged.
func BenchmarkDirect(b *testing.B) {
	n := chattest.New(b, 2)
	ada, bob := n.Node("ada"), n.Node("bob")
	onDisk(b, ada)
	onDisk(b, bob)
	bob.Config.AcceptStrangers = true
	ada.Config.Limits = chat.Limits{Outbox: 1 << 20}
	ada.Start()
	bob.Start()
	defer ada.Stop()
	defer bob.Stop()
	target := to(bob)
	text := strings.Repeat("x", 300)
	send := func(count int) {
		subs := make(chan *chat.Submission, 4096)
		go func() { // ends when everything is submitted; the loop below waits for it
			defer close(subs)
			for range count {
				sub, err := ada.Service().Submit(b.Context(), chat.SendRequest{Target: target, Text: text})
				if err != nil {
					b.Error(err)
					return
				}
				subs <- sub
			}
		}()
		var last chat.MessageID
		for sub := range subs {
			m, err := sub.Wait(b.Context())
			if err != nil {
				b.Fatal(err)
			}
			last = m.ID
		}
		if _, err := ada.Service().WaitState(b.Context(), last, chat.StateDelivered); err != nil {
			b.Fatal(err)
		}
	}
	send(1) // the handshake
	b.ResetTimer()
	send(b.N)
	b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "messages/s")
}

// BenchmarkDirectRoundTrip measures one direct message at a time until it is acknowledged.
func BenchmarkDirectRoundTrip(b *testing.B) {
	n := chattest.New(b, 3)
	ada, bob := n.Node("ada"), n.Node("bob")
	onDisk(b, ada)
	onDisk(b, bob)
	bob.Config.AcceptStrangers = true
	ada.Start()
	bob.Start()
	defer ada.Stop()
	defer bob.Stop()
	for range b.N {
		m, err := ada.Service().Send(b.Context(), chat.SendRequest{Target: to(bob), Text: "hello"})
		if err != nil {
			b.Fatal(err)
		}
		if _, err := ada.Service().WaitState(b.Context(), m.ID, chat.StateDelivered); err != nil {
			b.Fatal(err)
		}
	}
}

// BenchmarkHistory measures a page of 50 in a room of 20,000 messages on disk.
func BenchmarkHistory(b *testing.B) {
	nd := chattest.New(b, 4).Node("ada")
	onDisk(b, nd)
	svc := nd.Start()
	defer nd.Stop()
	if _, err := svc.Join(b.Context(), "bench", ""); err != nil {
		b.Fatal(err)
	}
	room, err := svc.Resolve("bench")
	if err != nil {
		b.Fatal(err)
	}
	for i := range 20_000 / 500 {
		subs := make([]*chat.Submission, 500)
		for k := range subs {
			if subs[k], err = svc.Submit(b.Context(), chat.SendRequest{Target: room, Text: fmt.Sprint("message ", i, k)}); err != nil {
				b.Fatal(err)
			}
		}
		for _, sub := range subs {
			if _, err := sub.Wait(b.Context()); err != nil {
				b.Fatal(err)
			}
		}
	}
	time.Sleep(time.Second) // let it be published
	b.ResetTimer()
	for range b.N {
		if page, err := svc.History(b.Context(), chat.HistoryQuery{Target: room, N: 50}); err != nil || len(page) != 50 {
			b.Fatal(len(page), err)
		}
	}
}
