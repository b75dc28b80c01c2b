package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
	"unicode"

	"github.com/rogpeppe/go-internal/testscript"

	"github.com/starling-chat/starling/node/api"
)

// patience bounds every wait of a script. It is far over what anything takes on an idle machine,
// since tests run beside others on few cores.
const patience = 60 * time.Second

// parentEnv tells the processes of a test by whom they were started.
const parentEnv = "STARLING_TEST_PARENT"

// TestMain lets the test binary act as `starling`: scripts run it as processes of their own.
func TestMain(m *testing.M) {
	if os.Getenv(parentEnv) == "" {
		os.Setenv(parentEnv, strconv.Itoa(os.Getpid()))
	}
	testscript.Main(m, map[string]func(){"starling": func() {
		go followParent() // ends with the process
		os.Exit(realMain())
	}})
}

// followParent ends the process once the test that started it is gone: one that runs into its time-out has no
// chance to stop its nodes. A signal from the kernel would come with the end of a thread, not of the test.
func followParent() {
	pid, err := strconv.Atoi(os.Getenv(parentEnv))
	if err != nil || runtime.GOOS == "windows" {
		return
	}
	parent, err := os.FindProcess(pid)
	if err != nil {
		return
	}
	for range time.Tick(time.Second) {
		if err := parent.Signal(syscall.Signal(0)); errors.Is(err, os.ErrProcessDone) {
			os.Exit(exitFailure)
		}
	}
}

// TestScripts runs testdata/script. Besides testscript's own commands there are:
//
//	node NAME [FLAGS]        starts `starling run --home NAME` on loopback without discovery, waits for
//	                         its ready line, and sets $NAME_ADDR, $NAME_PEER, $NAME_ACCOUNT
//	relay NAME [FLAGS]       the same with `starling relay`
//	kill9 NAME, stop NAME    ends a node or a talk by SIGKILL, or by SIGTERM and a clean exit
//	talk NAME ARGS           starts `starling ARGS` with an input that `type` and `eof` feed
//	type NAME TEXT, eof NAME
//	expect NAME REGEXP       waits for it in the output of a talk, after the last match
//	until REGEXP COMMAND     repeats a command until its output matches; ! until it does not
//	get VARIABLE FIELD       sets a variable from the JSON of the last output
//	lines N                  the last output has N lines
//	same A B                 two variables are equal
//	bytes FILE TEXT          writes a file, with Go escapes such as \xff
//	items N FILE             writes a batch of N messages
//	fails N [<FILE] COMMAND  runs a command that must end with exit code N
//	clean                    the last output is harmless on a terminal
//	port VARIABLE ADDR       takes the port out of a multiaddr
//	nickof NAME TEXT, topicof NAME TEXT   sets them with Go escapes, in #lobby
func TestScripts(t *testing.T) {
	testscript.Run(t, testscript.Params{
		Dir:                 "testdata/script",
		RequireExplicitExec: true,
		Condition: func(cond string) (bool, error) {
			if cond == "root" {
				return os.Getuid() == 0, nil
			}
			return false, fmt.Errorf("unknown condition %q", cond)
		},
		Setup: func(env *testscript.Env) error {
			env.Values[stageKey{}] = &stage{procs: map[string]*proc{}}
			env.Setenv("HOME", env.WorkDir)
			env.Setenv(parentEnv, os.Getenv(parentEnv))
			env.Defer(func() { env.Values[stageKey{}].(*stage).killAll() })
			return nil
		},
		Cmds: map[string]func(*testscript.TestScript, bool, []string){
			"node":   func(ts *testscript.TestScript, _ bool, args []string) { startNode(ts, "run", args) },
			"relay":  func(ts *testscript.TestScript, _ bool, args []string) { startNode(ts, "relay", args) },
			"kill9":  cmdKill9,
			"stop":   cmdStop,
			"talk":   cmdTalk,
			"type":   cmdType,
			"eof":    cmdEOF,
			"expect": cmdExpect,
			"until":  cmdUntil,
			"get":    cmdGet,
			"lines":  cmdLines,
			"same":   cmdSame,
			"bytes":  cmdBytes,
			"items":  cmdItems,
			"fails":  cmdFails,
			"clean":  cmdClean,
			"port":   cmdPort,
			"nickof": func(ts *testscript.TestScript, _ bool, args []string) {
				call(ts, args, func(c *api.Client, text string) error {
					_, err := c.SetNick(context.Background(), text)
					return err
				})
			},
			"topicof": func(ts *testscript.TestScript, _ bool, args []string) {
				call(ts, args, func(c *api.Client, text string) error {
					return c.SetTopic(context.Background(), "#lobby", text)
				})
			},
		},
	})
}

