package graph

import (
	"bytes"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"math"
	"slices"

	"clearmlserving/inference/engine"
	"clearmlserving/inference/engine/jsontensor"
	v2 "clearmlserving/inference/v2"
	"clearmlserving/serving"
)

// combine makes the answer of an Ensemble of those of its steps, nil for a step that has failed.
func combine(n *serving.GraphNode, outs []*payload) (payload, error) {
	c := combiner{n: n}
	tensors := true
	for i, out := range outs {
		if out != nil {
			c.names, c.outs, c.weights = append(c.names, n.Steps[i].Name), append(c.outs, out), append(c.weights, n.Steps[i].Weight)
			tensors = tensors && out.tensors != nil
		}
	}
	made := payload{answer: true}
	var err error
	switch {
	case tensors && n.Combiner == serving.CombineObject:
		made.tensors = c.all()
	case tensors:
		made.tensors, err = c.tensors()
	case n.Combiner == serving.CombineObject:
		made.body, err = c.object()
	default:
		made.body, err = c.values()
	}
	if err != nil {
		return payload{}, unusable(n, "%v", err)
	}
	if !tensors {
		made.contentType = jsonType
	}
	return made, nil
}

// combiner has the answers of the steps that have one.
type combiner struct {
	n       *serving.GraphNode
	names   []string
	outs    []*payload
	weights []float64
}

// all are the tensors of all answers, by step and name.
func (c *combiner) all() []engine.Tensor {
	var all []engine.Tensor
	for i, out := range c.outs {
		for _, t := range out.tensors {
			t.Name = c.names[i] + "." + t.Name
			all = append(all, t)
		}
	}
	return all
}

// object is an object of all answers.
func (c *combiner) object() ([]byte, error) {
	b := []byte{'{'}
	for i, out := range c.outs {
		value, err := out.value()
		if err != nil {
			return nil, c.wrong(i, err)
		}
		if i > 0 {
			b = append(b, ',')
		}
		b = append(append(v2.AppendText(b, c.names[i]), ':'), value...)
	}
	return append(b, '}'), nil
}

func (c *combiner) wrong(i int, err error) error {
	return fmt.Errorf("the answer of step '%s' cannot be combined (%s): %w", c.names[i], c.n.Combiner, err)
}

// values is the mean or the vote of answers in JSON.
func (c *combiner) values() ([]byte, error) {
	values := make([]any, len(c.outs))
	for i, out := range c.outs {
		text, err := out.value()
		if err != nil {
			return nil, c.wrong(i, err)
		}
		d := json.NewDecoder(bytes.NewReader(text))
		d.UseNumber()
		if err := d.Decode(&values[i]); err != nil {
			return nil, c.wrong(i, err)
		}
	}
	made, err := c.merge(values)
	if err != nil {
		return nil, err
	}
	var b bytes.Buffer
	e := json.NewEncoder(&b)
	e.SetEscapeHTML(false)
	if err := e.Encode(made); err != nil {
		return nil, fmt.Errorf("the %s has no form in JSON: %w", c.n.Combiner, err)
	}
	return bytes.TrimSpace(b.Bytes()), nil
}

// merge combines values of one form: lists and objects part by part.
func (c *combiner) merge(values []any) (any, error) {
	switch first := values[0].(type) {
	case []any:
		made := make([]any, len(first))
		lists := make([][]any, len(values))
		for i, v := range values {
			list, ok := v.([]any)
			if !ok || len(list) != len(first) {
				return nil, c.unlike(i)
			}
			lists[i] = list
		}
		for at := range first {
			var err error
			if made[at], err = c.merge(column(lists, at)); err != nil {
				return nil, err
			}
		}
		return made, nil
	case map[string]any:
		made := make(map[string]any, len(first))
		for i, v := range values {
			if object, ok := v.(map[string]any); !ok || len(object) != len(first) {
				return nil, c.unlike(i)
			}
		}
		for _, name := range slices.Sorted(maps.Keys(first)) {
			parts := make([]any, len(values))
			for i, v := range values {
				part, ok := v.(map[string]any)[name]
				if !ok {
					return nil, c.unlike(i)
				}
				parts[i] = part
			}
			var err error
			if made[name], err = c.merge(parts); err != nil {
				return nil, fmt.Errorf("'%s': %w", name, err)
			}
		}
		return made, nil
	}
	if c.n.Combiner == serving.CombineMean {
		return c.meanOf(values)
	}
	return c.voteOf(values)
}

