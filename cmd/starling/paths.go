package main

import (
	"fmt"
	"path/filepath"

	"github.com/adrg/xdg"
	"github.com/spf13/cobra"
)

// places are where a node's files lie.
type places struct {
	Home    string `json:"home"`    // shown in the status: the directory of the data
	Config  string `json:"config"`  // configuration file
	Keys    string `json:"keys"`    // keys file
	Store   string `json:"store"`   // directory of the database
	Runtime string `json:"runtime"` // directory of the API socket
}

// findPlaces decides where everything lies: under one directory when one is given by flag or
// environment, in the XDG directories otherwise.
//
// The socket is kept with the state and not in XDG_RUNTIME_DIR: that directory is removed when the
// user's last session ends, and a node left running in tmux would lose its socket.
func findPlaces(home string, getenv func(string) string) (places, error) {
	if home == "" {
		home = getenv("STARLING_HOME")
	}
	if home == "" {
		data := filepath.Join(xdg.DataHome, "starling")
		return places{
			Home:    data,
			Config:  filepath.Join(xdg.ConfigHome, "starling", "config.toml"),
			Keys:    filepath.Join(data, "keys"),
			Store:   filepath.Join(data, "store"),
			Runtime: filepath.Join(xdg.StateHome, "starling"),
		}, nil
	}
	abs, err := filepath.Abs(home)
	if err != nil {
		return places{}, fmt.Errorf("finding the home directory: %w", err)
	}
	return places{
		Home:    abs,
		Config:  filepath.Join(abs, "config.toml"),
		Keys:    filepath.Join(abs, "keys"),
		Store:   filepath.Join(abs, "store"),
		Runtime: abs,
	}, nil
}

func (a *app) pathsCommand() *cobra.Command {
	return &cobra.Command{
		Use: "paths", Short: "Say where everything lies", Args: noArgs,
		Annotations: map[string]string{withoutConfig: "yes"},
		RunE: func(*cobra.Command, []string) error {
			p := a.place
			if a.global.json {
				return a.printJSON(p)
			}
			return a.printTable(nil, [][]string{
				{"home", p.Home}, {"config", p.Config}, {"keys", p.Keys}, {"store", p.Store}, {"runtime", p.Runtime},
			})
		},
	}
}
