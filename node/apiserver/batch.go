package apiserver

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"time"
	"unicode/utf8"

	"github.com/starling-chat/starling/chat"
	"github.com/starling-chat/starling/node/api"
)

// pending is one line of a batch on its way to its answer.
type pending struct {
	clientID string
	waiting  *chat.Submission // nil when the line was refused
	err      error
}

// serveBatch reads lines and answers them at the same time: a reader submits up to BatchAhead
// messages, in order, and this goroutine waits for each and writes its answer.
func (s *Server) serveBatch(w http.ResponseWriter, r *http.Request) {
	leave, ok := s.enter(w)
	if !ok {
		return
	}
	defer leave()
	query := r.URL.Query()
	svc, target, err := s.resolved(query.Get("target"))
	if err != nil {
		writeError(w, s.explain("batch", err))
		return
	}
	// reading ends before the answers do: when the server stops, what was submitted is still
	// answered, and the rest is not read.
	reading, stopReading := s.untilClosing(r.Context())
	defer stopReading()
	rc := http.NewResponseController(w)
	if err := rc.EnableFullDuplex(); err != nil {
		writeError(w, s.explain("batch", fmt.Errorf("reading and writing at once: %w", err)))
		return
	}
	w.Header().Set("Content-Type", typeNDJSON)
	w.WriteHeader(http.StatusOK)
	_ = rc.Flush() // so that the client sees that its target exists; a broken connection shows below

	queue := make(chan pending, s.cfg.Limits.BatchAhead)
	// This goroutine ends with the body, or when reading ends and cuts the body short; answer below
	// goes on until it has.
	go func() {
		defer close(queue)
		s.submitLines(reading, svc, target, r.Body, queue)
	}()
	unblock := context.AfterFunc(reading, func() { _ = rc.SetReadDeadline(time.Now()) })
	defer unblock()
	complete := s.answer(r.Context(), w, rc, queue, stopReading)
	if !complete || reading.Err() != nil {
		panic(http.ErrAbortHandler) // so that the client does not take a part for the whole
	}
}

// answer writes the result of each message in order and says whether every one could be written. It
// returns when queue is closed.
func (s *Server) answer(ctx context.Context, w io.Writer, rc *http.ResponseController, queue <-chan pending, giveUp func()) bool {
	out := bufio.NewWriterSize(w, 16<<10)
	enc := json.NewEncoder(out)
	enc.SetEscapeHTML(false)
	var patience time.Time // when the write deadline was set
	complete := true
	for p := range queue {
		result, known := s.settle(ctx, p)
		if !known {
			complete = false
		}
		if !complete {
			giveUp()
			continue
		}
		// During a burst the buffer is written whenever it is full, so the deadline has to move on
		// although nothing is flushed here.
		if time.Since(patience) > s.cfg.Limits.Write/2 {
			patience = time.Now()
			_ = rc.SetWriteDeadline(patience.Add(s.cfg.Limits.Write)) // fails only without a connection
		}
		err := enc.Encode(result)
		if err == nil && len(queue) == 0 {
			if err = out.Flush(); err == nil {
				err = rc.Flush()
			}
		}
		if err != nil {
			complete = false // the caller is gone; what was submitted stands
		}
	}
	return complete && out.Flush() == nil
}

// submitLines turns each line into a submission or a refusal, until the end of body or of ctx.
func (s *Server) submitLines(ctx context.Context, svc *chat.Service, target chat.Target, body io.Reader, queue chan<- pending) {
	in := bufio.NewReaderSize(body, s.cfg.Limits.BatchLine)
	for {
		line, err := readLine(in)
		if len(line) == 0 && err != nil && !errors.Is(err, errLongLine) {
			return
		}
		p := pending{err: err}
		if !errors.Is(err, errLongLine) {
			if len(bytes.TrimSpace(line)) == 0 {
				continue
			}
			p = submitLine(ctx, svc, target, line)
		}
		select {
		case queue <- p:
		case <-ctx.Done():
			return
		}
	}
}

func submitLine(ctx context.Context, svc *chat.Service, target chat.Target, line []byte) pending {
	if !utf8.Valid(line) {
		return pending{err: chat.ErrInvalidUTF8}
	}
	var item api.BatchItem
	dec := json.NewDecoder(bytes.NewReader(line))
	dec.DisallowUnknownFields()
	if err := dec.Decode(&item); err != nil || dec.More() {
		return pending{clientID: item.ClientID, err: &api.Error{
			Code:    api.CodeBadRequest,
			Message: "the line is not one JSON object with client_id and text",
			Hint:    `write {"client_id":"1","text":"hello"}, one a line`,
		}}
	}
	waiting, err := svc.Submit(ctx, chat.SendRequest{Target: target, Text: item.Text, ClientID: item.ClientID})
	return pending{clientID: item.ClientID, waiting: waiting, err: err}
}

// settle waits until a message is durable or refused. known is false when ctx ended first: then it
// may be either, and no answer is better than a wrong one.
func (s *Server) settle(ctx context.Context, p pending) (result api.SendResult, known bool) {
	result = api.SendResult{ClientID: p.clientID}
	err := p.err
	var m chat.Message
	if err == nil {
		m, err = p.waiting.Wait(ctx)
	}
	if err != nil {
		result.State, result.Error = api.StateFailed, s.explain("batch", err)
		return result, ctx.Err() == nil
	}
	result.ID, result.State = m.ID.String(), answered(m.State)
	return result, true
}

// answered is the state that an answer without a wait gives. A message that is queued already was
// accepted a moment before; programs look for that word, which is the promise that it is durable.
func answered(state chat.State) string {
	if state == chat.StateQueued {
		state = chat.StateAccepted
	}
	return string(state)
}

var errLongLine = fmt.Errorf("the line is longer than a message can be: %w", chat.ErrTooLarge)

// readLine gives the next line without its end; the slice is good until the next call. A line longer
// than the reader's buffer is skipped and gives errLongLine. A last line without an end counts.
func readLine(in *bufio.Reader) ([]byte, error) {
	line, err := in.ReadSlice('\n')
	if !errors.Is(err, bufio.ErrBufferFull) {
		return bytes.TrimRight(line, "\r\n"), err
	}
	for errors.Is(err, bufio.ErrBufferFull) {
		_, err = in.ReadSlice('\n')
	}
	return nil, errLongLine
}
