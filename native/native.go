// Package native computes the predictions of models that were extracted from a library (scikit-learn,
// XGBoost, LightGBM) into flat files, in the library's own arithmetic and order of summation, so that
// the results have the same bits.
//
// # File
//
// A file has a header of 64 bytes, a description in JSON, and arrays. All numbers are little-endian.
//
//	 0   8 bytes  magic "CMLNATV1"
//	 8   u64      length of the file
//	16   u64      offset of the description
//	24   u64      length of the description
//	32  32 bytes  SHA-256 of bytes 0 to 32 and of bytes 64 to the end
//	64            arrays, each at a multiple of 8, and the description
//
// The description refers to an array as {"type": "f64", "at": offset, "len": elements}; the types are
// f64, f32, i64, i32, u32, u16 and u8. Its members are those of [Description].
//
// A model is a graph of stages. Each stage computes one matrix, its slot, from earlier slots. Slot 0
// is the input: one column per entry of "columns". Stage i (from 0) computes slot i+1. "methods" names the
// slots that answer the model's methods (predict, predict_proba, ...). A computation executes only
// the stages that the method's slot depends on. All slots are matrices of float64; values of a
// slot that is float32 in the library are rounded to float32.
//
// The kinds of stages are listed in the variable kinds; docs/native-format.md describes each.
//
// # Trust
//
// Open checks the hash and every index of the file. A file may be hostile: the result is an error. The file must not be
// changed after it was opened, only replaced.
package native

import (
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"slices"
	"strings"
	"sync"
)

// Format is the version of the description that this package reads.
const Format = 1

// Column is an input of a model: one column of its table, or one element of its rows.
type Column struct {
	Name string `json:"name,omitempty"`
	// Type is the type that the library converts the values to: float64, float32, int64, or text for
	// columns of texts.
	Type string `json:"type"`
	// Categories are the values of a categorical column. The column's values in slot 0 are their
	// positions; Unknown for other values, NaN for a missing one. Nil for columns of numbers.
	Categories []string `json:"categories,omitempty"`
	// UnknownMissing: an unknown text is a missing value.
	UnknownMissing bool `json:"unknown_missing,omitempty"`
	// Optional: the column may have missing values, which are NaN.
	Optional bool `json:"optional,omitempty"`
}

// Unknown is the value in slot 0 of a text that is not one of the column's categories.
const Unknown = -1

// Code is the value of a text in slot 0. It looks at all categories: for many rows, make an index.
func (c *Column) Code(text string) float64 {
	if i := slices.Index(c.Categories, text); i >= 0 {
		return float64(i)
	}
	if c.UnknownMissing {
		return math.NaN()
	}
	return Unknown
}

// Method is a method of the model, and the slot with its result.
type Method struct {
	Name string `json:"name"`
	Slot int    `json:"slot"`
	// Type is the type of the library's result: float64, float32, int64, or "label".
	Type string `json:"type"`
	// Flat: the result has one dimension (one value per row).
	Flat bool `json:"flat,omitempty"`
	// Labels are the classes, as JSON values. Elements of a slot of type "label" are positions in it.
	Labels []json.RawMessage `json:"labels,omitempty"`
	// Tolerance is the largest relative or absolute difference from the library's result, 0 for equal bits.
	Tolerance float64 `json:"tolerance,omitempty"`
	// Width is the number of values per row.
	Width int `json:"-"`
	// Inexact are the functions of the library's process that differ from this program's. The results are then within
	// Tolerance.
	Inexact []string `json:"-"`
}

// Description is the JSON part of a file.
type Description struct {
	Format  int    `json:"format"`
	Model   string `json:"model"`   // the class of the model, for people
	Library string `json:"library"` // scikit-learn, xgboost, lightgbm
	// Releases are those of the packages that made the file, by name.
	Releases map[string]string `json:"releases"`
	Columns  []Column          `json:"columns"`
	Stages   []json.RawMessage `json:"stages"`
	Methods  []Method          `json:"methods"`
	// Probes are values of the mathematical functions of the library's process.
	Probes []Probe `json:"probes,omitempty"`
	// Notes are texts for people: what is not the same as in the library, and when.
	Notes []string `json:"notes,omitempty"`
}

// stage computes one slot.
type stage interface {
	// width is the number of columns of the slot.
	width() int
	// run computes the rows of out from the slots of r.
	run(r *run, out []float64) error
}

