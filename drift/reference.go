// Package drift decides whether the variables of live requests still have the distribution of a
// reference, for example of a model's training data. It bins values, counts them, and tests the
// counts; docs/drift.md describes the method. It does no I/O and knows neither requests nor servers.
package drift

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"math"
	"slices"
	"strconv"
	"strings"
	"time"
)

// Limits of a reference.
const (
	MaxVariables = 500
	maxNumeric   = 50   // bins of a numeric variable of a foreign reference
	topWords     = 20   // categories with a bin of their own
	maxKnown     = 1000 // rarer categories that are remembered, so that new ones are told apart
	maxWord      = 200  // bytes of a category
	maxName      = 200  // bytes of a variable's name
)

// The kinds of variables.
const (
	Number   = "number"
	Category = "category"
)

// Reference is a summary of the data that live values are compared with.
type Reference struct {
	Source    string               `json:"source,omitempty"` // where the data came from, for people
	Created   time.Time            `json:"created,omitzero"`
	Variables map[string]*Variable `json:"variables"`
}

// Variable is the reference of one variable. The last bin has the missing values, and that of a category
// before it the categories without a bin of their own.
type Variable struct {
	Kind string `json:"kind"`
	// Counts are the reference's values in each bin.
	Counts []uint64 `json:"counts"`

	// Edges separate the bins of a number. A value that equals an edge belongs to the bin above it, or
	// with Right to the one below it.
	Edges []float64 `json:"edges,omitempty"`
	Right bool      `json:"right,omitempty"`
	// Centers are the means of the reference's values in each bin, or another position of an empty one.
	Centers []float64 `json:"centers,omitempty"`
	// Min, Max and Std describe the reference's numbers. Without Min and Max no value is out of range.
	Min *float64 `json:"min,omitempty"`
	Max *float64 `json:"max,omitempty"`
	Std float64  `json:"std,omitempty"`

	// Words are the categories with bins of their own, Known the others. Open means that the
	// reference has more categories than those, so that new ones cannot be told apart.
	Words []string `json:"words,omitempty"`
	Known []string `json:"known,omitempty"`
	Open  bool     `json:"open,omitempty"`

	// Swing is the largest PSI of an hour of the day against the whole reference. Smaller drift is
	// not reported. 0: unknown.
	Swing float64 `json:"swing,omitempty"`

	index map[string]int // of Words and Known; -1 for those without a bin
}

// Decode reads a reference that Encode or a person has written.
func Decode(text []byte) (*Reference, error) {
	var r Reference
	if err := json.Unmarshal(text, &r); err != nil {
		return nil, fmt.Errorf("reference: %w", err)
	}
	if len(r.Variables) == 0 {
		return nil, errors.New("reference: it has no variables")
	}
	if len(r.Variables) > MaxVariables {
		return nil, fmt.Errorf("reference: %d variables, at most %d are watched", len(r.Variables), MaxVariables)
	}
	for name, v := range r.Variables {
		if name == "" || len(name) > maxName {
			return nil, fmt.Errorf("reference: variable %q: a name has 1 to %d bytes", shorten(name), maxName)
		}
		if v == nil {
			return nil, fmt.Errorf("reference: variable %q is null", name)
		}
		if err := v.prepare(); err != nil {
			return nil, fmt.Errorf("reference: variable %q: %w", name, err)
		}
	}
	return &r, nil
}

// Encode writes a reference as JSON.
func (r *Reference) Encode() ([]byte, error) { return json.Marshal(r) }

// Names are the names of the variables, sorted.
func (r *Reference) Names() []string {
	if r == nil {
		return nil
	}
	return slices.Sorted(maps.Keys(r.Variables))
}

