package native

import (
	"encoding/hex"
	"errors"
	"fmt"
	"math"
)

// Agreement is the result of a comparison with the library's own answers.
type Agreement struct {
	// Cases are the kinds of rows, with their results by method.
	Cases []Case
	// First is the first disagreement, "" if there is none.
	First string
}

// Case is the comparison of one kind of rows for one method.
type Case struct {
	Name   string
	Method string // "" for rows that must be refused
	Rows   int
	// Differ is the number of rows that disagree: that have other bits, or that differ by more than the
	// method's tolerance.
	Differ int
	// Bits is the number of rows with other bits.
	Bits int
	// Unsteady is the number of rows that the library answers otherwise alone than among others.
	Unsteady int
}

// Differ is the number of rows that disagree.
func (a *Agreement) Differ() int {
	n := 0
	for _, c := range a.Cases {
		n += c.Differ
	}
	return n
}

// Rows is the number of comparisons.
func (a *Agreement) Rows() int {
	n := 0
	for _, c := range a.Cases {
		n += c.Rows
	}
	return n
}

type proofJSON struct {
	Format int    `json:"format"`
	Model  string `json:"model"` // the hash of the model's file
	Cases  []struct {
		Name    string `json:"name"`
		Count   int    `json:"count"`
		Rows    Array  `json:"rows"`
		Refused bool   `json:"refused"`
		Results []struct {
			Method string `json:"method"`
			Count  int    `json:"count"`
			Batch  int    `json:"batch"` // rows per call, 0 for all
			Values Array  `json:"values"`
		} `json:"results"`
	} `json:"cases"`
}

// proof opens a file of proof that was made with the model's file.
func (m *Model) proof(path string) (f *file, p *proofJSON, release func() error, err error) {
	data, release, err := contents(path)
	if err != nil {
		return nil, nil, nil, err
	}
	p = &proofJSON{}
	if f, err = parse(data); err == nil {
		err = f.decode(p)
	}
	if hash := m.Hash(); err == nil && p.Model != hex.EncodeToString(hash[:]) {
		err = errors.New("the proof was made with another file of the model")
	}
	if err != nil {
		return nil, nil, nil, errors.Join(err, release())
	}
	return f, p, release, nil
}

// Prove compares the model with the answers of the library in a file of proof, which was made with the model's file.
// An error means that the comparison could not be made.
func (m *Model) Prove(path string) (a *Agreement, err error) {
	f, p, release, err := m.proof(path)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, release()) }()
	a = &Agreement{}
	for _, c := range p.Cases {
		rows, err := elements[float64](f, "rows", c.Rows)
		if err != nil {
			return nil, err
		}
		if c.Count < 0 || len(rows) != c.Count*len(m.Columns) {
			return nil, fmt.Errorf("case %s: %d values for %d rows", c.Name, len(rows), c.Count)
		}
		together := map[string][]float64{} // results of all rows at once, by method
		if c.Refused {
			a.refusals(m, c.Name, rows, c.Count)
		}
		for _, r := range c.Results {
			values, err := elements[float64](f, "values", r.Values)
			if err != nil {
				return nil, err
			}
			method, err := m.Method(r.Method)
			if err != nil {
				return nil, err
			}
			if r.Count < 0 || r.Count > c.Count || len(values) != r.Count*m.Methods[method].Width || r.Batch < 0 {
				return nil, fmt.Errorf("case %s, method %s: %d values for %d rows", c.Name, r.Method, len(values), r.Count)
			}
			a.compare(m, c.Name, method, rows, values, r.Count, r.Batch)
			if r.Batch == 0 {
				together[r.Method] = values
			} else {
				a.Cases[len(a.Cases)-1].Unsteady = unsteady(values, together[r.Method], m.Methods[method].Width)
			}
		}
	}
	return a, nil
}

func (a *Agreement) refusals(m *Model, name string, rows []float64, count int) {
	c, in := Case{Name: name, Rows: count}, len(m.Columns)
	for method := range m.Methods {
		out := make([]float64, m.Methods[method].Width)
		for row := range count {
			if err := m.Predict(method, rows[row*in:(row+1)*in], 1, out); err == nil {
				a.differ(&c, fmt.Sprintf("%s: the library refuses %v and the native model answers %v", m.Methods[method].Name, rows[row*in:(row+1)*in], out))
			}
		}
	}
	a.Cases = append(a.Cases, c)
}

func (a *Agreement) compare(m *Model, name string, method int, rows, values []float64, count, batch int) {
	spec := m.Methods[method]
	c, in := Case{Name: name, Method: spec.Name, Rows: count}, len(m.Columns)
	if batch == 0 {
		batch = max(count, 1)
	}
	out := make([]float64, batch*spec.Width)
	for begin := 0; begin < count; begin += batch {
		n := min(batch, count-begin)
		got := out[:n*spec.Width]
		if err := m.Predict(method, rows[begin*in:(begin+n)*in], n, got); err != nil {
			a.differ(&c, fmt.Sprintf("%s: the library answers and the native model does not: %v", spec.Name, err))
			c.Differ = max(c.Differ, n)
			continue
		}
		for i := range n {
			want := values[(begin+i)*spec.Width : (begin+i+1)*spec.Width]
			row := got[i*spec.Width : (i+1)*spec.Width]
			switch same(row, want, spec.Tolerance) {
			case differs:
				a.differ(&c, fmt.Sprintf("%s, %s, row %v: the library answers %v and the native model %v", name, spec.Name, rows[(begin+i)*in:(begin+i+1)*in], want, row))
				c.Bits++
			case close:
				c.Bits++
			}
		}
	}
	a.Cases = append(a.Cases, c)
}

// unsteady counts the rows with different results in both.
func unsteady(alone, together []float64, width int) (n int) {
	for begin := 0; begin+width <= min(len(alone), len(together)); begin += width {
		if same(alone[begin:begin+width], together[begin:begin+width], 0) != equal {
			n++
		}
	}
	return n
}

func (a *Agreement) differ(c *Case, text string) {
	c.Differ++
	if a.First == "" {
		a.First = text
	}
}

const (
	equal = iota
	close
	differs
)

// same compares two rows.
func same(got, want []float64, tolerance float64) int {
	result := equal
	for i, g := range got {
		w := want[i]
		if math.Float64bits(g) == math.Float64bits(w) || (g != g && w != w) {
			continue
		}
		if !(math.Abs(g-w) <= tolerance*max(1, math.Abs(w))) {
			return differs
		}
		result = close
	}
	return result
}
