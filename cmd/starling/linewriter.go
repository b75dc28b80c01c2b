package main

import (
	"bufio"
	"encoding/json"
	"io"
	"sync"
	"time"
)

// lineWriter writes JSON lines to standard output: at once when little happens, so that a program
// that reads along can go on, and in larger pieces during a burst.
type lineWriter struct {
	mu    sync.Mutex // guards everything below
	out   *bufio.Writer
	enc   *json.Encoder
	dirty bool
	timer *time.Timer
	err   error
}

// lineDelay is how long a line may wait for more: too short to notice, long enough to gather hundreds.
const lineDelay = 2 * time.Millisecond

func newLineWriter(w io.Writer) *lineWriter {
	l := &lineWriter{out: bufio.NewWriterSize(w, 64<<10)}
	l.enc = json.NewEncoder(l.out)
	l.enc.SetEscapeHTML(false)
	l.timer = time.AfterFunc(time.Hour, l.flush)
	l.timer.Stop()
	return l
}

func (l *lineWriter) write(v any) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.err == nil {
		l.err = l.enc.Encode(v)
	}
	if !l.dirty {
		l.dirty = true
		l.timer.Reset(lineDelay)
	}
	return l.err
}

func (l *lineWriter) flush() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.dirty = false
	if err := l.out.Flush(); l.err == nil {
		l.err = err
	}
}

// close writes what is left and gives the first error.
func (l *lineWriter) close() error {
	l.timer.Stop()
	l.flush()
	return l.err
}
