package apiserver

import (
	"context"
	"net/http"
	"reflect"

	"github.com/danielgtaylor/huma/v2"
	"github.com/danielgtaylor/huma/v2/adapters/humago"

	"github.com/starling-chat/starling/node/api"
)

const (
	batchPath  = "/v1/batch"
	eventsPath = "/v1/events"

	typeNDJSON = "application/x-ndjson"
	typeEvents = "text/event-stream"
)

// streams registers the two operations that are not one question and one answer.
func (r router) streams() {
	item, result := r.schema(reflect.TypeFor[api.BatchItem]()), r.schema(reflect.TypeFor[api.SendResult]())
	change := r.schema(reflect.TypeFor[api.Event]())
	failure := r.schema(reflect.TypeFor[api.Error]())
	text := &huma.Schema{Type: huma.TypeString}
	number := &huma.Schema{Type: huma.TypeInteger, Format: "uint64"}

	r.stream(&huma.Operation{
		OperationID: "batch", Method: http.MethodPost, Path: batchPath, Tags: []string{"batch"},
		Summary:     "Send many messages to one conversation",
		Description: "One JSON object a line in each direction. Answers come in order, while later lines are still on their way; a refused line has state failed and does not end the batch.",
		Parameters:  []*huma.Param{{Name: "target", In: "query", Required: true, Schema: text}},
		RequestBody: &huma.RequestBody{Required: true, Content: map[string]*huma.MediaType{typeNDJSON: {Schema: item}}},
		Responses:   streamResponses(typeNDJSON, result, failure),
	}, r.server.serveBatch)

	r.stream(&huma.Operation{
		OperationID: "events", Method: http.MethodGet, Path: eventsPath, Tags: []string{"events"},
		Summary:     "Everything that changes, as server-sent events",
		Description: "The data of each event is an Event, its id the cursor. The first is a hello. A reset says that something was missed: reload everything.",
		Parameters: []*huma.Param{
			{Name: "since", In: "query", Schema: number, Description: "a cursor; without it the stream begins now"},
			{Name: "Last-Event-ID", In: "header", Schema: number, Description: "as since, which wins"},
		},
		Responses: streamResponses(typeEvents, change, failure),
	}, r.server.serveEvents)
}

func (r router) schema(t reflect.Type) *huma.Schema {
	return r.api.OpenAPI().Components.Schemas.Schema(t, true, t.Name())
}

func streamResponses(contentType string, ok, failure *huma.Schema) map[string]*huma.Response {
	return map[string]*huma.Response{
		"200":     {Description: "A stream", Content: map[string]*huma.MediaType{contentType: {Schema: ok}}},
		"default": {Description: "Error", Content: map[string]*huma.MediaType{"application/json": {Schema: failure}}},
	}
}

func (r router) stream(op *huma.Operation, serve http.HandlerFunc) {
	r.api.OpenAPI().AddOperation(op)
	r.api.Adapter().Handle(op, func(ctx huma.Context) {
		req, w := humago.Unwrap(ctx)
		serve(w, req)
	})
}

// enter takes a stream token; leave gives it back. It answers itself when there is none.
func (s *Server) enter(w http.ResponseWriter) (leave func(), ok bool) {
	select {
	case s.streams <- struct{}{}:
		return func() { <-s.streams }, true
	default:
		writeError(w, &api.Error{
			Code:    api.CodeConflict,
			Message: "too many event streams and batches are open",
			Hint:    "end a front-end that is not needed",
		})
		return nil, false
	}
}

// untilClosing gives a context that also ends when the server stops.
func (s *Server) untilClosing(ctx context.Context) (context.Context, context.CancelFunc) {
	ctx, cancel := context.WithCancel(ctx)
	go func() { // ends with ctx, which every caller cancels
		select {
		case <-s.closing:
			cancel()
		case <-ctx.Done():
		}
	}()
	return ctx, cancel
}
