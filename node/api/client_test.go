package api

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// serve runs h on a unix socket of its own until the test ends.
func serve(t *testing.T, h http.Handler) *Client {
	t.Helper()
	return serveAt(t, shortSocket(t), h)
}

// shortSocket avoids t.TempDir, whose path holds the test's name and may be too long for a socket.
func shortSocket(t *testing.T) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "api")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	return filepath.Join(dir, SocketName)
}

func serveAt(t *testing.T, socket string, h http.Handler) *Client {
	t.Helper()
	ln, err := net.Listen("unix", socket)
	if err != nil {
		t.Fatal(err)
	}
	srv := &http.Server{Handler: h, ReadHeaderTimeout: 5 * time.Second}
	go srv.Serve(ln) // ends with srv.Close
	c := NewClient(socket)
	t.Cleanup(func() { c.Close(); srv.Close() })
	return c
}

func wantCode(t *testing.T, err error, code Code) *Error {
	t.Helper()
	var e *Error
	if !errors.As(err, &e) {
		t.Fatalf("error is %v, want an *Error of code %s", err, code)
	}
	if e.Code != code {
		t.Fatalf("code is %s (%s), want %s", e.Code, e.Message, code)
	}
	return e
}

func TestNotRunning(t *testing.T) {
	socket := shortSocket(t)
	_, err := NewClient(socket).Me(t.Context())
	e := wantCode(t, err, CodeNotRunning)
	if !strings.Contains(e.Hint, "starling run") {
		t.Errorf("hint %q does not say how to start one", e.Hint)
	}
	// A socket that a killed node left behind is no node either.
	ln, err := net.Listen("unix", socket)
	if err != nil {
		t.Fatal(err)
	}
	ln.(*net.UnixListener).SetUnlinkOnClose(false)
	ln.Close()
	_, err = NewClient(socket).Me(t.Context())
	wantCode(t, err, CodeNotRunning)
}

func TestErrorsOfTheNode(t *testing.T) {
	c := serve(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch r.URL.Query().Get("target") {
		case "#typed":
			w.WriteHeader(http.StatusConflict)
			json.NewEncoder(w).Encode(Error{Code: CodeAmbiguous, Message: "two", Candidates: []Candidate{{Nick: "ada"}}})
		case "#plain":
			http.Error(w, "oops", http.StatusBadGateway)
		case "#garbage":
			io.WriteString(w, "{")
		case "#break":
			panic(http.ErrAbortHandler)
		case "#slow":
			<-r.Context().Done()
		}
	}))
	_, err := c.Members(t.Context(), "#typed")
	if e := wantCode(t, err, CodeAmbiguous); len(e.Candidates) != 1 {
		t.Errorf("candidates are %v", e.Candidates)
	}
	_, err = c.Members(t.Context(), "#plain")
	wantCode(t, err, CodeInternal)
	_, err = c.Members(t.Context(), "#garbage")
	if err == nil {
		t.Error("a broken answer was accepted")
	}
	_, err = c.Members(t.Context(), "#break")
	wantCode(t, err, CodeNotRunning)

	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Millisecond)
	defer cancel()
	_, err = c.Members(ctx, "#slow")
	wantCode(t, err, CodeTimeout)

	ctx, cancel = context.WithCancel(t.Context())
	cancel()
	_, err = c.Members(ctx, "#slow")
	if !errors.Is(err, context.Canceled) {
		t.Errorf("error is %v, want context.Canceled", err)
	}
}

func TestInvalidUTF8IsNotReplaced(t *testing.T) {
	c := serve(t, http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { io.WriteString(w, "{}") }))
	_, err := c.Send(t.Context(), SendRequest{Target: "#lobby", Text: "a\xff"})
	wantCode(t, err, CodeBadRequest)
	_, err = c.Members(t.Context(), "#a\xff")
	wantCode(t, err, CodeBadRequest)
}

// TestBatchFlows gives one line only after the line before was answered, which hangs unless
// requests and answers flow at the same time.
func TestBatchFlows(t *testing.T) {
	c := serve(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		rc := http.NewResponseController(w)
		rc.EnableFullDuplex()
		w.WriteHeader(http.StatusOK)
		rc.Flush()
		lines := bufio.NewScanner(r.Body)
		for lines.Scan() {
			var item BatchItem
			json.Unmarshal(lines.Bytes(), &item)
			json.NewEncoder(w).Encode(SendResult{ClientID: item.ClientID, State: StateAccepted})
			rc.Flush()
		}
	}))
	r, w := io.Pipe()
	answered := make(chan string)
	go func() { // ends after three items, or when the pipe breaks
		defer w.Close()
		for _, id := range []string{"a", "b", "c"} {
			fmt.Fprintf(w, `{"client_id":%q,"text":"x"}`+"\n", id)
			if got := <-answered; got != id {
				w.CloseWithError(fmt.Errorf("answer for %q, want %q", got, id))
			}
		}
	}()
	n := 0
	err := c.Batch(t.Context(), "#lobby", r, func(res SendResult) error {
		n++
		answered <- res.ClientID
		return nil
	})
	if err != nil || n != 3 {
		t.Fatalf("%d answers, %v; want 3", n, err)
	}
}

func TestBatchEndsWithItsReader(t *testing.T) {
	c := serve(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		http.NewResponseController(w).EnableFullDuplex()
		for range 100 {
			json.NewEncoder(w).Encode(SendResult{State: StateAccepted})
		}
		io.Copy(io.Discard, r.Body)
	}))
	full := errors.New("full")
	err := c.Batch(t.Context(), "#lobby", strings.NewReader("{}\n"), func(SendResult) error { return full })
	if !errors.Is(err, full) {
		t.Errorf("error is %v, want the reader's own", err)
	}
}

// TestBatchNoticesAnEarlyEnd checks that a part of the answers is not taken for all of them.
func TestBatchNoticesAnEarlyEnd(t *testing.T) {
	for name, end := range map[string]func(w http.ResponseWriter){
		"closed": func(http.ResponseWriter) {},
		"broken": func(http.ResponseWriter) { panic(http.ErrAbortHandler) },
		"cut in a line": func(w http.ResponseWriter) {
			io.WriteString(w, `{"client_id":"b","sta`)
			http.NewResponseController(w).Flush()
			panic(http.ErrAbortHandler)
		},
	} {
		t.Run(name, func(t *testing.T) {
			c := serve(t, http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
				rc := http.NewResponseController(w)
				rc.EnableFullDuplex()
				io.WriteString(w, `{"client_id":"a","state":"accepted"}`+"\n")
				rc.Flush()
				rc.SetReadDeadline(time.Now()) // or net/http waits for the rest of the body
				end(w)
			}))
			r, w := io.Pipe() // never ends by itself
			defer w.Close()
			n := 0
			err := c.Batch(t.Context(), "#lobby", r, func(SendResult) error { n++; return nil })
			wantCode(t, err, CodeNotRunning)
			if n != 1 {
				t.Errorf("%d answers, want 1", n)
			}
		})
	}
}
