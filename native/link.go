package native

import (
	"encoding/json"
	"errors"
	"fmt"
	"math"
)

// linkJSON describes a stage of kind "link": a function of each row of a slot.
type linkJSON struct {
	In int `json:"in"`
	// Function is one of the names in links.
	Function string `json:"function"`
	// A is a parameter of the function.
	A float64 `json:"a,omitempty"`
	// Fortran: the library's array has Fortran order, so that it adds up rows differently (softmax).
	Fortran bool `json:"fortran,omitempty"`
}

type link struct {
	linkJSON

	inputs, outputs int
	exp             func(float64) float64
	expf            func(float32) float32
	compute         func(l *link, r *run, in, out []float64)
}

// links are the functions: what they need and how they change the width.
var links = map[string]struct { //nolint:gochecknoglobals // a constant table
	needs   string // a function of the library's process
	single  bool   // of a slot of width 1
	outputs int    // 0: as wide as the slot
	compute func(l *link, r *run, in, out []float64)
}{
	"expit2":    {"exp", true, 2, expit2},         // scikit-learn: 1-p and p, p = 1/(1+exp(-a*x))
	"softmax":   {"numpy.exp", false, 0, softmax}, // scikit-learn
	"exp":       {"numpy.exp", false, 0, exponential},
	"sigmoid":   {"exp", true, 1, sigmoid},      // LightGBM: 1/(1+exp(-a*x))
	"sigmoid2":  {"exp", true, 2, sigmoid},      // LightGBM: 1-p and p
	"sigmoids":  {"exp", false, 0, sigmoid},     // LightGBM: of each column
	"softmaxC":  {"exp", false, 0, softmax},     // LightGBM
	"expC":      {"exp", false, 0, exponential}, // LightGBM
	"square":    {"", false, 0, signedSquare},   // LightGBM: sign(x)*x*x
	"sigmoidf":  {"expf", true, 1, sigmoidf},    // XGBoost
	"sigmoidf2": {"expf", true, 2, sigmoidf},
	"softmaxf":  {"expf", false, 0, softmaxf},
	"expf":      {"expf", false, 0, exponentialf},
	"isolation": {"numpy.exp2", true, 1, isolation}, // scikit-learn: -(2^(-x/a))
	"minus":     {"", false, 0, minus},              // x-a
	"blank":     {"", false, 0, blank},              // XGBoost: a as NaN
	"flip2":     {"", true, 2, flip2},               // 1-p and p, in float64
}

func newLink(b *builder, raw json.RawMessage) (stage, error) {
	l := &link{}
	if err := json.Unmarshal(raw, &l.linkJSON); err != nil {
		return nil, err
	}
	var err error
	if l.inputs, err = b.in(l.In); err != nil {
		return nil, err
	}
	f, ok := links[l.Function]
	switch {
	case !ok:
		return nil, fmt.Errorf("function %q is unknown to this program", l.Function)
	case f.single && l.inputs != 1:
		return nil, fmt.Errorf("function %s of %d columns", l.Function, l.inputs)
	case l.Function == "isolation" && l.A == 0:
		return nil, errors.New("isolation without a divisor")
	}
	l.compute = f.compute
	if l.outputs = f.outputs; l.outputs == 0 {
		l.outputs = l.inputs
	}
	l.expf = expf
	switch f.needs {
	case "exp":
		l.exp = b.need("exp", b.math.exp, expFused)
	case "numpy.exp":
		l.exp = b.need("numpy.exp", b.math.numpyExp, expFused)
	case "numpy.exp2":
		l.exp = b.need("numpy.exp2", b.math.numpyExp2, exp2Fused)
	case "expf":
		if b.math.expf == nil {
			b.inexact = append(b.inexact, "expf")
		}
	}
	return l, nil
}

// need returns the function of the library's process, or a close one, and remembers that.
func (b *builder) need(name string, exact, near func(float64) float64) func(float64) float64 {
	if exact != nil {
		return exact
	}
	b.inexact = append(b.inexact, name)
	return near
}

func (l *link) width() int { return l.outputs }

func (l *link) run(r *run, out []float64) error {
	l.compute(l, r, r.slots[l.In], out)
	return nil
}

func expit2(l *link, _ *run, in, out []float64) {
	for i, x := range in {
		p := 1 / (1 + l.exp(-(l.A * x)))
		out[2*i], out[2*i+1] = 1-p, p
	}
}

func flip2(_ *link, _ *run, in, out []float64) {
	for i, p := range in {
		out[2*i], out[2*i+1] = 1-p, p
	}
}

func sigmoid(l *link, _ *run, in, out []float64) {
	for i, x := range in {
		p := 1 / (1 + l.exp(-l.A*x))
		if l.outputs == l.inputs {
			out[i] = p
		} else {
			out[2*i], out[2*i+1] = 1-p, p
		}
	}
}

func exponential(l *link, _ *run, in, out []float64) {
	for i, x := range in {
		out[i] = l.exp(x)
	}
}

func signedSquare(_ *link, _ *run, in, out []float64) {
	for i, x := range in {
		out[i] = math.Copysign(x*x, x)
	}
}

