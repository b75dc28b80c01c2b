package api

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"strings"
	"syscall"
	"time"
	"unicode/utf8"
)

const (
	// DefaultTimeout bounds a call whose context has no deadline. Everything but a batch, an event
	// stream and a store check answers far sooner; a node that does not is stuck.
	DefaultTimeout = 30 * time.Second
	// DefaultWait is how long [Client.Send] waits for a state beyond accepted when the
	// request does not say.
	DefaultWait = 30 * time.Second
	// maxAnswer bounds what a client reads of one answer: 1,000 messages with every limit
	// used up, escaped, stay under it.
	maxAnswer = 256 << 20 // bytes
)

// Client speaks to one node over its unix socket. It is safe for concurrent use and holds no
// state besides idle connections. Every method fails with an *[Error], except that a cancelled
// context gives context.Canceled.
type Client struct {
	socket string
	http   *http.Client
}

// NewClient returns a client of the node that serves the unix socket at path; see [FindSocket].
// It does not connect: a node that is not there shows as [CodeNotRunning] on the first call.
func NewClient(socket string) *Client {
	dialer := &net.Dialer{}
	return &Client{socket: socket, http: &http.Client{Transport: &http.Transport{
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			return dialer.DialContext(ctx, "unix", socket)
		},
		MaxIdleConnsPerHost: 8,
		IdleConnTimeout:     time.Minute,
		DisableCompression:  true,
	}}}
}

// Close drops idle connections. Calls under way go on.
func (c *Client) Close() { c.http.CloseIdleConnections() }

// Socket is the path given to [NewClient].
func (c *Client) Socket() string { return c.socket }

// call sends in as JSON (nothing when nil) and reads the answer into out (nothing when nil).
func (c *Client) call(ctx context.Context, method, path string, query url.Values, in, out any) error {
	if _, ok := ctx.Deadline(); !ok {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, DefaultTimeout)
		defer cancel()
	}
	var body io.Reader
	if in != nil {
		b, err := encode(in)
		if err != nil {
			return err
		}
		body = bytes.NewReader(b)
	}
	resp, err := c.request(ctx, method, path, query, body)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	if out == nil {
		_, err = io.Copy(io.Discard, io.LimitReader(resp.Body, maxAnswer))
	} else {
		err = json.NewDecoder(io.LimitReader(resp.Body, maxAnswer)).Decode(out)
	}
	if err != nil {
		return c.failure(ctx, err)
	}
	return nil
}

// request answers only with status 2xx; anything else is the error that the node sent.
func (c *Client) request(ctx context.Context, method, path string, query url.Values, body io.Reader) (*http.Response, error) {
	target := "http://starling" + path
	if len(query) > 0 {
		target += "?" + query.Encode()
	}
	if !validQuery(query) {
		return nil, errUTF8()
	}
	req, err := http.NewRequestWithContext(ctx, method, target, body)
	if err != nil {
		return nil, &Error{Code: CodeInternal, Message: fmt.Sprintf("building the request: %v", err)}
	}
	if body != nil {
		req.Header.Set("Content-Type", "application/json")
	}
	resp, err := c.http.Do(req)
	if err != nil {
		return nil, c.failure(ctx, err)
	}
	if resp.StatusCode/100 == 2 {
		return resp, nil
	}
	defer resp.Body.Close()
	return nil, decodeError(resp)
}

func decodeError(resp *http.Response) error {
	b, err := io.ReadAll(io.LimitReader(resp.Body, 1<<20))
	var e Error
	if err == nil && json.Unmarshal(b, &e) == nil && e.Code != "" && e.Message != "" {
		return &e
	}
	return &Error{
		Code:    CodeInternal,
		Message: fmt.Sprintf("the node answered %q without saying why", resp.Status),
		Hint:    "the node may be another version; compare `starling version` with `starling status`",
	}
}

// encode refuses what encoding/json would silently replace by U+FFFD.
func encode(in any) ([]byte, error) {
	if s := texts(in); !utf8.ValidString(s) {
		return nil, errUTF8()
	}
	var buf bytes.Buffer
	enc := json.NewEncoder(&buf)
	enc.SetEscapeHTML(false)
	if err := enc.Encode(in); err != nil {
		return nil, &Error{Code: CodeInternal, Message: fmt.Sprintf("encoding the request: %v", err)}
	}
	return buf.Bytes(), nil
}

// texts joins every string of a request; %q of a struct would hide invalid bytes, %v does not.
func texts(in any) string { return fmt.Sprintf("%+v", in) }

func validQuery(q url.Values) bool {
	for k, vs := range q {
		if !utf8.ValidString(k + strings.Join(vs, "")) {
			return false
		}
	}
	return true
}

func errUTF8() error {
	return &Error{
		Code:    CodeBadRequest,
		Message: "the text is not valid UTF-8",
		Hint:    "convert it first, for example with `iconv -t UTF-8`",
	}
}

// failure turns what the transport said into what a person can act on.
func (c *Client) failure(ctx context.Context, err error) error {
	switch {
	case errors.Is(ctx.Err(), context.Canceled):
		return fmt.Errorf("asking the node: %w", context.Canceled)
	case errors.Is(err, context.DeadlineExceeded), errors.Is(ctx.Err(), context.DeadlineExceeded):
		return &Error{Code: CodeTimeout, Message: "the node did not answer in time", Hint: "try again with a longer --timeout, or see `starling status`"}
	case errors.Is(err, syscall.ENOENT), errors.Is(err, syscall.ECONNREFUSED):
		return errNotRunning()
	case errors.Is(err, syscall.EACCES), errors.Is(err, syscall.EPERM):
		return &Error{
			Code:    CodeDenied,
			Message: fmt.Sprintf("the node's socket %s belongs to somebody else", c.socket),
			Hint:    "run as the user who runs the node, or give your own --home",
		}
	}
	var e *Error
	if errors.As(err, &e) {
		return e
	}
	var syntax *json.SyntaxError
	var kind *json.UnmarshalTypeError
	if errors.As(err, &syntax) || errors.As(err, &kind) {
		return &Error{Code: CodeInternal, Message: fmt.Sprintf("the node's answer is not understood: %v", err), Hint: "the node may be another version; restart it"}
	}
	return &Error{
		Code:    CodeNotRunning,
		Message: "the node stopped before it answered",
		Hint:    "start it again with `starling run` and look into `starling history`, or repeat with the same --client-id",
	}
}

func errNotRunning() *Error {
	return &Error{Code: CodeNotRunning, Message: "no node is running", Hint: "start one with `starling run`"}
}
