package drift

import (
	"cmp"
	"fmt"
	"maps"
	"math"
	"math/rand/v2"
	"slices"
	"strings"
	"time"
)

const (
	// sampleRows is how many rows of a larger reference are used, drawn uniformly. More would not make
	// drift visible earlier.
	sampleRows  = 200_000
	maxDistinct = 100_000 // categories that are counted while a reference is read
	fewValues   = 10      // a number with at most so many values has an edge at each of them
	minShare    = 0.05    // of a text column's values in its commonest categories: less is an identifier
	swingRows   = 100     // of an hour of the day that is compared with the whole
)

// Builder makes a reference of rows. The memory that it takes is bounded.
type Builder struct {
	columns []*column
	time    int // the column of the time, -1 for none
	rows    int // rows seen
	hours   []int8
	first   time.Time
	last    time.Time
	random  *rand.Rand
}

type column struct {
	name    string
	text    bool           // a value is no number
	numbers []float64      // of the sampled rows, NaN for missing ones and words
	words   []int32        // of the sampled rows: index of the word, -1 for missing ones
	index   map[string]int // of words
	all     []string
	over    int32 // index of the word that stands for those beyond maxDistinct, 0: none
	min     float64
	max     float64
}

// NewBuilder starts a reference with these columns. A column named timeColumn, if not "", has the
// time of a row and is not watched.
func NewBuilder(names []string, timeColumn string) (*Builder, error) {
	b := &Builder{time: -1, random: rand.New(rand.NewPCG(1, 2))} //nolint:gosec // a sample that is the same each time
	seen := map[string]bool{}
	for i, name := range names {
		if seen[name] {
			return nil, fmt.Errorf("column %q occurs twice", name)
		}
		seen[name] = true
		if name == timeColumn && timeColumn != "" {
			b.time = i
		}
		b.columns = append(b.columns, &column{name: name, index: map[string]int{}, min: math.Inf(1), max: math.Inf(-1)})
	}
	if timeColumn != "" && b.time < 0 {
		return nil, fmt.Errorf("there is no column %q for the time; the columns are %s", timeColumn, strings.Join(names, ", "))
	}
	return b, nil
}

// MissingWord reports whether a text in a CSV file stands for a missing value, as for pandas.
func MissingWord(text string) bool {
	switch text {
	case "", "NA", "N/A", "n/a", "NaN", "nan", "-nan", "-NaN", "NULL", "null", "None", "<NA>", "#N/A", "#NA":
		return true
	}
	return false
}

// Row adds a row: a value for each column, as for Counts.Add. Texts are numbers if all values of
// their column can be read as numbers.
func (b *Builder) Row(values []any) error {
	if len(values) != len(b.columns) {
		return fmt.Errorf("row %d has %d values for %d columns", b.rows+1, len(values), len(b.columns))
	}
	at := b.rows
	if at >= sampleRows {
		at = b.random.IntN(b.rows + 1)
	}
	b.rows++
	hour := int8(-1)
	if b.time >= 0 {
		t, ok := timeOf(values[b.time])
		if ok {
			hour = int8(t.Hour()) //nolint:gosec // 0 to 23
			if b.first.IsZero() || t.Before(b.first) {
				b.first = t
			}
			if t.After(b.last) {
				b.last = t
			}
		}
	}
	b.hours = put(b.hours, at, hour)
	for i, c := range b.columns {
		if i != b.time {
			c.add(at, values[i])
		}
	}
	return nil
}

// put stores the value of a sampled row; at is its index, beyond the sample for others.
func put[T any](list []T, at int, value T) []T {
	switch {
	case at >= sampleRows:
	case at == len(list):
		return append(list, value)
	default:
		list[at] = value
	}
	return list
}

func (c *column) add(at int, value any) {
	x, isNumber := Float(value)
	if s, ok := value.(string); ok && !isNumber {
		c.text = c.text || s != ""
	}
	if _, ok := value.(bool); ok {
		c.text = true
	}
	switch {
	case !isNumber || math.IsNaN(x) || math.IsInf(x, 0):
		x = math.NaN()
	default:
		c.min, c.max = min(c.min, x), max(c.max, x)
	}
	c.numbers = put(c.numbers, at, x)
	word := int32(-1)
	if w, ok := Word(value); ok && (!isNumber || !math.IsNaN(x)) {
		i, known := c.index[w]
		switch {
		case known:
		case len(c.all) < maxDistinct:
			i = len(c.all)
			c.index[w], c.all = i, append(c.all, w)
		case c.over == 0:
			c.over = int32(len(c.all)) //nolint:gosec // maxDistinct
			c.all = append(c.all, "")
			fallthrough
		default:
			i = int(c.over)
		}
		word = int32(i) //nolint:gosec // maxDistinct
	}
	c.words = put(c.words, at, word)
}

