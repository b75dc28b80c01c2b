package storage

import (
	"log/slog"
	"runtime"
	"sync"
	"sync/atomic"
	"time"

	"github.com/dgraph-io/badger/v4"
)

// compactors lets Badger's compactors rest. There are two at least, each looks every 50 ms whether there is
// something to do, and each look wakes the process: most of what an idle node costs, and a fifth of what it
// takes to follow a lively room. There is something to do only after a write buffer was written out.
//
// Badger stops them for nobody but itself. [badger.DB.Flatten] does, before it says a line to its log and
// looks at the tables: so its goroutine is kept inside that line until there is something to do, and ends
// there, which starts them again.
type compactors struct {
	db   *badger.DB
	gate *roomGate
	log  *slog.Logger

	mu   sync.Mutex    // held while they are stopped, by whoever stops them
	held atomic.Int32  // how many want mu, or have it, for themselves
	wake chan struct{} // there may be something to do; capacity 1
	quit chan struct{}
	done chan struct{}
}

const (
	// restAfter is how long nothing has to be done until the compactors rest.
	restAfter = 5 * time.Second
	// flattenLine is what Flatten, and nothing else, says first.
	flattenLine = "\n"
)

func startCompactors(db *badger.DB, gate *roomGate) *compactors {
	c := &compactors{
		db: db, gate: gate, log: gate.log,
		wake: make(chan struct{}, 1), quit: make(chan struct{}), done: make(chan struct{}),
	}
	go c.run() // ended by stop
	return c
}

// run has the compactors rest whenever they have nothing to do, until stop.
func (c *compactors) run() {
	defer close(c.done)
	timer := time.NewTimer(c.gate.restAfter)
	defer timer.Stop()
	for {
		select {
		case <-timer.C:
			if c.settled() && !c.rest() {
				c.log.Warn("the database's compactors cannot rest; an idle node will use more power")
				return
			}
		case <-c.wake:
		case <-c.quit:
			return
		}
		timer.Reset(c.gate.restAfter)
	}
}

// stop ends run, with the compactors at work.
func (c *compactors) stop() {
	close(c.quit)
	<-c.done
}

// rouse has the compactors look whether there is something to do. It does not block.
func (c *compactors) rouse() {
	select {
	case c.wake <- struct{}{}:
	default:
	}
}

// hold keeps the compactors from being stopped until release. A rest that begins after rouse was heeded, and
// before mu is taken, ends by itself.
func (c *compactors) hold() {
	c.held.Add(1)
	c.rouse()
	c.mu.Lock()
}

func (c *compactors) release() {
	c.mu.Unlock()
	c.held.Add(-1)
}

// settled says whether no level of tables has to be compacted.
func (c *compactors) settled() bool {
	for _, l := range c.db.Levels() {
		if l.Score != 0 {
			return false
		}
	}
	return c.gate.full() == 0
}

// rest stops the compactors until rouse or stop. It says whether that was possible.
func (c *compactors) rest() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	stay := func() {
		c.gate.atRest()
		if c.held.Load() > 0 {
			return
		}
		select {
		case <-c.wake:
		case <-c.quit:
		}
	}
	c.gate.resting.Store(&stay)
	defer c.gate.resting.Store(nil)
	returned := false
	ended := make(chan struct{})
	go func() { // ends inside Flatten, in linger; waited for below
		defer close(ended)
		if err := c.db.Flatten(1); err != nil {
			c.log.Warn("badger", "error", err)
		}
		returned = true
	}()
	<-ended
	return !returned
}

// linger keeps Flatten's goroutine until the compactors are wanted, and ends it, if it runs for rest.
func (g *roomGate) linger() {
	if stay := g.resting.Load(); stay != nil {
		(*stay)()
		runtime.Goexit()
	}
}
