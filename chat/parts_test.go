package chat

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/starling-chat/starling/chat/wire"
)

func TestEventLogGivesEveryEventOrSaysReset(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newEventLog(1000, 100, 1<<20)
		fast, slow := l.subscribe(0), l.subscribe(0)
		defer fast.Close()
		defer slow.Close()
		next := func(s *Subscription) Event {
			t.Helper()
			ctx, cancel := context.WithTimeout(t.Context(), time.Second)
			defer cancel()
			e, err := s.Next(ctx)
			if err != nil {
				t.Fatal(err)
			}
			return e
		}
		var last uint64
		for i := range 250 {
			l.publish(Event{Type: EventMessage, Message: &Message{Seq: uint64(i)}})
			e := next(fast)
			if e.Message.Seq != uint64(i) || e.Cursor <= last || e.Cursor <= 1000 {
				t.Fatalf("event %d came as %+v", i, e)
			}
			last = e.Cursor
		}
		if e := next(slow); e.Type != EventReset || e.Cursor != last {
			t.Fatalf("a slow reader got %+v, want a reset", e)
		}
		l.publish(Event{Type: EventContact})
		if e := next(slow); e.Type != EventContact {
			t.Fatalf("after the reset came %+v", e)
		}
		// A cursor that is still in the log resumes behind it; others reset.
		resumed := l.subscribe(last - 10)
		defer resumed.Close()
		for i := range 11 {
			if e := next(resumed); e.Cursor != last-9+uint64(i) {
				t.Fatalf("resumed event %d has cursor %d", i, e.Cursor)
			}
		}
		for _, since := range []uint64{1, 900, last - 150, last + 500} {
			s := l.subscribe(since)
			if e := next(s); e.Type != EventReset {
				t.Errorf("since %d: got %+v, want a reset", since, e)
			}
			s.Close()
		}
		// Waiting ends with the context, and with the log.
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		fresh := l.subscribe(0)
		defer fresh.Close()
		if _, err := fresh.Next(ctx); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("waiting for nothing: %v", err)
		}
		go func() {
			time.Sleep(time.Second)
			l.close()
		}()
		if _, err := fresh.Next(t.Context()); !errors.Is(err, ErrStopped) {
			t.Errorf("after the end: %v", err)
		}
	})
}

func TestEventLogIsBoundedInBytes(t *testing.T) {
	l := newEventLog(0, 1000, 100_000)
	for range 500 {
		l.publish(Event{Type: EventMessage, Message: &Message{Text: strings.Repeat("x", 10_000)}})
	}
	if l.bytes > 100_000 || l.count > 10 || l.count == 0 {
		t.Errorf("%d events of %d bytes are kept", l.count, l.bytes)
	}
}

func TestLiveSignalsAreNotReplayed(t *testing.T) {
	l := newEventLog(0, 10, 1<<20)
	s := l.subscribe(0)
	defer s.Close()
	for i := range 100 {
		l.live(Event{Type: EventTyping, Typing: &Typing{Nick: fmt.Sprint(i)}})
	}
	if len(s.live) > liveQueue {
		t.Errorf("%d live signals wait", len(s.live))
	}
	e, err := s.Next(t.Context())
	if err != nil || e.Type != EventTyping || e.Cursor != 0 {
		t.Errorf("got %+v, %v", e, err)
	}
	late := l.subscribe(l.next - 1)
	defer late.Close()
	if e, wait, err := late.poll(); wait == nil {
		t.Errorf("a later subscriber got %+v, %v", e, err)
	}
}

func TestLimiter(t *testing.T) {
	l := newLimiter(Limits{AuthorRate: 2, AuthorBurst: 10, AuthorBytes: 100_000})
	now := time.Unix(1000, 0)
	ada := wire.AccountID{1}
	take := func(count, size int) (taken int) {
		for range count {
			if l.allow(ada, size, now) {
				taken++
			}
		}
		return taken
	}
	if n := take(20, 100); n != 10 {
		t.Errorf("%d at once, want 10", n)
	}
	if w := l.wait(ada, 100, now); w != 500*time.Millisecond {
		t.Errorf("wait %v, want 500ms", w)
	}
	now = now.Add(3 * time.Second)
	if n := take(20, 100); n != 6 {
		t.Errorf("%d after 3 s, want 6", n)
	}
	now = now.Add(-time.Hour) // a clock that goes back gives and takes nothing
	if n := take(20, 100); n != 0 {
		t.Errorf("%d after the clock went back", n)
	}
	now = now.Add(2 * time.Hour)
	if n := take(20, 40_000); n != 2 {
		t.Errorf("%d events of 40,000 bytes, want 2", n)
	}
	for i := range 3 * maxLimited {
		l.allow(wire.AccountID{2, byte(i), byte(i >> 8)}, 1, now)
	}
	if len(l.authors) > maxLimited {
		t.Errorf("%d authors are followed", len(l.authors))
	}
}

