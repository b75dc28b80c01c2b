package wire

import "time"

// Limits of version 1. They are part of the protocol: what exceeds one is
// invalid at every node, so no two nodes disagree on what a set holds.
const (
	// MaxHeader bounds an encoded Header, in bytes.
	MaxHeader = 1536
	// MaxBody bounds an event's body, salt included, in bytes.
	MaxBody = 48 << 10
	// MaxHead bounds the plain head of a sealed event: header, device
	// signature and their framing, in bytes.
	MaxHead = MaxHeader + 80
	// MaxEvent bounds an encoded Event, in bytes.
	MaxEvent = MaxHead + MaxBody + 8
	// MaxSealed bounds an encoded Sealed, in bytes; it is also the largest
	// gossip message.
	MaxSealed = 64 << 10
	// MaxParents bounds the parents of one event.
	MaxParents = 4
	// MaxAttachments bounds the attachments of one event or direct message.
	MaxAttachments = 16
	// MaxAttachmentSize bounds the size that an attachment may claim: 1 TiB.
	MaxAttachmentSize = 1 << 40
	// MaxExtensions bounds the extension fields of one message, in bytes.
	MaxExtensions = 512
	// MaxCertificate bounds an encoded Certificate, in bytes.
	MaxCertificate = 192

	// BodySaltSize is the size in bytes of the random salt that begins every body.
	BodySaltSize = 16

	// MaxText bounds the text of a message or an edit, in bytes of UTF-8.
	MaxText = 16 << 10
	// MaxMentions bounds the accounts one message mentions.
	MaxMentions = 64
	// MaxNick bounds a nick, in bytes of UTF-8.
	MaxNick = 64
	// MaxAbout bounds a profile's about text, in bytes of UTF-8.
	MaxAbout = 512
	// MaxReason bounds the reason given for a redaction, ban, removal, leaving
	// or rejection, in bytes of UTF-8.
	MaxReason = 512
	// MaxTopicText bounds a room's topic line, in bytes of UTF-8.
	MaxTopicText = 1024
	// MaxReaction bounds the symbol of a reaction, in bytes of UTF-8.
	MaxReaction = 32
	// MaxFileName bounds the name of an attached file, in bytes of UTF-8.
	MaxFileName = 255
	// MaxMediaType bounds the media type of an attached file, in bytes.
	MaxMediaType = 127
	// MaxReadMarkerBox bounds the sealed content of a read marker, in bytes.
	MaxReadMarkerBox = 256

	// MaxRoomName bounds a canonical room name, in runes.
	MaxRoomName = 64
	// MaxRoomNameInput bounds what CanonicalRoomName looks at, in bytes.
	MaxRoomNameInput = 1024
	// MaxPrivateName bounds the display name of a private room, in bytes of UTF-8.
	MaxPrivateName = 256
	// MaxRoomPassword bounds a public room's password, in bytes of UTF-8.
	MaxRoomPassword = 1024
	// MaxNetworkName bounds a network's name, in bytes.
	MaxNetworkName = 64

	// MaxAhead is how far ahead of the local clock an event is taken at once;
	// further ahead it waits until due. A node's own clock never follows
	// anything beyond it.
	MaxAhead = 2 * time.Minute
	// MaxDefer is how far ahead an event may be and still wait; beyond it the
	// event is dropped.
	MaxDefer = 24 * time.Hour

	// MaxFrame bounds the payload of a stream frame, in bytes.
	MaxFrame = 64 << 10
	// MaxEnvelope bounds a sealed direct message, in bytes.
	MaxEnvelope = 60 << 10
	// MaxDMContent bounds an encoded DMContent, in bytes.
	MaxDMContent = 56 << 10
	// MaxDMBody bounds the body of a direct message, in bytes.
	MaxDMBody = 48 << 10
	// MaxAcks bounds the message ids one acknowledgement lists.
	MaxAcks = 256
	// MaxCapabilities bounds the capability strings of a Hello.
	MaxCapabilities = 32
	// MaxCapability bounds one capability string, in bytes.
	MaxCapability = 64

	// MaxAttachTopics bounds the topics of one Attach or Detach frame.
	MaxAttachTopics = 256
	// MaxLease is the longest lease that may be asked for.
	MaxLease = time.Hour
	// DefaultLease is the lease clients ask for and renew at half its time.
	DefaultLease = 10 * time.Minute
	// MaxMailboxLife is how long a deposit may ask to be kept.
	MaxMailboxLife = 14 * 24 * time.Hour
	// MaxCollect bounds the items one Collect may ask for.
	MaxCollect = 64
	// MaxDelete bounds the deposits one Delete names.
	MaxDelete = 256

	// MaxLink bounds a starling: link, in bytes.
	MaxLink = 4096
	// MaxLinkAddresses bounds the addresses in one link.
	MaxLinkAddresses = 8
	// MaxAddress bounds one address in text form, in bytes.
	MaxAddress = 256

	// MaxDoors bounds the members named in an invite besides its maker.
	MaxDoors = 3
	// MaxMarks bounds the devices of which a removal says what stands.
	MaxMarks = 16
	// MaxRoomLogEvents bounds the events of one RoomLogBody, and the ids of
	// one RoomWantedBody.
	MaxRoomLogEvents = 64
	// MaxMembershipEvents bounds the membership events of a room that are
	// looked at.
	MaxMembershipEvents = 1 << 16

	// MaxDevices bounds the devices in a DeviceList, and its revocations.
	MaxDevices = 16
	// MaxMailboxes bounds the mailboxes in a PrekeyRecord.
	MaxMailboxes = 4
	// MaxRecord bounds an encoded signed record, in bytes.
	MaxRecord = 8 << 10
	// MaxRecordLife is how long after its issue a signed record may expire.
	MaxRecordLife = 366 * 24 * time.Hour
)
