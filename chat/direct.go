package chat

import (
	"context"

	"github.com/starling-chat/starling/chat/wire"
	"github.com/starling-chat/starling/storage"
)

func (s *Service) dialogConversation(ctx context.Context, a wire.AccountID) (Conversation, error) {
	return Conversation{}, ErrNotFound
}

func (s *Service) dialogConversations(ctx context.Context) ([]Conversation, error) { return nil, nil }

func (s *Service) markDialogRead(ctx context.Context, a wire.AccountID, seq uint64) error {
	return ErrNotFound
}

func (s *Service) muteDialog(ctx context.Context, a wire.AccountID, muted bool) error {
	return ErrNotFound
}

func (s *Service) dialogHistory(ctx context.Context, a wire.AccountID, q HistoryQuery) ([]Message, error) {
	return nil, nil
}

func (s *Service) directMessage(ctx context.Context, id MessageID) (Message, error) {
	return Message{}, ErrNotFound
}

func (s *Service) dialogDigest(ctx context.Context, a wire.AccountID) (Digest, error) {
	return Digest{}, nil
}

func (s *Service) dialogSources(ctx context.Context, q SearchQuery, m map[storage.StreamID]func(storage.Record) (Message, bool)) error {
	return nil
}
func (s *Service) dialogStats(st *Stats) {}
func (s *Service) submitDirect(ctx context.Context, req SendRequest) (*Submission, error) {
	return nil, ErrNotFound
}

func (s *Service) HandleFrame(from wire.DeviceID, path Path, frame []byte) {
	if p, err := parseProgress(frame); err == nil {
		if r := s.roomByTopic(p.Topic); r != nil {
			r.pub.reported(from, p.Seq)
		}
	}
}

func (s *Service) ServeStream(ctx context.Context, from wire.DeviceID, protocol string, st Stream) {
	_ = st.Reset()
}
func (s *Service) Wake(reason string)                              {}
func (s *Service) Typing(ctx context.Context, t Target) error      { return nil }
func (s *Service) Contacts(ctx context.Context) ([]Contact, error) { return nil, nil }
func (s *Service) AddContact(ctx context.Context, who, petname string) (Contact, error) {
	return Contact{}, ErrNotFound
}

func (s *Service) SetContact(ctx context.Context, who, action, petname string) (Contact, error) {
	return Contact{}, ErrNotFound
}

func (s *Service) Verification(ctx context.Context, who string) (Verification, error) {
	return Verification{}, ErrNotFound
}

func (s *Service) SetTrust(ctx context.Context, who string, trust Trust) (Contact, error) {
	return Contact{}, ErrNotFound
}
func (s *Service) Invites(ctx context.Context) ([]Invite, error) { return nil, nil }
func (s *Service) CreateInvite(ctx context.Context, req InviteRequest) (Invite, error) {
	return Invite{}, ErrNotFound
}
func (s *Service) RevokeInvite(ctx context.Context, id string) error { return ErrNotFound }
func (s *Service) Outbox(ctx context.Context) ([]OutboxEntry, error) { return nil, nil }
func (s *Service) OutboxAction(ctx context.Context, id MessageID, action string) error {
	return ErrNotFound
}
