package native

import (
	"bytes"
	"encoding/json"
	"fmt"
	"math"
	"strconv"
	"unicode/utf8"

	"clearmlserving/inference/engine/jsontensor"
	flat "clearmlserving/native"
)

// form is what bodies hold and how they are answered, exactly as by the endpoint's Python.
type form struct {
	*jsontensor.Form

	columns []jsontensor.Column
	values  [][]json.RawMessage // of columns with categories: their values by code, for bodies of the proof
	left    leftForms
	rows    bool
	records bool
	named   bool // the columns have names
	narrow  narrowing
	tables  bool // records are tables of pandas, not rows
}

// narrowing is what LightGBM does to rows: it takes arrays that are not of floating point numbers as float32.
type narrowing struct {
	Whole bool `json:"whole,omitempty"` // rows of whole numbers only
	Null  bool `json:"null,omitempty"`  // rows with null, which are arrays of objects

	direct bool // nothing else computes with the rows
}

// narrowingOf is the told narrowing, if the model has trees of LightGBM.
func narrowingOf(m *flat.Model, told narrowing) narrowing {
	for _, raw := range m.Stages {
		var stage struct {
			Kind string  `json:"kind"`
			Zero float64 `json:"zero"` // only LightGBM's
		}
		if json.Unmarshal(raw, &stage) == nil && stage.Kind == "trees" && stage.Zero > 0 {
			told.direct = m.Library == "lightgbm"
			return told
		}
	}
	return narrowing{}
}

// narrow makes numbers those of float32. It is false if something else computes with them as they are.
func (n *narrowing) narrow(values []float64) bool {
	for i, v := range values {
		if single := float64(float32(v)); n.direct {
			values[i] = single
		} else if single != v && v == v {
			return false
		}
	}
	return true
}

// leftForms are the forms of bodies that Python refuses, or reads otherwise: they are left to it.
type leftForms struct {
	Rows          bool `json:"rows,omitempty"`
	RowsNull      bool `json:"rows_with_null,omitempty"`
	Records       bool `json:"records,omitempty"`
	RecordsNull   bool `json:"records_with_null,omitempty"`
	RecordsColumn bool `json:"records_with_a_column_of_null,omitempty"`
}

// words are the forms in words.
func (l leftForms) words(records bool) (words []string) {
	for _, w := range []struct {
		left bool
		text string
	}{
		{l.Rows, "lists of rows"},
		{l.RowsNull && !l.Rows, "lists of rows with null"},
		{l.Records && records, "records"},
		{l.RecordsNull && !l.Records && records, "records with null"},
		{l.RecordsColumn && !l.RecordsNull && !l.Records && records, "records with a column of null only"},
	} {
		if w.left {
			words = append(words, w.text)
		}
	}
	return words
}

// formOf describes the bodies of a model.
func formOf(m *flat.Model, f *facts, left leftForms) (*form, error) {
	names := len(f.Names) == len(m.Columns)
	fm := &form{columns: make([]jsontensor.Column, len(m.Columns)), values: make([][]json.RawMessage, len(m.Columns)), left: left, rows: !left.Rows, records: names && !left.Records, named: names, narrow: narrowingOf(m, f.Narrow), tables: f.Releases["pandas"] != ""}
	for i := range m.Columns {
		c, described := &fm.columns[i], &m.Columns[i]
		c.Name, c.Unknown = described.Name, flat.Unknown
		if names {
			c.Name = f.Names[i]
		}
		known := f.Categories[c.Name]
		if names && known != nil { // a value becomes its position, or is missing
			c.Unknown, c.Strict = math.NaN(), f.Strict
			for code, raw := range known {
				var text string
				if number, err := strconv.ParseFloat(string(raw), 64); err == nil {
					if c.Numbers == nil {
						c.Numbers = map[float64]float64{}
					}
					c.Numbers[number] = float64(code)
				} else if json.Unmarshal(raw, &text) == nil && utf8.ValidString(text) {
					if c.Categories == nil {
						c.Categories = map[string]float64{}
					}
					c.Categories[text] = float64(code)
				} else {
					return nil, fmt.Errorf("the category %s of column %q", raw, c.Name)
				}
			}
			fm.values[i] = known
			continue
		}
		if described.Categories == nil {
			continue
		}
		fm.rows = false // texts are only accepted by their names
		c.Categories = map[string]float64{}
		for code, text := range described.Categories {
			c.Categories[text] = float64(code)
			fm.values[i] = append(fm.values[i], jsontensor.AppendText(nil, text))
		}
	}
	fm.Form = jsontensor.NewForm(fm.columns, fm.rows, fm.records)
	return fm, nil
}

