package apiserver

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/starling-chat/starling/chat"
	"github.com/starling-chat/starling/node/api"
)

// fakeNode stands for a node without a network.
type fakeNode struct {
	peers   []api.Peer
	ping    func(peer string) (api.PingResult, error)
	looks   atomic.Int32 // calls of Status; from the second on there is a problem
	stopped chan struct{}
}

func (n *fakeNode) Status(context.Context) (api.Status, error) {
	st := api.Status{Version: "v0", Ready: true}
	if n.looks.Add(1) > 1 {
		st.Problems = []string{"the disk is full"}
	}
	return st, nil
}
func (n *fakeNode) Peers(context.Context) ([]api.Peer, error) { return n.peers, nil }
func (n *fakeNode) Doctor(context.Context) (api.Doctor, error) {
	return api.Doctor{OK: true}, nil
}

func (n *fakeNode) Ping(_ context.Context, peer string) (api.PingResult, error) {
	if n.ping == nil {
		return api.PingResult{}, chat.ErrUnreachable
	}
	return n.ping(peer)
}
func (n *fakeNode) Stop()                       { close(n.stopped) }
func (n *fakeNode) Purge(context.Context) error { return nil }

func (n *fakeNode) Backup(context.Context, bool) (api.Backup, error) { return api.Backup{}, nil }

func (n *fakeNode) Check(context.Context) (api.CheckReport, error) {
	return api.CheckReport{OK: true, Checked: 3}, nil
}

// serveRelay runs a server without a chat service and gives a client of it.
func serveRelay(t *testing.T, limits Limits) (*api.Client, *fakeNode) {
	t.Helper()
	node := &fakeNode{stopped: make(chan struct{})}
	return serve(t, Config{Node: node, Maintenance: node, Version: "v0", Limits: limits}), node
}

func serve(t *testing.T, cfg Config) *api.Client {
	t.Helper()
	srv, err := New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	ln, err := Listen(runtimeDir(t))
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- srv.Run(ctx, ln) }()
	client := api.NewClient(ln.Path())
	t.Cleanup(func() {
		client.Close()
		cancel()
		if err := <-done; err != nil {
			t.Errorf("Run ended with %v", err)
		}
	})
	return client
}

func wantCode(t *testing.T, err error, code api.Code) *api.Error {
	t.Helper()
	var e *api.Error
	if !errors.As(err, &e) || e.Code != code {
		t.Fatalf("error is %v, want code %s", err, code)
	}
	return e
}

func TestRelayAnswersWithoutChat(t *testing.T) {
	c, node := serveRelay(t, Limits{})
	ctx := t.Context()
	st, err := c.Status(ctx)
	if err != nil || !st.Ready || st.Schema != api.Schema {
		t.Errorf("status %+v, %v", st, err)
	}
	if peers, err := c.Peers(ctx); err != nil || peers == nil || len(peers) != 0 {
		t.Errorf("peers %v, %v; want an empty list", peers, err)
	}
	if rep, err := c.Doctor(ctx); err != nil || !rep.OK || rep.Checks == nil {
		t.Errorf("doctor %v, %v", rep, err)
	}
	if rep, err := c.Check(ctx); err != nil || rep.Checked != 3 {
		t.Errorf("check %v, %v", rep, err)
	}
	_, err = c.Ping(ctx, "12D3KooWx")
	wantCode(t, err, api.CodeUnreachable)

	_, err = c.Conversations(ctx)
	wantCode(t, err, api.CodeConflict)
	_, err = c.Send(ctx, api.SendRequest{Target: "#lobby", Text: "x"})
	wantCode(t, err, api.CodeConflict)
	err = c.Batch(ctx, "#lobby", strings.NewReader("{}\n"), func(api.SendResult) error { return nil })
	wantCode(t, err, api.CodeConflict)

	if err := c.Stop(ctx); err != nil {
		t.Error(err)
	}
	<-node.stopped
}

func TestEventsTellChangedStatus(t *testing.T) {
	c, _ := serveRelay(t, Limits{StatusPeriod: 5 * time.Millisecond})
	var got []string
	for ev, err := range c.Events(t.Context(), 0) {
		if err != nil {
			t.Fatal(err)
		}
		got = append(got, ev.Type)
		if ev.Type == api.EventStatus {
			if len(ev.Status.Problems) != 1 {
				t.Errorf("status %+v", ev.Status)
			}
			break
		}
	}
	if want := []string{api.EventHello, api.EventStatus}; !slices.Equal(got, want) {
		t.Errorf("events %v, want %v", got, want)
	}
}

func TestStreamsAreBounded(t *testing.T) {
	c, _ := serveRelay(t, Limits{Streams: 1})
	for ev, err := range c.Events(t.Context(), 0) {
		if err != nil || ev.Type != api.EventHello {
			t.Fatalf("first stream: %v, %v", ev, err)
		}
		for _, err := range c.Events(t.Context(), 0) {
			wantCode(t, err, api.CodeConflict)
		}
		break
	}
}

