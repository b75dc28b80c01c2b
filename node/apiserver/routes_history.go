package apiserver

import (
	"context"
	"encoding/json"
	"net/http"
	"reflect"
	"time"

	"github.com/danielgtaylor/huma/v2"

	"github.com/starling-chat/starling/chat"
	"github.com/starling-chat/starling/node/api"
)

const (
	bundlePath = "/v1/bundle"
	typeBundle = "application/octet-stream"
)

// history registers what is kept of rooms, and their export and import.
func (r router) history() {
	s := r.server
	answer(r, http.MethodGet, "/v1/retention", "retention", "How much is kept of a room, or of every room", func(ctx context.Context, req *struct {
		Target string `query:"target" doc:"a room; without it, what holds for every room"`
	},
	) (api.Retention, error) {
		svc, t, err := s.roomOrAll(req.Target)
		if err != nil {
			return api.Retention{}, err
		}
		keep, own, err := svc.Retention(ctx, t)
		return api.Retention{
			Target: req.Target, MaxAgeMS: keep.Age.Milliseconds(), MaxCount: keep.Count, MaxBytes: keep.Bytes, MaxDisk: keep.Disk, Own: own,
		}, err
	})
	act(r, http.MethodPut, "/v1/retention", "set-retention", "Say how much is kept", func(ctx context.Context, req *in[api.Retention]) error {
		svc, t, err := s.roomOrAll(req.Body.Target)
		if err != nil {
			return err
		}
		keep := &chat.Retention{
			Age: time.Duration(req.Body.MaxAgeMS) * time.Millisecond, Count: req.Body.MaxCount, Bytes: req.Body.MaxBytes, Disk: req.Body.MaxDisk,
		}
		if req.Body.Reset {
			keep = nil
		}
		return svc.SetRetention(ctx, t, keep)
	})

	text := &huma.Schema{Type: huma.TypeString}
	bytes := &huma.Schema{Type: huma.TypeString, Format: "binary"}
	failure := r.schema(reflect.TypeFor[api.Error]())
	r.stream(&huma.Operation{
		OperationID: "export", Method: http.MethodGet, Path: bundlePath, Tags: []string{"bundle"},
		Summary:    "A room as a bundle",
		Parameters: []*huma.Param{{Name: "target", In: "query", Required: true, Schema: text}},
		Responses:  streamResponses(typeBundle, bytes, failure),
	}, s.serveExport)
	r.stream(&huma.Operation{
		OperationID: "import", Method: http.MethodPost, Path: bundlePath, Tags: []string{"bundle"},
		Summary:     "Take in a bundle",
		RequestBody: &huma.RequestBody{Required: true, Content: map[string]*huma.MediaType{typeBundle: {Schema: bytes}}},
		Responses:   streamResponses("application/json", r.schema(reflect.TypeFor[api.Imported]()), failure),
	}, s.serveImport)
}

// roomOrAll resolves a target that may be left out.
func (s *Server) roomOrAll(target string) (*chat.Service, chat.Target, error) {
	if target == "" {
		svc, err := s.service()
		return svc, chat.Target{}, err
	}
	return s.resolved(target)
}

// patient renews the connection's deadlines with every piece that is written or read, so that a stalled
// other side ends it, and a long transfer does not.
type patient struct {
	s  *Server
	w  http.ResponseWriter
	r  *http.Request
	rc *http.ResponseController
}

func (p patient) Write(b []byte) (int, error) {
	_ = p.rc.SetWriteDeadline(time.Now().Add(p.s.cfg.Limits.Write))
	return p.w.Write(b)
}

func (p patient) Read(b []byte) (int, error) {
	return p.r.Body.Read(b)
}

func (s *Server) serveExport(w http.ResponseWriter, r *http.Request) {
	leave, ok := s.enter(w)
	if !ok {
		return
	}
	defer leave()
	svc, target, err := s.resolved(r.URL.Query().Get("target"))
	if err == nil {
		_, err = svc.Conversation(r.Context(), target)
	}
	if err == nil && target.Room == nil {
		err = &api.Error{Code: api.CodeBadRequest, Message: "only rooms can be exported", Hint: "direct messages are in `starling backup`"}
	}
	if err != nil {
		writeError(w, s.explain("export", err))
		return
	}
	ctx, cancel := s.untilClosing(r.Context())
	defer cancel()
	w.Header().Set("Content-Type", typeBundle)
	if _, err := svc.Export(ctx, target, patient{s, w, r, http.NewResponseController(w)}); err != nil {
		s.cfg.Logger.Debug("an export ended early", "error", err)
		panic(http.ErrAbortHandler) // so that the client does not take a part for the whole
	}
}

func (s *Server) serveImport(w http.ResponseWriter, r *http.Request) {
	leave, ok := s.enter(w)
	if !ok {
		return
	}
	defer leave()
	svc, err := s.service()
	if err != nil {
		writeError(w, s.explain("import", err))
		return
	}
	ctx, cancel := s.untilClosing(r.Context())
	defer cancel()
	got, err := svc.Import(ctx, patient{s, w, r, http.NewResponseController(w)})
	out := api.Imported{
		Records: got.Records, New: got.New, Known: got.Known, Refused: got.Refused, Foreign: got.Foreign, Invalid: got.Invalid, Rooms: got.Rooms,
	}
	if out.Rooms == nil {
		out.Rooms = []string{}
	}
	if err != nil {
		out.Error = s.explain("import", err)
	}
	w.Header().Set("Content-Type", "application/json")
	_ = json.NewEncoder(w).Encode(out) // the client is gone if this fails
}
