package native

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"net/http"
	"strings"
	"time"

	"clearmlserving/inference/engine/jsontensor"
	flat "clearmlserving/native"
	"clearmlserving/serving"
)

const (
	// bodiesAlone and bodiesTogether are the numbers of bodies of one row, and of batchRows rows, that are
	// compared for each kind of rows and form of body.
	bodiesAlone    = 24
	bodiesTogether = 4
	batchRows      = 64
	// longestShown bounds a body in a message.
	longestShown = 400
)

// compare compares an extract with its library: the library's results for the rows of the proof, and then whole
// bodies and answers as the endpoint's Python reads and writes them. A disagreement is x.Refused.
func (x *extracted) compare(ctx context.Context, o *oracle, m *flat.Model, proof, method string, recorded []serving.Exchange) error {
	x.Report = serving.NativeReport{Model: m.Description.Model, Method: method, Releases: x.Facts.Releases, Notes: m.Notes}
	at, err := m.Method(method)
	if err != nil {
		x.Refused = err.Error()
		return nil //nolint:nilerr // it is the result of the comparison
	}
	x.Report.Tolerance = m.Methods[at].Tolerance
	agreement, err := m.Prove(proof)
	if err != nil {
		return fmt.Errorf("compare with the library: %w", err)
	}
	for _, c := range agreement.Cases {
		x.Report.Checks = append(x.Report.Checks, serving.NativeCheck{Rows: c.Name, Method: c.Method, Count: c.Rows, Differ: c.Differ, Bits: c.Bits, Unsteady: c.Unsteady})
	}
	if agreement.First != "" {
		x.Refused = "it differs from its library: " + agreement.First
		return nil
	}
	rows, err := m.ProofRows(proof, bodiesTogether*batchRows)
	if err != nil {
		return err
	}
	c, err := newComparison(o, m, at, &x.Facts)
	if err != nil {
		x.Refused = err.Error()
		return nil //nolint:nilerr // it is the result of the comparison
	}
	if err = c.bodies(ctx, rows); err == nil {
		err = c.recorded(ctx, recorded)
	}
	if err != nil {
		if disagreed, ok := errors.AsType[*disagreement](err); ok {
			x.Refused = disagreed.text
			return nil
		}
		return err
	}
	if x.Tensors, err = c.tensors(ctx, rows); err != nil {
		return err
	}
	x.Left = c.form.left
	x.Report.Checks = append(x.Report.Checks, c.checks...)
	x.Report.Python = x.Left.words(c.form.records)
	if (!c.form.rows || x.Left.Rows) && (!c.form.records || x.Left.Records) {
		x.Refused = "Python accepts neither rows nor records that could be computed in Go: " + c.refusal
	}
	return nil
}

// disagreement is a body with another answer.
type disagreement struct{ text string }

func (d *disagreement) Error() string { return d.text }

// comparison compares bodies.
type comparison struct {
	o       *oracle
	m       *flat.Model
	at      int
	form    *form
	writer  *writer
	checks  []serving.NativeCheck
	refusal string // what Python has answered to the first body that it refused
}

func newComparison(o *oracle, m *flat.Model, at int, f *facts) (*comparison, error) {
	fm, err := formOf(m, f, leftForms{})
	if err != nil {
		return nil, err
	}
	w, err := newWriter(m.Methods[at])
	if err != nil {
		return nil, err
	}
	return &comparison{o: o, m: m, at: at, form: fm, writer: w}, nil
}

// bodies compares the forms of bodies one after another.
func (c *comparison) bodies(ctx context.Context, rows []flat.ProofRows) error {
	left := &c.form.left
	for _, one := range []struct {
		name             string
		records, missing bool
		column           bool // a column of null only
		left             *bool
		usable           bool
	}{
		{"rows", false, false, false, &left.Rows, c.form.rows},
		{"rows with null", false, true, false, &left.RowsNull, c.form.rows},
		{"records", true, false, false, &left.Records, c.form.records},
		{"records with null", true, true, false, &left.RecordsNull, c.form.records},
		{"records with a column of null", true, true, true, &left.RecordsColumn, c.form.records},
	} {
		if !one.usable || left.Rows && !one.records || left.Records && one.records {
			continue
		}
		check := serving.NativeCheck{Rows: "bodies: " + one.name, Method: c.writer.method.Name}
		for _, kind := range rows {
			for _, body := range c.make(kind, one.records, one.missing, one.column) {
				refused, err := c.compare(ctx, body, &check)
				if err != nil {
					return err
				}
				if refused {
					*one.left = true
					break
				}
			}
			if *one.left {
				break
			}
		}
		if !*one.left && check.Count > 0 {
			c.checks = append(c.checks, check)
		}
	}
	return nil
}

// recordedRows are the rows of recorded requests in a report.
const recordedRows = "bodies: recorded requests"

// recorded compares the bodies of recorded requests, which a message does not show.
func (c *comparison) recorded(ctx context.Context, exchanges []serving.Exchange) error {
	check := serving.NativeCheck{Rows: recordedRows, Method: c.writer.method.Name}
	for _, x := range exchanges {
		var rows jsontensor.Rows
		if !isJSON(x.ContentType, x.Body) || !c.form.read(x.Body, &rows) {
			continue // Python answers it
		}
		refused, err := c.compare(ctx, made{text: x.Body, rows: rows.N}, &check)
		if _, ok := errors.AsType[*disagreement](err); ok || refused {
			return &disagreement{fmt.Sprintf("it differs from the endpoint's Python for the recorded request of %s", x.Time.UTC().Format(time.RFC3339))}
		}
		if err != nil {
			return err
		}
	}
	if check.Count > 0 {
		c.checks = append(c.checks, check)
	}
	return nil
}

