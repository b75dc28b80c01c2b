package chat

import (
	"context"

	"github.com/starling-chat/starling/storage"
)

// The owner of the direct messages does not wait for the disk: it goes on with the next batch while the
// one before is synced, and what tells others about a batch follows when it is durable.

// awaited is what follows once a batch is durable.
type awaited struct {
	pending storage.Pending
	fn      func(error)
}

const (
	// awaitQueue is how many batches may be on their way to the disk with something that follows.
	awaitQueue = 16
	// maxDrafts bounds those of own messages; the next ones gather meanwhile.
	maxDrafts = 2
)

// whenDurable has the owner run fn once a batch is durable, or could not be made so, in the order of
// the calls. For the owner only.
func (d *dialogs) whenDurable(p storage.Pending, fn func(error)) {
	for {
		select {
		case d.awaiting <- awaited{p, fn}:
			return
		case done := <-d.durable:
			done()
		}
	}
}

// awaitDisk waits for the disk in the owner's place until awaiting is closed.
func (d *dialogs) awaitDisk() {
	defer close(d.durable)
	for a := range d.awaiting {
		// The store answers whatever it has begun, also while everything stops.
		err := a.pending.Wait(context.Background())
		d.durable <- func() { a.fn(err) }
	}
}

// finishAwaited lets everything that waits for the disk follow, when the owner ends.
func (d *dialogs) finishAwaited() {
	close(d.awaiting)
	for done := range d.durable {
		done()
	}
}