func column(lists [][]any, at int) []any {
	parts := make([]any, len(lists))
	for i := range lists {
		parts[i] = lists[i][at]
	}
	return parts
}

func (c *combiner) unlike(i int) error {
	return fmt.Errorf("the answers of the steps '%s' and '%s' differ in form, so that they have no %s", c.names[0], c.names[i], c.n.Combiner)
}

func (c *combiner) meanOf(values []any) (any, error) {
	numbers := make([]float64, len(values))
	for i, v := range values {
		number, ok := v.(json.Number)
		if !ok {
			return nil, c.wrong(i, fmt.Errorf("%s is no number", shown(v)))
		}
		f, err := number.Float64()
		if err != nil {
			return nil, c.wrong(i, err)
		}
		numbers[i] = f
	}
	return c.mean(numbers), nil
}

// mean is the weighted mean of a number of each step. If only steps of the weight 0 have answered, they count the same.
func (c *combiner) mean(numbers []float64) float64 {
	sum, weights := 0.0, 0.0
	if slices.Max(c.weights) == 0 {
		c.weights = slices.Repeat([]float64{1}, len(c.weights))
	}
	for i, f := range numbers {
		if c.weights[i] > 0 { // 0 times infinity is no number
			sum += c.weights[i] * f
			weights += c.weights[i]
		}
	}
	return sum / weights
}

func (c *combiner) voteOf(values []any) (any, error) {
	keys := make([]any, len(values))
	for i, v := range values {
		keys[i] = v
		switch v := v.(type) {
		case json.Number:
			if f, err := v.Float64(); err == nil { // 1 and 1.0 are the same
				keys[i] = f
			}
		case string, bool, nil:
		default:
			return nil, c.unlike(i)
		}
	}
	return values[vote(keys, c.weights)], nil
}

// vote is the first of the steps whose value has the greatest weight.
func vote[T comparable](values []T, weights []float64) int {
	best, most := 0, math.Inf(-1)
	for i := range values {
		if slices.Index(values[:i], values[i]) >= 0 {
			continue
		}
		sum := 0.0
		for j := i; j < len(values); j++ {
			if values[j] == values[i] {
				sum += weights[j]
			}
		}
		if sum > most {
			best, most = i, sum
		}
	}
	return best
}

func shown(v any) string {
	text, err := json.Marshal(v)
	if err != nil {
		return "it"
	}
	return serving.Shorten(string(text), 60)
}

// tensors is the mean or the vote of each output. Only outputs need not have the same name.
func (c *combiner) tensors() ([]engine.Tensor, error) {
	first := c.outs[0].tensors
	made := make([]engine.Tensor, 0, len(first))
	for at := range first {
		same := make([]*engine.Tensor, len(c.outs))
		for i, out := range c.outs {
			if len(out.tensors) != len(first) {
				return nil, c.unlike(i)
			}
			j := 0
			if len(first) > 1 {
				j = slices.IndexFunc(out.tensors, func(t engine.Tensor) bool { return t.Name == first[at].Name })
			}
			if j < 0 || !slices.Equal(out.tensors[j].Shape, first[at].Shape) {
				return nil, c.unlike(i)
			}
			same[i] = &out.tensors[j]
			if err := v2.CheckData(same[i]); err != nil {
				return nil, c.wrong(i, err)
			}
		}
		t, err := c.tensor(same)
		if err != nil {
			return nil, err
		}
		made = append(made, t)
	}
	return made, nil
}