// made is a body for the proof.
type made struct {
	text []byte
	rows int
}

// make makes bodies of rows: of one row and of several. column: in each, one column has null only.
func (c *comparison) make(kind flat.ProofRows, records, missing, column bool) (bodies []made) {
	width := c.form.Width()
	if column {
		for at := range width {
			row := append([]float64(nil), firstRow(kind, width)...)
			if len(row) == 0 || at >= 2*bodiesAlone {
				break
			}
			row[at] = math.NaN()
			if text := c.body(row, 1, records); text != nil {
				bodies = append(bodies, made{text: text, rows: 1})
			}
		}
		return bodies
	}
	var usable []float64
	n := 0
	for i := range kind.Count {
		row := kind.Values[i*width : (i+1)*width]
		isMissing := false
		for _, v := range row {
			isMissing = isMissing || v != v
		}
		if isMissing == missing && c.body(row, 1, records) != nil {
			usable = append(usable, row...)
			n++
		}
	}
	for i := range min(n, bodiesAlone) {
		if records && missing {
			break // a single record has a column of null only
		}
		bodies = append(bodies, made{text: c.body(usable[i*width:(i+1)*width], 1, records), rows: 1})
	}
	for i := 0; i+batchRows <= n && i < bodiesTogether*batchRows; i += batchRows {
		part := usable[i*width : (i+batchRows)*width]
		if records && missing && nullColumn(part, batchRows, width) {
			continue
		}
		bodies = append(bodies, made{text: c.body(part, batchRows, records), rows: batchRows})
	}
	return bodies
}

func firstRow(kind flat.ProofRows, width int) []float64 {
	for i := range kind.Count {
		row := kind.Values[i*width : (i+1)*width]
		if jsontensor.Finite(row) {
			return row
		}
	}
	return nil
}

// body writes rows as a body, nil if they have no such form.
func (c *comparison) body(values []float64, n int, records bool) []byte {
	width := c.form.Width()
	b := []byte{'['}
	for row := range n {
		if row > 0 {
			b = append(b, ',')
		}
		if records {
			b = append(b, '{')
		} else {
			b = append(b, '[')
		}
		for i := range width {
			if i > 0 {
				b = append(b, ',')
			}
			if records {
				b = append(jsontensor.AppendText(b, c.form.columns[i].Name), ':')
			}
			v := values[row*width+i]
			switch known := c.form.values[i]; {
			case v != v:
				b = append(b, "null"...)
			case v-v != 0:
				return nil
			case records && known != nil:
				switch {
				case v >= 0 && v == math.Trunc(v) && v < float64(len(known)):
					b = append(b, known[int(v)]...)
				case v == flat.Unknown && c.form.columns[i].Categories != nil:
					b = append(b, `"(a text that training did not have)"`...)
				default:
					return nil
				}
			case v == math.Trunc(v) && math.Abs(v) < 1e15 && (v != 0 || !math.Signbit(v)) && row%2 == 0: // as a whole number
				b = jsontensor.AppendFloat(b, v)
				b = b[:len(b)-2]
			default:
				b = jsontensor.AppendFloat(b, v)
			}
		}
		if records {
			b = append(b, '}')
		} else {
			b = append(b, ']')
		}
	}
	return append(b, ']')
}

// compare asks one body. refused: Python refuses what could be answered here.
func (c *comparison) compare(ctx context.Context, body made, check *serving.NativeCheck) (refused bool, err error) {
	status, told, err := c.o.ask(ctx, jsonType, body.text)
	if err != nil {
		return false, err
	}
	var rows jsontensor.Rows
	if !c.form.parse(body.text, &rows) {
		return false, nil // Python answers it, as always
	}
	method := c.m.Methods[c.at]
	out := make([]float64, rows.N*method.Width)
	if err := c.m.Predict(c.at, rows.Values, rows.N, out); err != nil {
		if _, ok := errors.AsType[*flat.InputError](err); ok {
			return false, nil // Python answers it
		}
		return false, err
	}
	own, ok := c.writer.append(nil, out, rows.N)
	if !ok {
		return false, nil
	}
	if status != http.StatusOK {
		if c.refusal == "" {
			c.refusal = shortened(told)
		}
		return true, nil
	}
	check.Count += body.rows
	if bytes.Equal(told, own) {
		return false, nil
	}
	check.Bits += body.rows
	if method.Type != "label" && method.Tolerance > 0 && near(told, out, method.Tolerance) {
		return false, nil
	}
	check.Differ += body.rows
	return false, &disagreement{fmt.Sprintf("it differs from the endpoint's Python: to %s Python answers %s, and Go %s", shortened(body.text), shortened(told), shortened(own))}
}

// near reports whether Python's answer has the same numbers within the tolerance.
func near(told []byte, out []float64, tolerance float64) bool {
	var want []float64
	text := strings.NewReplacer("[", "", "]", "").Replace(string(told))
	if json.Unmarshal([]byte("["+text+"]"), &want) != nil {
		return false
	}
	return nearNumbers(want, out, tolerance)
}

func nearNumbers(want, got []float64, tolerance float64) bool {
	if len(want) != len(got) {
		return false
	}
	for i, w := range want {
		if !(math.Abs(w-got[i]) <= tolerance*max(1, math.Abs(w))) {
			return false
		}
	}
	return true
}

func shortened(b []byte) string {
	if len(b) <= longestShown {
		return string(b)
	}
	return strings.ToValidUTF8(string(b[:longestShown]), "") + "..."
}
