package apiserver

import (
	"context"
	"errors"
	"net/http"
	"strings"
	"time"

	"github.com/starling-chat/starling/chat"
	"github.com/starling-chat/starling/node/api"
)

// pingTimeout bounds one ping: a direct attempt, then a relayed one.
const pingTimeout = 20 * time.Second

// doctorTimeout bounds a report of reachability.
const doctorTimeout = 25 * time.Second

func (r router) node() {
	s := r.server
	answer(r, http.MethodGet, "/v1/me", "me", "Who this node is", func(context.Context, *none) (api.Me, error) {
		return s.me()
	})
	answer(r, http.MethodPut, "/v1/me/nick", "set-nick", "Change the own nick everywhere", func(ctx context.Context, req *in[api.NickRequest]) (api.Me, error) {
		svc, err := s.service()
		if err == nil {
			err = svc.SetNick(ctx, req.Body.Nick)
		}
		if err != nil {
			return api.Me{}, err
		}
		return s.me()
	})
	answer(r, http.MethodGet, "/v1/status", "status", "The node as it stands", func(ctx context.Context, _ *none) (api.Status, error) {
		return s.status(ctx)
	})
	answer(r, http.MethodGet, "/v1/peers", "peers", "The connected peers", func(ctx context.Context, _ *none) ([]api.Peer, error) {
		peers, err := s.cfg.Node.Peers(ctx)
		return list(peers, func(p api.Peer) api.Peer { return p }), err
	})
	answer(r, http.MethodPost, "/v1/ping", "ping", "One round trip to a peer", func(ctx context.Context, req *in[api.PingRequest]) (api.PingResult, error) {
		ctx, cancel := context.WithTimeout(ctx, pingTimeout)
		defer cancel()
		return s.ping(ctx, req.Body.Peer)
	})
	answer(r, http.MethodGet, "/v1/doctor", "doctor", "What works, what does not, and what to do", func(ctx context.Context, _ *none) (api.Doctor, error) {
		ctx, cancel := context.WithTimeout(ctx, doctorTimeout)
		defer cancel()
		report, err := s.cfg.Node.Doctor(ctx)
		report.Schema = api.Schema
		report.Checks = list(report.Checks, func(c api.Check) api.Check { return c })
		return report, err
	})
	act(r, http.MethodPost, "/v1/stop", "stop", "End the node", func(context.Context, *none) error {
		s.cfg.Maintenance.Stop()
		return nil
	})
	act(r, http.MethodPost, "/v1/purge", "purge", "Rewrite the store without what was deleted from it", func(ctx context.Context, _ *none) error {
		return s.cfg.Maintenance.Purge(ctx)
	})
	answer(r, http.MethodPost, "/v1/backup", "backup", "What a backup holds besides the account", func(ctx context.Context, req *in[api.BackupRequest]) (api.Backup, error) {
		return s.cfg.Maintenance.Backup(ctx, req.Body.History)
	})
	answer(r, http.MethodPost, "/v1/check", "check", "Verify the store", func(ctx context.Context, _ *none) (api.CheckReport, error) {
		report, err := s.cfg.Maintenance.Check(ctx)
		if report.Problems == nil {
			report.Problems = []string{}
		}
		return report, err
	})
}

// me is the identity of the node; a relay without a chat service knows it from its status.
func (s *Server) me() (api.Me, error) {
	svc, err := s.service()
	if err != nil {
		return api.Me{}, err
	}
	return me(svc.Me()), nil
}

func (s *Server) status(ctx context.Context) (api.Status, error) {
	st, err := s.cfg.Node.Status(ctx)
	if err != nil {
		return st, err
	}
	st.Schema = api.Schema
	if s.cfg.Chat != nil {
		overlay(&st, s.cfg.Chat)
	}
	if st.Addrs == nil {
		st.Addrs = []string{}
	}
	if st.Relays == nil {
		st.Relays = []api.Relay{}
	}
	if st.Problems == nil {
		st.Problems = []string{}
	}
	return st, nil
}

// ping takes a peer id, a multiaddr, or a person: then their devices are tried in turn.
func (s *Server) ping(ctx context.Context, peer string) (api.PingResult, error) {
	if !strings.HasPrefix(peer, "@") && !strings.HasPrefix(peer, "starling:") {
		return s.cfg.Node.Ping(ctx, peer)
	}
	svc, target, err := s.resolved(peer)
	if err != nil {
		return api.PingResult{}, err
	}
	if target.Account == nil {
		return api.PingResult{}, &api.Error{Code: api.CodeBadRequest, Message: "a room cannot be pinged", Hint: "give a peer id or @NAME"}
	}
	devices, err := devicesOf(ctx, svc, target)
	if err != nil {
		return api.PingResult{}, err
	}
	err = chat.ErrUnreachable
	for _, d := range devices {
		var res api.PingResult
		if res, err = s.cfg.Node.Ping(ctx, d); err == nil {
			return res, nil
		}
	}
	return api.PingResult{}, err
}

// devicesOf lists the devices known of an account, from the contacts and the members of joined rooms.
func devicesOf(ctx context.Context, svc *chat.Service, target chat.Target) ([]string, error) {
	contacts, err := svc.Contacts(ctx)
	if err != nil {
		return nil, err
	}
	for _, c := range contacts {
		if c.Account == *target.Account && len(c.Devices) > 0 {
			return texts(c.Devices), nil
		}
	}
	rooms, err := svc.Conversations(ctx)
	if err != nil {
		return nil, err
	}
	for _, room := range rooms {
		if room.Kind != chat.ConversationRoom {
			continue
		}
		t, err := svc.Resolve(room.Target)
		if err != nil {
			continue // left meanwhile
		}
		members, err := svc.Members(ctx, t)
		if err != nil && !errors.Is(err, chat.ErrNotJoined) {
			return nil, err
		}
		for _, m := range members {
			if m.Account == *target.Account && len(m.Devices) > 0 {
				return texts(m.Devices), nil
			}
		}
	}
	return nil, chat.ErrUnreachable
}
