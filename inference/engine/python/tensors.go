package python

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"math"
	"slices"
	"strconv"
	"strings"
	"unicode/utf8"

	"clearmlserving/inference/engine"
	"clearmlserving/serving"
	"clearmlserving/worker"
)

// names are numpy's names of the datatypes, as package worker knows them.
var names = map[engine.Datatype]string{ //nolint:gochecknoglobals // a constant table
	engine.Bool: "|b1", engine.Uint8: "|u1", engine.Int8: "|i1", engine.Uint16: "<u2", engine.Int16: "<i2", engine.Uint32: "<u4", engine.Int32: "<i4",
	engine.Uint64: "<u8", engine.Int64: "<i8", engine.FP16: "<f2", engine.FP32: "<f4", engine.FP64: "<f8", engine.BF16: worker.BF16, engine.Bytes: worker.Elements,
}

var datatypes = func() map[string]engine.Datatype { //nolint:gochecknoglobals // a constant table
	m := make(map[string]engine.Datatype, len(names))
	for datatype, name := range names {
		m[name] = datatype
	}
	return m
}()

// fewTensors are compared by their names without a map.
const fewTensors = 16

// ValueOf converts the tensors of a request, whose data it shares. An error is the client's.
func ValueOf(url serving.EndpointURL, req *engine.Request) (*worker.Value, error) {
	v := &worker.Value{Layout: worker.DictOfArrays, As: req.TensorsAs, Outputs: req.Outputs, Streams: req.Streams, Tensors: make([]worker.Tensor, len(req.Tensors))}
	var seen map[string]struct{}
	if len(req.Tensors) > fewTensors {
		seen = make(map[string]struct{}, len(req.Tensors))
	}
	for i, t := range req.Tensors {
		err := t.Check()
		if err != nil {
			err = fmt.Errorf("tensor %.40q: %w", t.Name, err)
		} else {
			err = checkEmpty(&t)
		}
		_, again := seen[t.Name]
		if seen != nil {
			seen[t.Name] = struct{}{}
		} else {
			again = slices.ContainsFunc(v.Tensors[:i], func(other worker.Tensor) bool { return other.Name == t.Name })
		}
		if again {
			err = fmt.Errorf("two tensors have the name %.40q", t.Name)
		}
		if err != nil {
			return nil, &engine.Error{Kind: engine.KindBadRequest, Endpoint: url, Text: err.Error()}
		}
		v.Tensors[i] = worker.Tensor{Name: t.Name, DType: names[t.Datatype], ContentType: t.ContentType, Shape: t.Shape, Data: t.Data}
	}
	if err := v.Check(); err != nil {
		return nil, &engine.Error{Kind: engine.KindBadRequest, Endpoint: url, Text: err.Error()}
	}
	return v, nil
}

// DType is the worker's name of a datatype, "" for an unknown one.
func DType(d engine.Datatype) string { return names[d] }

// Tensors converts what user code gave. Arrays without a name get the prefix and their number.
func Tensors(v *worker.Value, prefix string) ([]engine.Tensor, error) {
	list := make([]engine.Tensor, len(v.Tensors))
	for i, t := range v.Tensors {
		list[i] = engine.Tensor{Name: t.Name, Datatype: datatypes[t.DType], ContentType: t.ContentType, Shape: t.Shape, Data: t.Data}
		if v.Layout != worker.DictOfArrays {
			list[i].Name = prefix + strconv.Itoa(i)
		}
		if list[i].Datatype == "" {
			if err := convert(&list[i], t); err != nil {
				return nil, fmt.Errorf("tensor %.40q: %w", list[i].Name, err)
			}
		}
		if err := list[i].Check(); err != nil {
			return nil, fmt.Errorf("tensor %.40q: %w", list[i].Name, err)
		}
	}
	return list, nil
}

// pieceTensors reads a piece of a stream of answers.
func pieceTensors(piece []byte) ([]engine.Tensor, error) {
	v, err := worker.ParseAnswer(piece)
	if err != nil {
		return nil, err
	}
	return Tensors(&v, "output-")
}

const mostEmpty = 1 << 20

// checkEmpty refuses a tensor without elements that has very many empty rows: as nested lists, which
// user code may get or make of it, they take memory, and as a tensor they take none.
func checkEmpty(t *engine.Tensor) error {
	at := slices.Index(t.Shape, 0)
	if at < 0 {
		return nil
	}
	rows := int64(1)
	for _, n := range t.Shape[:at] {
		if n > mostEmpty/rows {
			return fmt.Errorf("tensor %.40q has the shape %v: at most %d empty rows are possible", t.Name, t.Shape, mostEmpty)
		}
		rows *= n
	}
	return nil
}

// convert sets the elements of an array of text (numpy's kind U: UTF-32, filled with zeros) or bytes (kind S).
func convert(to *engine.Tensor, t worker.Tensor) error {
	text, isText := strings.CutPrefix(t.DType, "<U")
	size, err := strconv.Atoi(strings.TrimPrefix(text, "|S"))
	if err != nil || size < 0 || size > math.MaxInt32 || !isText && !strings.HasPrefix(t.DType, "|S") {
		return fmt.Errorf("arrays of numpy's type %s are no tensors", t.DType)
	}
	unit := 1
	if isText {
		unit = 4
	}
	size *= unit
	to.Datatype, to.Data = engine.Bytes, make([]byte, 0, len(t.Data))
	if size == 0 { // of empty texts, which take no space
		count, err := engine.Elements(to.Shape)
		if err == nil && count > mostEmpty {
			err = fmt.Errorf("%d empty texts: at most %d are possible", count, mostEmpty)
		}
		if err == nil {
			to.Data = make([]byte, 4*count)
		}
		return err
	}
	for data := t.Data; len(data) >= size; data = data[size:] {
		element := data[:size]
		at := len(to.Data)
		to.Data = append(to.Data, 0, 0, 0, 0)
		for len(element) > 0 && bytes.Count(element[len(element)-unit:], []byte{0}) == unit {
			element = element[:len(element)-unit]
		}
		if isText {
			for ; len(element) > 0; element = element[4:] {
				to.Data = utf8.AppendRune(to.Data, rune(binary.LittleEndian.Uint32(element)))
			}
		} else {
			to.Data = append(to.Data, element...)
		}
		binary.LittleEndian.PutUint32(to.Data[at:], uint32(len(to.Data)-at-4))
	}
	return nil
}
