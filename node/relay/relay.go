// Package relay is what a public relay adds to a node: it forwards room topics for clients that
// hold a lease, and carries circuits between peers that cannot reach each other, within limits.
//
// It is blind. A topic's name is a public key and every sealed event is signed by it, so a relay
// checks what it forwards without knowing the room's name, its members' names or its text.
// docs/spec/relay.md is the protocol, docs/guide/relay.md the operator's guide.
package relay
