package ui

import (
	"fmt"
	"math"
	"strings"
)

// chart is a drawing in the coordinates of its SVG element. Colours are classes of the
// style sheet, so that it fits both themes.
type chart struct {
	Width, Height  int
	XTitle, YTitle string
	XTicks, YTicks []tick
	Lines          []drawnLine
	Dots           []dot
	Bars           []rect
	Cells          []rect
	Legend         []legend
	Left, Bottom   float64 // of the axes
	Right, Top     float64
}

type tick struct {
	At    float64
	Label string
}

type drawnLine struct {
	Points string
	Series int
}

type dot struct {
	X, Y   float64
	Series int
	Label  string
}

type rect struct {
	X, Y, W, H float64
	Series     int
	Label      string  // on hover
	Text       string  // inside
	Strength   float64 // of a heatmap's cell, 0 to 1
}

// Labels is where the labels of the y axis end.
func (c *chart) Labels() float64 { return c.Left - 6 }

// Middle is the middle of the x axis.
func (c *chart) Middle() float64 { return (c.Left + c.Right) / 2 }

// CenterX and CenterY are where a cell's text stands.
func (r rect) CenterX() float64 { return r.X + r.W/2 }

// CenterY is the middle of a cell from top to bottom.
func (r rect) CenterY() float64 { return r.Y + r.H/2 }

// Strong says that a cell is too dark for dark text.
func (r rect) Strong() bool { return r.Strength > 0.55 }

type legend struct {
	Name   string
	Series int
}

// seriesColours is how many colours the style sheet has.
const seriesColours = 8

func newChart() *chart {
	return &chart{Width: 640, Height: 340, Left: 62, Right: 626, Top: 12, Bottom: 288}
}

// scale maps values to places.
type scale struct {
	low, high, from, to float64
}

func (s scale) at(v float64) float64 {
	if s.high == s.low {
		return (s.from + s.to) / 2
	}
	return math.Round((s.from+(v-s.low)/(s.high-s.low)*(s.to-s.from))*100) / 100
}

// xy is one trace with its places on the x axis found.
type xy struct {
	trace  trace
	x, y   []float64
	labels []string
}

// drawXY draws lines, points, and bars over a common pair of axes; nil when nothing of it
// has a place.
func drawXY(f figure) *chart {
	c := newChart()
	c.XTitle, c.YTitle = string(f.Layout.XAxis.Title), string(f.Layout.YAxis.Title)
	all, categories := places(f.Data)
	xs, ys := extent(all, func(t xy) []float64 { return t.x }), extent(all, func(t xy) []float64 { return t.y })
	if xs == nil || ys == nil {
		return nil
	}
	bars := 0
	for _, t := range all {
		if kindOf(t.trace) == "bar" {
			bars++
		}
	}
	if bars > 0 {
		xs[0], xs[1] = xs[0]-0.6, xs[1]+0.6
		ys[0], ys[1] = min(ys[0], 0), max(ys[1], 0)
	}
	across := scale{xs[0], xs[1], c.Left, c.Right}
	low, high, step := niceRange(ys[0], ys[1])
	up := scale{low, high, c.Bottom, c.Top}
	c.YTicks = ticks(up, step)
	if len(categories) > 0 {
		c.XTicks = categoryTicks(across, categories)
	} else {
		_, _, step := niceRange(xs[0], xs[1])
		c.XTicks = ticks(across, step)
	}
	nth := 0
	for i, t := range all {
		series := i % seriesColours
		if t.trace.Name != "" && len(all) > 1 {
			c.Legend = append(c.Legend, legend{t.trace.Name, series})
		}
		if kindOf(t.trace) == "bar" {
			c.addBars(t, series, nth, bars, across, up)
			nth++
			continue
		}
		c.addLine(t, series, across, up)
	}
	return c
}

// places gives each point a number on the x axis: its own, or that of its category.
func places(traces []trace) (all []xy, categories []string) {
	numeric := true
	for _, t := range traces {
		x := t.X
		if t.Orientation == "h" {
			x = t.Y
		}
		numeric = numeric && (len(x.Labels) == 0 || len(x.Numbers) > 0) && kindOf(t) == "line"
	}
	known := map[string]int{}
	for _, t := range traces {
		x, y := t.X, t.Y
		if t.Orientation == "h" {
			x, y = y, x
		}
		one := xy{trace: t, labels: x.Labels}
		for i := range y.Numbers {
			one.y = append(one.y, placeable(y.Numbers[i]))
			switch {
			case i >= len(x.Labels):
				one.x = append(one.x, float64(i))
			case numeric:
				one.x = append(one.x, placeable(x.Numbers[i]))
			default:
				at, ok := known[x.Labels[i]]
				if !ok {
					at = len(categories)
					known[x.Labels[i]] = at
					categories = append(categories, x.Labels[i])
				}
				one.x = append(one.x, float64(at))
			}
		}
		all = append(all, one)
	}
	return all, categories
}

// placeable is f, or NaN where a scale that has f among its ends overflows.
func placeable(f float64) float64 {
	if math.Abs(f) > 1e300 {
		return math.NaN()
	}
	return f
}

// extent is the least and the greatest value, nil when there is none.
func extent(all []xy, of func(xy) []float64) []float64 {
	var found []float64
	for _, t := range all {
		for _, f := range of(t) {
			switch {
			case math.IsNaN(f):
			case found == nil:
				found = []float64{f, f}
			default:
				found[0], found[1] = min(found[0], f), max(found[1], f)
			}
		}
	}
	return found
}

