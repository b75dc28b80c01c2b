package wire

import "fmt"

// Kind says what an event does. Numbers from 1 to 127 are stored and synced;
// from 128 to 255 they are ephemeral: forwarded, never stored, never in a set.
// A kind this version does not know is kept and passed on all the same.
type Kind uint8

// The kinds of version 1. 11 to 31 are reserved for room kinds, 39 to 47 for
// membership, 48 to 95 for later use; 96 to 127 and 224 to 255 are for
// experiments and never given a meaning here.
const (
	KindMessage    Kind = 1
	KindEdit       Kind = 2
	KindRedact     Kind = 3
	KindReact      Kind = 4
	KindProfile    Kind = 5
	KindJoin       Kind = 6
	KindLeave      Kind = 7
	KindTopic      Kind = 8
	KindBan        Kind = 9
	KindReadMarker Kind = 10

	KindCreate Kind = 32
	KindAdd    Kind = 33
	KindRemove Kind = 34
	KindRole   Kind = 35
	KindPolicy Kind = 36
	KindEpoch  Kind = 37
	KindRevoke Kind = 38

	KindTyping   Kind = 128
	KindPresence Kind = 129
)

var kindNames = map[Kind]string{
	KindMessage: "message", KindEdit: "edit", KindRedact: "redact", KindReact: "react",
	KindProfile: "profile", KindJoin: "join", KindLeave: "leave", KindTopic: "topic",
	KindBan: "ban", KindReadMarker: "read-marker",
	KindCreate: "create", KindAdd: "add", KindRemove: "remove", KindRole: "role",
	KindPolicy: "policy", KindEpoch: "epoch", KindRevoke: "revoke",
	KindTyping: "typing", KindPresence: "presence",
}

// String returns the kind's name, or "kind-N" for one this version lacks.
func (k Kind) String() string {
	if s, ok := kindNames[k]; ok {
		return s
	}
	return fmt.Sprintf("kind-%d", uint8(k))
}

// Known says whether this version gives the kind a meaning.
func (k Kind) Known() bool { _, ok := kindNames[k]; return ok }

// Ephemeral says whether events of the kind are never stored.
func (k Kind) Ephemeral() bool { return k >= 128 }

// Membership says whether the kind takes part in deciding who is a member with
// which role; such events are synced before others.
func (k Kind) Membership() bool { return k >= 32 && k <= 47 || k == KindLeave || k == KindBan }

// needsRef says whether the kind is about another event, named in Header.Ref.
func (k Kind) needsRef() bool { return k == KindEdit || k == KindRedact || k == KindReact }