// kinds are the kinds of stages: each builds a stage from its JSON, or fails.
var kinds = map[string]func(b *builder, raw json.RawMessage) (stage, error){ //nolint:gochecknoglobals // a constant table
	"trees":   newTrees,
	"link":    newLink,
	"label":   newLabel,
	"ordinal": newOrdinal,
}

// builder is what constructors of stages may read.
type builder struct {
	file   *file
	widths []int // of the slots so far
	ins    []int // slots that the stage reads
	math   mathVariant
	// inexact are the functions of the library that the stage needs and this program does not have.
	inexact []string
}

// in declares that the stage reads a slot, and returns the slot's width.
func (b *builder) in(slot int) (int, error) {
	if slot < 0 || slot >= len(b.widths) {
		return 0, fmt.Errorf("slot %d is not computed before it", slot)
	}
	if !slices.Contains(b.ins, slot) {
		b.ins = append(b.ins, slot)
	}
	return b.widths[slot], nil
}

// tolerances are the differences that come from a function of the library's process that this program does not have. All
// such functions are right to one unit in the last place or two.
var tolerances = map[string]float64{ //nolint:gochecknoglobals // a constant table
	"exp": 1e-14, "numpy.exp": 1e-14, "numpy.exp2": 1e-14, "expf": 1e-6,
}

// blockRows is the number of rows that are computed at once.
const blockRows = 64

// widthLimit bounds the width of a slot, and stageLimit the number of stages.
const (
	widthLimit = 1 << 20
	stageLimit = 1 << 12
)

// Model is an open file. Its methods may be called from many goroutines.
type Model struct {
	Description

	file    *file
	stages  []stage
	widths  []int
	plans   [][]int // by method: its stages in order
	scratch sync.Pool
}

// run is the state of one computation.
type run struct {
	rows  int // of this block
	total int // of the whole request: some libraries compute differently for one row
	slots [][]float64
	// Scratch of stages.
	keys32 []int32
	keys64 []int64
	sums32 []float32
}

// An InputError is about a value that the library refuses.
type InputError struct {
	Row, Column int
	Name        string // of the column, "" if it has none
	Reason      string
}

func (e *InputError) Error() string {
	if e.Name == "" {
		return fmt.Sprintf("row %d, column %d: %s", e.Row, e.Column, e.Reason)
	}
	return fmt.Sprintf("row %d, column %q: %s", e.Row, e.Name, e.Reason)
}

// Open maps a file and builds its model. Close must be called after the last computation.
func Open(path string) (*Model, error) {
	data, release, err := contents(path)
	if err != nil {
		return nil, err
	}
	m, err := Read(data)
	if err != nil {
		return nil, errors.Join(err, release())
	}
	m.file.release = release
	return m, nil
}

// Read builds a model from the bytes of a file, which must not be changed while the model is used.
func Read(data []byte) (m *Model, err error) {
	f, err := parse(data)
	if err != nil {
		return nil, err
	}
	m = &Model{file: f}
	if err := f.decode(&m.Description); err != nil {
		return nil, err
	}
	if m.Format != Format {
		return nil, fmt.Errorf("the format is %d, and this program reads %d: extract the model again", m.Format, Format)
	}
	if len(m.Columns) == 0 || len(m.Columns) > widthLimit || len(m.Stages) > stageLimit {
		return nil, fmt.Errorf("%d columns and %d stages: not a model", len(m.Columns), len(m.Stages))
	}
	variant, err := recognize(f, m.Probes)
	if err != nil {
		return nil, err
	}
	m.widths = []int{len(m.Columns)}
	inputs, inexact := make([][]int, 0, len(m.Stages)), make([][]string, 0, len(m.Stages))
	for i, raw := range m.Stages {
		b := builder{file: f, widths: m.widths, math: variant}
		s, err := build(&b, raw)
		if err != nil {
			return nil, fmt.Errorf("stage %d: %w", i, err)
		}
		m.stages, m.widths, inputs = append(m.stages, s), append(m.widths, s.width()), append(inputs, b.ins)
		inexact = append(inexact, b.inexact)
	}
	if err := m.plan(inputs, inexact); err != nil {
		return nil, err
	}
	m.scratch.New = func() any { return &run{slots: make([][]float64, len(m.widths))} }
	return m, nil
}

func build(b *builder, raw json.RawMessage) (stage, error) {
	var head struct {
		Kind string `json:"kind"`
	}
	if err := json.Unmarshal(raw, &head); err != nil {
		return nil, err
	}
	make, ok := kinds[head.Kind]
	if !ok {
		make, ok = prepared[head.Kind]
	}
	if !ok {
		return nil, fmt.Errorf("kind %q is unknown to this program", head.Kind)
	}
	s, err := make(b, raw)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", head.Kind, err)
	}
	if w := s.width(); w < 1 || w > widthLimit {
		return nil, fmt.Errorf("%s: %d columns", head.Kind, w)
	}
	return s, nil
}

