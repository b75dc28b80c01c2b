package main

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"slices"
	"strings"

	koanftoml "github.com/knadh/koanf/parsers/toml/v2"
	"github.com/knadh/koanf/providers/file"
	"github.com/knadh/koanf/v2"
	"github.com/pelletier/go-toml/v2"
)

// config is what the configuration file, the environment and the defaults say about a node. Flags
// of a command are laid over it in start.go. The keys are the names in the file; the environment
// has them in capitals after STARLING_.
type config struct {
	Listen       []string `koanf:"listen" toml:"listen"`
	Bootstraps   []string `koanf:"bootstraps" toml:"bootstraps"`
	Relays       []string `koanf:"relays" toml:"relays"`
	Network      string   `koanf:"network" toml:"network"`
	MDNS         bool     `koanf:"mdns" toml:"mdns"`
	DHT          bool     `koanf:"dht" toml:"dht"`
	API          string   `koanf:"api" toml:"api"`
	Reachability string   `koanf:"reachability" toml:"reachability"`
	LogLevel     string   `koanf:"log_level" toml:"log_level"`
	LogFormat    string   `koanf:"log_format" toml:"log_format"`
}

// option is one key of the configuration.
type option struct {
	key, help string
	list      bool
	boolean   bool
	check     func(string) error // of one value; nil takes any
}

var options = []option{
	{key: "listen", list: true, help: "addresses to listen on, as multiaddrs; empty: all interfaces, a free port"},
	{key: "bootstraps", list: true, help: "full addresses of nodes to meet others through"},
	{key: "relays", list: true, help: "full addresses of relays"},
	{key: "network", help: "name of the network; nodes of different names never meet"},
	{key: "mdns", boolean: true, help: "find others on the local network"},
	{key: "dht", boolean: true, help: "find others in the network's lookup table"},
	{key: "api", help: "off: no HTTP on loopback; the unix socket is always served", check: checkAPI},
	{key: "reachability", help: "auto, public or private", check: allowed("reachability", "auto", "public", "private")},
	{key: "log_level", help: "debug, info, warn or error", check: allowed("log_level", "debug", "info", "warn", "error")},
	{key: "log_format", help: "text or json", check: allowed("log_format", "text", "json")},
}

func allowed(key string, values ...string) func(string) error {
	return func(v string) error { return oneOf(key, v, append(values, "")...) }
}

// checkAPI is honest about what is served.
func checkAPI(v string) error {
	if v == "" || v == "off" {
		return nil
	}
	return usagef("the api over HTTP at %q is not available in this version: leave --api out, front-ends use the unix socket that `starling paths` names", v)
}

func findOption(key string) (option, error) {
	i := slices.IndexFunc(options, func(o option) bool { return o.key == key })
	if i < 0 {
		return option{}, usagef("unknown configuration key %q%s", key, orSee(key, optionKeys(), "starling config get"))
	}
	return options[i], nil
}

func optionKeys() []string {
	keys := make([]string, len(options))
	for i, o := range options {
		keys[i] = o.key
	}
	return keys
}

// defaults lets a relay and a laptop differ where they must: an empty value means that the kind of
// node decides.
func defaults() map[string]any {
	return map[string]any{
		"network": "main", "mdns": true, "dht": true, "api": "off",
		"reachability": "", "log_level": "", "log_format": "text",
	}
}

// layer is one source of settings for koanf.
type layer map[string]any

// ReadBytes is not used by koanf for a source that has a map.
func (l layer) ReadBytes() ([]byte, error) { return nil, errors.New("a layer has no bytes") }

// Read implements koanf.Provider.
func (l layer) Read() (map[string]any, error) { return l, nil }

