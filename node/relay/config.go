package relay

import "time"

// Config are the limits and lists of a public relay. Zero fields take the default.
type Config struct {
	// Topics bounds the topics forwarded at once (4,096). Each costs about 1 KiB and its traffic.
	Topics int
	// TopicsPerPeer bounds one client's leases (256).
	TopicsPerPeer int
	// Clients bounds the peers that hold leases (1,024).
	Clients int
	// Lease is the longest lease given (10 min). A shorter one costs renewals, a longer one keeps
	// topics of clients that are gone.
	Lease time.Duration
	// Requests bounds what one client may ask a minute (60).
	Requests int
	// EventsPerSecond and BytesPerSecond bound one topic (200, 2 MiB); a tenfold second may come at
	// once.
	EventsPerSecond int
	BytesPerSecond  int

	// Circuits: relayed connections for peers that cannot reach each other.
	Circuits Circuits

	// Archive: what is kept for those who are away.
	Archive ArchiveConfig

	// Lists is the path of a file with one rule a line, "allow PEERID|CIDR" or "deny PEERID|CIDR",
	// that is read again when it changes; empty: everybody may come. With any allow rule, only those
	// allowed may.
	Lists string
	// Status is the loopback or public "host:port" of /healthz, /metrics and a status page; empty: off.
	Status string
}

// Circuits bounds the circuit relay service.
type Circuits struct {
	Reservations int           // 1,024
	PerIP        int           // reservations from one address (64)
	PerPeer      int           // open circuits of one peer (32)
	Duration     time.Duration // of one circuit (1 h)
	Bytes        int64         // of one circuit, each direction (64 MiB)
	// CircuitRate, PeerRate and Rate bound bytes a second: of one circuit (256 KiB), of one peer's
	// circuits together (512 KiB), of all (2.5 MB, that is 20 Mbit).
	CircuitRate int64
	PeerRate    int64
	Rate        int64
	// Daily and Monthly bound the bytes carried in a UTC day (50 GiB) and month (0: no cap of its own).
	Daily   int64
	Monthly int64
}

// Fill puts the defaults where nothing was set.
func (c *Config) Fill() {
	setDefault(&c.Topics, 4096)
	setDefault(&c.TopicsPerPeer, 256)
	setDefault(&c.Clients, 1024)
	setDefault(&c.Lease, 10*time.Minute)
	setDefault(&c.Requests, 60)
	setDefault(&c.EventsPerSecond, 200)
	setDefault(&c.BytesPerSecond, 2<<20)
	k := &c.Circuits
	setDefault(&k.Reservations, 1024)
	setDefault(&k.PerIP, 64)
	setDefault(&k.PerPeer, 32)
	setDefault(&k.Duration, time.Hour)
	setDefault(&k.Bytes, 64<<20)
	setDefault(&k.CircuitRate, 256<<10)
	setDefault(&k.PeerRate, 512<<10)
	setDefault(&k.Rate, 2_500_000)
	setDefault(&k.Daily, 50<<30)
}

func setDefault[T int | int64 | time.Duration](v *T, def T) {
	if *v <= 0 {
		*v = def
	}
}