// plan finds the stages of each method.
func (m *Model) plan(inputs [][]int, inexact [][]string) error {
	if len(m.Methods) == 0 || len(m.Methods) > stageLimit {
		return fmt.Errorf("%d methods: not a model", len(m.Methods))
	}
	for i := range m.Methods {
		method := &m.Methods[i]
		if method.Slot < 0 || method.Slot >= len(m.widths) {
			return fmt.Errorf("method %s: there is no slot %d", method.Name, method.Slot)
		}
		if slices.ContainsFunc(m.Methods[:i], func(other Method) bool { return other.Name == method.Name }) {
			return fmt.Errorf("method %s is listed twice", method.Name)
		}
		method.Width = m.widths[method.Slot]
		if method.Flat && method.Width != 1 {
			return fmt.Errorf("method %s: flat, with %d columns", method.Name, method.Width)
		}
		if method.Type == "label" && len(method.Labels) == 0 {
			return fmt.Errorf("method %s has no labels", method.Name)
		}
		needed := make([]bool, len(m.widths))
		needed[method.Slot] = true
		var stages []int
		for s := range slices.Backward(m.stages) {
			if needed[s+1] {
				stages = append(stages, s)
				method.Inexact = append(method.Inexact, inexact[s]...)
				for _, in := range inputs[s] {
					needed[in] = true
				}
			}
		}
		slices.Reverse(stages)
		for _, function := range method.Inexact {
			method.Tolerance = max(method.Tolerance, tolerances[function])
		}
		m.plans = append(m.plans, stages)
	}
	return nil
}

// Close releases the file. The model must not be used afterwards.
func (m *Model) Close() error {
	if m.file.release == nil {
		return nil
	}
	release := m.file.release
	m.file.release = nil
	return release()
}

// Hash is the SHA-256 of the file.
func (m *Model) Hash() [32]byte { return m.file.hash }

// Method returns the position of a method in Methods, or an error that lists the methods.
func (m *Model) Method(name string) (int, error) {
	names := make([]string, 0, len(m.Methods))
	for i := range m.Methods {
		if m.Methods[i].Name == name {
			return i, nil
		}
		names = append(names, m.Methods[i].Name)
	}
	return 0, fmt.Errorf("the model has no method %q in native form; it has %s", name, strings.Join(names, ", "))
}

// Predict computes a method (its position in Methods) for n rows of len(Columns) values each, in
// row-major order. It writes n rows of the method's Width values to out. An *InputError tells a value that the
// library refuses.
func (m *Model) Predict(method int, rows []float64, n int, out []float64) error {
	in, width := len(m.Columns), m.Methods[method].Width
	if n < 0 || n > math.MaxInt32 || len(rows) != n*in || len(out) != n*width {
		return fmt.Errorf("%d values for %d rows of %d columns, and room for %d results, not %d", len(rows), n, in, len(out), n*width)
	}
	r := m.scratch.Get().(*run)
	defer m.scratch.Put(r)
	r.total = n
	for begin := 0; begin < n; begin += blockRows {
		r.rows = min(blockRows, n-begin)
		r.slots[0] = rows[begin*in : (begin+r.rows)*in]
		if err := m.block(method, r, out[begin*width:(begin+r.rows)*width]); err != nil {
			if refused, ok := errors.AsType[*InputError](err); ok {
				refused.Row += begin
				if refused.Column >= 0 && refused.Column < in {
					refused.Name = m.Columns[refused.Column].Name
				}
			}
			r.slots[0] = nil
			return err
		}
	}
	r.slots[0] = nil
	return nil
}

func (m *Model) block(method int, r *run, out []float64) error {
	slot := m.Methods[method].Slot
	for _, s := range m.plans[method] {
		to := out
		if s+1 != slot {
			to = sized(&r.slots[s+1], r.rows*m.widths[s+1])
		}
		if err := m.stages[s].run(r, to); err != nil {
			return err
		}
	}
	if slot == 0 {
		copy(out, r.slots[0])
	}
	return nil
}

// sized returns a slice of n elements that reuses the memory of a former one.
func sized[T any](s *[]T, n int) []T {
	if cap(*s) < n {
		*s = make([]T, n)
	}
	*s = (*s)[:n]
	return *s
}
