package apiserver

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"reflect"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/danielgtaylor/huma/v2"
	"github.com/danielgtaylor/huma/v2/adapters/humago"

	"github.com/starling-chat/starling/chat"
	"github.com/starling-chat/starling/node/api"
)

// routes builds the handler: every operation of the package comment of node/api.
func (s *Server) routes() http.Handler {
	mux := http.NewServeMux()
	registry := huma.NewMapRegistry("#/components/schemas/", huma.DefaultSchemaNamer)
	registry.RegisterTypeAlias(reflect.TypeFor[api.Time](), reflect.TypeFor[time.Time]())
	registry.RegisterTypeAlias(reflect.TypeFor[statusError](), reflect.TypeFor[api.Error]())
	config := huma.Config{
		OpenAPI: &huma.OpenAPI{
			OpenAPI: "3.1.0",
			Info: &huma.Info{
				Title:       "starling local API",
				Version:     s.cfg.Version,
				Description: "What one running node offers to front-ends, over its unix socket. Times are RFC 3339 in UTC with milliseconds.",
			},
			Components: &huma.Components{Schemas: registry},
		},
		OpenAPIPath:                  "/v1/openapi",
		Formats:                      map[string]huma.Format{"application/json": strictJSON, "json": strictJSON},
		DefaultFormat:                "application/json",
		RejectUnknownQueryParameters: true,
		// Without DocsPath and SchemasPath there is no page that loads remote scripts, and without
		// huma's create hook no $schema links in answers.
	}
	r := router{server: s, api: humago.New(mux, config)}
	r.node()
	r.rooms()
	r.messages()
	r.people()
	r.history()
	r.streams()
	mux.HandleFunc("/", unknown)
	return s.readBody(mux)
}

// strictJSON refuses what encoding/json would silently repair: invalid UTF-8, and text after the value.
var strictJSON = huma.Format{
	Marshal: huma.DefaultJSONFormat.Marshal,
	Unmarshal: func(data []byte, v any) error {
		if !utf8.Valid(data) {
			return errors.New("the body is not valid UTF-8")
		}
		return json.Unmarshal(data, v)
	},
}

// readBody reads each body before its handler runs, within the limits of size and time. Leaving
// it to huma would set a read deadline that also ends handlers that wait: when it passes,
// net/http takes the connection for dead and cancels the request.
func (s *Server) readBody(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.ContentLength == 0 || r.URL.Path == batchPath || r.URL.Path == bundlePath {
			next.ServeHTTP(w, r)
			return
		}
		deadline := http.NewResponseController(w)
		_ = deadline.SetReadDeadline(time.Now().Add(s.cfg.Limits.Read)) // fails only without a connection, as in tests
		body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, s.cfg.Limits.Body))
		if err == nil { // after an error the deadline also keeps the server from waiting for the rest
			_ = deadline.SetReadDeadline(time.Time{})
		}
		var large *http.MaxBytesError
		switch {
		case errors.As(err, &large):
			writeError(w, &api.Error{Code: api.CodeTooLarge, Message: "the request is larger than 1 MiB", Hint: "send it in smaller parts"})
			return
		case err != nil:
			writeError(w, &api.Error{Code: api.CodeTimeout, Message: "the request's body did not arrive in time"})
			return
		}
		r.Body = io.NopCloser(bytes.NewReader(body))
		next.ServeHTTP(w, r)
	})
}

func unknown(w http.ResponseWriter, r *http.Request) {
	writeError(w, &api.Error{
		Code:    api.CodeNotFound,
		Message: "there is no operation " + api.Escape(r.Method+" "+r.URL.Path),
		Hint:    "GET /v1/openapi.json lists them all",
	})
}

func writeError(w http.ResponseWriter, e *api.Error) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status(e.Code))
	_ = json.NewEncoder(w).Encode(e) // the client is gone if this fails
}

// router registers operations.
type router struct {
	server *Server
	api    huma.API
}

type reply[T any] struct{ Body T }

// in is a request whose body is a T.
type in[T any] struct{ Body T }

// targeted is a request about one conversation.
type targeted struct {
	Target string `query:"target" required:"true" doc:"#room, @nick, @ACCOUNT or a starling: link"`
}

type none struct{}

// answer registers an operation that answers with an O.
func answer[I, O any](r router, method, path, id, summary string, do func(context.Context, *I) (O, error)) {
	huma.Register(r.api, operation(method, path, id, summary, http.StatusOK), func(ctx context.Context, input *I) (*reply[O], error) {
		out, err := do(ctx, input)
		if err != nil {
			return nil, (*statusError)(r.server.explain(id, err))
		}
		return &reply[O]{Body: out}, nil
	})
}

// act registers an operation that answers with nothing.
func act[I any](r router, method, path, id, summary string, do func(context.Context, *I) error) {
	huma.Register(r.api, operation(method, path, id, summary, http.StatusNoContent), func(ctx context.Context, input *I) (*none, error) {
		if err := do(ctx, input); err != nil {
			return nil, (*statusError)(r.server.explain(id, err))
		}
		return nil, nil
	})
}

func operation(method, path, id, summary string, status int) huma.Operation {
	return huma.Operation{
		OperationID: id, Method: method, Path: path, Summary: summary, DefaultStatus: status,
		BodyReadTimeout: -1, // readBody has read it
		Tags:            []string{strings.Split(strings.TrimPrefix(path, "/v1/"), "/")[0]},
	}
}

// service gives the chat service, or why there is none.
func (s *Server) service() (*chat.Service, error) {
	if s.cfg.Chat == nil {
		return nil, &api.Error{
			Code:    api.CodeConflict,
			Message: "this node is a relay for others and does not chat",
			Hint:    "run a node of your own with another --home",
		}
	}
	return s.cfg.Chat, nil
}

// resolved gives the service and the conversation that a text names.
func (s *Server) resolved(target string) (*chat.Service, chat.Target, error) {
	svc, err := s.service()
	if err != nil {
		return nil, chat.Target{}, err
	}
	t, err := svc.Resolve(target)
	return svc, t, err
}
