package main

import (
	"fmt"
	"strings"
)

// soakChart draws the samples: memory above, counts below.
func soakChart(samples []sample) string {
	const width, height, left, gap = 760, 150, 60, 60
	if len(samples) == 0 {
		return `<svg xmlns="http://www.w3.org/2000/svg"/>`
	}
	end := samples[len(samples)-1].Seconds
	var b strings.Builder
	fmt.Fprintf(&b, `<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 %d %d" font-family="sans-serif" font-size="12">`+"\n", width+left+150, 2*(height+gap)+10)
	b.WriteString(`<style>text{fill:#333}.axis{stroke:#999;stroke-width:1}path{fill:none;stroke-width:1.8}@media(prefers-color-scheme:dark){text{fill:#ddd}}</style>` + "\n")
	type line struct {
		name, color string
		of          func(sample) float64
	}
	draw := func(top int, title string, lines []line) {
		most := 1.0
		for _, l := range lines {
			for _, s := range samples {
				most = max(most, l.of(s))
			}
		}
		fmt.Fprintf(&b, `<text x="%d" y="%d" font-weight="bold">%s</text>`+"\n", left, top-8, title)
		fmt.Fprintf(&b, `<path class="axis" d="M%d %dV%dH%d"/>`+"\n", left, top, top+height, left+width)
		fmt.Fprintf(&b, `<text x="%d" y="%d" text-anchor="end">%.0f</text><text x="%d" y="%d" text-anchor="end">0</text><text x="%d" y="%d" text-anchor="end">%.0f min</text>`+"\n",
			left-6, top+10, most, left-6, top+height, left+width, top+height+16, end/60)
		for i, l := range lines {
			fmt.Fprintf(&b, `<path stroke="%s" d="`, l.color)
			for j, s := range samples {
				command := "L"
				if j == 0 {
					command = "M"
				}
				fmt.Fprintf(&b, "%s%.1f %.1f", command, left+s.Seconds/end*width, float64(top+height)-l.of(s)/most*height)
			}
			fmt.Fprintf(&b, `"/><text x="%d" y="%d" style="fill:%s">%s</text>`+"\n", left+width+8, top+14+16*i, l.color, l.name)
		}
	}
	draw(24, "memory (PSS), MB", []line{
		{"inference", "#2563eb", func(s sample) float64 { return float64(s.ServiceKB) / 1024 }},
		{"workers", "#16a34a", func(s sample) float64 { return float64(s.WorkersKB) / 1024 }},
		{"control plane", "#d97706", func(s sample) float64 { return float64(s.ControlKB) / 1024 }},
	})
	draw(24+height+gap, "counts", []line{
		{"descriptors", "#2563eb", func(s sample) float64 { return float64(s.Files) }},
		{"goroutines", "#9333ea", func(s sample) float64 { return float64(s.Goroutines) }},
		{"processes", "#16a34a", func(s sample) float64 { return float64(s.Processes) }},
		{"threads", "#64748b", func(s sample) float64 { return float64(s.Threads) }},
	})
	b.WriteString("</svg>\n")
	return b.String()
}
