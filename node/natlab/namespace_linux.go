package natlab

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netns"
	"golang.org/x/sys/unix"
)

// namespace is one network namespace without a name: an open file keeps it alive, so the
// kernel removes it, with all its interfaces and rules, once the file is closed and no
// process is left inside, however this process ends.
type namespace struct {
	name  string
	fd    netns.NsHandle
	calls chan func()   // to the keeper thread; closed by close
	ended chan struct{} // closed when the keeper thread leaves
}

// onDisposableThread runs fn in a new goroutine on a thread that the runtime destroys
// afterwards, because fn changes the namespace of its thread. The main thread is never
// used: it cannot be destroyed, and it stands for the process in /proc.
func onDisposableThread(fn func()) {
	// Ends when fn returns; callers wait through a channel that fn closes.
	go func() {
		runtime.LockOSThread()
		if unix.Gettid() == unix.Getpid() {
			// As long as this goroutine holds the main thread, the next one gets another.
			done := make(chan struct{})
			onDisposableThread(func() { defer close(done); fn() })
			<-done
			runtime.UnlockOSThread()
			return
		}
		fn()
	}()
}

// newNamespace makes a namespace and its keeper, a thread that stays inside until close.
// The keeper is the parent of the namespace's processes: their parent-death signal is
// bound to a thread, so this thread must live as long as they may.
func newNamespace(name string) (*namespace, error) {
	ns := &namespace{name: name, fd: netns.None(), calls: make(chan func()), ended: make(chan struct{})}
	made := make(chan error, 1)
	onDisposableThread(func() {
		defer close(ns.ended)
		fd, err := netns.New()
		ns.fd = fd
		made <- err
		if err != nil {
			return
		}
		for call := range ns.calls {
			call()
		}
	})
	if err := <-made; err != nil {
		<-ns.ended
		return nil, fmt.Errorf("making a network namespace: %w", err)
	}
	if err := ns.run(ns.prepare); err != nil {
		ns.close()
		return nil, err
	}
	return ns, nil
}

// prepare sets what every namespace of the lab has in common. It runs on the keeper.
func (ns *namespace) prepare() error {
	settings := map[string]string{
		"net/ipv4/conf/all/rp_filter":     "0",
		"net/ipv4/conf/default/rp_filter": "0",
		"net/ipv4/ip_forward":             "0",
		// Neighbours learn of a new address at once, as from a DHCP client.
		"net/ipv4/conf/default/arp_notify": "1",
		// Link-local IPv6 would slip past partitions, which are rules about IPv4.
		"net/ipv6/conf/default/disable_ipv6": "1",
		// Otherwise frames between two ports of a bridge meet the router's rules.
		"net/bridge/bridge-nf-call-iptables": "0",
	}
	for key, value := range settings {
		if err := sysctl(key, value); err != nil && !errors.Is(err, os.ErrNotExist) {
			return err
		}
	}
	return withNetlink(func(h *netlink.Handle) error {
		lo, err := h.LinkByName("lo")
		if err != nil {
			return fmt.Errorf("finding the loopback interface: %w", err)
		}
		return h.LinkSetUp(lo)
	})
}

// run executes fn on the keeper thread, inside the namespace, and returns its error. fn
// must be short and must not call run.
func (ns *namespace) run(fn func() error) error {
	result := make(chan error, 1)
	ns.calls <- func() { result <- fn() }
	return <-result
}

// enter executes fn on a new thread inside the namespace; the thread is destroyed when fn
// returns, whatever fn did to it.
func (ns *namespace) enter(fn func() error) error {
	result := make(chan error, 1)
	onDisposableThread(func() {
		err := errors.New("the function left its goroutine (did it call FailNow?)")
		defer func() { result <- err }()
		if setErr := netns.Set(ns.fd); setErr != nil {
			err = fmt.Errorf("entering namespace %s: %w", ns.name, setErr)
			return
		}
		err = fn()
	})
	return <-result
}

// close ends the keeper thread, which kills the processes it started, and drops the hold
// on the namespace. No other method may be called afterwards.
func (ns *namespace) close() {
	close(ns.calls)
	<-ns.ended
	_ = ns.fd.Close()
}

// sysctl writes one kernel setting of the calling thread's namespace; key is a path below
// /proc/sys.
func sysctl(key, value string) error {
	err := os.WriteFile(filepath.Join("/proc/sys", key), []byte(value), 0o644)
	if err != nil {
		return fmt.Errorf("setting %s: %w", key, err)
	}
	return nil
}

// withNetlink calls fn with a routing socket in the calling thread's namespace.
func withNetlink(fn func(*netlink.Handle) error) error {
	h, err := netlink.NewHandle(unix.NETLINK_ROUTE)
	if err != nil {
		return fmt.Errorf("opening a routing socket: %w", err)
	}
	defer h.Close()
	return fn(h)
}
