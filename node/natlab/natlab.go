// Package natlab builds small internets out of real kernel parts for tests: hosts,
// local networks, home routers with network address translation, carrier NATs, packet
// loss, slow lines and partitions. Every host is a Linux network namespace, every cable
// a veth pair, every router a namespace that forwards and translates through nftables.
// Nothing is simulated, so hole punching, relaying and address observation behave as
// they do on the internet, within milliseconds and without one packet leaving the lab:
// the machine's own namespace never gets an interface into it, and no lab namespace has
// a route to anywhere else.
//
// It is a test kit, like net/http/httptest: only tests import it. It needs Linux and
// root, but no installed program; elsewhere [Require] and [New] skip the test and say
// why. On other systems the package is empty, so a test that uses it carries the
// constraint "linux".
//
// # Addresses
//
// The public segment is 192.0.0.192/26. libp2p counts it as public, which it does not do
// for the documentation and benchmark ranges, so reachability detection, automatic relay
// selection and hole punching take the paths they take in the wild. Homes default to
// 192.168.1.0/24, all of them, as real homes do. IPv6 is switched off in the lab, except
// on the loopback interface.
//
// # Processes
//
// A namespace belongs to a thread and goroutines wander between threads. So each node
// under test is a process of its own, started with [Host.Command] (the real binary, or
// the test binary re-executed), and only plain sockets are opened from within the test,
// inside [Host.Do]. All processes are killed when the test ends; namespaces have no name
// and vanish with the last process that uses them, also when the test binary is killed.
//
// # Concurrency
//
// All methods may be called from several goroutines. Those without an error result end
// the test with Fatal when the kernel refuses, and so, by the rules of package testing,
// belong into the goroutine of the test.
package natlab
