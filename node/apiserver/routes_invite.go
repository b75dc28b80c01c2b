package apiserver

import (
	"context"
	"net/http"
	"time"

	"github.com/starling-chat/starling/chat"
	"github.com/starling-chat/starling/node/api"
)

// maxExpiry bounds an invite's life: one that never ends is one that nobody remembers.
const maxExpiry = 366 * 24 * time.Hour

func (r router) invites() {
	s := r.server
	answer(r, http.MethodGet, "/v1/invites", "invites", "The links made here that still exist", func(ctx context.Context, _ *none) ([]api.Invite, error) {
		svc, err := s.service()
		if err != nil {
			return nil, err
		}
		all, err := svc.Invites(ctx)
		return list(all, invite), err
	})
	answer(r, http.MethodPost, "/v1/invites", "create-invite", "Make a link into a room, or to this user", func(ctx context.Context, req *in[api.InviteRequest]) (api.Invite, error) {
		svc, err := s.service()
		if err != nil {
			return api.Invite{}, err
		}
		made, err := createInvite(ctx, svc, req.Body)
		return invite(made), err
	})
	act(r, http.MethodDelete, "/v1/invites", "revoke-invite", "Make a link worthless", func(ctx context.Context, req *struct {
		ID string `query:"id" required:"true"`
	},
	) error {
		svc, err := s.service()
		if err != nil {
			return err
		}
		return svc.RevokeInvite(ctx, req.ID)
	})
}

// devices registers what is about the user's own devices.
func (r router) devices() {
	s := r.server
	answer(r, http.MethodGet, "/v1/devices", "devices", "The devices of this user's account that are known here", func(ctx context.Context, _ *none) ([]api.Device, error) {
		svc, err := s.service()
		if err != nil {
			return nil, err
		}
		all, err := svc.Devices(ctx)
		return list(all, device), err
	})
	act(r, http.MethodDelete, "/v1/devices", "revoke-device", "Take a device out of this user's account", func(ctx context.Context, req *struct {
		ID string `query:"id" required:"true"`
	},
	) error {
		svc, err := s.service()
		if err != nil {
			return err
		}
		return svc.RevokeDevice(ctx, req.ID)
	})
}

func createInvite(ctx context.Context, svc *chat.Service, req api.InviteRequest) (chat.Invite, error) {
	out := chat.InviteRequest{OneTime: req.OneTime}
	if req.ExpiryMS < 0 || req.ExpiryMS > maxExpiry.Milliseconds() {
		return chat.Invite{}, &api.Error{Code: api.CodeBadRequest, Message: "an invite lasts between a moment and a year"}
	}
	out.Expiry = time.Duration(req.ExpiryMS) * time.Millisecond
	if req.Target != "" {
		t, err := svc.Resolve(req.Target)
		if err != nil {
			return chat.Invite{}, err
		}
		out.Target = t
	}
	return svc.CreateInvite(ctx, out)
}
