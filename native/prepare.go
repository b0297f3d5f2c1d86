package native

import (
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"slices"
)

// The stages before a model: scalers, imputers, encoders, and the choice of columns. Each operation is rounded
// as the library rounds it, so their results have the same bits. A product that is added to something is
// converted explicitly: Go may fuse it otherwise.

// prepared are the kinds of stages before a model, and of linear models.
var prepared = map[string]func(b *builder, raw json.RawMessage) (stage, error){ //nolint:gochecknoglobals // a constant table
	"scale":     newScale,
	"impute":    newImpute,
	"onehot":    newOneHot,
	"codes":     newCodes,
	"join":      newJoin,
	"linear":    newLinear,
	"logistic":  newLogistic,
	"choose":    newChoose,
	"blend":     newBlend,
	"calibrate": newCalibrate,
}

// scale computes one operation after another with a constant per column.
type scale struct {
	in, columns int
	steps       []scaleStep
	clip        bool
	low, high   float64
}

type scaleStep struct {
	op     string // sub, add, mul, div
	values []float64
}

func newScale(b *builder, raw json.RawMessage) (stage, error) {
	var d struct {
		In    int `json:"in"`
		Steps []struct {
			Op     string `json:"op"`
			Values Array  `json:"values"`
		} `json:"steps"`
		Clip []float64 `json:"clip"` // the least and the largest value, if they are limited
	}
	if err := json.Unmarshal(raw, &d); err != nil {
		return nil, err
	}
	columns, err := b.in(d.In)
	if err != nil {
		return nil, err
	}
	s := &scale{in: d.In, columns: columns}
	for _, step := range d.Steps {
		if !slices.Contains([]string{"sub", "add", "mul", "div"}, step.Op) {
			return nil, fmt.Errorf("operation %q is unknown", step.Op)
		}
		values, err := constants(b, step.Op, step.Values, columns)
		if err != nil {
			return nil, err
		}
		s.steps = append(s.steps, scaleStep{step.Op, values})
	}
	if s.clip = d.Clip != nil; s.clip {
		if len(d.Clip) != 2 || !(d.Clip[0] <= d.Clip[1]) {
			return nil, errors.New("clip is not two limits")
		}
		s.low, s.high = d.Clip[0], d.Clip[1]
	}
	return s, nil
}

// constants reads an array of a fixed length.
func constants(b *builder, name string, a Array, n int) ([]float64, error) {
	values, err := elements[float64](b.file, name, a)
	if err == nil && len(values) != n {
		err = fmt.Errorf("array %s has %d values, not %d", name, len(values), n)
	}
	return values, err
}

func (s *scale) width() int { return s.columns }

func (s *scale) run(r *run, out []float64) error {
	in := r.slots[s.in]
	for row := range r.rows {
		from, to := in[row*s.columns:(row+1)*s.columns], out[row*s.columns:(row+1)*s.columns]
		for i, x := range from {
			if math.IsInf(x, 0) {
				return infinite(row)
			}
			to[i] = x
		}
		for _, step := range s.steps {
			switch step.op {
			case "sub":
				for i, c := range step.values {
					to[i] -= c
				}
			case "add":
				for i, c := range step.values {
					to[i] += c
				}
			case "mul":
				for i, c := range step.values {
					to[i] = float64(to[i] * c)
				}
			case "div":
				for i, c := range step.values {
					to[i] /= c
				}
			}
		}
		if s.clip {
			for i, x := range to {
				if x < s.low {
					to[i] = s.low
				} else if x > s.high {
					to[i] = s.high
				}
			}
		}
	}
	return nil
}

func infinite(row int) error {
	return &InputError{Row: row, Column: -1, Reason: "a value is infinite"}
}

// impute replaces missing values.
type impute struct {
	in, columns int
	values      []float64
}

func newImpute(b *builder, raw json.RawMessage) (stage, error) {
	var d struct {
		In     int   `json:"in"`
		Values Array `json:"values"`
	}
	if err := json.Unmarshal(raw, &d); err != nil {
		return nil, err
	}
	columns, err := b.in(d.In)
	if err != nil {
		return nil, err
	}
	values, err := constants(b, "values", d.Values, columns)
	if err != nil {
		return nil, err
	}
	return &impute{d.In, columns, values}, nil
}

func (s *impute) width() int { return s.columns }

func (s *impute) run(r *run, out []float64) error {
	in := r.slots[s.in][:r.rows*s.columns]
	for i, x := range in {
		switch {
		case x != x:
			x = s.values[i%s.columns]
		case math.IsInf(x, 0):
			return infinite(i / s.columns)
		}
		out[i] = x
	}
	return nil
}

// encode replaces categories by numbers: by one column for each (one-hot), or by their positions (codes).
type encode struct {
	in, columns, to int
	onehot          bool
	each            []encoder
}

// encoder is the encoding of one column.
type encoder struct {
	categories []float64
	sorted     bool
	drop       int     // the category without a column of its own, -1 for none
	columns    int     // of one-hot
	unknown    float64 // its code
	refuse     bool    // other values are refused
	missing    int     // the category that is NaN, -1: NaN is no category
	missingAs  float64 // the code of missing
}

func newOneHot(b *builder, raw json.RawMessage) (stage, error) { return newEncode(b, raw, true) }
func newCodes(b *builder, raw json.RawMessage) (stage, error)  { return newEncode(b, raw, false) }

