package tui

import (
	"strings"

	"rsc.io/qr"
)

const (
	// quiet is the margin around a QR code, in modules: less than the standard's four, and what
	// cameras need.
	quiet = 2
	// besideQR is how many columns a text needs to stand beside a QR code.
	besideQR = 30
)

// withQR makes a page of a text (escaped) and the QR code of another, beside each other where there
// is room. A code that does not fit the screen as a whole is of no use: a sentence says what would do.
func (m *model) withQR(text, code string) string {
	drawn, width, err := drawQR(code)
	if err != nil {
		return m.broken(text, m.width) + "\n\n" + m.t("no qr")
	}
	page := m.height - 5 - len(m.notes()) // topic, title, last line, status and input take the rest
	stacked := m.broken(text, m.width)
	switch left := m.width - width - 3; {
	case width > m.width || len(drawn) > page:
		return stacked + "\n\n" + m.broken(m.t("qr too big", width, len(drawn)+m.height-page), m.width)
	case strings.Count(stacked, "\n")+2+len(drawn) <= page || left < besideQR:
		return stacked + "\n\n" + strings.Join(drawn, "\n")
	default:
		right := strings.Split(m.broken(text, left), "\n")
		for i := range max(len(drawn), len(right)) {
			if i == len(drawn) {
				drawn = append(drawn, spaces(width))
			}
			if i < len(right) {
				drawn[i] += "   " + right[i]
			}
		}
		return strings.Join(drawn, "\n")
	}
}

// broken is a text with its lines broken at a width.
func (m *model) broken(text string, width int) string {
	return strings.Join(m.metric.lines(text, width), "\n")
}

// drawQR draws a QR code with half blocks, dark modules as spaces so that it scans on a dark
// background.
func drawQR(text string) (lines []string, width int, err error) {
	code, err := qr.Encode(text, qr.L)
	if err != nil {
		return nil, 0, err
	}
	for y := -quiet; y < code.Size+quiet; y += 2 {
		var b strings.Builder
		for x := -quiet; x < code.Size+quiet; x++ {
			switch upper, lower := code.Black(x, y), code.Black(x, y+1); {
			case !upper && !lower:
				b.WriteRune('█')
			case !upper:
				b.WriteRune('▀')
			case !lower:
				b.WriteRune('▄')
			default:
				b.WriteByte(' ')
			}
		}
		lines = append(lines, b.String())
	}
	return lines, code.Size + 2*quiet, nil
}
