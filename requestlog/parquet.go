package requestlog

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"errors"
	"io"
	"maps"
	"math"
	"os"
	"slices"
	"strconv"
	"time"
	"unicode/utf8"

	"github.com/parquet-go/parquet-go"
)

const (
	maxColumns = 500 // of the keys of the inputs, and of the outputs
)

// encodingOf tells what a body is in the file: an object has columns, other JSON and texts are kept as
// they are, and the rest as base64.
func encodingOf(body []byte) string {
	trimmed := bytes.TrimLeft(body, " \t\r\n")
	switch {
	case len(trimmed) > 0 && json.Valid(body):
		if trimmed[0] == '{' {
			return "object"
		}
		return "json"
	case utf8.Valid(body):
		return "text"
	}
	return "base64"
}

// kind is the type of a column. The kinds of two values are joined to one that holds both.
type kind int

const (
	kindNull kind = iota
	kindBool
	kindInt
	kindDouble
	kindText
	kindJSON // JSON texts of values of any type
)

func (k kind) String() string {
	return [...]string{"null", "bool", "int64", "double", "text", "json"}[k]
}

func (k kind) join(other kind) kind {
	switch {
	case k == other || other == kindNull:
		return k
	case k == kindNull:
		return other
	case (k == kindInt || k == kindDouble) && (other == kindInt || other == kindDouble):
		return kindDouble
	}
	return kindJSON
}

// kindOf is the kind of a JSON value.
func kindOf(raw json.RawMessage) kind {
	switch raw[0] {
	case 'n':
		return kindNull
	case 't', 'f':
		return kindBool
	case '"':
		return kindText
	case '{', '[':
		return kindJSON
	}
	if _, err := strconv.ParseInt(string(raw), 10, 64); err == nil {
		return kindInt
	}
	if f, err := strconv.ParseFloat(string(raw), 64); err != nil || math.IsInf(f, 0) {
		return kindJSON
	}
	return kindDouble
}

// columns are the keys of all inputs or outputs of a file, with their kinds.
type columns map[string]kind

// add joins the keys of an object. Those beyond the limit are kept with the rest.
func (c columns) add(object map[string]json.RawMessage) {
	for _, name := range slices.Sorted(maps.Keys(object)) {
		before, ok := c[name]
		if !ok && len(c) >= maxColumns {
			continue
		}
		c[name] = before.join(kindOf(object[name]))
	}
}

// The columns that each file has.
const (
	columnTime     = "time"
	columnID       = "request_id"
	columnURL      = "url"
	columnEndpoint = "endpoint"
	columnVersion  = "version"
	columnModel    = "model_id"
	columnLatency  = "latency_seconds"
	columnStatus   = "status"
	columnInput    = "input"
	columnOutput   = "output"
	columnInputIs  = "request_encoding"
	columnOutputIs = "answer_encoding"
	inputPrefix    = "input_"
	outputPrefix   = "output_"
)

// writer writes one Parquet file.
type writer struct {
	out     *parquet.GenericWriter[any]
	index   map[string]int // of a column
	inputs  columns
	outputs columns
	rows    []parquet.Row
}

