package apiserver

import (
	"context"
	"net/http"
	"time"

	"github.com/starling-chat/starling/chat"
	"github.com/starling-chat/starling/node/api"
)

// maxWait bounds how long a sender may wait for a state.
const maxWait = 24 * time.Hour

// historyInput is api.HistoryQuery as a query string.
type historyInput struct {
	Target string    `query:"target" required:"true" doc:"#room, @nick, @ACCOUNT or a starling: link"`
	N      int       `query:"n" minimum:"0" maximum:"1000" doc:"how many at most; 0 is 50"`
	Before string    `query:"before" doc:"a message id: the page that ends just before it"`
	After  string    `query:"after" doc:"a message id: the page that starts just after it"`
	Since  time.Time `query:"since" doc:"not older than this"`
}

// searchInput is api.SearchQuery as a query string.
type searchInput struct {
	Query string `query:"q" required:"true" doc:"words; a message holds them all"`
	In    string `query:"in" doc:"target; all conversations without it"`
	From  string `query:"from" doc:"author, as in a target"`
	N     int    `query:"n" minimum:"0" maximum:"200" doc:"how many at most; 0 is 50"`
}

func (r router) messages() {
	s := r.server
	answer(r, http.MethodPost, "/v1/messages", "send", "Send, edit, delete or react", func(ctx context.Context, req *in[api.SendRequest]) (api.SendResult, error) {
		return s.send(ctx, req.Body)
	})
	answer(r, http.MethodGet, "/v1/messages", "history", "A page of a conversation, oldest first", func(ctx context.Context, req *historyInput) ([]api.Message, error) {
		return s.history(ctx, req)
	})
	answer(r, http.MethodGet, "/v1/messages/{id}", "message", "One message", func(ctx context.Context, req *struct {
		ID string `path:"id"`
	},
	) (api.Message, error) {
		svc, err := s.service()
		if err != nil {
			return api.Message{}, err
		}
		id, err := chat.ParseMessageID(req.ID)
		if err != nil {
			return api.Message{}, err
		}
		m, err := svc.Message(ctx, id)
		return message(m), err
	})
	answer(r, http.MethodGet, "/v1/search", "search", "Messages that hold every word, newest first", func(ctx context.Context, req *searchInput) ([]api.Message, error) {
		return s.search(ctx, req)
	})
}

func (s *Server) send(ctx context.Context, req api.SendRequest) (api.SendResult, error) {
	wait, err := parseWait(req.Wait)
	if err != nil {
		return api.SendResult{}, err
	}
	timeout := api.DefaultWait
	if req.TimeoutMS < 0 || req.TimeoutMS > maxWait.Milliseconds() {
		return api.SendResult{}, &api.Error{Code: api.CodeBadRequest, Message: "a wait lasts between a moment and 24 hours"}
	} else if req.TimeoutMS > 0 {
		timeout = time.Duration(req.TimeoutMS) * time.Millisecond
	}
	svc, target, err := s.resolved(req.Target)
	if err != nil {
		return api.SendResult{}, err
	}
	if target.Room != nil && wait == chat.StateDelivered {
		return api.SendResult{}, &api.Error{
			Code:    api.CodeBadRequest,
			Message: "a room's message has no one recipient: it is accepted, sent, stored, and perhaps read",
			Hint:    "nothing was sent; wait for accepted, sent, stored or read",
		}
	}
	out := chat.SendRequest{Target: target, Text: req.Text, ClientID: req.ClientID, Action: chat.SendAction(req.Action), Style: chat.Style(req.Style)}
	if out.Ref, err = chat.ParseMessageID(req.Ref); err != nil {
		return api.SendResult{}, err
	}
	if out.ReplyTo, err = chat.ParseMessageID(req.ReplyTo); err != nil {
		return api.SendResult{}, err
	}
	m, err := svc.Send(ctx, out)
	if err != nil {
		return api.SendResult{}, err
	}
	result := api.SendResult{ClientID: req.ClientID, ID: m.ID.String(), State: answered(m.State)}
	if wait == chat.StateAccepted {
		return result, nil
	}
	ctx, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	return s.await(ctx, svc, target, m.ID, wait, result), nil
}

// await waits for a state of an accepted message. That it was not reached is part of the result and
// not a failed call: the message stands all the same.
func (s *Server) await(ctx context.Context, svc *chat.Service, target chat.Target, id chat.MessageID, wait chat.State, result api.SendResult) api.SendResult {
	m, err := svc.WaitState(ctx, id, wait)
	switch {
	case err != nil:
		result.Error = s.explain("send", err)
		if result.Error.Code == api.CodeTimeout {
			result.Error.Message = "the message is accepted, but was not " + string(wait) + " in the time allowed"
			result.Error.Hint = "it goes on trying; see `starling outbox`"
			if target.Room != nil {
				result.Error.Hint = "it goes on trying; see its state in `starling history --json`"
			}
		}
		if now, err := svc.Message(context.WithoutCancel(ctx), id); err == nil {
			result.State, result.Reason = string(now.State), now.Reason
			if now.Reason != "" && result.Error.Code == api.CodeTimeout {
				result.Error.Message += ": " + now.Reason
			}
		}
	case m.State == chat.StateFailed:
		result.State = string(m.State)
		result.Error = &api.Error{Code: api.CodeUnreachable, Message: "the message was given up: " + m.Reason, Hint: "try again with `starling outbox retry ID`"}
	default:
		result.State = string(m.State)
	}
	return result
}

func parseWait(wait string) (chat.State, error) {
	switch st := chat.State(wait); st {
	case "":
		return chat.StateAccepted, nil
	case chat.StateAccepted, chat.StateSent, chat.StateStored, chat.StateDelivered, chat.StateRead:
		return st, nil
	}
	return "", &api.Error{Code: api.CodeBadRequest, Message: "there is no state " + api.Escape(wait) + " to wait for", Hint: "use accepted, sent, stored, delivered or read"}
}

func (s *Server) history(ctx context.Context, req *historyInput) ([]api.Message, error) {
	svc, target, err := s.resolved(req.Target)
	if err != nil {
		return nil, err
	}
	q := chat.HistoryQuery{Target: target, N: req.N, Since: req.Since}
	if q.Before, err = chat.ParseMessageID(req.Before); err != nil {
		return nil, err
	}
	if q.After, err = chat.ParseMessageID(req.After); err != nil {
		return nil, err
	}
	page, err := svc.History(ctx, q)
	return list(page, message), err
}

func (s *Server) search(ctx context.Context, req *searchInput) ([]api.Message, error) {
	svc, err := s.service()
	if err != nil {
		return nil, err
	}
	q := chat.SearchQuery{Query: req.Query, N: req.N}
	if req.In != "" {
		if q.In, err = svc.Resolve(req.In); err != nil {
			return nil, err
		}
	}
	if req.From != "" {
		from, err := svc.Resolve(req.From)
		if err != nil {
			return nil, err
		}
		if from.Account == nil {
			return nil, &api.Error{Code: api.CodeBadRequest, Message: "a room writes nothing by itself", Hint: "give the author as @NAME"}
		}
		q.From = *from.Account
	}
	found, err := svc.Search(ctx, q)
	return list(found, message), err
}
