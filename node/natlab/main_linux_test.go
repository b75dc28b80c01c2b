package natlab_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"syscall"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/starling-chat/starling/node/natlab"
)

// childEnv tells the test binary, run again inside the lab, what to be.
const childEnv = "NATLAB_TEST_CHILD"

// childLife is how long a child lives that nobody ends, so that a test that waits for a
// word of it ends too. Hole punching takes a third of a second, but 15 seconds when it
// needs all three tries of libp2p.
const childLife = 25 * time.Second

func TestMain(m *testing.M) {
	roles := map[string]func(context.Context) error{
		"idle": idle, "victim": victim, "nobody": nobody, "relay": relayNode, "peer": peerNode, "lan": lanNode,
	}
	name := os.Getenv(childEnv)
	if name == "" {
		goleak.VerifyTestMain(m)
		return
	}
	ctx, cancel := context.WithTimeout(context.Background(), childLife)
	defer cancel()
	if err := roles[name](ctx); err != nil {
		fmt.Fprintf(os.Stderr, "%s: %v\n", name, err)
		os.Exit(1)
	}
}

// say prints one line for the test.
func say(v any) error { return json.NewEncoder(os.Stdout).Encode(v) }

// child prepares the test binary to be run on a host in one of the roles above.
func child(ctx context.Context, h *natlab.Host, role string, env ...string) (*natlab.Cmd, error) {
	self, err := os.Executable()
	if err != nil {
		return nil, err
	}
	cmd := h.Command(ctx, self)
	cmd.Env = append(append(os.Environ(), childEnv+"="+role), env...)
	cmd.Stderr = os.Stderr
	return cmd, nil
}

// running is a child and what it reads and says.
type running struct {
	*natlab.Cmd
	in  io.Writer
	out *json.Decoder
}

// start runs a child on a host.
func start(t *testing.T, h *natlab.Host, role string, env ...string) *running {
	t.Helper()
	cmd, err := child(t.Context(), h, role, env...)
	if err != nil {
		t.Fatal(err)
	}
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	return &running{Cmd: cmd, in: in, out: json.NewDecoder(out)}
}

// report is what a child says.
type report struct {
	Addr    string // where it can be reached, when it can
	Direct  string // the other side's address, once a direct connection answered a ping
	Refused string // why it gets no lab
}

// hear waits for the next report of a child.
func hear(t *testing.T, who string, c *running) report {
	t.Helper()
	var r report
	if err := c.out.Decode(&r); err != nil {
		t.Fatalf("%s said nothing more: %v", who, err)
	}
	return r
}

// presence says where a process is.
type presence struct {
	PID       int
	Namespace string
}

// here returns the presence of this process.
func here() (presence, error) {
	ns, err := os.Readlink("/proc/self/ns/net")
	return presence{PID: os.Getpid(), Namespace: ns}, err
}

// idle says where it is and then waits to be killed.
func idle(ctx context.Context) error {
	p, err := here()
	if err != nil {
		return err
	}
	if err := say(p); err != nil {
		return err
	}
	<-ctx.Done()
	return ctx.Err()
}

// outsideTB stands in for a test where there is none, or where it must not end: Skip and
// Fatalf panic with their text.
type outsideTB struct{ testing.TB }

func (outsideTB) Helper()                   {}
func (outsideTB) Cleanup(func())            {}
func (outsideTB) Skip(args ...any)          { panic(fmt.Sprint(args...)) }
func (outsideTB) Fatalf(f string, a ...any) { panic(fmt.Sprintf(f, a...)) }

// nobody gives up root and says why it gets no lab.
func nobody(context.Context) error {
	const uid = 65534 // the user that owns nothing
	if err := syscall.Setuid(uid); err != nil {
		return err
	}
	return say(report{Refused: panicOf(func() { natlab.Require(outsideTB{}) })})
}

// panicOf returns the text of fn's panic, or "".
func panicOf(fn func()) (text string) {
	defer func() {
		if r := recover(); r != nil {
			text = fmt.Sprint(r)
		}
	}()
	fn()
	return ""
}

// victim builds a lab with a process in it and waits to be killed, so that nothing is
// torn down.
func victim(ctx context.Context) error {
	lab := natlab.New(outsideTB{})
	cmd, err := child(ctx, lab.Home("home", natlab.Cone).Host("a"), "idle")
	if err != nil {
		return err
	}
	cmd.Stdout = os.Stdout
	if err := cmd.Run(); err != nil {
		return err
	}
	return errors.New("the idle child ended")
}