type stageKey struct{}

// stage holds the processes of one script. Scripts run one command at a time.
type stage struct {
	procs map[string]*proc
}

func theStage(ts *testscript.TestScript) *stage { return ts.Value(stageKey{}).(*stage) }

func (s *stage) killAll() {
	for _, p := range s.procs {
		p.cmd.Process.Kill()
		<-p.done
	}
}

// take gives a process by name and forgets it.
func (s *stage) take(ts *testscript.TestScript, name string) *proc {
	p := s.procs[name]
	if p == nil {
		ts.Fatalf("no process is called %s", name)
	}
	delete(s.procs, name)
	return p
}

// proc is a running starling whose output is read as it comes.
type proc struct {
	cmd   *exec.Cmd
	stdin io.WriteCloser
	done  chan struct{} // closed when the process ended and its output was read
	err   error         // valid after done

	mu   sync.Mutex // guards all below
	out  bytes.Buffer
	read int           // how far expect has looked
	more chan struct{} // closed when out grows
}

// Write takes the process's output.
func (p *proc) Write(b []byte) (int, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	close(p.more)
	p.more = make(chan struct{})
	return p.out.Write(b)
}

func (p *proc) output() string {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.out.String()
}

// startProcess runs starling in dir; both its streams go into one buffer when joined is set,
// standard error to a file beside the home otherwise.
func startProcess(dir string, env []string, stderr io.Writer, args ...string) (*proc, error) {
	p := &proc{cmd: exec.Command("starling", args...), done: make(chan struct{}), more: make(chan struct{})}
	p.cmd.Dir, p.cmd.Env = dir, env
	p.cmd.Stdout, p.cmd.Stderr = p, stderr
	if stderr == nil {
		p.cmd.Stderr = p
	}
	var err error
	if p.stdin, err = p.cmd.StdinPipe(); err != nil {
		return nil, err
	}
	if err := p.cmd.Start(); err != nil {
		return nil, err
	}
	go func() { // ends with the process
		p.err = p.cmd.Wait()
		close(p.done)
	}()
	return p, nil
}

// waitFor waits until re matches the output after what was matched before.
func (p *proc) waitFor(re *regexp.Regexp) ([]string, error) {
	deadline := time.After(patience)
	for {
		p.mu.Lock()
		rest, more := p.out.String()[p.read:], p.more
		m := re.FindStringSubmatchIndex(rest)
		if m != nil {
			p.read += m[1]
			p.mu.Unlock()
			return re.FindStringSubmatch(rest), nil
		}
		p.mu.Unlock()
		select {
		case <-more:
		case <-p.done:
			if !re.MatchString(p.output()[p.read:]) {
				return nil, fmt.Errorf("it ended (%v) without %s; its output:\n%s", p.err, re, p.output())
			}
		case <-deadline:
			return nil, fmt.Errorf("no %s within %s; its output:\n%s", re, patience, p.output())
		}
	}
}

func scriptEnv(ts *testscript.TestScript) []string {
	return append(os.Environ(), "HOME="+ts.Getenv("WORK"), "STARLING_HOME=")
}

// loopback are the flags of nodes that touch nothing but this machine and find nobody by themselves.
func loopback(home string) []string {
	return []string{"--home", home, "--listen", "/ip4/127.0.0.1/tcp/0", "--no-mdns", "--no-dht"}
}

var readyPattern = regexp.MustCompile(`(?m)^\{"event":"ready".*\}$`)

