package api

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"net/url"
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
	// The transport sends the body from a goroutine of its own, which ends when it has seen the end
	// of in, or, after cancel, with the read that is under way.
	resp, err := c.request(ctx, http.MethodPost, "/v1/batch", query, io.NopCloser(in))
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	lines := bufio.NewScanner(resp.Body)
	lines.Buffer(make([]byte, 0, 4<<10), maxResultLine)
	for lines.Scan() {
		if len(bytes.TrimSpace(lines.Bytes())) == 0 {
			continue
		}
		var result SendResult
		if err := json.Unmarshal(lines.Bytes(), &result); err != nil {
			return c.failure(ctx, err)
		}
		if err := answer(result); err != nil {
			return err
		}
	}
	if err := lines.Err(); err != nil && !errors.Is(err, io.EOF) {
		return c.failure(ctx, err)
	}
	return nil
}
