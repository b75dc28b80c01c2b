package api

// Types of [Event].
const (
	EventHello        = "hello"        // first on each connection: Cursor is where the stream begins
	EventMessage      = "message"      // a new message; Message
	EventUpdate       = "update"       // an existing message changed: edit, redaction, reaction, state; Message
	EventConversation = "conversation" // unread, topic, members, gaps or a join/leave of ours; Conversation
	EventContact      = "contact"      // a contact, a request, or a trust change; Contact
	EventStatus       = "status"       // Status changed in a way worth redrawing
	EventTyping       = "typing"       // live only, never replayed; Typing
	EventReset        = "reset"        // the cursor is too old or unknown, or the reader too slow: reload everything
)

// Event is one change, in the order in which the node made it. Cursor rises and can be given
// back as `since`; live events have cursor 0.
type Event struct {
	Cursor       uint64        `json:"cursor"`
	Type         string        `json:"type"`
	Message      *Message      `json:"message,omitempty"`
	Conversation *Conversation `json:"conversation,omitempty"`
	Contact      *Contact      `json:"contact,omitempty"`
	Status       *Status       `json:"status,omitempty"`
	Typing       *Typing       `json:"typing,omitempty"`
}

// Typing says that somebody writes in a conversation.
type Typing struct {
	Conversation string `json:"conversation"`
	Account      string `json:"account"`
	Nick         string `json:"nick"`
}