// writeParquet converts a spool file. It returns the time of the first row and the number of rows.
func writeParquet(spool, to string) (first time.Time, n int, err error) {
	w := &writer{inputs: columns{}, outputs: columns{}}
	err = lines(spool, func(l line) error {
		if n == 0 {
			first = l.Time
		}
		n++
		if object := objectOf(l.Input, l.InputEncoding); object != nil {
			w.inputs.add(object)
		}
		if object := objectOf(l.Output, l.OutputEncoding); object != nil {
			w.outputs.add(object)
		}
		return nil
	})
	if err != nil || n == 0 {
		return first, n, err
	}
	f, err := os.OpenFile(to, os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o600)
	if err != nil {
		return first, n, err
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	if err := w.open(f); err != nil {
		return first, n, err
	}
	if err := lines(spool, w.add); err != nil {
		return first, n, err
	}
	if err := errors.Join(w.flush(), w.out.Close()); err != nil {
		return first, n, err
	}
	return first, n, f.Sync()
}

func objectOf(body []byte, encoding string) map[string]json.RawMessage {
	if encoding != "object" {
		return nil
	}
	var object map[string]json.RawMessage
	if json.Unmarshal(body, &object) != nil {
		return nil
	}
	return object
}

// open begins the file. Its metadata has the kinds of the columns, so that JSON can be distinguished
// from text.
func (w *writer) open(f io.Writer) error {
	group := parquet.Group{
		columnTime: parquet.Timestamp(parquet.Microsecond), columnID: parquet.String(), columnURL: parquet.String(),
		columnEndpoint: parquet.String(), columnVersion: parquet.String(), columnModel: parquet.String(),
		columnLatency: parquet.Leaf(parquet.DoubleType), columnStatus: parquet.Leaf(parquet.Int32Type),
		columnInputIs: parquet.String(), columnOutputIs: parquet.String(),
		columnInput: parquet.Optional(parquet.String()), columnOutput: parquet.Optional(parquet.String()),
	}
	kinds := map[string]string{columnInput: "rest", columnOutput: "rest"}
	for prefix, all := range map[string]columns{inputPrefix: w.inputs, outputPrefix: w.outputs} {
		for name, k := range all {
			group[prefix+name] = parquet.Optional(k.node())
			kinds[prefix+name] = k.String()
		}
	}
	meta, err := json.Marshal(kinds)
	if err != nil {
		return err
	}
	schema := parquet.NewSchema("request", group)
	w.index = map[string]int{}
	for i, path := range schema.Columns() {
		w.index[path[0]] = i
	}
	w.out = parquet.NewGenericWriter[any](f, schema, parquet.Compression(&parquet.Zstd), parquet.KeyValueMetadata("clearml_serving.columns", string(meta)),
		parquet.CreatedBy("clearml-serving", "", ""))
	return nil
}

func (k kind) node() parquet.Node {
	switch k {
	case kindBool:
		return parquet.Leaf(parquet.BooleanType)
	case kindInt:
		return parquet.Leaf(parquet.Int64Type)
	case kindDouble:
		return parquet.Leaf(parquet.DoubleType)
	case kindNull, kindText, kindJSON:
	}
	return parquet.String()
}

// add writes one row.
func (w *writer) add(l line) error {
	row := make(parquet.Row, len(w.index))
	for i := range row {
		row[i] = parquet.NullValue().Level(0, 0, i)
	}
	set := func(column string, v parquet.Value, optional bool) {
		level := 0
		if optional {
			level = 1
		}
		i := w.index[column]
		row[i] = v.Level(0, level, i)
	}
	text := func(s string) parquet.Value { return parquet.ByteArrayValue([]byte(s)) }
	set(columnTime, parquet.Int64Value(l.Time.UnixMicro()), false)
	set(columnID, text(l.ID), false)
	set(columnURL, text(string(l.Asked)), false)
	set(columnEndpoint, text(l.Endpoint), false)
	set(columnVersion, text(l.Version), false)
	set(columnModel, text(l.Model), false)
	set(columnLatency, parquet.DoubleValue(l.Latency), false)
	set(columnStatus, parquet.Int32Value(int32(l.Status)), false) //nolint:gosec // an HTTP status
	set(columnInputIs, text(l.InputEncoding), false)
	set(columnOutputIs, text(l.OutputEncoding), false)
	for _, part := range []struct {
		body             []byte
		encoding, prefix string
		rest             string
		all              columns
	}{
		{l.Input, l.InputEncoding, inputPrefix, columnInput, w.inputs},
		{l.Output, l.OutputEncoding, outputPrefix, columnOutput, w.outputs},
	} {
		object := objectOf(part.body, part.encoding)
		if object == nil {
			if part.encoding == "base64" {
				set(part.rest, text(base64.StdEncoding.EncodeToString(part.body)), true)
			} else if part.encoding != "stream" {
				set(part.rest, parquet.ByteArrayValue(part.body), true)
			}
			continue
		}
		rest := map[string]json.RawMessage{}
		for name, raw := range object {
			k, ok := part.all[name]
			if !ok {
				rest[name] = raw
				continue
			}
			v, ok, err := k.value(raw)
			if err != nil {
				return err
			}
			if ok {
				set(part.prefix+name, v, true)
			}
		}
		if len(rest) > 0 {
			more, err := json.Marshal(rest)
			if err != nil {
				return err
			}
			set(part.rest, parquet.ByteArrayValue(more), true)
		}
	}
	w.rows = append(w.rows, row)
	if len(w.rows) == 256 {
		if err := w.flush(); err != nil {
			return err
		}
	}
	return nil
}

// value converts a JSON value to the kind of its column. It is false for null.
func (k kind) value(raw json.RawMessage) (parquet.Value, bool, error) {
	if raw[0] == 'n' {
		return parquet.Value{}, false, nil
	}
	switch k {
	case kindBool:
		return parquet.BooleanValue(raw[0] == 't'), true, nil
	case kindInt:
		n, err := strconv.ParseInt(string(raw), 10, 64)
		return parquet.Int64Value(n), true, err
	case kindDouble:
		f, err := strconv.ParseFloat(string(raw), 64)
		return parquet.DoubleValue(f), true, err
	case kindText:
		var s string
		err := json.Unmarshal(raw, &s)
		return parquet.ByteArrayValue([]byte(s)), true, err
	case kindNull, kindJSON:
	}
	return parquet.ByteArrayValue(raw), true, nil
}

func (w *writer) flush() error {
	if _, err := w.out.WriteRows(w.rows); err != nil {
		return err
	}
	w.rows = w.rows[:0]
	return nil
}
