// Package api is the contract between a running node and every front-end: the JSON shapes, the
// error codes, the escaping of hostile text, and the Go client. It imports the standard library
// only, so that a bot or another front-end can take it without taking a network or a database.
//
// The server side is node/apiserver. Everything is HTTP under /v1/ on a unix socket:
//
//	GET    /v1/me                                 Me
//	PUT    /v1/me/nick                            NickRequest         -> Me
//	GET    /v1/status                             Status
//	GET    /v1/peers                              []Peer
//	POST   /v1/ping                               PingRequest         -> PingResult
//	GET    /v1/doctor                             Doctor
//	POST   /v1/stop
//	GET    /v1/conversations                      []Conversation
//	POST   /v1/rooms                              JoinRequest         -> Conversation
//	DELETE /v1/rooms?target=
//	POST   /v1/private-rooms                      CreateRoomRequest   -> Conversation
//	PUT    /v1/policy                             PolicyRequest       of a private room
//	GET    /v1/members?target=                    []Member
//	PUT    /v1/members                            MemberChange        of a private room: role remove ban unban
//	PUT    /v1/topic                              TopicRequest
//	PUT    /v1/read                               ReadRequest         marks read up to seq
//	PUT    /v1/mute                               MuteRequest
//	POST   /v1/typing                             TargetRequest
//	POST   /v1/messages                           SendRequest         -> SendResult
//	POST   /v1/batch?target=                      NDJSON BatchItem    -> NDJSON SendResult
//	GET    /v1/messages?target=&n=&before=&after=&since=   []Message, oldest first
//	GET    /v1/messages/{id}                      Message
//	GET    /v1/search?q=&in=&from=&n=             []Message
//	GET    /v1/digest?target=                     Digest
//	GET    /v1/retention?target=                  Retention           of a room, or of every room
//	PUT    /v1/retention                          Retention
//	GET    /v1/bundle?target=                     a room as a bundle (docs/spec/bundle.md)
//	POST   /v1/bundle                             a bundle            -> Imported
//	GET    /v1/contacts                           []Contact
//	POST   /v1/contacts                           ContactRequest      -> Contact
//	PUT    /v1/contacts                           ContactChange       action: accept reject rename block unblock remove
//	GET    /v1/verification?who=                  Verification
//	PUT    /v1/verification                       TrustRequest        -> Contact
//	GET    /v1/invites                            []Invite
//	POST   /v1/invites                            InviteRequest       -> Invite
//	DELETE /v1/invites?id=
//	GET    /v1/outbox                             []OutboxEntry
//	PUT    /v1/outbox                             OutboxChange        action: cancel retry
//	GET    /v1/settings?key=                      Setting
//	PUT    /v1/settings                           Setting             small front-end state: drafts, theme, language
//	POST   /v1/check                              CheckReport         verifies the store
//	POST   /v1/purge                              rewrites the store without what was deleted
//	POST   /v1/backup                             BackupRequest       -> Backup, with the secrets of rooms
//	GET    /v1/events?since=                      server-sent events, data is Event, id is the cursor
//	GET    /v1/openapi.json
package api
