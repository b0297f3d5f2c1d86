package native

import (
	"encoding/json"
	"errors"
	"fmt"
	"math"
)

// Linear models and what is made of their results. The libraries compute dot products with BLAS, whose order of
// summation depends on the processor and the number of rows, so results are equal within a tolerance
// that the method states; the order here is from left to right in four lanes.

// linear computes a dot product and an intercept for each of its results.
type linear struct {
	in, columns, to         int
	coefficients, intercept []float64 // coefficients of one result after another
}

func newLinear(b *builder, raw json.RawMessage) (stage, error) {
	var d struct {
		In           int   `json:"in"`
		Coefficients Array `json:"coefficients"`
		Intercept    Array `json:"intercept"`
	}
	if err := json.Unmarshal(raw, &d); err != nil {
		return nil, err
	}
	columns, err := b.in(d.In)
	if err != nil {
		return nil, err
	}
	s := &linear{in: d.In, columns: columns}
	if s.intercept, err = elements[float64](b.file, "intercept", d.Intercept); err != nil {
		return nil, err
	}
	if s.to = len(s.intercept); s.to < 1 || s.to > widthLimit {
		return nil, fmt.Errorf("%d results", s.to)
	}
	s.coefficients, err = constants(b, "coefficients", d.Coefficients, columns*s.to)
	return s, err
}

func (s *linear) width() int { return s.to }

func (s *linear) run(r *run, out []float64) error {
	for row := range r.rows {
		x := r.slots[s.in][row*s.columns : (row+1)*s.columns]
		for _, v := range x {
			if v-v != 0 {
				return &InputError{Row: row, Column: -1, Reason: "a value is missing or infinite"}
			}
		}
		for k := range s.to {
			out[row*s.to+k] = dot(x, s.coefficients[k*s.columns:(k+1)*s.columns]) + s.intercept[k]
		}
	}
	return nil
}

func dot(x, y []float64) float64 {
	y = y[:len(x)]
	var a, b, c, d float64
	for len(x) >= 4 {
		a += float64(x[0] * y[0])
		b += float64(x[1] * y[1])
		c += float64(x[2] * y[2])
		d += float64(x[3] * y[3])
		x, y = x[4:], y[4:]
	}
	for i, v := range x {
		a += float64(v * y[i])
	}
	return (a + b) + (c + d)
}

// logistic makes probabilities of scores.
type logistic struct {
	in, columns, to int
	how             string
}

func newLogistic(b *builder, raw json.RawMessage) (stage, error) {
	var d struct {
		In  int    `json:"in"`
		How string `json:"how"`
	}
	if err := json.Unmarshal(raw, &d); err != nil {
		return nil, err
	}
	columns, err := b.in(d.In)
	if err != nil {
		return nil, err
	}
	s := &logistic{in: d.In, columns: columns, to: columns, how: d.How}
	switch {
	case d.How == "binary" && columns == 1: // one score: the probabilities of both classes
		s.to = 2
	case d.How == "softmax2" && columns == 1: // the softmax of minus the score, and the score
		s.to = 2
	case d.How == "softmax" && columns > 1, d.How == "rest" && columns > 1: // rest: each class against the rest, to the sum 1
	default:
		return nil, fmt.Errorf("%d scores cannot be made probabilities by %q", columns, d.How)
	}
	return s, nil
}

func (s *logistic) width() int { return s.to }

func (s *logistic) run(r *run, out []float64) error {
	in := r.slots[s.in]
	for row := range r.rows {
		from, to := in[row*s.columns:(row+1)*s.columns], out[row*s.to:(row+1)*s.to]
		switch s.how {
		case "binary":
			to[1] = logisticOf(from[0])
			to[0] = 1 - to[1]
		case "softmax2":
			softmaxOf(to, -from[0], from[0])
		case "softmax":
			softmaxOf(to, from...)
		default:
			sum := 0.0
			for i, x := range from {
				to[i] = logisticOf(x)
				sum += to[i]
			}
			for i := range to {
				if sum == 0 {
					to[i] = 1 / float64(len(to))
				} else {
					to[i] /= sum
				}
			}
		}
	}
	return nil
}

func logisticOf(x float64) float64 {
	if x < 0 { // so that a small probability keeps its digits
		e := math.Exp(x)
		return e / (1 + e)
	}
	return 1 / (1 + math.Exp(-x))
}

func softmaxOf(to []float64, from ...float64) {
	most := from[0]
	for _, x := range from {
		most = max(most, x)
	}
	sum := 0.0
	for i, x := range from {
		to[i] = math.Exp(x - most)
		sum += to[i]
	}
	for i := range to {
		to[i] /= sum
	}
}

// choose finds the class: by one score if it is above 0, by several the first of the largest.
type choose struct {
	in, columns int
}

func newChoose(b *builder, raw json.RawMessage) (stage, error) {
	var d struct {
		In int `json:"in"`
	}
	if err := json.Unmarshal(raw, &d); err != nil {
		return nil, err
	}
	columns, err := b.in(d.In)
	return &choose{d.In, columns}, err
}

func (s *choose) width() int { return 1 }

func (s *choose) run(r *run, out []float64) error {
	for row := range r.rows {
		from := r.slots[s.in][row*s.columns : (row+1)*s.columns]
		best := 0
		if s.columns == 1 {
			if from[0] > 0 {
				best = 1
			}
		} else {
			for i, x := range from {
				if x > from[best] {
					best = i
				}
			}
		}
		out[row] = float64(best)
	}
	return nil
}

