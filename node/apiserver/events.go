package apiserver

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"math"
	"net/http"
	"strconv"
	"time"

	"github.com/starling-chat/starling/chat"
	"github.com/starling-chat/starling/node/api"
)

// eventsAhead is how many events may wait between the subscription, which is bounded by itself and
// ends in a reset, and the connection.
const eventsAhead = 64

// serveEvents streams what changes. Nothing is dropped silently: a reader that falls behind the
// service's event log gets a reset, one that does not read at all is cut off and gets the same when
// it comes back.
func (s *Server) serveEvents(w http.ResponseWriter, r *http.Request) {
	since, err := cursor(r)
	if err != nil {
		writeError(w, s.explain("events", err))
		return
	}
	leave, ok := s.enter(w)
	if !ok {
		return
	}
	defer leave()
	ctx, cancel := s.untilClosing(r.Context())
	defer cancel()
	w.Header().Set("Content-Type", typeEvents)
	w.Header().Set("Cache-Control", "no-store")
	w.WriteHeader(http.StatusOK)

	out := sseWriter{w: w, rc: http.NewResponseController(w), patience: s.cfg.Limits.Write}
	changes := make(chan api.Event, eventsAhead)
	if s.cfg.Chat != nil {
		sub, begin, err := subscribe(ctx, s.cfg.Chat, since)
		if err != nil {
			return // ctx ended, or the service stopped
		}
		since = begin
		done := make(chan struct{})
		// The pump ends with ctx or with the service; it is waited for before the subscription closes.
		go func() {
			defer close(done)
			defer cancel()
			pump(ctx, sub, changes)
		}()
		defer func() { cancel(); <-done; sub.Close() }()
	}
	if out.event(api.Event{Type: api.EventHello, Cursor: since}) != nil || out.flush() != nil {
		return
	}
	s.writeEvents(ctx, &out, changes)
}

// cursor reads where the stream is to begin; 0 is now.
func cursor(r *http.Request) (uint64, error) {
	text := r.URL.Query().Get("since")
	if text == "" {
		text = r.Header.Get("Last-Event-ID")
	}
	if text == "" {
		return 0, nil
	}
	since, err := strconv.ParseUint(text, 10, 64)
	if err != nil {
		return 0, &api.Error{Code: api.CodeBadRequest, Message: "the cursor " + api.Escape(text) + " is not a number", Hint: "give the id of an event, or none"}
	}
	return since, nil
}

// subscribe begins after since, or now, and says which cursor that is. A stream that begins now
// must know its cursor before anything happens: otherwise a connection that broke on a quiet
// node would resume from a later "now" and miss what was between. A cursor that the service never
// gave out makes it answer with a reset that carries the present one.
func subscribe(ctx context.Context, svc *chat.Service, since uint64) (*chat.Subscription, uint64, error) {
	if since != 0 {
		return svc.Events(since), since, nil
	}
	sub := svc.Events(math.MaxUint64 - 1)
	for {
		ev, err := sub.Next(ctx)
		if err != nil {
			sub.Close()
			return nil, 0, err
		}
		if ev.Type == chat.EventReset {
			return sub, ev.Cursor, nil
		}
		// A live signal that came first; it is of no use to somebody who just connects.
	}
}

func pump(ctx context.Context, sub *chat.Subscription, changes chan<- api.Event) {
	for {
		ev, err := sub.Next(ctx)
		if err != nil {
			return
		}
		select {
		case changes <- event(ev):
		case <-ctx.Done():
			return
		}
	}
}

// writeEvents writes changes, heartbeats and changed statuses until ctx or the connection ends.
func (s *Server) writeEvents(ctx context.Context, out *sseWriter, changes <-chan api.Event) {
	heartbeat := time.NewTicker(api.Heartbeat)
	defer heartbeat.Stop()
	look := time.NewTicker(s.cfg.Limits.StatusPeriod)
	defer look.Stop()
	var last []byte
	for {
		var err error
		select {
		case <-ctx.Done():
			return
		case ev := <-changes:
			err = out.event(ev)
		case <-heartbeat.C:
			err = out.comment("heartbeat")
		case <-look.C:
			last, err = s.tellStatus(ctx, out, last)
		}
		if err == nil && len(changes) == 0 {
			err = out.flush()
		}
		if err != nil {
			return
		}
	}
}

// tellStatus writes a status event when something worth redrawing differs from last.
func (s *Server) tellStatus(ctx context.Context, out *sseWriter, last []byte) ([]byte, error) {
	st, err := s.status(ctx)
	if err != nil {
		return last, nil // the stream goes on; a call for the status tells the reason
	}
	now := worthRedrawing(st)
	if bytes.Equal(now, last) {
		return last, nil
	}
	if last == nil {
		return now, nil // a front-end loads the status itself when it starts
	}
	return now, out.event(api.Event{Type: api.EventStatus, Status: &st})
}

// worthRedrawing drops what changes all the time.
func worthRedrawing(st api.Status) []byte {
	st.MemoryBytes, st.BytesIn, st.BytesOut = 0, 0, 0
	st.Gossip = api.Gossip{}
	st.Storage = api.Storage{State: st.Storage.State}
	st.ClockSkewMS /= 1000
	b, err := json.Marshal(st)
	if err != nil {
		return nil
	}
	return b
}

// sseWriter writes server-sent events; flush sends what was written since the last one.
type sseWriter struct {
	w        http.ResponseWriter
	rc       *http.ResponseController
	patience time.Duration
	buf      bytes.Buffer
}

func (o *sseWriter) event(ev api.Event) error {
	data, err := json.Marshal(ev)
	if err != nil {
		return fmt.Errorf("encoding an event: %w", err)
	}
	if ev.Cursor != 0 {
		fmt.Fprintf(&o.buf, "id: %d\n", ev.Cursor)
	}
	fmt.Fprintf(&o.buf, "event: %s\ndata: %s\n\n", ev.Type, data)
	return o.spill()
}

func (o *sseWriter) comment(text string) error {
	fmt.Fprintf(&o.buf, ": %s\n\n", text)
	return o.spill()
}

// spill keeps the buffer small during a burst.
func (o *sseWriter) spill() error {
	if o.buf.Len() < 64<<10 {
		return nil
	}
	return o.flush()
}

func (o *sseWriter) flush() error {
	if o.buf.Len() == 0 {
		return nil
	}
	_ = o.rc.SetWriteDeadline(time.Now().Add(o.patience)) // fails only without a connection, as in tests
	_, err := o.w.Write(o.buf.Bytes())
	o.buf.Reset()
	if err != nil {
		return err
	}
	return o.rc.Flush()
}
