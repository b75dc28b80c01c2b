package main

import (
	"context"
	"log/slog"
	"runtime/debug"
	"runtime/metrics"
	"sync"
	"time"

	"github.com/starling-chat/starling/node"
)

const (
	// trimEvery is how often it is looked at what a node could give back.
	trimEvery = 2 * time.Second
	// trimQuiet is how many bytes a node may allocate in that time and count as quiet; a busy one is left to
	// the runtime. trimGrown is how many it must have allocated since the last time to be worth the ten
	// milliseconds of a collection, and trimRarely when less will do.
	trimQuiet  = 1 << 20
	trimGrown  = 8 << 20
	trimRarely = 30 * time.Second
	// collectAfter is for how long a node that has started is left in peace by the collector.
	collectAfter = 500 * time.Millisecond
)

// deferCollections keeps the garbage collector from running until the returned function is called, unless
// the memory limit is near. A start makes garbage once, and collecting it costs more than that: memory that
// was used before has to be cleared when it is used again, of which the store's write buffer alone is 21 MB.
func (a *app) deferCollections() (collect func()) {
	if a.getenv("GOGC") != "" {
		return func() {}
	}
	usual := debug.SetGCPercent(-1)
	return sync.OnceFunc(func() { debug.SetGCPercent(usual) })
}

// trimMemory gives unused memory back to the system while the node is quiet, until ctx ends. The runtime by
// itself waits until its heap has doubled, and counts the store's write buffer, most of which nobody has touched.
func trimMemory(ctx context.Context, n *node.Node, log *slog.Logger) {
	tick := time.NewTicker(trimEvery)
	defer tick.Stop()
	var last, before uint64 // allocated when memory was given back, and a tick ago
	for idle := time.Duration(0); ; {
		select {
		case <-tick.C:
		case <-ctx.Done():
			return
		}
		now := allocated()
		idle += trimEvery
		if now-before < trimQuiet && (now-last >= trimGrown || idle >= trimRarely) {
			if err := n.FreeMemory(); err != nil {
				log.Debug("not all memory was given back", "error", err)
			}
			debug.FreeOSMemory()
			now = allocated()
			last, idle = now, 0
		}
		before = now
	}
}

// allocated returns how many bytes the process has allocated since its start.
func allocated() uint64 {
	s := []metrics.Sample{{Name: "/gc/heap/allocs:bytes"}}
	metrics.Read(s)
	return s[0].Value.Uint64()
}