func (c *chart) addLine(t xy, series int, across, up scale) {
	const mostDots = 400
	var b strings.Builder
	end := func() {
		if b.Len() > 0 {
			c.Lines = append(c.Lines, drawnLine{strings.TrimSpace(b.String()), series})
			b.Reset()
		}
	}
	onlyDots := t.trace.Mode != "" && !strings.Contains(t.trace.Mode, "lines")
	for i, y := range t.y {
		if math.IsNaN(y) || math.IsNaN(t.x[i]) {
			end()
			continue
		}
		if !onlyDots {
			fmt.Fprintf(&b, "%g,%g ", across.at(t.x[i]), up.at(y))
		}
		if (onlyDots || strings.Contains(t.trace.Mode, "markers")) && len(c.Dots) < mostDots*10 && (onlyDots || len(t.y) <= mostDots) {
			c.Dots = append(c.Dots, dot{across.at(t.x[i]), up.at(y), series, formatNumber(t.x[i]) + ", " + formatNumber(y)})
		}
	}
	end()
}

func (c *chart) addBars(t xy, series, nth, of int, across, up scale) {
	width := (across.at(across.low+1) - across.from) * 0.8 / float64(of)
	zero := up.at(0)
	for i, y := range t.y {
		if math.IsNaN(y) {
			continue
		}
		at := up.at(y)
		label := formatNumber(y)
		if i < len(t.labels) {
			label = t.labels[i] + ": " + label
		}
		left := across.at(t.x[i]) - width*float64(of)/2 + width*float64(nth)
		c.Bars = append(c.Bars, rect{X: round(left), Y: min(at, zero), W: round(max(width-1, 0.5)), H: round(math.Abs(zero - at)), Series: series, Label: label})
	}
}

func round(f float64) float64 { return math.Round(f*100) / 100 }

// drawHeatmap draws a matrix such as a confusion matrix.
func drawHeatmap(t trace, f figure) *chart {
	rows := len(t.Z)
	if rows == 0 || len(t.Z[0]) == 0 || rows*len(t.Z[0]) > 10_000 {
		return nil
	}
	columns := len(t.Z[0])
	c := newChart()
	c.Left = 118 // for the names of the rows
	c.XTitle, c.YTitle = string(f.Layout.XAxis.Title), string(f.Layout.YAxis.Title)
	low, high := math.Inf(1), math.Inf(-1)
	for _, row := range t.Z {
		for _, z := range row {
			if z = placeable(z); !math.IsNaN(z) {
				low, high = min(low, z), max(high, z)
			}
		}
	}
	w, h := (c.Right-c.Left)/float64(columns), (c.Bottom-c.Top)/float64(rows)
	for i, row := range t.Z {
		for j, z := range row {
			cell := rect{X: round(c.Left + float64(j)*w), Y: round(c.Bottom - float64(i+1)*h), W: round(w), H: round(h), Label: formatNumber(z)}
			if z := placeable(z); high > low && !math.IsNaN(z) {
				cell.Strength = round((z - low) / (high - low))
			}
			if w > 34 && h > 18 {
				cell.Text = formatNumber(z)
			}
			c.Cells = append(c.Cells, cell)
		}
	}
	c.XTicks = categoryTicks(scale{-0.5, float64(columns) - 0.5, c.Left, c.Right}, labelsFor(t.X, columns))
	c.YTicks = categoryTicks(scale{-0.5, float64(rows) - 0.5, c.Bottom, c.Top}, labelsFor(t.Y, rows))
	return c
}

func labelsFor(v vector, n int) []string {
	if len(v.Labels) == n {
		return v.Labels
	}
	labels := make([]string, n)
	for i := range labels {
		labels[i] = fmt.Sprint(i)
	}
	return labels
}

// categoryTicks labels as many categories as have room.
func categoryTicks(s scale, labels []string) []tick {
	const room = 12
	every := max(1, (len(labels)+room-1)/room)
	longest := 14
	if across := s.to > s.from; across {
		const letter = 7.2 // the width of one
		longest = max(3, int(math.Abs(s.at(float64(every))-s.at(0))/letter))
	}
	var found []tick
	for i, label := range labels {
		if i%every == 0 {
			found = append(found, tick{s.at(float64(i)), shorten(label, longest)})
		}
	}
	return found
}

// shorten keeps a label within its room.
func shorten(label string, longest int) string {
	runes := []rune(label)
	if len(runes) <= longest {
		return label
	}
	return string(runes[:longest-1]) + "…"
}

// niceRange widens a range to round numbers, with about five steps.
func niceRange(low, high float64) (from, to, step float64) {
	if high-low < 1e-300 { // too close to have steps between them
		pad := max(math.Abs(low)*0.1, 0.5)
		low, high = low-pad, high+pad
	}
	raw := (high - low) / 5
	power := math.Pow(10, math.Floor(math.Log10(raw)))
	step = 10 * power
	for _, m := range []float64{1, 2, 5} {
		if raw <= m*power {
			step = m * power
			break
		}
	}
	return math.Floor(low/step) * step, math.Ceil(high/step) * step, step
}

func ticks(s scale, step float64) []tick {
	var found []tick
	for i := range 20 {
		v := math.Ceil(s.low/step-1e-9)*step + float64(i)*step
		if v > s.high+step*1e-9 {
			break
		}
		if math.Abs(v) < step*1e-9 {
			v = 0
		}
		found = append(found, tick{s.at(v), formatNumber(v)})
	}
	return found
}
