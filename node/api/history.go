package api

import (
	"context"
	"encoding/json"
	"io"
	"net/http"
	"net/url"
)

// Retention is how much of a room this device keeps; 0 is no bound, and the oldest goes first. With an empty
// Target it is what holds for every room without a setting of its own.
type Retention struct {
	Target   string `json:"target,omitempty"`
	MaxAgeMS int64  `json:"max_age_ms,omitempty"` // at least a day
	MaxCount uint64 `json:"max_count,omitempty"`  // events, at least 100
	MaxBytes uint64 `json:"max_bytes,omitempty"`  // at least 1 MB
	MaxDisk  uint64 `json:"max_disk,omitempty"`   // all rooms together, at least 16 MB; only without Target
	Own      bool   `json:"own,omitempty"`        // the room has a setting of its own
	Reset    bool   `json:"reset,omitempty"`      // in a request: go back to what holds for every room, or to no bounds
}

// Imported says what became of a bundle.
type Imported struct {
	Records int      `json:"records"`         // events in it
	New     int      `json:"new"`             // taken in
	Known   int      `json:"known"`           // here already
	Refused int      `json:"refused"`         // of blocked authors, or older than what is kept
	Foreign int      `json:"foreign"`         // of rooms that are not joined here
	Invalid int      `json:"invalid"`         // that prove nothing
	Rooms   []string `json:"rooms"`           // that got something
	Error   *Error   `json:"error,omitempty"` // why the rest was not taken
}

// Retention tells how much of a room is kept; with an empty target, of every room.
func (c *Client) Retention(ctx context.Context, target string) (Retention, error) {
	query := url.Values{}
	setText(query, "target", target)
	return fetch[Retention](ctx, c, http.MethodGet, "/v1/retention", query, nil)
}

// SetRetention changes it; what is over the bounds is removed before it returns. Idempotent.
func (c *Client) SetRetention(ctx context.Context, req Retention) error {
	return c.call(ctx, http.MethodPut, "/v1/retention", nil, req, nil)
}

// Export writes a room to w as a bundle. After an error what was written is not whole.
func (c *Client) Export(ctx context.Context, target string, w io.Writer) error {
	resp, err := c.request(ctx, http.MethodGet, "/v1/bundle", url.Values{"target": {target}}, nil)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	out := &outcome{w: w}
	if _, err := io.Copy(out, resp.Body); err != nil {
		if out.err != nil {
			return out.err
		}
		return c.failure(ctx, err)
	}
	return nil
}

// outcome remembers that writing failed, which is not the node's failure.
type outcome struct {
	w   io.Writer
	err error
}

func (o *outcome) Write(p []byte) (int, error) {
	n, err := o.w.Write(p)
	if err != nil {
		o.err = err
	}
	return n, err
}

// Import gives the node a bundle. What is good of a damaged one is taken, and Error says what is wrong.
func (c *Client) Import(ctx context.Context, r io.Reader) (Imported, error) {
	var out Imported
	resp, err := c.request(ctx, http.MethodPost, "/v1/bundle", nil, io.NopCloser(r))
	if err != nil {
		return out, err
	}
	defer resp.Body.Close()
	if err := json.NewDecoder(io.LimitReader(resp.Body, maxAnswer)).Decode(&out); err != nil {
		return out, c.failure(ctx, err)
	}
	return out, nil
}