// request speaks to the handler without a client, to send what a client would not.
func request(t *testing.T, h http.Handler, method, target, body string) (int, api.Error) {
	t.Helper()
	req := httptest.NewRequest(method, target, strings.NewReader(body))
	w := httptest.NewRecorder()
	h.ServeHTTP(w, req)
	var e api.Error
	if w.Code/100 != 2 {
		if err := json.Unmarshal(w.Body.Bytes(), &e); err != nil {
			t.Fatalf("%s %s: body %q is no error: %v", method, target, w.Body, err)
		}
		if e.Message == "" || e.Code == "" {
			t.Errorf("%s %s: error without words: %q", method, target, w.Body)
		}
	}
	return w.Code, e
}

func TestMalformedRequests(t *testing.T) {
	node := &fakeNode{}
	srv, err := New(Config{Node: node, Maintenance: node})
	if err != nil {
		t.Fatal(err)
	}
	tests := []struct {
		name, method, target, body string
		status                     int
		code                       api.Code
	}{
		{"unknown path", "GET", "/v1/nope", "", 404, api.CodeNotFound},
		{"root", "GET", "/", "", 404, api.CodeNotFound},
		{"no docs page", "GET", "/docs", "", 404, api.CodeNotFound},
		{"unknown method", "PATCH", "/v1/me", "", 404, api.CodeNotFound},
		{"no body", "PUT", "/v1/me/nick", "", 400, api.CodeBadRequest},
		{"no json", "PUT", "/v1/me/nick", "nick", 400, api.CodeBadRequest},
		{"missing field", "PUT", "/v1/me/nick", `{}`, 400, api.CodeBadRequest},
		{"unknown field", "PUT", "/v1/me/nick", `{"nick":"a","x":1}`, 400, api.CodeBadRequest},
		{"wrong type", "PUT", "/v1/me/nick", `{"nick":1}`, 400, api.CodeBadRequest},
		{"invalid utf-8", "PUT", "/v1/me/nick", "{\"nick\":\"a\xff\"}", 400, api.CodeBadRequest},
		{"over the limit", "PUT", "/v1/me/nick", `{"nick":"` + strings.Repeat("a", 1<<20) + `"}`, 413, api.CodeTooLarge},
		{"missing parameter", "GET", "/v1/members", "", 400, api.CodeBadRequest},
		{"unknown parameter", "GET", "/v1/members?target=a&x=1", "", 400, api.CodeBadRequest},
		{"count over the limit", "GET", "/v1/messages?target=a&n=1001", "", 400, api.CodeBadRequest},
		{"count is no number", "GET", "/v1/messages?target=a&n=many", "", 400, api.CodeBadRequest},
		{"bad time", "GET", "/v1/messages?target=a&since=yesterday", "", 400, api.CodeBadRequest},
		{"bad cursor", "GET", "/v1/events?since=x", "", 400, api.CodeBadRequest},
		{"bad wait", "POST", "/v1/messages", `{"target":"a","text":"x","wait":"seen"}`, 400, api.CodeBadRequest},
		{"negative wait", "POST", "/v1/messages", `{"target":"a","text":"x","timeout_ms":-1}`, 400, api.CodeBadRequest},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			status, e := request(t, srv, tt.method, tt.target, tt.body)
			if status != tt.status || e.Code != tt.code {
				t.Errorf("answer %d %s (%s), want %d %s", status, e.Code, e.Message, tt.status, tt.code)
			}
		})
	}
}