func newEncode(b *builder, raw json.RawMessage, onehot bool) (stage, error) {
	var d struct {
		In      int `json:"in"`
		Columns []struct {
			// Categories are the values; of a column of texts, their positions in its Categories.
			Categories Array `json:"categories"`
			// Missing is the position of the category NaN; absent: NaN is an unknown category.
			Missing *int `json:"missing"`
			// Drop is the position of the category without a column.
			Drop *int `json:"drop"`
		} `json:"columns"`
		// Refuse: an unknown category is refused. Else it has no column, or the code Unknown.
		Refuse bool `json:"refuse"`
		// Unknown and MissingAs are codes; null is NaN.
		Unknown   *float64 `json:"unknown"`
		MissingAs *float64 `json:"missing_as"`
	}
	if err := json.Unmarshal(raw, &d); err != nil {
		return nil, err
	}
	columns, err := b.in(d.In)
	if err != nil {
		return nil, err
	}
	if len(d.Columns) != columns {
		return nil, fmt.Errorf("%d columns are encoded, and there are %d", len(d.Columns), columns)
	}
	s := &encode{in: d.In, columns: columns, onehot: onehot}
	number := func(v *float64) float64 {
		if v == nil {
			return math.NaN()
		}
		return *v
	}
	for _, c := range d.Columns {
		e := encoder{drop: -1, missing: -1, refuse: d.Refuse, unknown: number(d.Unknown), missingAs: number(d.MissingAs), columns: 1}
		if e.categories, err = elements[float64](b.file, "categories", c.Categories); err != nil {
			return nil, err
		}
		n := len(e.categories)
		known := e.categories
		if c.Missing != nil {
			if e.missing = *c.Missing; e.missing != n-1 {
				return nil, errors.New("the category of missing values is not the last")
			}
			known = known[:n-1]
		}
		if c.Drop != nil {
			if e.drop = *c.Drop; e.drop < 0 || e.drop >= n || !onehot {
				return nil, errors.New("the dropped category does not exist")
			}
		}
		if e.sorted = slices.IsSorted(known); slices.ContainsFunc(known, func(x float64) bool { return x != x }) {
			return nil, errors.New("a category is not a number")
		}
		if onehot {
			if e.columns = n; e.drop >= 0 {
				e.columns--
			}
		}
		s.to += e.columns
		s.each = append(s.each, e)
	}
	return s, nil
}

// find returns the position of a category, -1 for an unknown one.
func (e *encoder) find(x float64) int {
	if x != x {
		return e.missing
	}
	known := e.categories
	if e.missing >= 0 {
		known = known[:e.missing]
	}
	if !e.sorted {
		return slices.Index(known, x)
	}
	if i, found := slices.BinarySearch(known, x); found {
		return i
	}
	return -1
}

func (s *encode) width() int { return s.to }

func (s *encode) run(r *run, out []float64) error {
	in := r.slots[s.in]
	out = out[:r.rows*s.to]
	if s.onehot {
		clear(out)
	}
	for row := range r.rows {
		at := row * s.to
		for i := range s.each {
			e := &s.each[i]
			x := in[row*s.columns+i]
			if math.IsInf(x, 0) {
				return infinite(row)
			}
			code := e.find(x)
			switch {
			case code < 0 && e.refuse:
				return &InputError{Row: row, Column: -1, Reason: "a category is unknown to the encoder"}
			case !s.onehot && code < 0:
				out[at] = e.unknown
			case !s.onehot && code == e.missing:
				out[at] = e.missingAs
			case !s.onehot:
				out[at] = float64(code)
			case code >= 0 && code != e.drop:
				if e.drop >= 0 && code > e.drop {
					code--
				}
				out[at+code] = 1
			}
			at += e.columns
		}
	}
	return nil
}

// join puts columns of several slots side by side.
type join struct {
	parts []joinPart
	to    int
}

type joinPart struct {
	in, columns int
	pick        []int // nil: all
}

func newJoin(b *builder, raw json.RawMessage) (stage, error) {
	var d struct {
		Parts []struct {
			In   int   `json:"in"`
			Pick []int `json:"pick"`
		} `json:"parts"`
	}
	if err := json.Unmarshal(raw, &d); err != nil {
		return nil, err
	}
	s := &join{}
	for _, p := range d.Parts {
		columns, err := b.in(p.In)
		if err != nil {
			return nil, err
		}
		for _, i := range p.Pick {
			if i < 0 || i >= columns {
				return nil, fmt.Errorf("slot %d has no column %d", p.In, i)
			}
		}
		s.parts = append(s.parts, joinPart{p.In, columns, p.Pick})
		if p.Pick == nil {
			s.to += columns
		} else {
			s.to += len(p.Pick)
		}
		if s.to > widthLimit {
			return nil, errors.New("too many columns")
		}
	}
	return s, nil
}

func (s *join) width() int { return s.to }

func (s *join) run(r *run, out []float64) error {
	for row := range r.rows {
		to := out[row*s.to : (row+1)*s.to]
		for i := range s.parts {
			p := &s.parts[i]
			from := r.slots[p.in][row*p.columns : (row+1)*p.columns]
			if p.pick == nil {
				to = to[copy(to, from):]
				continue
			}
			for n, column := range p.pick {
				to[n] = from[column]
			}
			to = to[len(p.pick):]
		}
	}
	return nil
}
