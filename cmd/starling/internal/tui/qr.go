package tui

import (
	"strings"

	"rsc.io/qr"
)

// quiet is the margin around a QR code, in modules: two are less than the standard's four, and what
// cameras need.
const quiet = 2

// drawQR draws a QR code with half blocks, dark modules as spaces so that it scans on a dark
// background. Below used lines it must fit the screen; when it does not, a sentence says what size
// would do.
func (m *model) drawQR(text string, used int) string {
	if text == "" {
		return ""
	}
	code, err := qr.Encode(text, qr.L)
	if err != nil {
		return m.t("no qr") + "\n"
	}
	width, height := code.Size+2*quiet, (code.Size+2*quiet+1)/2
	page := m.height - 5
	if width > m.width || height > page {
		return m.t("qr too big", width, height+5) + "\n"
	}
	var b strings.Builder
	if used > 0 && used+height > page { // on a page of its own, so that it is never cut
		b.WriteString(strings.Repeat("\n", max(0, page-used)))
	}
	for y := -quiet; y < code.Size+quiet; y += 2 {
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
		b.WriteByte('\n')
	}
	return b.String()
}
