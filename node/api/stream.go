package api

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"iter"
	"net/http"
	"net/url"
	"strconv"
	"time"
)

const (
	// Heartbeat is how often a node writes on a quiet event stream.
	Heartbeat = 15 * time.Second
	// eventSilence is after how long without a byte a stream counts as dead: three heartbeats.
	eventSilence = 3 * Heartbeat
	// maxEvent bounds one event: a message with every limit used up and escaped, and reactions.
	maxEvent = 8 << 20 // bytes

	firstRetry = 100 * time.Millisecond
	lastRetry  = 5 * time.Second
)

// Events yields what happens from cursor since on; 0 means from now. It reconnects by itself and
// asks for what it missed, so a consumer that handles [EventReset] by loading everything
// again loses nothing.
//
// Each connection begins with an [EventHello]: the subscription stands, and whatever is loaded
// after it is not older than the stream. While no connection stands the iterator yields the reason
// once, with a zero Event, and goes on trying: a consumer that does not want to wait breaks off.
// It ends when ctx ends, or after an error that a repeat would not cure.
func (c *Client) Events(ctx context.Context, since uint64) iter.Seq2[Event, error] {
	return func(yield func(Event, error) bool) {
		s := stream{client: c, cursor: since, yield: yield}
		retry := firstRetry
		for ctx.Err() == nil {
			s.heard = false
			err := s.connect(ctx)
			if s.stopped || ctx.Err() != nil {
				return
			}
			if s.heard {
				retry = firstRetry
			}
			if !s.report(err) {
				return
			}
			select {
			case <-ctx.Done():
			case <-time.After(retry):
			}
			retry = min(2*retry, lastRetry)
		}
	}
}

// stream is the state of one Events iteration.
type stream struct {
	client  *Client
	cursor  uint64
	yield   func(Event, error) bool
	stopped bool // the consumer broke off
	heard   bool // the present connection brought an event
	down    bool // the present outage was reported
}

// report yields why there is no connection, once for each outage; false ends the iteration.
func (s *stream) report(err error) bool {
	var e *Error
	if errors.As(err, &e) && e.Code != CodeNotRunning && e.Code != CodeTimeout && e.Code != CodeInternal {
		s.yield(Event{}, e)
		return false
	}
	if s.down {
		return true
	}
	s.down = true
	return s.yield(Event{}, err)
}

// connect reads one connection until it breaks or the consumer breaks off.
func (s *stream) connect(ctx context.Context) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	query := url.Values{}
	if s.cursor != 0 {
		query.Set("since", strconv.FormatUint(s.cursor, 10))
	}
	resp, err := s.client.request(ctx, http.MethodGet, "/v1/events", query, nil)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	// A stream that falls silent is cut: the node may hang, or the machine may have slept.
	silence := time.AfterFunc(eventSilence, cancel)
	defer silence.Stop()
	lines := bufio.NewScanner(&alarmed{r: resp.Body, alarm: silence})
	lines.Buffer(make([]byte, 0, 16<<10), maxEvent)
	for lines.Scan() {
		data, ok := bytes.CutPrefix(lines.Bytes(), []byte("data:"))
		if !ok {
			continue // a comment, an id (which the event repeats), or the end of an event
		}
		var ev Event
		if err := json.Unmarshal(bytes.TrimSpace(data), &ev); err != nil {
			return s.client.failure(ctx, err)
		}
		if ev.Cursor != 0 {
			s.cursor = ev.Cursor
		}
		s.heard, s.down = true, false
		if !s.yield(ev, nil) {
			s.stopped = true
			return nil
		}
	}
	return &Error{Code: CodeNotRunning, Message: fmt.Sprintf("the event stream broke: %v", orEnd(lines.Err())), Hint: "waiting for the node to come back"}
}

func orEnd(err error) error {
	if err == nil {
		return io.EOF
	}
	return err
}

// alarmed puts off an alarm with every read that brings something.
type alarmed struct {
	r     io.Reader
	alarm *time.Timer
}

func (a *alarmed) Read(p []byte) (int, error) {
	n, err := a.r.Read(p)
	if n > 0 {
		a.alarm.Reset(eventSilence)
	}
	return n, err
}
