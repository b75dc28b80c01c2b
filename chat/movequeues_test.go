package chat

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"testing"
	"time"

	"github.com/starling-chat/starling/chat/wire"
	"github.com/starling-chat/starling/storage"
)

// TestMoveQueues turns more entries of the first version than fit into one batch into their present form,
// beside one that is in it already, and finds nothing to do the second time.
func TestMoveQueues(t *testing.T) {
	const count = 3*batchEvents + 7
	store, err := storage.OpenMemory(storage.Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer store.Close()
	opened := time.Date(2026, 3, 4, 5, 6, 7, 0, time.UTC)
	id := func(i int) storage.ID { return storage.ID(bytes.Repeat([]byte{byte(i), byte(i >> 8)}, 16)) }
	for i := range count {
		var b storage.Batch
		b.Schedule(outboxQueue, opened.Add(time.Duration(i)*time.Second), id(i), fmt.Append(nil, "entry ", i))
		b.Schedule(bucketSeen, opened.Add(seenLife), id(i), bytes.Repeat([]byte{byte(i)}, len(wire.MsgID{})))
		if _, err := store.Commit(t.Context(), &b, storage.Durable); err != nil {
			t.Fatal(err)
		}
	}
	var b storage.Batch
	b.Hold(outboxQueue, id(count), fmt.Append(nil, "entry ", count))
	if _, err := store.Commit(t.Context(), &b, storage.Durable); err != nil {
		t.Fatal(err)
	}
	for range 2 {
		if err := moveQueues(t.Context(), store); err != nil {
			t.Fatal(err)
		}
		n := 0
		for it, err := range store.Queue(t.Context(), outboxQueue) {
			if err != nil || !it.Due.IsZero() {
				t.Fatalf("an entry due %s, %v", it.Due, err)
			}
			n++
		}
		if n != count+1 {
			t.Fatalf("%d entries, want %d", n, count+1)
		}
		for i := range count {
			it, err := store.QueueItem(t.Context(), outboxQueue, id(i))
			if err != nil || string(it.Value) != fmt.Sprint("entry ", i) {
				t.Fatalf("entry %d: %q, %v", i, it.Value, err)
			}
			seen, err := store.GetBucket(t.Context(), bucketSeen, seenKey(id(i)))
			if err != nil || len(seen) != 4+len(wire.MsgID{}) || int64(binary.BigEndian.Uint32(seen)) != wire.UTCDay(opened) || seen[4] != byte(i) {
				t.Fatalf("envelope %d: %x, %v", i, seen, err)
			}
		}
		for it, err := range store.Queue(t.Context(), bucketSeen) {
			t.Fatalf("left in the queue: %+v, %v", it, err)
		}
	}
}
