package natlab

import (
	"bytes"
	"context"
	"errors"
	"os/exec"
	"sync"
	"syscall"
	"time"
)

// processGrace is how long Wait waits for the pipes of a dead process to close: a
// grandchild may hold them.
const processGrace = 5 * time.Second

// Cmd is an exec.Cmd that runs inside a host's namespace. Its methods here stand in front
// of those of exec.Cmd; all else (Dir, Env, StdoutPipe and so on) is as usual.
type Cmd struct {
	*exec.Cmd

	host   *Host
	waited sync.Once
	result error
}

// Command returns a process to be started on this host. It is killed when ctx ends, when
// the test ends, and when the test binary dies.
func (h *Host) Command(ctx context.Context, path string, args ...string) *Cmd {
	return &Cmd{Cmd: exec.CommandContext(ctx, path, args...), host: h}
}

// Start is exec.Cmd.Start inside the namespace.
func (c *Cmd) Start() error {
	if c.SysProcAttr == nil {
		c.SysProcAttr = &syscall.SysProcAttr{}
	}
	// Binds the process to the thread that starts it, which is why this has to be the
	// keeper of the namespace.
	c.SysProcAttr.Pdeathsig = syscall.SIGKILL
	if c.WaitDelay == 0 {
		c.WaitDelay = processGrace
	}
	lab := c.host.lab
	lab.procMu.Lock()
	defer lab.procMu.Unlock()
	if lab.closed {
		return errors.New("natlab: the test of this lab has ended")
	}
	if err := c.host.ns.run(c.Cmd.Start); err != nil {
		return err
	}
	lab.processes = append(lab.processes, c)
	return nil
}

// Wait is exec.Cmd.Wait, but may be called several times and from several goroutines.
func (c *Cmd) Wait() error {
	if c.Process == nil {
		return errors.New("natlab: the process was not started")
	}
	c.waited.Do(func() { c.result = c.Cmd.Wait() })
	return c.result
}

// Run starts the process and waits for it.
func (c *Cmd) Run() error {
	if err := c.Start(); err != nil {
		return err
	}
	return c.Wait()
}

// Output runs the process and returns what it wrote to its standard output.
func (c *Cmd) Output() ([]byte, error) {
	var out bytes.Buffer
	c.Stdout = &out
	err := c.Run()
	return out.Bytes(), err
}

// CombinedOutput runs the process and returns its standard output and error together.
func (c *Cmd) CombinedOutput() ([]byte, error) {
	var out bytes.Buffer
	c.Stdout, c.Stderr = &out, &out
	err := c.Run()
	return out.Bytes(), err
}