// TestOpenAPI checks that every operation of the contract is described, with the shapes by name.
func TestOpenAPI(t *testing.T) {
	node := &fakeNode{}
	srv, err := New(Config{Node: node, Maintenance: node, Version: "v0"})
	if err != nil {
		t.Fatal(err)
	}
	w := httptest.NewRecorder()
	srv.ServeHTTP(w, httptest.NewRequest("GET", "/v1/openapi.json", nil))
	var doc struct {
		OpenAPI    string
		Paths      map[string]map[string]any
		Components struct{ Schemas map[string]any }
	}
	if err := json.Unmarshal(w.Body.Bytes(), &doc); err != nil {
		t.Fatalf("%d %q: %v", w.Code, w.Body, err)
	}
	if !strings.HasPrefix(doc.OpenAPI, "3.1") {
		t.Errorf("version %q", doc.OpenAPI)
	}
	var got []string
	for path, ops := range doc.Paths {
		for method := range ops {
			got = append(got, strings.ToUpper(method)+" "+path)
		}
	}
	slices.Sort(got)
	want := []string{
		"DELETE /v1/devices", "DELETE /v1/invites", "DELETE /v1/rooms",
		"GET /v1/bundle", "GET /v1/contacts", "GET /v1/conversations", "GET /v1/devices", "GET /v1/digest", "GET /v1/doctor", "GET /v1/events",
		"GET /v1/invites", "GET /v1/me", "GET /v1/members", "GET /v1/messages", "GET /v1/messages/{id}",
		"GET /v1/outbox", "GET /v1/peers", "GET /v1/retention", "GET /v1/search", "GET /v1/settings", "GET /v1/status", "GET /v1/verification",
		"POST /v1/backup", "POST /v1/batch", "POST /v1/bundle", "POST /v1/check", "POST /v1/contacts", "POST /v1/invites", "POST /v1/messages",
		"POST /v1/ping", "POST /v1/private-rooms", "POST /v1/purge", "POST /v1/rooms", "POST /v1/stop", "POST /v1/typing",
		"PUT /v1/contacts", "PUT /v1/me/nick", "PUT /v1/members", "PUT /v1/mute", "PUT /v1/outbox", "PUT /v1/policy", "PUT /v1/read", "PUT /v1/retention", "PUT /v1/settings",
		"PUT /v1/topic", "PUT /v1/verification",
	}
	if !slices.Equal(got, want) {
		t.Errorf("operations\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
	for _, name := range []string{"Message", "Conversation", "Event", "Error", "SendResult", "BatchItem"} {
		if doc.Components.Schemas[name] == nil {
			t.Errorf("shape %s is not described", name)
		}
	}
	if strings.Contains(w.Body.String(), "$schema") {
		t.Error("the document speaks of $schema links")
	}
}

func TestErrorWords(t *testing.T) {
	tests := []struct {
		err  error
		code api.Code
	}{
		{chat.ErrNotFound, api.CodeNotFound},
		{chat.ErrNotJoined, api.CodeNotFound},
		{chat.ErrBadRequest, api.CodeBadRequest},
		{chat.ErrBadName, api.CodeBadRequest},
		{chat.ErrInvalidUTF8, api.CodeBadRequest},
		{chat.ErrEmpty, api.CodeBadRequest},
		{chat.ErrTooLarge, api.CodeTooLarge},
		{chat.ErrBlocked, api.CodeDenied},
		{chat.ErrDenied, api.CodeDenied},
		{chat.ErrKeyChanged, api.CodeDenied},
		{chat.ErrConflict, api.CodeConflict},
		{chat.ErrTooMany, api.CodeConflict},
		{chat.ErrReadOnly, api.CodeReadOnly},
		{chat.ErrUnreachable, api.CodeUnreachable},
		{chat.ErrStopped, api.CodeConflict},
		{context.DeadlineExceeded, api.CodeTimeout},
		{&chat.AmbiguousError{Name: "ada", Candidates: make([]chat.Candidate, 2)}, api.CodeAmbiguous},
		{&api.Error{Code: api.CodeDenied, Message: "no"}, api.CodeDenied},
		{io.ErrUnexpectedEOF, api.CodeInternal},
	}
	for _, tt := range tests {
		e, known := wordsFor(fmt.Errorf("doing something: %w", tt.err))
		if e.Code != tt.code || known == (tt.code == api.CodeInternal) {
			t.Errorf("%v: code %s, known %v; want %s", tt.err, e.Code, known, tt.code)
		}
		if strings.Contains(e.Message, "unexpected EOF") {
			t.Error("a defect's inside reached the front-end")
		}
		if status(e.Code) < 400 {
			t.Errorf("%v: status %d", tt.err, status(e.Code))
		}
	}
	e, _ := wordsFor(&chat.AmbiguousError{Candidates: make([]chat.Candidate, 2)})
	if len(e.Candidates) != 2 || e.Hint == "" {
		t.Errorf("ambiguous name: %+v", e)
	}
}

func TestSlowRequests(t *testing.T) {
	node := &fakeNode{}
	srv, err := New(Config{Node: node, Maintenance: node, Limits: Limits{Header: 50 * time.Millisecond, Read: 50 * time.Millisecond}})
	if err != nil {
		t.Fatal(err)
	}
	ln, err := Listen(runtimeDir(t))
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	go srv.Run(ctx, ln)
	for name, partial := range map[string]string{
		"header": "GET /v1/me HTTP/1.1\r\nHost: ",
		"body":   "PUT /v1/me/nick HTTP/1.1\r\nHost: a\r\nContent-Length: 100\r\n\r\n{",
	} {
		conn, err := net.Dial("unix", ln.Path())
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
		io.WriteString(conn, partial)
		conn.SetReadDeadline(time.Now().Add(10 * time.Second))
		if _, err := io.ReadAll(conn); err != nil {
			t.Errorf("a slow %s is waited for: %v", name, err)
		}
	}
}

func TestDiskProblems(t *testing.T) {
	for state, want := range map[string]string{
		api.StorageOK: "", api.StorageNoHistory: "nearly full (7 MiB", api.StorageReadOnly: "is full (7 MiB", api.StorageFailed: "starling check",
	} {
		got := strings.Join(diskProblems(api.Storage{State: state, FreeBytes: 7 << 20}), "; ")
		if (got == "") != (want == "") || !strings.Contains(got, want) {
			t.Errorf("%s says %q, want %q", state, got, want)
		}
	}
}