// timeOf reads the time of a row: RFC 3339, as pandas writes it, or seconds since 1970.
func timeOf(value any) (time.Time, bool) {
	switch value := value.(type) {
	case time.Time:
		return value, true
	case float64:
		if value > 0 && value < 1e11 {
			return time.Unix(int64(value), 0).UTC(), true
		}
	case string:
		for _, layout := range []string{time.RFC3339Nano, "2006-01-02 15:04:05.999999999Z07:00", "2006-01-02 15:04:05.999999999", "2006-01-02T15:04:05.999999999", "2006-01-02"} {
			if t, err := time.Parse(layout, value); err == nil {
				return t, true
			}
		}
		if f, ok := parse(value); ok {
			return timeOf(f)
		}
	}
	return time.Time{}, false
}

// Build returns the reference. notes say what is not watched and why.
func (b *Builder) Build() (r *Reference, notes []string, err error) {
	if b.rows == 0 {
		return nil, nil, fmt.Errorf("the reference has no rows")
	}
	r = &Reference{Variables: map[string]*Variable{}}
	for i, c := range b.columns {
		switch {
		case i == b.time:
			continue
		case c.name == "" || len(c.name) > maxName:
			notes = append(notes, fmt.Sprintf("column %d has no usable name: not watched", i+1))
			continue
		case len(r.Variables) >= MaxVariables:
			notes = append(notes, fmt.Sprintf("column '%s': at most %d variables are watched: not watched", c.name, MaxVariables))
			continue
		}
		v, note := c.variable()
		if note != "" {
			notes = append(notes, fmt.Sprintf("column '%s': %s", c.name, note))
		}
		if v == nil {
			continue
		}
		if err := v.prepare(); err != nil {
			return nil, nil, fmt.Errorf("column '%s': %w", c.name, err)
		}
		if b.time >= 0 && b.last.Sub(b.first) >= 48*time.Hour {
			v.Swing = b.swing(c, v)
		}
		r.Variables[c.name] = v
	}
	if b.time >= 0 && b.last.Sub(b.first) < 48*time.Hour {
		notes = append(notes, "the times of the reference span less than two days: daily cycles are not known, and will be reported as drift")
	}
	if len(r.Variables) == 0 {
		return nil, notes, fmt.Errorf("the reference has no column that can be watched")
	}
	return r, notes, nil
}

// variable makes the reference of a column, nil if it cannot be watched.
func (c *column) variable() (*Variable, string) {
	if c.text {
		return c.category()
	}
	var finite []float64
	for _, x := range c.numbers {
		if !math.IsNaN(x) {
			finite = append(finite, x)
		}
	}
	if len(finite) == 0 {
		return nil, "it has no values: not watched"
	}
	v := &Variable{Kind: Number, Min: &c.min, Max: &c.max}
	mean, square := 0.0, 0.0
	for i, x := range finite {
		d := x - mean
		mean += d / float64(i+1)
		square += d * (x - mean)
	}
	v.Std = deviation(square, float64(len(finite)))
	sorted := slices.Sorted(slices.Values(finite))
	v.Edges = edges(sorted)
	v.Counts = make([]uint64, len(v.Edges)+2)
	sums := make([]float64, len(v.Edges)+1)
	for _, x := range finite {
		i := v.bin(x)
		v.Counts[i]++
		sums[i] += (x - sums[i]) / float64(v.Counts[i])
	}
	v.Counts[len(v.Counts)-1] = uint64(len(c.numbers) - len(finite))
	v.Centers = v.middles()
	for i, n := range v.Counts[:len(sums)] {
		if n > 0 {
			v.Centers[i] = sums[i]
		}
	}
	return v, ""
}

// deviation is the standard deviation of n numbers with this sum of squares, 0 if it cannot be computed.
func deviation(square, n float64) float64 {
	if std := math.Sqrt(square / n); std <= math.MaxFloat64 {
		return std
	}
	return 0
}

// edges are the distinct deciles of ascending numbers. With few distinct values they are these values,
// and the next number after the largest, so that each value has a bin of its own.
func edges(sorted []float64) []float64 {
	distinct := slices.Compact(slices.Clone(sorted[:min(len(sorted), 1)]))
	for _, x := range sorted {
		if x != distinct[len(distinct)-1] {
			if distinct = append(distinct, x); len(distinct) > fewValues {
				break
			}
		}
	}
	if len(distinct) <= fewValues {
		if next := math.Nextafter(distinct[len(distinct)-1], math.Inf(1)); !math.IsInf(next, 0) {
			distinct = append(distinct, next)
		}
		return distinct
	}
	var at []float64
	for i := 1; i < 10; i++ {
		at = append(at, quantile(sorted, float64(i)/10))
	}
	return slices.Compact(at)
}

// quantile interpolates as numpy does by default.
func quantile(sorted []float64, q float64) float64 {
	h := float64(len(sorted)-1) * q
	i := int(h)
	if i >= len(sorted)-1 {
		return sorted[len(sorted)-1]
	}
	a, b, t := sorted[i], sorted[i+1], h-float64(i)
	if t >= 0.5 {
		return b - (b-a)*(1-t)
	}
	return a + (b-a)*t
}