// loadConfig reads defaults, file and environment, the later over the earlier. A file that does
// not exist says nothing; one with a key that is unknown or a value of the wrong kind is an error.
func loadConfig(path string, getenv func(string) string) (*config, error) {
	k := koanf.New(".")
	if err := k.Load(layer(defaults()), nil); err != nil {
		return nil, fmt.Errorf("loading the defaults: %w", err)
	}
	text, err := os.ReadFile(path)
	switch {
	case errors.Is(err, fs.ErrNotExist):
	case err != nil:
		return nil, fmt.Errorf("reading the configuration: %w", err)
	default:
		if err := checkFile(path, text); err != nil {
			return nil, err
		}
		if err := k.Load(file.Provider(path), koanftoml.Parser()); err != nil {
			return nil, fmt.Errorf("reading the configuration: %w", err)
		}
	}
	env, err := fromEnvironment(getenv)
	if err != nil {
		return nil, err
	}
	if err := k.Load(env, nil); err != nil {
		return nil, fmt.Errorf("reading the environment: %w", err)
	}
	var c config
	if err := k.Unmarshal("", &c); err != nil {
		return nil, fmt.Errorf("reading the configuration: %w", err)
	}
	return &c, c.check()
}

// checkFile finds what is wrong in a file, with its line.
func checkFile(path string, text []byte) error {
	var c config
	dec := toml.NewDecoder(strings.NewReader(string(text)))
	dec.DisallowUnknownFields()
	err := dec.Decode(&c)
	var unknown *toml.StrictMissingError
	var malformed *toml.DecodeError
	switch {
	case errors.As(err, &unknown):
		first := unknown.Errors[0]
		row, _ := first.Position()
		key := strings.Join(first.Key(), ".")
		return usagef("%s line %d: unknown key %q%s", path, row, key, orSee(key, optionKeys(), "starling config get"))
	case errors.As(err, &malformed):
		row, _ := malformed.Position()
		return usagef("%s line %d: %s", path, row, strings.TrimPrefix(malformed.Error(), "toml: "))
	case err != nil:
		return usagef("%s: %v", path, err)
	}
	if err := c.check(); err != nil {
		return usagef("%s: %v", path, err)
	}
	return nil
}

// check looks at the values that name one of a few things.
func (c *config) check() error {
	values := map[string]string{"api": c.API, "reachability": c.Reachability, "log_level": c.LogLevel, "log_format": c.LogFormat}
	for _, o := range options {
		if o.check == nil {
			continue
		}
		if err := o.check(values[o.key]); err != nil {
			return err
		}
	}
	return nil
}

func envName(key string) string { return "STARLING_" + strings.ToUpper(key) }

// fromEnvironment reads STARLING_KEY for each key; lists are separated by spaces.
func fromEnvironment(getenv func(string) string) (layer, error) {
	out := layer{}
	for _, o := range options {
		text := getenv(envName(o.key))
		if text == "" {
			continue
		}
		v, err := o.parse(strings.Fields(text))
		if err != nil {
			return nil, usagef("%s: %v", envName(o.key), err)
		}
		out[o.key] = v
	}
	return out, nil
}

// parse turns words into the value of an option.
func (o option) parse(words []string) (any, error) {
	switch {
	case o.list:
		return slices.Concat([]string{}, words), nil
	case len(words) != 1:
		return nil, usagef("%s takes one value, not %d", o.key, len(words))
	case o.boolean:
		switch words[0] {
		case "true", "on", "yes":
			return true, nil
		case "false", "off", "no":
			return false, nil
		}
		return nil, usagef("%s %q is neither true nor false", o.key, words[0])
	case o.check != nil:
		return words[0], o.check(words[0])
	default:
		return words[0], nil
	}
}

// value is what holds for an option now.
func (c *config) value(key string) any {
	switch key {
	case "listen":
		return slices.Concat([]string{}, c.Listen)
	case "bootstraps":
		return slices.Concat([]string{}, c.Bootstraps)
	case "relays":
		return slices.Concat([]string{}, c.Relays)
	case "network":
		return c.Network
	case "mdns":
		return c.MDNS
	case "dht":
		return c.DHT
	case "api":
		return c.API
	case "reachability":
		return c.Reachability
	case "log_level":
		return c.LogLevel
	default:
		return c.LogFormat
	}
}
