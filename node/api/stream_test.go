package api

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"sync/atomic"
	"testing"
)

func writeEvent(w io.Writer, ev Event) {
	b, _ := json.Marshal(ev)
	fmt.Fprintf(w, "id: %d\nevent: %s\ndata: %s\n\n", ev.Cursor, ev.Type, b)
}

// TestEventsResume breaks the connection after each event; the client must ask for what comes
// after the last one it saw, and report each outage once.
func TestEventsResume(t *testing.T) {
	var asked []string // written by one request at a time: the client has one connection
	c := serve(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		since := r.URL.Query().Get("since")
		asked = append(asked, since)
		io.WriteString(w, ": heartbeat\n\n")
		switch since {
		case "":
			writeEvent(w, Event{Type: EventHello, Cursor: 10})
			writeEvent(w, Event{Type: EventTyping}) // live: no cursor
		case "10":
			writeEvent(w, Event{Type: EventMessage, Cursor: 11, Message: &Message{Text: "x"}})
		case "11":
			writeEvent(w, Event{Type: EventReset, Cursor: 50})
		}
	}))
	var got []string
	for ev, err := range c.Events(t.Context(), 0) {
		if err != nil {
			got = append(got, "down")
			continue
		}
		got = append(got, ev.Type)
		if ev.Type == EventReset {
			break
		}
	}
	if want := "[hello typing down message down reset]"; fmt.Sprint(got) != want {
		t.Errorf("events %v, want %s", got, want)
	}
	if want := "[ 10 11]"; fmt.Sprint(asked) != want {
		t.Errorf("cursors asked for %q, want %s", asked, want)
	}
}

func TestEventsReportAnOutageOnce(t *testing.T) {
	socket := shortSocket(t)
	c := NewClient(socket)
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	outages := 0
	for ev, err := range c.Events(ctx, 0) {
		if err != nil {
			wantCode(t, err, CodeNotRunning)
			outages++
			serveAt(t, socket, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				writeEvent(w, Event{Type: EventHello, Cursor: 1})
				http.NewResponseController(w).Flush()
				<-r.Context().Done()
			}))
			continue
		}
		if ev.Type != EventHello {
			t.Errorf("first event is %s, want hello", ev.Type)
		}
		cancel()
	}
	if outages != 1 {
		t.Errorf("the outage was reported %d times", outages)
	}
}

func TestEventsEndAfterRefusal(t *testing.T) {
	var calls atomic.Int32
	c := serve(t, http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		calls.Add(1)
		w.WriteHeader(http.StatusBadRequest)
		json.NewEncoder(w).Encode(Error{Code: CodeBadRequest, Message: "no"})
	}))
	for _, err := range c.Events(t.Context(), 0) {
		wantCode(t, err, CodeBadRequest)
	}
	if calls.Load() != 1 {
		t.Errorf("a refused request was repeated: %d calls", calls.Load())
	}
}