// category makes the reference of a column of words.
func (c *column) category() (*Variable, string) {
	counts := make([]uint64, len(c.all))
	missing := uint64(0)
	for _, w := range c.words {
		if w < 0 {
			missing++
		} else {
			counts[w]++
		}
	}
	order := make([]int, 0, len(c.all))
	for i := range c.all {
		if c.over == 0 || i != int(c.over) {
			order = append(order, i)
		}
	}
	if len(order) == 0 {
		return nil, "it has no values: not watched"
	}
	slices.SortFunc(order, func(a, b int) int {
		return cmp.Or(cmp.Compare(counts[b], counts[a]), cmp.Compare(c.all[a], c.all[b]))
	})
	v := &Variable{Kind: Category}
	top, rest := uint64(0), uint64(0)
	for i, w := range order {
		switch {
		case i < topWords && counts[w] > 0:
			v.Words = append(v.Words, c.all[w])
			v.Counts = append(v.Counts, counts[w])
			top += counts[w]
			continue
		case len(v.Known) < maxKnown:
			v.Known = append(v.Known, c.all[w])
		default:
			v.Open = true
		}
		rest += counts[w]
	}
	if c.over != 0 {
		v.Open = true
		rest += counts[c.over]
	}
	if v.Open {
		v.Known = nil
	}
	v.Counts = append(v.Counts, rest, missing)
	if present := top + rest; len(order) > topWords && float64(top) < minShare*float64(present) {
		return nil, fmt.Sprintf("%d different words, the %d commonest are less than %d %% of the rows: not watched", len(order), topWords, int(minShare*100))
	}
	note := ""
	if v.Open {
		note = fmt.Sprintf("%d different words: new ones cannot be told apart", len(order))
	}
	return v, note
}

// swing returns the largest PSI that an hour of the day has against the whole reference, without its
// sampling error.
func (b *Builder) swing(c *column, v *Variable) float64 {
	var hours [24][]uint64
	for i, h := range b.hours {
		if h < 0 {
			continue
		}
		if hours[h] == nil {
			hours[h] = make([]uint64, len(v.Counts))
		}
		n := Counts{Bins: hours[h]}
		switch w := c.words[i]; {
		case v.Kind == Number && math.IsNaN(c.numbers[i]), v.Kind == Category && w < 0:
			n.Bins[len(v.Counts)-1]++
		case v.Kind == Number:
			n.Bins[v.bin(c.numbers[i])]++
		default:
			n.Add(v, c.all[w])
		}
	}
	most := 0.0
	bins := positive(v.Counts)
	for _, n := range hours {
		m := float64(total(n))
		if m < swingRows {
			continue
		}
		q := make([]float64, len(n))
		for i := range n {
			// Half a row for empty bins: without it the distance would be infinite.
			q[i] = (float64(n[i]) + 0.5) / (m + 0.5*float64(len(n)))
		}
		most = max(most, 2*(divergence(shares(v.Counts), q)-float64(bins-1)/(2*m)))
	}
	return most
}

// positive is the number of bins with values.
func positive(counts []uint64) (n int) {
	for _, c := range counts {
		if c > 0 {
			n++
		}
	}
	return n
}

func shares[T uint64 | float64](counts []T) []float64 {
	sum := float64(total(counts))
	p := make([]float64, len(counts))
	for i, c := range counts {
		if sum > 0 {
			p[i] = float64(c) / sum
		}
	}
	return p
}

// FromCounts makes a reference of counts with known bins: the boundaries of a histogram, or words. The
// last count is that of missing values, and that of words before it of all other words.
func FromCounts(kind string, edges []float64, right bool, words []string, counts []uint64) (*Variable, error) {
	v := &Variable{Kind: kind, Edges: edges, Right: right, Words: words, Counts: counts, Open: kind == Category}
	if err := v.prepare(); err != nil {
		return nil, err
	}
	if kind == Number {
		mean, square, sum := 0.0, 0.0, 0.0
		for i, n := range counts[:len(counts)-1] {
			if n == 0 {
				continue
			}
			sum += float64(n)
			d := v.Centers[i] - mean
			mean += d * float64(n) / sum
			square += float64(n) * d * (v.Centers[i] - mean)
		}
		v.Std = deviation(square, sum)
	}
	return v, nil
}

// Accept returns the reference with other counts for its bins, for example those of live values.
func (v *Variable) Accept(counts []uint64) (*Variable, error) {
	n := *v
	n.Counts, n.Known, n.Swing = slices.Clone(counts), slices.Clone(v.Known), 0
	n.Min, n.Max = nil, nil // live values may be beyond them
	if err := n.prepare(); err != nil {
		return nil, err
	}
	return &n, nil
}

// Without returns the reference without some variables.
func (r *Reference) Without(names ...string) *Reference {
	n := *r
	n.Variables = maps.Clone(r.Variables)
	for _, name := range names {
		delete(n.Variables, name)
	}
	return &n
}
