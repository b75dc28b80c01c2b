package main

import (
	"testing"
	"time"
)

// Two machines on one switch, no configuration, no internet: each sees the other's message within
// 5 s of the second start. A third comes later and talks at once.
func TestLabLAN(t *testing.T) {
	t.Parallel()
	f := newField(t)
	office := f.LAN("office")
	hosts := []*station{f.run(office.Host("a")), f.run(office.Host("b"))}
	for _, s := range hosts {
		s.join("lobby")
	}
	a, b := hosts[0], hosts[1]
	second := b.began
	a.send("#lobby", "from a")
	b.send("#lobby", "from b")
	limit := 5*time.Second - time.Since(second)
	a.hears(limit, "from b")
	b.hears(limit, "from a")
	t.Logf("a heard b %s and b heard a %s after the second start", a.ear.at("from b").Sub(second).Round(time.Millisecond), b.ear.at("from a").Sub(second).Round(time.Millisecond))
	awaitPath(a, b, 5*time.Second, "lan")

	c := f.run(office.Host("c"))
	c.join("lobby")
	c.send("#lobby", "from c")
	a.hears(5*time.Second, "from c")
	b.hears(5*time.Second, "from c")
	a.send("#lobby", "welcome")
	c.hears(5*time.Second, "welcome")
	t.Logf("both heard the third within %s of its start", max(a.ear.at("from c").Sub(c.began), b.ear.at("from c").Sub(c.began)).Round(time.Millisecond))
}
