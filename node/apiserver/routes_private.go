package apiserver

import (
	"context"
	"net/http"

	"github.com/starling-chat/starling/chat"
	"github.com/starling-chat/starling/node/api"
)

// private registers what only private rooms have.
func (r router) private() {
	s := r.server
	answer(r, http.MethodPost, "/v1/private-rooms", "create-room", "Make a private room", func(ctx context.Context, req *in[api.CreateRoomRequest]) (api.Conversation, error) {
		svc, err := s.service()
		if err != nil {
			return api.Conversation{}, err
		}
		c, err := svc.CreateRoom(ctx, chat.CreateRequest{Name: req.Body.Name, History: req.Body.History})
		return conversation(c), err
	})
	act(r, http.MethodPut, "/v1/policy", "set-policy", "Change a private room's policy", func(ctx context.Context, req *in[api.PolicyRequest]) error {
		svc, t, err := s.resolved(req.Body.Target)
		if err != nil {
			return err
		}
		return svc.SetPolicy(ctx, t, chat.PolicyRequest{
			History: req.Body.History, Invite: req.Body.Invite, Post: req.Body.Post, Rate: req.Body.Rate, Burst: req.Body.Burst,
		})
	})
	act(r, http.MethodPut, "/v1/members", "change-member", "Change a role in a private room, remove, ban or unban", func(ctx context.Context, req *in[api.MemberChange]) error {
		svc, t, err := s.resolved(req.Body.Target)
		if err != nil {
			return err
		}
		return svc.ChangeMember(ctx, t, chat.MemberChange{
			Who: req.Body.Who, Action: req.Body.Action, Role: req.Body.Role, Reason: req.Body.Reason,
		})
	})
}
