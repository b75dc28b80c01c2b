package main

import (
	"runtime"
	"runtime/debug"

	"github.com/spf13/cobra"

	"github.com/starling-chat/starling/node/api"
)

// version is set by the release build with -ldflags=-X.
var version = "0.1.0-dev"

// build describes the program; `version --json` prints it.
type build struct {
	Schema  int    `json:"schema"`
	Version string `json:"version"`
	Commit  string `json:"commit,omitempty"`
	Changed bool   `json:"changed,omitempty"` // built from a tree with uncommitted changes
	Go      string `json:"go"`
	OS      string `json:"os"`
	Arch    string `json:"arch"`
}

func thisBuild() build {
	b := build{Schema: api.Schema, Version: version, Go: runtime.Version(), OS: runtime.GOOS, Arch: runtime.GOARCH}
	info, ok := debug.ReadBuildInfo()
	if !ok {
		return b
	}
	for _, s := range info.Settings {
		switch s.Key {
		case "vcs.revision":
			b.Commit = s.Value
		case "vcs.modified":
			b.Changed = s.Value == "true"
		}
	}
	return b
}

func (a *app) versionCommand() *cobra.Command {
	return &cobra.Command{
		Use: "version", Short: "Say which version this is", Args: noArgs,
		Annotations: map[string]string{withoutConfig: "yes"},
		RunE: func(*cobra.Command, []string) error {
			b := thisBuild()
			if a.global.json {
				return a.printJSON(b)
			}
			commit := b.Commit
			if len(commit) > 12 {
				commit = commit[:12]
			}
			if commit != "" {
				commit = " (" + commit + ")"
			}
			return a.say("starling %s%s %s %s/%s", b.Version, commit, b.Go, b.OS, b.Arch)
		},
	}
}