func startNode(ts *testscript.TestScript, command string, args []string) {
	name := args[0]
	log, err := os.OpenFile(ts.MkAbs(name+".log"), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	ts.Check(err)
	all := append(append([]string{command}, loopback(name)...), args[1:]...)
	p, err := startProcess(ts.MkAbs("."), scriptEnv(ts), log, all...)
	ts.Check(err)
	theStage(ts).procs[name] = p
	m, err := p.waitFor(readyPattern)
	if err != nil {
		b, _ := os.ReadFile(log.Name())
		ts.Fatalf("%v\nits log:\n%s", err, b)
	}
	var ready readyLine
	ts.Check(json.Unmarshal([]byte(m[0]), &ready))
	upper := strings.ToUpper(name)
	ts.Setenv(upper+"_ADDR", ready.Addrs[0])
	ts.Setenv(upper+"_PEER", ready.PeerID)
	ts.Setenv(upper+"_ACCOUNT", ready.Account)
}

func cmdKill9(ts *testscript.TestScript, _ bool, args []string) {
	p := theStage(ts).take(ts, args[0])
	ts.Check(p.cmd.Process.Kill())
	<-p.done
}

func cmdStop(ts *testscript.TestScript, _ bool, args []string) {
	p := theStage(ts).take(ts, args[0])
	ts.Check(p.cmd.Process.Signal(syscall.SIGTERM))
	awaitExit(ts, p)
}

// awaitExit waits for a clean end.
func awaitExit(ts *testscript.TestScript, p *proc) {
	select {
	case <-p.done:
	case <-time.After(patience):
		p.cmd.Process.Kill()
		<-p.done
		ts.Fatalf("it did not end; its output:\n%s", p.output())
	}
	if p.err != nil {
		ts.Fatalf("it ended with %v; its output:\n%s", p.err, p.output())
	}
}

func cmdTalk(ts *testscript.TestScript, _ bool, args []string) {
	p, err := startProcess(ts.MkAbs("."), scriptEnv(ts), nil, args[1:]...)
	ts.Check(err)
	theStage(ts).procs[args[0]] = p
}

func cmdType(ts *testscript.TestScript, _ bool, args []string) {
	p := theStage(ts).procs[args[0]]
	_, err := fmt.Fprintln(p.stdin, strings.Join(args[1:], " "))
	ts.Check(err)
}

// cmdEOF ends the input of a talk; with ! it must fail.
func cmdEOF(ts *testscript.TestScript, neg bool, args []string) {
	p := theStage(ts).take(ts, args[0])
	if err := p.stdin.Close(); !errors.Is(err, os.ErrClosed) { // the input of one that has ended by itself is closed
		ts.Check(err)
	}
	if !neg {
		awaitExit(ts, p)
		return
	}
	<-p.done
	if p.err == nil {
		ts.Fatalf("it ended with 0; its output:\n%s", p.output())
	}
}

func cmdExpect(ts *testscript.TestScript, neg bool, args []string) {
	p := theStage(ts).procs[args[0]]
	re, err := regexp.Compile("(?m)" + args[1])
	ts.Check(err)
	if neg {
		if re.MatchString(p.output()) {
			ts.Fatalf("%s is in the output:\n%s", re, p.output())
		}
		return
	}
	_, err = p.waitFor(re)
	ts.Check(err)
}

func cmdUntil(ts *testscript.TestScript, neg bool, args []string) {
	re, err := regexp.Compile("(?m)" + args[0])
	ts.Check(err)
	deadline := time.Now().Add(patience)
	for {
		cmd := exec.Command(args[1], args[2:]...)
		cmd.Dir, cmd.Env = ts.MkAbs("."), scriptEnv(ts)
		out, err := cmd.CombinedOutput()
		if (err == nil || neg) && re.Match(out) != neg {
			return
		}
		if time.Now().After(deadline) {
			ts.Fatalf("%s did not come true within %s: %v\n%s", args[0], patience, err, out)
		}
	}
}

func cmdGet(ts *testscript.TestScript, _ bool, args []string) {
	var object map[string]any
	last := ts.ReadFile("stdout")
	ts.Check(json.Unmarshal([]byte(strings.SplitN(last, "\n", 2)[0]), &object))
	v, ok := object[args[1]]
	if !ok {
		ts.Fatalf("no field %s in %s", args[1], last)
	}
	ts.Setenv(args[0], fmt.Sprint(v))
}

func cmdLines(ts *testscript.TestScript, neg bool, args []string) {
	out := ts.ReadFile("stdout")
	n := strings.Count(out, "\n")
	if (fmt.Sprint(n) == args[0]) == neg {
		ts.Fatalf("%d lines:\n%s", n, out)
	}
}

func cmdSame(ts *testscript.TestScript, neg bool, args []string) {
	a, b := ts.Getenv(args[0]), ts.Getenv(args[1])
	if (a == b) == neg {
		ts.Fatalf("%s is %q, %s is %q", args[0], a, args[1], b)
	}
}

func cmdBytes(ts *testscript.TestScript, _ bool, args []string) {
	text, err := unquote(args[1])
	ts.Check(err)
	ts.Check(os.WriteFile(ts.MkAbs(args[0]), []byte(text), 0o600))
}

func cmdFails(ts *testscript.TestScript, _ bool, args []string) {
	want, args := args[0], args[1:]
	input := ""
	if file, ok := strings.CutPrefix(args[0], "<"); ok {
		input, args = ts.ReadFile(file), args[1:]
	}
	cmd := exec.Command(args[0], args[1:]...)
	cmd.Dir, cmd.Env = ts.MkAbs("."), scriptEnv(ts)
	cmd.Stdin = strings.NewReader(input)
	cmd.Stdout, cmd.Stderr = ts.Stdout(), ts.Stderr()
	err := cmd.Run()
	code := cmd.ProcessState.ExitCode()
	if fmt.Sprint(code) != want {
		ts.Fatalf("it ended with %d (%v), not %s\n%s%s", code, err, want, ts.ReadFile("stdout"), ts.ReadFile("stderr"))
	}
}

func cmdItems(ts *testscript.TestScript, _ bool, args []string) {
	n, err := strconv.Atoi(args[0])
	ts.Check(err)
	var b bytes.Buffer
	for i := 1; i <= n; i++ {
		fmt.Fprintf(&b, `{"client_id":"item-%d","text":"item %d of many"}`+"\n", i, i)
	}
	ts.Check(os.WriteFile(ts.MkAbs(args[1]), b.Bytes(), 0o600))
}

// cmdClean states what every output but JSON promises, without the escape functions themselves.
func cmdClean(ts *testscript.TestScript, _ bool, _ []string) {
	out := ts.ReadFile("stdout")
	for _, r := range out {
		if r != '\n' && (unicode.IsControl(r) || unicode.Is(unicode.Bidi_Control, r) || r == '\u2028' || r == '\u200b') {
			ts.Fatalf("%U is in the output %q", r, out)
		}
	}
}

func cmdPort(ts *testscript.TestScript, _ bool, args []string) {
	_, port, ok := strings.Cut(args[1], "/tcp/")
	if !ok {
		ts.Fatalf("no port in %s", args[1])
	}
	ts.Setenv(args[0], strings.SplitN(port, "/", 2)[0])
}

// call speaks to a node by its API, with a text that cannot be written in a script.
func call(ts *testscript.TestScript, args []string, do func(c *api.Client, text string) error) {
	text, err := unquote(args[1])
	ts.Check(err)
	c := api.NewClient(api.FindSocket(ts.MkAbs(args[0])))
	defer c.Close()
	ts.Check(do(c, text))
}

func unquote(s string) (string, error) {
	var v string
	_, err := fmt.Sscanf(`"`+strings.ReplaceAll(s, `"`, `\"`)+`"`, "%q", &v)
	if err != nil {
		return "", fmt.Errorf("unquoting %s: %w", s, err)
	}
	return v, nil
}

// TestUnquote is for the harness itself: a test that writes other bytes than it says proves nothing.
func TestUnquote(t *testing.T) {
	got, err := unquote(`a\xff\u202e"\n`)
	if err != nil || got != "a\xff\u202e\"\n" {
		t.Errorf("%q, %v", got, err)
	}
}

// shortHome is a home whose path leaves room for a socket.
func shortHome(t *testing.T) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "home")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	return filepath.Join(dir, "h")
}
