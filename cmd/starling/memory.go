package main

import (
	"context"
	"runtime/debug"
	"runtime/metrics"
	"time"
)

const (
	// trimEvery is how often a quiet node gives back what it does not use. The runtime by itself waits until
	// its heap has doubled, and counts the store's write buffer, most of which nobody has touched.
	trimEvery = 30 * time.Second
	// trimStart is when what a start took is given back, quiet or not.
	trimStart = 5 * time.Second
	// trimQuiet is how many bytes a node may allocate in that time and count as quiet. A collection takes
	// about ten milliseconds then; a busy node is left to the runtime.
	trimQuiet = 16 << 20
)

// deferCollections keeps the garbage collector from running until the returned function is called, unless
// the memory limit is near. A start makes garbage once, and collecting it costs more than that: memory that
// was used before has to be cleared when it is used again, of which the store's write buffer alone is 21 MB.
func (a *app) deferCollections() (collect func()) {
	if a.getenv("GOGC") != "" {
		return func() {}
	}
	usual := debug.SetGCPercent(-1)
	return func() { debug.SetGCPercent(usual) }
}

// trimMemory gives unused memory back to the system while the node is quiet, until ctx ends.
func trimMemory(ctx context.Context) {
	next := time.NewTimer(trimStart)
	defer next.Stop()
	for first, before := true, uint64(0); ; first = false {
		select {
		case <-next.C:
		case <-ctx.Done():
			return
		}
		now := allocated()
		if first || now-before < trimQuiet {
			debug.FreeOSMemory()
		}
		before = now
		next.Reset(trimEvery)
	}
}

// allocated returns how many bytes the process has allocated since its start.
func allocated() uint64 {
	s := []metrics.Sample{{Name: "/gc/heap/allocs:bytes"}}
	metrics.Read(s)
	return s[0].Value.Uint64()
}
