package api

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"io"
	"net/http"
	"net/url"
	"sync/atomic"
)

// maxResultLine bounds one line of a batch's answer.
const maxResultLine = 64 << 10 // bytes

// Batch streams lines of JSON, one [BatchItem] each, and calls answer with one [SendResult] for
// each line, in order, while later lines are still on their way. A line that is refused has a
// result with state failed and does not end the batch. The batch ends at the end of in, when
// answer fails, or when ctx ends; an item without a result may or may not have been accepted, and
// repeating it with its client_id is harmless.
func (c *Client) Batch(ctx context.Context, target string, in io.Reader, answer func(SendResult) error) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	query := url.Values{"target": {target}}
	body := &watched{r: in}
	// The transport sends the body from a goroutine of its own, which ends when it has seen the end
	// of in, or, after cancel, with the read that is under way.
	resp, err := c.request(ctx, http.MethodPost, "/v1/batch", query, io.NopCloser(body))
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	lines := bufio.NewScanner(resp.Body)
	lines.Buffer(make([]byte, 0, 4<<10), maxResultLine)
	for lines.Scan() {
		line := bytes.TrimSpace(lines.Bytes())
		if len(line) == 0 {
			continue
		}
		var result SendResult
		if err := json.Unmarshal(line, &result); err != nil {
			if !lines.Scan() { // the last line, cut in the middle
				err = io.ErrUnexpectedEOF
			}
			return c.failure(ctx, err)
		}
		if err := answer(result); err != nil {
			return err
		}
	}
	if err := lines.Err(); err != nil {
		return c.failure(ctx, err)
	}
	if !body.ended.Load() {
		return c.failure(ctx, io.ErrUnexpectedEOF) // the node closed the batch before its end
	}
	return nil
}

// watched notes that its reader came to the end.
type watched struct {
	r     io.Reader
	ended atomic.Bool
}

func (w *watched) Read(p []byte) (int, error) {
	n, err := w.r.Read(p)
	if err == io.EOF {
		w.ended.Store(true)
	}
	return n, err
}
