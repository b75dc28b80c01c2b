package chat

import (
	"context"
	"errors"
	"time"

	"github.com/starling-chat/starling/chat/wire"
)

type Service struct{ cfg Config }

func New(cfg Config) (*Service, error)           { return nil, errPending }
func (s *Service) Run(ctx context.Context) error { return errPending }

var errPending = errors.New("not built yet")

func (s *Service) HandleFrame(from wire.DeviceID, path Path, frame []byte) {}
func (s *Service) PeerChanged(dev wire.DeviceID, path Path)                {}
func (s *Service) Greeting() []byte                                        { return nil }
func (s *Service) ServeStream(ctx context.Context, from wire.DeviceID, protocol string, st Stream) {
}
func (s *Service) Wake(reason string)       {}
func (s *Service) Protect() []wire.DeviceID { return nil }

func (s *Service) Resolve(text string) (Target, error) { return Target{}, errPending }
func (s *Service) Me() Me                              { return Me{} }
func (s *Service) SetNick(ctx context.Context, nick string) error {
	return errPending
}

func (s *Service) Conversations(ctx context.Context) ([]Conversation, error) { return nil, errPending }

func (s *Service) Conversation(ctx context.Context, t Target) (Conversation, error) {
	return Conversation{}, errPending
}

func (s *Service) Join(ctx context.Context, name, password string) (Conversation, error) {
	return Conversation{}, errPending
}
func (s *Service) Leave(ctx context.Context, t Target) error { return errPending }
func (s *Service) Members(ctx context.Context, t Target) ([]Member, error) { return nil, errPending }

func (s *Service) SetTopic(ctx context.Context, t Target, topic string) error {
	return errPending
}
func (s *Service) MarkRead(ctx context.Context, t Target, seq uint64) error { return errPending }
func (s *Service) SetMuted(ctx context.Context, t Target, muted bool) error { return errPending }
func (s *Service) Typing(ctx context.Context, t Target) error               { return errPending }
func (s *Service) Send(ctx context.Context, req SendRequest) (Message, error) {
	return Message{}, errPending
}

// Submit queues a message without waiting for its acceptance; see Submission.Wait. Messages are
// accepted in the order of the Submit calls; when the queue is full Submit waits (backpressure).
func (s *Service) Submit(ctx context.Context, req SendRequest) (*Submission, error) {
	return nil, errPending
}

// Submission is a message on its way to being accepted.
type Submission struct{}

// Wait returns once the message is durable ("accepted") or refused.
func (s *Submission) Wait(ctx context.Context) (Message, error) { return Message{}, errPending }

func (s *Service) WaitState(ctx context.Context, id MessageID, want State) (Message, error) {
	return Message{}, errPending
}

func (s *Service) History(ctx context.Context, q HistoryQuery) ([]Message, error) {
	return nil, errPending
}

func (s *Service) Message(ctx context.Context, id MessageID) (Message, error) {
	return Message{}, errPending
}

func (s *Service) Search(ctx context.Context, q SearchQuery) ([]Message, error) {
	return nil, errPending
}

func (s *Service) Digest(ctx context.Context, t Target) (Digest, error) { return Digest{}, errPending }
func (s *Service) Contacts(ctx context.Context) ([]Contact, error)      { return nil, errPending }
func (s *Service) AddContact(ctx context.Context, who, petname string) (Contact, error) {
	return Contact{}, errPending
}

func (s *Service) SetContact(ctx context.Context, who, action, petname string) (Contact, error) {
	return Contact{}, errPending
}

func (s *Service) Verification(ctx context.Context, who string) (Verification, error) {
	return Verification{}, errPending
}

func (s *Service) SetTrust(ctx context.Context, who string, trust Trust) (Contact, error) {
	return Contact{}, errPending
}
func (s *Service) Invites(ctx context.Context) ([]Invite, error) { return nil, errPending }
func (s *Service) CreateInvite(ctx context.Context, req InviteRequest) (Invite, error) {
	return Invite{}, errPending
}
func (s *Service) RevokeInvite(ctx context.Context, id string) error { return errPending }
func (s *Service) Outbox(ctx context.Context) ([]OutboxEntry, error) { return nil, errPending }
func (s *Service) OutboxAction(ctx context.Context, id MessageID, action string) error {
	return errPending
}
func (s *Service) Setting(ctx context.Context, key string) (string, error) { return "", errPending }
func (s *Service) SetSetting(ctx context.Context, key, value string) error { return errPending }
func (s *Service) Stats() Stats                                            { return Stats{} }
func (s *Service) Events(since uint64) *Subscription                       { return nil }

var _ = time.Second
