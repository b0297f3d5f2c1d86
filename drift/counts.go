package drift

import (
	"encoding/json"
	"math"
	"slices"
	"sort"
	"strconv"
	"strings"
)

// Counts are the live values of one variable by the bins of its reference. Counts of several instances
// are added up by Merge. Their size depends only on the reference.
type Counts struct {
	Bins []uint64 `json:"bins"`
	// Unexpected values, which are also in one of the bins.
	Below uint64 `json:"below,omitempty"` // less than the reference's minimum
	Above uint64 `json:"above,omitempty"` // more than its maximum
	New   uint64 `json:"new,omitempty"`   // categories that the reference does not have
	Type  uint64 `json:"type,omitempty"`  // neither a number nor a word, or a word for a number: in the bin of missing values
}

// NewCounts returns empty counts for a variable.
func NewCounts(v *Variable) *Counts { return &Counts{Bins: make([]uint64, len(v.Counts))} }

// Add counts a value: a number, a string, a bool, a json.Number, or nil for a missing one.
func (c *Counts) Add(v *Variable, value any) {
	missing := len(v.Counts) - 1
	if v.Kind == Category {
		w, ok := Word(value)
		switch i, known := v.index[w]; {
		case !ok:
			c.Bins[missing]++
			if value != nil && !isNaN(value) {
				c.Type++
			}
		case known && i >= 0:
			c.Bins[i]++
		default:
			c.Bins[missing-1]++
			if !known && !v.Open {
				c.New++
			}
		}
		return
	}
	x, ok := Float(value)
	switch {
	case !ok:
		c.Bins[missing]++
		if value != nil {
			c.Type++
		}
		return
	case math.IsNaN(x):
		c.Bins[missing]++
		return
	case v.Min != nil && x < *v.Min:
		c.Below++
	case v.Max != nil && x > *v.Max:
		c.Above++
	}
	c.Bins[v.bin(x)]++
}

// bin returns the bin of a number, which may be infinite.
func (v *Variable) bin(x float64) int {
	if v.Right {
		return sort.SearchFloat64s(v.Edges, x)
	}
	return sort.Search(len(v.Edges), func(i int) bool { return v.Edges[i] > x })
}

// Merge adds the counts of another instance.
func (c *Counts) Merge(o *Counts) {
	for i, n := range o.Bins {
		c.Bins[i] += n
	}
	c.Below += o.Below
	c.Above += o.Above
	c.New += o.New
	c.Type += o.Type
}

// Clone returns a copy.
func (c *Counts) Clone() *Counts {
	n := *c
	n.Bins = slices.Clone(c.Bins)
	return &n
}

// Float returns a value as a number. Texts that are numbers count as such, because a file of a reference
// does not always tell them apart.
func Float(value any) (float64, bool) {
	switch value := value.(type) {
	case float64:
		return value, true
	case json.Number:
		return parse(value.String())
	case string:
		return parse(value)
	case bool:
		if value {
			return 1, true
		}
		return 0, true
	}
	return 0, false
}

// parse reads a decimal number, also one too large for a float64, as Python's float does.
func parse(text string) (float64, bool) {
	text = strings.TrimSpace(text)
	if text == "" || strings.ContainsAny(text, "_xXpP") {
		return 0, false
	}
	f, err := strconv.ParseFloat(text, 64)
	if err != nil && !math.IsInf(f, 0) {
		return 0, false
	}
	return f, true
}

// Word returns a value as a category. Numbers have one spelling: 1, 1.0 and 1e0 are the same category.
func Word(value any) (string, bool) {
	switch value := value.(type) {
	case string:
		return clip(spell(value)), true
	case json.Number:
		return spell(value.String()), true
	case float64:
		if math.IsNaN(value) {
			return "", false
		}
		return short(value), true
	case bool:
		if value {
			return "True", true
		}
		return "False", true
	}
	return "", false
}

func isNaN(value any) bool {
	f, ok := value.(float64)
	return ok && math.IsNaN(f)
}

// spell returns the one spelling of numbers and bools; other words are unchanged.
func spell(w string) string {
	switch {
	case w == "":
		return w
	case strings.EqualFold(w, "true"):
		return "True"
	case strings.EqualFold(w, "false"):
		return "False"
	}
	if c := w[0]; c != '-' && c != '+' && c != '.' && (c < '0' || c > '9') {
		return w
	}
	// A number with leading zeros is a code.
	digits := strings.TrimLeft(w, "+-")
	if len(digits) > 1 && digits[0] == '0' && digits[1] != '.' && digits[1] != 'e' && digits[1] != 'E' {
		return w
	}
	if f, ok := parse(w); ok && math.Abs(f) < 1<<53 {
		return short(f)
	}
	return w
}

func clip(w string) string {
	if len(w) > maxWord {
		return strings.ToValidUTF8(w[:maxWord], "")
	}
	return w
}