// silentDirect takes frames and may block or fail.
type silentDirect struct {
	Direct
	mu    sync.Mutex // guards sent
	sent  int
	block chan struct{}
	err   error
}

func (d *silentDirect) Send(ctx context.Context, _ wire.DeviceID, _ ...[]byte) error {
	if d.block != nil {
		select {
		case <-d.block:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	d.sent++
	return d.err
}

func TestLinksAreBoundedAndAnswerEveryFrame(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := &silentDirect{block: make(chan struct{})}
		l := newLinks(d)
		if l.send(wire.DeviceID{1}, nil, nil) {
			t.Error("a frame was taken before the start")
		}
		ctx, cancel := context.WithCancel(t.Context())
		l.start(ctx)
		answers, taken := 0, 0
		var mu sync.Mutex
		for range 2 * linkQueue {
			if l.send(wire.DeviceID{1}, []byte("x"), func(error) { mu.Lock(); answers++; mu.Unlock() }) {
				taken++
			}
		}
		if taken < linkQueue || taken > linkQueue+1 {
			t.Errorf("%d frames were taken, want about %d", taken, linkQueue)
		}
		close(d.block)
		synctest.Wait()
		if answers != taken || d.sent != taken {
			t.Errorf("%d of %d frames were answered, %d sent", answers, taken, d.sent)
		}
		// An idle link ends, and a new one begins when needed.
		time.Sleep(2 * linkIdle)
		l.mu.Lock()
		if len(l.open) != 0 {
			t.Errorf("%d links are still open", len(l.open))
		}
		l.mu.Unlock()
		if !l.send(wire.DeviceID{1}, []byte("y"), nil) {
			t.Error("an ended link takes nothing")
		}
		synctest.Wait()
		if d.sent != taken+1 {
			t.Errorf("%d frames were sent, want %d", d.sent, taken+1)
		}
		// When everything stops, what waits is answered.
		d.block = make(chan struct{})
		answers = 0
		for range 10 {
			l.send(wire.DeviceID{2}, []byte("z"), func(err error) {
				if err == nil {
					t.Error("a frame that was not sent is reported as sent")
				}
				mu.Lock()
				answers++
				mu.Unlock()
			})
		}
		cancel()
		l.wait()
		if answers != 10 {
			t.Errorf("%d of 10 were answered at the end", answers)
		}
	})
}

func TestRetryPausesGrowAndVary(t *testing.T) {
	var b byte
	s := &Service{cfg: Config{Rand: readerFunc(func(p []byte) (int, error) {
		for i := range p {
			b += 77
			p[i] = b
		}
		return len(p), nil
	})}}
	seen := make(map[time.Duration]bool)
	for i, base := range []time.Duration{
		2 * time.Second, 5 * time.Second, 15 * time.Second, time.Minute, 5 * time.Minute, 15 * time.Minute,
		30 * time.Minute, time.Hour, time.Hour,
	} {
		for range 10 {
			p := s.retryPause(i + 1)
			if p < base*8/10 || p > base*12/10 {
				t.Errorf("pause %v after %d attempts, want about %v", p, i+1, base)
			}
			seen[p] = true
		}
	}
	if len(seen) < 40 {
		t.Errorf("only %d different pauses: they do not vary", len(seen))
	}
}

type readerFunc func([]byte) (int, error)

func (f readerFunc) Read(p []byte) (int, error) { return f(p) }

// NewestEpoch tells tests of other packages which epoch of a private room counts.
func NewestEpoch(s *Service, t Target) uint32 {
	return s.roomByID(*t.Room).members().newest().Number
}

// NewestKeys tells tests of other packages the keys of a private room's newest epoch.
func NewestKeys(s *Service, t Target) *wire.RoomKeys { return s.roomByID(*t.Room).keys() }
