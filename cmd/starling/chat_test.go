package main

import (
	"testing"

	"github.com/starling-chat/starling/cmd/starling/internal/tui"
)

// TestLineModeOffersTheSame compares the commands of line mode with those of the full screen.
func TestLineModeOffersTheSame(t *testing.T) {
	screenOnly := map[string]bool{"lang": true} // line mode speaks as the command line does
	have := chatCommands()
	for _, name := range tui.Commands() {
		_, ok := have[name]
		if why := tui.Impossible(name); ok == (why != "" || screenOnly[name]) {
			t.Errorf("/%s: line mode has it %v; the full screen says %q", name, ok, why)
		}
	}
	if len(tui.Commands()) < 30 {
		t.Errorf("the full screen has only %d commands", len(tui.Commands()))
	}
	for name, stands := range chatAliases {
		if _, ok := have[stands]; !ok {
			t.Errorf("/%s stands for /%s, which is none", name, stands)
		}
	}
}
