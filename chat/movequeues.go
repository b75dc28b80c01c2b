package chat

import (
	"context"
	"encoding/binary"
	"errors"

	"github.com/starling-chat/starling/chat/wire"
	"github.com/starling-chat/starling/storage"
)

// moveQueues turns what the first version kept in queues with a due time into what there is now: outbox
// entries are held, and envelopes that were opened lie in bucketSeen. It may be interrupted and repeated.
func moveQueues(ctx context.Context, store *storage.Store) error {
	return errors.Join(
		moveQueue(ctx, store, outboxQueue, func(b *storage.Batch, it storage.Item) {
			b.Hold(outboxQueue, it.ID, it.Value)
		}),
		moveQueue(ctx, store, bucketSeen, func(b *storage.Batch, it storage.Item) {
			day := uint32(wire.UTCDay(it.Due.Add(-seenLife)))
			b.Put(bucketSeen, seenKey(it.ID), append(binary.BigEndian.AppendUint32(nil, day), it.Value...))
		}),
	)
}

// moveQueue moves the items of a queue that have a due time, some hundreds at once.
func moveQueue(ctx context.Context, store *storage.Store, queue string, move func(*storage.Batch, storage.Item)) error {
	for {
		var b storage.Batch
		for it, err := range store.Queue(ctx, queue) {
			if err != nil {
				return err
			}
			if it.Due.IsZero() || b.Len() >= 2*batchEvents {
				break // those that are held come last
			}
			b.Unschedule(queue, it.ID)
			move(&b, it)
		}
		if b.Len() == 0 {
			return nil
		}
		if _, err := store.Commit(ctx, &b, storage.Durable); err != nil {
			return err
		}
	}
}
