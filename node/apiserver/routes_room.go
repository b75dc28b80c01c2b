package apiserver

import (
	"context"
	"net/http"

	"github.com/starling-chat/starling/chat"
	"github.com/starling-chat/starling/node/api"
)

func (r router) rooms() {
	s := r.server
	answer(r, http.MethodGet, "/v1/conversations", "conversations", "Joined rooms and direct conversations", func(ctx context.Context, _ *none) ([]api.Conversation, error) {
		svc, err := s.service()
		if err != nil {
			return nil, err
		}
		all, err := svc.Conversations(ctx)
		return list(all, conversation), err
	})
	answer(r, http.MethodPost, "/v1/rooms", "join", "Join a room by name, name and password, or link", func(ctx context.Context, req *in[api.JoinRequest]) (api.Conversation, error) {
		svc, err := s.service()
		if err != nil {
			return api.Conversation{}, err
		}
		c, err := svc.Join(ctx, req.Body.Room, req.Body.Password)
		return conversation(c), err
	})
	act(r, http.MethodDelete, "/v1/rooms", "leave", "Leave a room", func(ctx context.Context, req *targeted) error {
		svc, t, err := s.resolved(req.Target)
		if err != nil {
			return err
		}
		return svc.Leave(ctx, t)
	})
	answer(r, http.MethodGet, "/v1/members", "members", "Who was seen in a room", func(ctx context.Context, req *targeted) ([]api.Member, error) {
		svc, t, err := s.resolved(req.Target)
		if err != nil {
			return nil, err
		}
		all, err := svc.Members(ctx, t)
		return list(all, member), err
	})
	act(r, http.MethodPut, "/v1/topic", "set-topic", "Set a room's topic", func(ctx context.Context, req *in[api.TopicRequest]) error {
		svc, t, err := s.resolved(req.Body.Target)
		if err != nil {
			return err
		}
		return svc.SetTopic(ctx, t, req.Body.Topic)
	})
	act(r, http.MethodPut, "/v1/read", "mark-read", "Mark messages as read", func(ctx context.Context, req *in[api.ReadRequest]) error {
		svc, t, err := s.resolved(req.Body.Target)
		if err != nil {
			return err
		}
		return svc.MarkRead(ctx, t, req.Body.Seq)
	})
	act(r, http.MethodPut, "/v1/mute", "mute", "Say whether a conversation may notify", func(ctx context.Context, req *in[api.MuteRequest]) error {
		svc, t, err := s.resolved(req.Body.Target)
		if err != nil {
			return err
		}
		return svc.SetMuted(ctx, t, req.Body.Muted)
	})
	act(r, http.MethodPost, "/v1/typing", "typing", "Tell the others that this user writes", func(ctx context.Context, req *in[api.TargetRequest]) error {
		svc, t, err := s.resolved(req.Body.Target)
		if err != nil {
			return err
		}
		return svc.Typing(ctx, t)
	})
	answer(r, http.MethodGet, "/v1/digest", "digest", "What a conversation holds; equal on converged nodes", func(ctx context.Context, req *targeted) (api.Digest, error) {
		svc, t, err := s.resolved(req.Target)
		if err != nil {
			return api.Digest{}, err
		}
		d, err := svc.Digest(ctx, t)
		return digest(d), err
	})
}

func (r router) people() {
	r.contacts()
	r.invites()
	r.private()
	r.devices()
	s := r.server
	answer(r, http.MethodGet, "/v1/outbox", "outbox", "Own messages that nobody acknowledged yet", func(ctx context.Context, _ *none) ([]api.OutboxEntry, error) {
		svc, err := s.service()
		if err != nil {
			return nil, err
		}
		all, err := svc.Outbox(ctx)
		return list(all, outboxEntry), err
	})
	act(r, http.MethodPut, "/v1/outbox", "change-outbox", "Cancel or retry a message", func(ctx context.Context, req *in[api.OutboxChange]) error {
		svc, err := s.service()
		if err != nil {
			return err
		}
		id, err := chat.ParseMessageID(req.Body.ID)
		if err != nil {
			return err
		}
		return svc.OutboxAction(ctx, id, req.Body.Action)
	})
	answer(r, http.MethodGet, "/v1/settings", "setting", "A front-end's setting", func(ctx context.Context, req *struct {
		Key string `query:"key" required:"true" maxLength:"64"`
	},
	) (api.Setting, error) {
		svc, err := s.service()
		if err != nil {
			return api.Setting{}, err
		}
		value, err := svc.Setting(ctx, req.Key)
		return api.Setting{Key: req.Key, Value: value}, err
	})
	act(r, http.MethodPut, "/v1/settings", "set-setting", "Keep a front-end's setting", func(ctx context.Context, req *in[api.Setting]) error {
		svc, err := s.service()
		if err != nil {
			return err
		}
		return svc.SetSetting(ctx, req.Body.Key, req.Body.Value)
	})
}

func (r router) contacts() {
	s := r.server
	answer(r, http.MethodGet, "/v1/contacts", "contacts", "Contacts, requests and blocked accounts", func(ctx context.Context, _ *none) ([]api.Contact, error) {
		svc, err := s.service()
		if err != nil {
			return nil, err
		}
		all, err := svc.Contacts(ctx)
		return list(all, contact), err
	})
	answer(r, http.MethodPost, "/v1/contacts", "add-contact", "Add somebody by account id or link", func(ctx context.Context, req *in[api.ContactRequest]) (api.Contact, error) {
		svc, err := s.service()
		if err != nil {
			return api.Contact{}, err
		}
		c, err := svc.AddContact(ctx, req.Body.Who, req.Body.Petname)
		return contact(c), err
	})
	act(r, http.MethodPut, "/v1/contacts", "change-contact", "Accept, reject, rename, block, unblock or remove somebody", func(ctx context.Context, req *in[api.ContactChange]) error {
		svc, err := s.service()
		if err != nil {
			return err
		}
		_, err = svc.SetContact(ctx, req.Body.Who, req.Body.Action, req.Body.Petname)
		return err
	})
	answer(r, http.MethodGet, "/v1/verification", "verification", "What two people compare", func(ctx context.Context, req *struct {
		Who string `query:"who" required:"true"`
	},
	) (api.Verification, error) {
		svc, err := s.service()
		if err != nil {
			return api.Verification{}, err
		}
		v, err := svc.Verification(ctx, req.Who)
		return verification(v), err
	})
	answer(r, http.MethodPut, "/v1/verification", "set-trust", "Record the result of a comparison", func(ctx context.Context, req *in[api.TrustRequest]) (api.Contact, error) {
		svc, err := s.service()
		if err != nil {
			return api.Contact{}, err
		}
		c, err := svc.SetTrust(ctx, req.Body.Who, chat.Trust(req.Body.Trust))
		return contact(c), err
	})
}
