//go:build e2e

package harness

import (
	"encoding/xml"
	"fmt"
	"os"
	"strings"
	"testing"
)

// Bar is one bar of a chart: what follows each other.
type Bar struct {
	Name  string
	Parts []Part
}

// Part is a part of a bar. Parts of one name have one colour.
type Part struct {
	Name   string
	Millis float64
}

// Mark is a line across all bars.
type Mark Part

// Measures of a chart, in pixels.
const (
	chartWidth  = 760
	chartLeft   = 150 // of the bars: names stand there
	chartRight  = 70  // sums stand there
	chartTop    = 40
	chartBar    = 34
	chartGap    = 16
	chartLegend = 48
)

// colours can be told from each other also by those who see few.
var colours = []string{"#4477aa", "#66ccee", "#228833", "#ccbb44", "#ee6677", "#aa3377", "#bbbbbb"}

// DrawChart writes bars that lie, with their parts to scale, as an SVG.
func DrawChart(tb testing.TB, path, title string, bars []Bar, mark Mark) {
	tb.Helper()
	if err := os.WriteFile(path, []byte(chart(title, bars, mark)), 0o644); err != nil {
		tb.Fatal(err)
	}
}

func chart(title string, bars []Bar, mark Mark) string {
	longest := mark.Millis
	for _, bar := range bars {
		longest = max(longest, sum(bar))
	}
	x := func(millis float64) float64 { return chartLeft + millis/longest*(chartWidth-chartLeft-chartRight) }
	bottom := chartTop + len(bars)*(chartBar+chartGap)
	var b strings.Builder
	fmt.Fprintf(&b, `<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 %d %d" font-family="sans-serif" font-size="13">`+"\n", chartWidth, bottom+chartLegend)
	fmt.Fprintf(&b, `<rect width="100%%" height="100%%" fill="white"/><text x="10" y="20" font-size="15">%s</text>`+"\n", text(title))
	colour := map[string]string{}
	var names []string
	for i, bar := range bars {
		y := chartTop + i*(chartBar+chartGap)
		fmt.Fprintf(&b, `<text x="%d" y="%d" text-anchor="end">%s</text>`+"\n", chartLeft-8, y+chartBar/2+5, text(bar.Name))
		at := 0.0
		for _, part := range bar.Parts {
			if colour[part.Name] == "" {
				colour[part.Name] = colours[len(names)%len(colours)]
				names = append(names, part.Name)
			}
			fmt.Fprintf(&b, `<rect x="%.1f" y="%d" width="%.1f" height="%d" fill="%s"><title>%s: %.0f ms</title></rect>`+"\n",
				x(at), y, x(at+part.Millis)-x(at), chartBar, colour[part.Name], text(part.Name), part.Millis)
			at += part.Millis
		}
		fmt.Fprintf(&b, `<text x="%.1f" y="%d">%.0f ms</text>`+"\n", x(at)+6, y+chartBar/2+5, at)
	}
	fmt.Fprintf(&b, `<path d="M%.1f %d V%d" stroke="black" stroke-dasharray="4 3"/><text x="%.1f" y="%d" text-anchor="end" font-size="11">%s, %.0f ms</text>`+"\n",
		x(mark.Millis), chartTop-8, bottom-chartGap+4, x(mark.Millis)-4, chartTop-4, text(mark.Name), mark.Millis)
	for i, name := range names {
		lx, ly := 10+i%4*185, bottom+10+i/4*20
		fmt.Fprintf(&b, `<rect x="%d" y="%d" width="12" height="12" fill="%s"/><text x="%d" y="%d" font-size="12">%s</text>`+"\n", lx, ly-10, colour[name], lx+18, ly, text(name))
	}
	b.WriteString("</svg>\n")
	return b.String()
}

func sum(bar Bar) (all float64) {
	for _, part := range bar.Parts {
		all += part.Millis
	}
	return all
}

// text is a text of XML.
func text(s string) string {
	var b strings.Builder
	_ = xml.EscapeText(&b, []byte(s)) // a Builder has no errors
	return b.String()
}