// prepare checks the fields, and makes the index of words.
func (v *Variable) prepare() error {
	bins := 0
	switch v.Kind {
	case Number:
		bins = len(v.Edges) + 2
		if len(v.Edges) > maxNumeric {
			return fmt.Errorf("%d edges, at most %d", len(v.Edges), maxNumeric)
		}
		for i, e := range v.Edges {
			if math.IsNaN(e) || math.IsInf(e, 0) || i > 0 && e <= v.Edges[i-1] {
				return errors.New("the edges must be finite and ascending")
			}
		}
		if v.Centers == nil {
			v.Centers = v.middles()
		}
		if len(v.Centers) != bins-1 {
			return fmt.Errorf("%d centers for %d bins", len(v.Centers), bins-1)
		}
		if v.Std < 0 || math.IsNaN(v.Std) || math.IsInf(v.Std, 0) {
			return errors.New("std must be a number, 0 or more")
		}
	case Category:
		bins = len(v.Words) + 2
		if len(v.Words) > maxNumeric || len(v.Known) > maxKnown {
			return fmt.Errorf("%d categories, at most %d", len(v.Words)+len(v.Known), maxNumeric+maxKnown)
		}
		v.index = make(map[string]int, len(v.Words)+len(v.Known))
		for _, w := range v.Known {
			v.index[w] = -1
		}
		for i, w := range v.Words {
			v.index[w] = i
		}
	default:
		return fmt.Errorf("kind %q is none of %s, %s", v.Kind, Number, Category)
	}
	if len(v.Counts) != bins {
		return fmt.Errorf("%d counts for %d bins", len(v.Counts), bins)
	}
	if total(v.Counts) == 0 {
		return errors.New("it has no values")
	}
	if v.Swing < 0 || math.IsNaN(v.Swing) || math.IsInf(v.Swing, 0) {
		return errors.New("swing must be a number, 0 or more")
	}
	return nil
}

// middles are positions of bins whose values are not known.
func (v *Variable) middles() []float64 {
	at := make([]float64, len(v.Edges)+1)
	for i := range at {
		switch {
		case len(v.Edges) == 0:
		case i == 0:
			at[i] = v.Edges[0]
			if v.Min != nil && *v.Min < at[i] {
				at[i] = (*v.Min + at[i]) / 2
			}
		case i == len(v.Edges):
			at[i] = v.Edges[i-1]
			if v.Max != nil && *v.Max > at[i] {
				at[i] = (*v.Max + at[i]) / 2
			}
		default:
			at[i] = (v.Edges[i-1] + v.Edges[i]) / 2
		}
	}
	return at
}

// Rows is the number of values of the reference.
func (v *Variable) Rows() uint64 { return total(v.Counts) }

// Hash identifies what makes counts comparable: kind and bins. Counts and positions do not.
func (v *Variable) Hash() string {
	text, _ := json.Marshal([]any{v.Kind, v.Edges, v.Right, v.Words, v.Counts}) // finite numbers and texts
	sum := sha256.Sum256(text)
	return hex.EncodeToString(sum[:4])
}

// Bins names the bins.
func (v *Variable) Bins() []string {
	names := make([]string, 0, len(v.Counts))
	if v.Kind == Number {
		below, at := " <= x < ", v.edgeNames()
		if v.Right {
			below = " < x <= "
		}
		for i := range len(v.Edges) + 1 {
			switch {
			case len(v.Edges) == 0:
				names = append(names, "any number")
			case i == 0 && v.Right:
				names = append(names, "x <= "+at[0])
			case i == 0:
				names = append(names, "x < "+at[0])
			case i == len(v.Edges) && v.Right:
				names = append(names, "x > "+at[i-1])
			case i == len(v.Edges):
				names = append(names, "x >= "+at[i-1])
			default:
				names = append(names, at[i-1]+below+at[i])
			}
		}
		return append(names, missingBin)
	}
	for _, w := range v.Words {
		if w == "" || strings.HasPrefix(w, "(") || strings.HasPrefix(w, `"`) {
			w = strconv.Quote(w)
		}
		names = append(names, w)
	}
	return append(names, otherBin, missingBin)
}

// edgeNames writes the edges with as few digits as tell them apart, four at least.
func (v *Variable) edgeNames() []string {
	names := make([]string, len(v.Edges))
	for digits := 4; ; digits++ {
		for i, e := range v.Edges {
			if names[i] = strconv.FormatFloat(e, 'g', digits, 64); digits > 16 {
				names[i] = short(e)
			}
		}
		if digits > 16 || len(slices.Compact(slices.Clone(names))) == len(names) {
			return names
		}
	}
}

const (
	missingBin = "(missing)"
	otherBin   = "(other)"
)

func short(f float64) string { return strconv.FormatFloat(f, 'g', -1, 64) }

func shorten(text string) string {
	if len(text) > 40 {
		return text[:40] + "..."
	}
	return text
}

func total[T uint64 | float64](counts []T) (sum T) {
	for _, c := range counts {
		sum += c
	}
	return sum
}
