// Package chat is what a conversation is: rooms, members, order, history, direct messages,
// offline delivery. It turns a fast lossy gossip, ordered streams to single devices and a durable
// store into conversations that every participant sees the same way.
//
// It is not a network and not a database: it knows neither libp2p nor Badger, but the interfaces
// in net.go and the store of package storage. It has no user interface: node/apiserver translates
// the types of view.go for front-ends.
//
// One [Service] serves one device. Its methods may be called from any goroutine; each room has one
// owner goroutine, the direct messages together have one, and everything reaches them through
// bounded queues. Guarantees:
//
//   - What a method accepted is durable before it returns.
//   - Messages of one caller to one conversation are ordered as they were submitted.
//   - An event stream gives every change in the order in which it was made, or says [EventReset].
//   - What a room shows depends only on the set of events it holds, never on the order of arrival.
//
// docs/spec/chat.md says what peers must agree on.
package chat