// blend computes the mean of several slots, or their weighted mean.
type blend struct {
	in      []int
	columns int
	weights []float64 // nil: all the same
	sum     float64
}

func newBlend(b *builder, raw json.RawMessage) (stage, error) {
	var d struct {
		In      []int     `json:"in"`
		Weights []float64 `json:"weights"`
		Sum     float64   `json:"sum"` // of the weights, as the library has added them
	}
	if err := json.Unmarshal(raw, &d); err != nil {
		return nil, err
	}
	if len(d.In) == 0 || d.Weights != nil && len(d.Weights) != len(d.In) {
		return nil, errors.New("the weights are not those of the slots")
	}
	s := &blend{in: d.In, weights: d.Weights, sum: d.Sum}
	for i, slot := range d.In {
		columns, err := b.in(slot)
		if err != nil {
			return nil, err
		}
		if i > 0 && columns != s.columns {
			return nil, fmt.Errorf("slots of %d and %d columns have no mean", s.columns, columns)
		}
		s.columns = columns
	}
	if s.weights == nil {
		s.sum = float64(len(s.in))
	}
	return s, nil
}

func (s *blend) width() int { return s.columns }

func (s *blend) run(r *run, out []float64) error {
	n := r.rows * s.columns
	out = out[:n]
	for i, slot := range s.in {
		from := r.slots[slot][:n]
		for k, x := range from {
			if s.weights != nil {
				x = float64(x * s.weights[i])
			}
			if i == 0 {
				out[k] = x
			} else {
				out[k] += x
			}
		}
	}
	for k := range out {
		out[k] /= s.sum
	}
	return nil
}

// calibrate makes probabilities of the scores or probabilities of a classifier.
type calibrate struct {
	in, columns, classes int
	each                 []calibrator
}

// calibrator is a sigmoid, or a function of straight lines between points.
type calibrator struct {
	class, column int
	a, b          float64
	x, y          []float64
}

func newCalibrate(b *builder, raw json.RawMessage) (stage, error) {
	var d struct {
		In      int `json:"in"`
		Classes int `json:"classes"`
		Each    []struct {
			Class  int     `json:"class"`
			Column int     `json:"column"`
			A      float64 `json:"a"`
			B      float64 `json:"b"`
			X      *Array  `json:"x"`
			Y      *Array  `json:"y"`
		} `json:"each"`
	}
	if err := json.Unmarshal(raw, &d); err != nil {
		return nil, err
	}
	columns, err := b.in(d.In)
	if err != nil {
		return nil, err
	}
	if d.Classes < 2 || d.Classes > widthLimit || len(d.Each) == 0 || d.Classes == 2 && len(d.Each) != 1 || d.Classes > 2 && len(d.Each) != d.Classes {
		return nil, fmt.Errorf("%d calibrators for %d classes", len(d.Each), d.Classes)
	}
	s := &calibrate{in: d.In, columns: columns, classes: d.Classes}
	for _, e := range d.Each {
		c := calibrator{class: e.Class, column: e.Column, a: e.A, b: e.B}
		if e.Class < 0 || e.Class >= d.Classes || e.Column < 0 || e.Column >= columns || d.Classes == 2 && e.Class != 1 {
			return nil, fmt.Errorf("a calibrator of column %d for class %d", e.Column, e.Class)
		}
		if e.X != nil && e.Y != nil {
			if c.x, err = elements[float64](b.file, "x", *e.X); err != nil {
				return nil, err
			}
			if c.y, err = constants(b, "y", *e.Y, len(c.x)); err != nil {
				return nil, err
			}
			if len(c.x) == 0 {
				return nil, errors.New("a calibrator without points")
			}
		}
		s.each = append(s.each, c)
	}
	return s, nil
}

func (c *calibrator) at(x float64) float64 {
	if c.x == nil {
		return logisticOf(-(float64(c.a*x) + c.b))
	}
	last := len(c.x) - 1
	if !(x > c.x[0]) {
		return c.y[0]
	}
	if x >= c.x[last] {
		return c.y[last]
	}
	low, high := 0, last // x is in [low, high)
	for high-low > 1 {
		if middle := (low + high) / 2; x >= c.x[middle] {
			low = middle
		} else {
			high = middle
		}
	}
	slope := (c.y[high] - c.y[low]) / (c.x[high] - c.x[low])
	return float64(slope*(x-c.x[low])) + c.y[low]
}

func (s *calibrate) width() int { return s.classes }

func (s *calibrate) run(r *run, out []float64) error {
	for row := range r.rows {
		from, to := r.slots[s.in][row*s.columns:(row+1)*s.columns], out[row*s.classes:(row+1)*s.classes]
		for i := range s.each {
			c := &s.each[i]
			to[c.class] = c.at(from[c.column])
		}
		if s.classes == 2 {
			to[0] = 1 - to[1]
		} else {
			sum := 0.0
			for _, p := range to {
				sum += p
			}
			for i := range to {
				if sum == 0 {
					to[i] = 1 / float64(len(to))
				} else {
					to[i] /= sum
				}
			}
		}
		for i, p := range to {
			if p > 1 && p <= 1+1e-5 {
				to[i] = 1
			}
		}
	}
	return nil
}