func (c *combiner) tensor(same []*engine.Tensor) (engine.Tensor, error) {
	made := engine.Tensor{Name: same[0].Name, Shape: same[0].Shape, Datatype: same[0].Datatype, ContentType: same[0].ContentType}
	if c.n.Combiner == serving.CombineVote {
		all := make([][][]byte, len(same))
		for i, t := range same {
			if t.Datatype != made.Datatype {
				return made, c.unlike(i)
			}
			all[i] = elements(t)
		}
		one := make([]string, len(same))
		for at := range all[0] {
			for i := range all {
				one[i] = string(all[i][at])
			}
			made.Data = append(made.Data, one[vote(one, c.weights)]...)
		}
		return made, nil
	}
	all := make([][]float64, len(same))
	for i, t := range same {
		var err error
		if all[i], err = floats(t); err != nil {
			return made, c.wrong(i, err)
		}
		if t.Datatype != engine.FP32 {
			made.Datatype = engine.FP64
		}
	}
	made.ContentType = ""
	made.Data = make([]byte, 0, int64(len(all[0]))*made.Datatype.Size())
	one := make([]float64, len(same))
	for at := range all[0] {
		for i := range all {
			one[i] = all[i][at]
		}
		if mean := c.mean(one); made.Datatype == engine.FP32 {
			made.Data = binary.LittleEndian.AppendUint32(made.Data, math.Float32bits(float32(mean)))
		} else {
			made.Data = binary.LittleEndian.AppendUint64(made.Data, math.Float64bits(mean))
		}
	}
	return made, nil
}

// elements are the elements of a checked tensor, those of BYTES with their lengths.
func elements(t *engine.Tensor) [][]byte {
	var list [][]byte
	size, rest := int(t.Datatype.Size()), t.Data
	for len(rest) > 0 {
		n := size
		if t.Datatype == engine.Bytes {
			n = 4 + int(binary.LittleEndian.Uint32(rest))
		}
		list, rest = append(list, rest[:n]), rest[n:]
	}
	return list
}

// floats are the elements of a checked tensor of numbers.
func floats(t *engine.Tensor) ([]float64, error) {
	size := int(t.Datatype.Size())
	if size == 0 || t.Datatype == engine.Bool {
		return nil, errors.New(string(t.Datatype) + " is no number")
	}
	numbers := make([]float64, 0, len(t.Data)/size)
	for b := t.Data; len(b) > 0; b = b[size:] {
		numbers = append(numbers, number(t.Datatype, b))
	}
	return numbers, nil
}

func number(d engine.Datatype, b []byte) float64 {
	switch d {
	case engine.FP32:
		return float64(math.Float32frombits(binary.LittleEndian.Uint32(b)))
	case engine.FP16:
		return jsontensor.Float16(binary.LittleEndian.Uint16(b))
	case engine.BF16:
		return float64(math.Float32frombits(uint32(binary.LittleEndian.Uint16(b)) << 16))
	case engine.Uint8:
		return float64(b[0])
	case engine.Int8:
		return float64(int8(b[0]))
	case engine.Uint16:
		return float64(binary.LittleEndian.Uint16(b))
	case engine.Int16:
		return float64(int16(binary.LittleEndian.Uint16(b))) //nolint:gosec // the bits are those of an int16
	case engine.Uint32:
		return float64(binary.LittleEndian.Uint32(b))
	case engine.Int32:
		return float64(int32(binary.LittleEndian.Uint32(b))) //nolint:gosec // the bits are those of an int32
	case engine.Uint64:
		return float64(binary.LittleEndian.Uint64(b))
	case engine.Int64:
		return float64(int64(binary.LittleEndian.Uint64(b))) //nolint:gosec // the bits are those of an int64
	}
	return math.Float64frombits(binary.LittleEndian.Uint64(b))
}
