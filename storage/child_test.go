package storage

import (
	"bytes"
	"context"
	"encoding/gob"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"go.uber.org/goleak"
)

// childEnv names what a re-executed test binary does instead of tests; its
// arguments stand in childArgs, separated by newlines.
const (
	childEnv = "STARLING_STORAGE_CHILD"
	childDir = "STARLING_STORAGE_DIR"
	// childPoint is where the child kills itself: "point:pass".
	childPoint = "STARLING_STORAGE_POINT"
)

func TestMain(m *testing.M) {
	if mode := os.Getenv(childEnv); mode != "" {
		if err := childMain(mode, os.Getenv(childDir)); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		os.Exit(0)
	}
	goleak.VerifyTestMain(m)
}

func childMain(mode, dir string) error {
	ctx := context.Background()
	hook := func(string) error { return nil }
	if spec := os.Getenv(childPoint); spec != "" {
		var err error
		if hook, err = killAt(spec); err != nil {
			return err
		}
	}
	switch mode {
	case "write":
		return childWrite(ctx, dir, hook)
	case "migrate":
		o := testOptions(dir)
		o.schema, o.migrations, o.hook = schemaVersion+1, testMigrations(), hook
		s, err := Open(ctx, o)
		if err != nil {
			return err
		}
		return s.Close()
	case "examine":
		return childExamine(ctx, dir)
	case "repair":
		var out examined
		if _, err := Repair(ctx, testOptions(dir)); err != nil {
			out.Refused = err.Error()
		}
		return json.NewEncoder(os.Stdout).Encode(out)
	}
	if run, ok := childModes[mode]; ok {
		return run(ctx, dir)
	}
	return fmt.Errorf("no such mode: %s", mode)
}

// childCommand re-executes the test binary.
func childCommand(t *testing.T, mode, dir string, env ...string) *exec.Cmd {
	t.Helper()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.CommandContext(t.Context(), self)
	cmd.Env = append(os.Environ(), append(env, childEnv+"="+mode, childDir+"="+dir)...)
	return cmd
}

// examined is what the child "examine" found.
type examined struct {
	Refused       string // why Open refused
	Bad           string // silently wrong data
	Missing, Told int
	Silent        bool // nothing in State tells of a loss

	stderr string
}

func worldFile(dir string) string { return filepath.Join(filepath.Dir(dir), "world") }

// runChild examines a directory in a child process. An error means that the
// process died.
func runChild(t *testing.T, mode, dir string, w *world) (out examined, err error) {
	t.Helper()
	var content, stdout, stderr bytes.Buffer
	if err := gob.NewEncoder(&content).Encode(w); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(worldFile(dir), content.Bytes(), 0o600); err != nil {
		t.Fatal(err)
	}
	cmd := childCommand(t, mode, dir)
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	err = cmd.Run()
	out.stderr = stderr.String()
	if err == nil {
		if err := json.Unmarshal(stdout.Bytes(), &out); err != nil {
			t.Fatalf("%v: %s", err, stdout.Bytes())
		}
	}
	return out, err
}

func childExamine(ctx context.Context, dir string) error {
	content, err := os.ReadFile(worldFile(dir))
	if err != nil {
		return err
	}
	w := new(world)
	if err := gob.NewDecoder(bytes.NewReader(content)).Decode(w); err != nil {
		return err
	}
	var out examined
	s, err := Open(ctx, testOptions(dir))
	switch {
	case err == nil:
		var bad error
		s.background.Wait()
		if out.Missing, out.Told, bad = w.check(ctx, s); bad != nil {
			out.Bad = bad.Error()
		}
		r := s.State().Recovery
		out.Silent = r.Lost == 0 && r.Damage == nil && r.Check == nil
		if err := s.Close(); err != nil {
			return err
		}
	case errors.Is(err, ErrCorrupt), errors.Is(err, ErrManifest), errors.Is(err, ErrWrongKey):
		out.Refused = err.Error()
	default:
		return err
	}
	return json.NewEncoder(os.Stdout).Encode(out)
}
