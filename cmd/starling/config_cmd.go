package main

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"github.com/pelletier/go-toml/v2"
	"github.com/spf13/cobra"
)

func (a *app) configCommand() *cobra.Command {
	free := map[string]string{withoutConfig: "yes"}
	return group("config", "Read and write the configuration",
		&cobra.Command{
			Use: "path", Short: "Say where the configuration file is", Args: noArgs, Annotations: free,
			RunE: func(*cobra.Command, []string) error { return a.say("%s", a.place.Config) },
		},
		&cobra.Command{
			Use: "get [KEY]", Short: "Show one setting, or all", Args: takes(0, 1),
			RunE: func(_ *cobra.Command, args []string) error { return a.configGet(args) },
		},
		&cobra.Command{
			Use: "set KEY [VALUE...]", Short: "Change a setting in the file; without a value, remove it", Args: takes(1, -1), Annotations: free,
			RunE: func(_ *cobra.Command, args []string) error { return a.configSet(args[0], args[1:]) },
		},
		&cobra.Command{
			Use: "validate [FILE]", Short: "Check the configuration file", Args: takes(0, 1), Annotations: free,
			RunE: func(_ *cobra.Command, args []string) error { return a.configValidate(args) },
		},
	)
}

func (a *app) configGet(args []string) error {
	if len(args) == 1 {
		o, err := findOption(args[0])
		if err != nil {
			return err
		}
		v := a.conf.value(o.key)
		if a.global.json {
			return a.printJSON(v)
		}
		return a.say("%s", shown(v))
	}
	if a.global.json {
		all := map[string]any{}
		for _, o := range options {
			all[o.key] = a.conf.value(o.key)
		}
		return a.printJSON(all)
	}
	for _, o := range options {
		line, err := assignment(o.key, a.conf.value(o.key))
		if err != nil {
			return err
		}
		if _, err := fmt.Fprintf(a.stdout, "# %s\n%s\n", o.help, line); err != nil {
			return err
		}
	}
	return nil
}

// assignment writes a setting as a line of the file.
func assignment(key string, v any) (string, error) {
	b, err := toml.Marshal(map[string]any{key: v})
	if err != nil {
		return "", fmt.Errorf("encoding %s: %w", key, err)
	}
	return strings.TrimSpace(string(b)), nil
}

func shown(v any) string {
	if list, ok := v.([]string); ok {
		return strings.Join(list, " ")
	}
	return fmt.Sprint(v)
}

func (a *app) configValidate(args []string) error {
	path := a.place.Config
	if len(args) == 1 {
		path = args[0]
	}
	text, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) && len(args) == 0 {
		return a.say("%s does not exist: the defaults hold", path)
	}
	if err != nil {
		return fmt.Errorf("reading the configuration: %w", err)
	}
	if err := checkFile(path, text); err != nil {
		return err
	}
	return a.say("%s is valid", path)
}

// configSet changes one key and leaves every other line as it is, comments included.
func (a *app) configSet(key string, words []string) error {
	o, err := findOption(key)
	if err != nil {
		return err
	}
	var line string
	if len(words) > 0 {
		v, err := o.parse(words)
		if err != nil {
			return err
		}
		if line, err = assignment(key, v); err != nil {
			return err
		}
	}
	old, err := os.ReadFile(a.place.Config)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("reading the configuration: %w", err)
	}
	text := replaceKey(string(old), key, line)
	if err := checkFile(a.place.Config, []byte(text)); err != nil {
		return err
	}
	if err := writeConfig(a.place.Config, text); err != nil {
		return err
	}
	a.note("%s is written; a running node takes it at its next start", a.place.Config)
	return nil
}

// replaceKey puts line in the place of the assignment to key, which may span several lines, or at
// the end; an empty line removes it. The keys are all at the top level.
func replaceKey(text, key, line string) string {
	lines := strings.Split(strings.TrimRight(text, "\n"), "\n")
	if text == "" {
		lines = nil
	}
	var out []string
	done := line == ""
	for i := 0; i < len(lines); i++ {
		if !assigns(lines[i], key) {
			out = append(out, lines[i])
			continue
		}
		end := i
		for end < len(lines)-1 && !whole(lines[i:end+1]) {
			end++
		}
		i = end
		if !done {
			out = append(out, line)
			done = true
		}
	}
	if !done {
		out = append(out, line)
	}
	if len(out) == 0 {
		return ""
	}
	return strings.Join(out, "\n") + "\n"
}

func assigns(line, key string) bool {
	left, _, ok := strings.Cut(line, "=")
	return ok && strings.Trim(strings.TrimSpace(left), `"'`) == key
}

// whole says whether lines are a complete piece of TOML by themselves.
func whole(lines []string) bool {
	var v map[string]any
	return toml.Unmarshal([]byte(strings.Join(lines, "\n")), &v) == nil
}

func writeConfig(path, text string) error {
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		return fmt.Errorf("making the configuration's directory: %w", err)
	}
	if err := os.WriteFile(path+".new", []byte(text), 0o600); err != nil {
		return fmt.Errorf("writing the configuration: %w", err)
	}
	if err := os.Rename(path+".new", path); err != nil {
		return fmt.Errorf("writing the configuration: %w", err)
	}
	return nil
}