// parse reads a body as the model's library does. It is false for a body that is left to Python.
func (f *form) parse(body []byte, into *jsontensor.Rows) bool {
	if f.Parse(body, into) != nil {
		return false
	}
	if into.Record && f.tables || !(into.Null && f.narrow.Null || !into.Null && into.Whole && f.narrow.Whole) {
		return true
	}
	return f.narrow.narrow(into.Values)
}

// read reads a body. It is false for a body that is left to Python.
func (f *form) read(body []byte, into *jsontensor.Rows) bool {
	if !f.parse(body, into) {
		return false
	}
	switch {
	case !into.Null:
		return true
	case !into.Record:
		return !f.left.RowsNull
	case f.left.RecordsNull:
		return false
	}
	return !f.left.RecordsColumn || !nullColumn(into.Values, into.N, f.Width())
}

// nullColumn reports whether a column has no value at all.
func nullColumn(values []float64, rows, width int) bool {
	for column := range width {
		missing := true
		for row := 0; row < rows && missing; row++ {
			v := values[row*width+column]
			missing = v != v
		}
		if missing {
			return true
		}
	}
	return false
}

// writer writes the results of a method as JSON.
type writer struct {
	method flat.Method
	labels [][]byte // as Python writes them
	texts  []string // those that are texts
}

func newWriter(m flat.Method) (*writer, error) {
	w := &writer{method: m}
	for _, raw := range m.Labels {
		text, err := label(raw)
		if err != nil {
			return nil, err
		}
		var plain string
		if err := json.Unmarshal(raw, &plain); err != nil {
			plain = "" // it is no text
		}
		w.labels, w.texts = append(w.labels, text), append(w.texts, plain)
	}
	return w, nil
}

// label is a class in Python's JSON.
func label(raw json.RawMessage) ([]byte, error) {
	raw = bytes.TrimSpace(raw)
	if len(raw) > 0 && raw[0] == '"' {
		var text string
		if err := json.Unmarshal(raw, &text); err != nil {
			return nil, err
		}
		return jsontensor.AppendText(nil, text), nil
	}
	if bytes.ContainsAny(raw, ".eEn") && !bytes.Equal(raw, []byte("true")) && !bytes.Equal(raw, []byte("false")) {
		number, err := strconv.ParseFloat(string(raw), 64)
		if err != nil {
			return nil, fmt.Errorf("the class %s: %w", raw, err)
		}
		return jsontensor.AppendFloat(nil, number), nil
	}
	return bytes.Clone(raw), nil
}

// append writes the results of n rows. It is false if JSON has no form for one.
func (w *writer) append(b []byte, values []float64, n int) ([]byte, bool) {
	switch w.method.Type {
	case "label":
		b = append(b, '[')
		for i, v := range values {
			if i > 0 {
				b = append(b, ',')
			}
			if !(v >= 0 && v < float64(len(w.labels))) {
				return b, false
			}
			b = append(b, w.labels[int(v)]...)
		}
		return append(b, ']'), true
	case "int64":
		b = append(b, '[')
		for i, v := range values {
			if i > 0 {
				b = append(b, ',')
			}
			b = strconv.AppendInt(b, int64(v), 10)
		}
		return append(b, ']'), true
	}
	if !jsontensor.Finite(values) {
		return b, false
	}
	if w.method.Flat {
		return jsontensor.AppendFloats(b, values, n), true
	}
	return jsontensor.AppendFloats(b, values, n, w.method.Width), true
}
