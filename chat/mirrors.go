package chat

import (
	"slices"

	roomsync "github.com/starling-chat/starling/chat/sync"
	"github.com/starling-chat/starling/chat/wire"
)

// Mirrors are relays that keep a room's sealed events and cannot read them. They take part in sync like
// members, with one difference: they have no key to the topic, so they cannot prove that they belong to
// it. What they give out is verified like everything else.

// lookForMirrors brings the schedule up to date with the relays that mirror the joined rooms. One that
// appeared is due at once.
func (y *syncer) lookForMirrors() {
	relays := y.s.cfg.Relays
	if relays == nil {
		return
	}
	for _, r := range y.s.joinedRooms() {
		for _, e := range r.active() {
			topic := e.keys.Topic
			now := relays.Mirrors(topic)
			y.mu.Lock()
			before := y.mirrors[topic]
			y.mirrors[topic] = now
			y.mu.Unlock()
			y.around(topic, without(now, before), without(before, now))
		}
	}
}

// confirm asks a mirror of a room, if there is one, whether it has what was said here.
func (y *syncer) confirm(r *room) {
	topic := r.keys().Topic
	y.mu.Lock()
	defer y.mu.Unlock()
	for _, dev := range y.mirrors[topic] {
		y.schedule.Confirm(roomsync.Topic(topic), syncPeer(dev))
	}
}

// mirrored says whether a topic has a mirror at the moment.
func (y *syncer) mirrored(topic wire.TopicKey) bool {
	return y.s.cfg.Relays != nil && len(y.s.cfg.Relays.Mirrors(topic)) > 0
}

// without returns what is in a and not in b.
func without(a, b []wire.DeviceID) []wire.DeviceID {
	var list []wire.DeviceID
	for _, dev := range a {
		if !slices.Contains(b, dev) {
			list = append(list, dev)
		}
	}
	return list
}

// isMirror says whether a device mirrors a topic for us, so that it need not prove to be a member.
func (y *syncer) isMirror(topic wire.TopicKey, dev wire.DeviceID) bool {
	return y.s.cfg.Relays != nil && slices.Contains(y.s.cfg.Relays.Mirrors(topic), dev)
}
