package tui

import (
	"context"
	"slices"
	"strings"

	tea "charm.land/bubbletea/v2"
)

// Settings kept in the node. What is the UI's own has a prefix; typing and receipts are looked at by
// the node itself.
const (
	settingOpen     = "tui.open"
	settingTheme    = "tui.theme"
	settingLang     = "tui.lang"
	settingBell     = "tui.bell"
	settingLinks    = "tui.links"
	settingTyping   = "typing"
	settingReceipts = "receipts"
)

// settings are the switches that the UI looks at; theme, language and links belong to the painter.
type settings struct {
	bell   bool
	typing bool
}

// knob is one name that /set takes.
type knob struct {
	key    string
	values []string // the first is what it is without being set, if anything is
	apply  func(m *model, value string)
}

func knobs() map[string]knob {
	onOff := []string{"on", "off"}
	offOn := []string{"off", "on"}
	return map[string]knob{
		"theme": {settingTheme, themeNames, func(m *model, v string) { m.theme = pickTheme(v, m.cfg.Environ) }},
		"lang": {settingLang, languages, func(m *model, v string) {
			m.words = newCatalog(pickLanguage(m.cfg.Language, v, m.cfg.Environ))
		}},
		"bell":     {settingBell, onOff, func(m *model, v string) { m.settings.bell = v != "off" }},
		"links":    {settingLinks, offOn, func(m *model, v string) { m.links = v == "on" }},
		"typing":   {settingTyping, offOn, func(m *model, v string) { m.settings.typing = v == "on" }},
		"receipts": {settingReceipts, onOff, func(*model, string) {}},
	}
}

// getSettings asks the node for every setting, the conversation last looked at included.
func (m *model) getSettings(ctx context.Context) (map[string]string, error) {
	got := map[string]string{}
	keys := []string{settingOpen, settingPast}
	for _, k := range knobs() {
		keys = append(keys, k.key)
	}
	for _, key := range keys {
		v, err := m.api.Setting(ctx, key)
		if err != nil {
			return nil, err
		}
		got[key] = v
	}
	return got, nil
}

func (m *model) applySettings(got map[string]string) {
	for _, k := range knobs() {
		k.apply(m, got[k.key])
	}
	m.style++
}

// saveSetting keeps a setting. One is changed so seldom that two never race.
func (m *model) saveSetting(key, value string) tea.Cmd {
	return m.call(func(ctx context.Context) (func(*model) tea.Cmd, error) {
		return nil, m.api.SetSetting(ctx, key, value)
	})
}

func (m *model) cmdSet(args string) tea.Cmd {
	name, value, _ := strings.Cut(args, " ")
	k, ok := knobs()[name]
	if value = strings.TrimSpace(value); !ok || !slices.Contains(k.values, value) {
		m.say(m.t("settings"))
		return nil
	}
	k.apply(m, value)
	if name == "lang" {
		m.words = newCatalog(value) // now, whatever the command line said
	}
	m.style++
	m.say(m.t("setting", name, value))
	return m.saveSetting(k.key, value)
}