func isolation(l *link, _ *run, in, out []float64) {
	for i, x := range in {
		out[i] = -l.exp(-(x / l.A))
	}
}

func minus(l *link, _ *run, in, out []float64) {
	for i, x := range in {
		out[i] = x - l.A
	}
}

// softmax subtracts the largest value, and divides the exponentials by their sum.
func softmax(l *link, r *run, in, out []float64) {
	// NumPy adds up eight numbers or more in eight sums if they are adjacent in memory.
	pairwise := l.Function == "softmax" && l.inputs >= 8 && (!l.Fortran || r.total == 1)
	for row := range r.rows {
		from, to := in[row*l.inputs:(row+1)*l.inputs], out[row*l.inputs:(row+1)*l.inputs]
		largest := from[0]
		for _, x := range from[1:] {
			if x > largest || x != x {
				largest = x
			}
		}
		sum := 0.0
		for i, x := range from {
			to[i] = l.exp(x - largest)
			sum += to[i]
		}
		if pairwise {
			sum = pairwiseSum(to)
		}
		for i := range to {
			to[i] /= sum
		}
	}
}

// pairwiseSum adds up numbers in the order of NumPy's sum over adjacent elements.
func pairwiseSum(x []float64) float64 {
	switch n := len(x); {
	case n < 8:
		sum := 0.0
		for _, v := range x {
			sum += v
		}
		return sum
	case n <= 128:
		s := [8]float64(x)
		i := 8
		for ; i < n-n%8; i += 8 {
			for j := range s {
				s[j] += x[i+j]
			}
		}
		sum := ((s[0] + s[1]) + (s[2] + s[3])) + ((s[4] + s[5]) + (s[6] + s[7]))
		for ; i < n; i++ {
			sum += x[i]
		}
		return sum
	default:
		half := n / 2
		half -= half % 8
		return pairwiseSum(x[:half]) + pairwiseSum(x[half:])
	}
}

// XGBoost computes in float32.

func blank(l *link, _ *run, in, out []float64) {
	for i, x := range in {
		if out[i] = x; float32(x) == float32(l.A) {
			out[i] = math.NaN()
		}
	}
}

func sigmoidf(l *link, _ *run, in, out []float64) {
	for i, x := range in {
		p := 1 / ((l.expf(min(-float32(x), 88.7)) + 1) + 1e-16)
		if l.outputs == 1 {
			out[i] = float64(p)
		} else {
			out[2*i], out[2*i+1] = float64(1-p), float64(p)
		}
	}
}

func exponentialf(l *link, _ *run, in, out []float64) {
	for i, x := range in {
		out[i] = float64(l.expf(float32(x)))
	}
}

func softmaxf(l *link, r *run, in, out []float64) {
	for row := range r.rows {
		from, to := in[row*l.inputs:(row+1)*l.inputs], out[row*l.inputs:(row+1)*l.inputs]
		largest := float32(from[0])
		for _, x := range from[1:] {
			largest = max(largest, float32(x))
		}
		sum := 0.0
		for i, x := range from {
			to[i] = float64(l.expf(float32(x) - largest))
			sum += to[i]
		}
		for i := range to {
			to[i] = float64(float32(to[i]) / float32(sum))
		}
	}
}

// labelJSON describes a stage of kind "label": the position of a class.
type labelJSON struct {
	In int `json:"in"`
	// Rule is "argmax": the first largest value; "positive": 1 if the value is more than 0; "not_negative": 1 if it is at
	// least 0; "half": 1 if it is more than 0.5.
	Rule string `json:"rule"`
}

type label struct {
	labelJSON

	inputs int
}

func newLabel(b *builder, raw json.RawMessage) (stage, error) {
	l := &label{}
	if err := json.Unmarshal(raw, &l.labelJSON); err != nil {
		return nil, err
	}
	var err error
	if l.inputs, err = b.in(l.In); err != nil {
		return nil, err
	}
	switch l.Rule {
	case "argmax":
	case "positive", "not_negative", "half":
		if l.inputs != 1 {
			return nil, fmt.Errorf("rule %s of %d columns", l.Rule, l.inputs)
		}
	default:
		return nil, fmt.Errorf("rule %q is unknown to this program", l.Rule)
	}
	return l, nil
}

func (l *label) width() int { return 1 }

func (l *label) run(r *run, out []float64) error {
	in := r.slots[l.In]
	for row := range out {
		if l.Rule == "argmax" {
			out[row] = float64(argmax(in[row*l.inputs : (row+1)*l.inputs]))
			continue
		}
		x, yes := in[row], false
		switch l.Rule {
		case "positive":
			yes = x > 0
		case "not_negative":
			yes = x >= 0
		case "half":
			yes = x > 0.5
		}
		out[row] = 0
		if yes {
			out[row] = 1
		}
	}
	return nil
}

// argmax is the position of the first largest value; a NaN is the largest.
func argmax(x []float64) int {
	best := 0
	for i, v := range x {
		if v != v {
			return i
		}
		if v > x[best] {
			best = i
		}
	}
	return best
}
