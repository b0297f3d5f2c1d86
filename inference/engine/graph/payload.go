package graph

import (
	"encoding/json"
	"errors"
	"fmt"
	"strings"

	"clearmlserving/inference/engine"
	v2 "clearmlserving/inference/v2"
	"clearmlserving/serving"
)

// payload is what a step gets or answers: tensors, or a body.
type payload struct {
	tensors     []engine.Tensor // nil: a body
	as          string          // of the tensors: Request.TensorsAs
	body        []byte
	contentType string
	answer      bool             // of a step, or made by the graph
	last        *engine.Response // the answer of the graph's last step, instead of all others
	text        []byte           // as JSON, once it was asked for
}

// json is the payload as JSON: tensors are an object of nested lists by their names.
func (p *payload) json() ([]byte, error) {
	if p.tensors == nil {
		return p.body, nil
	}
	if p.text == nil {
		text, err := v2.Body(p.tensors, false)
		if err != nil {
			return nil, err
		}
		p.text = text
	}
	return p.text, nil
}

// value is the payload as a JSON value, which other JSON may contain: an only tensor is its list.
func (p *payload) value() ([]byte, error) {
	switch {
	case len(p.tensors) == 1:
		return v2.AppendNested(nil, &p.tensors[0])
	case p.tensors != nil:
		return p.json()
	case !v2.IsJSON(p.body):
		return nil, errors.New("it is no JSON")
	}
	return p.body, nil
}

func joined(path []string) string { return strings.Join(path, ".") }

// part is a part of the payload: a member of JSON objects in each other, or the tensor of that name. Of an Ensemble's
// answer in tensors, the name of a step is all its tensors.
func (p *payload) part(path []string) (payload, error) {
	part := payload{answer: true, contentType: jsonType}
	if p.tensors == nil {
		part.body = p.body
		for i, name := range path {
			var ok bool
			if part.body, ok = v2.Member(part.body, name); !ok {
				return part, fmt.Errorf("has no '%s'", joined(path[:i+1]))
			}
		}
		return part, nil
	}
	name := joined(path)
	for i := range p.tensors {
		if p.tensors[i].Name == name {
			part.tensors = p.tensors[i : i+1 : i+1]
			return part, nil
		}
	}
	for _, t := range p.tensors {
		if rest, ok := strings.CutPrefix(t.Name, name+"."); ok {
			t.Name = rest
			part.tensors = append(part.tensors, t)
		}
	}
	if part.tensors == nil {
		return part, fmt.Errorf("has no tensor '%s'", name)
	}
	return part, nil
}

// scalar is the value of a field: a text, a number (float64), a bool or nil. The field of a request with tensors is a tensor
// with one element, else one of the request's parameters.
func (p *payload) scalar(path []string, parameters []byte) (value any, known bool, err error) {
	if p.tensors != nil {
		name := joined(path)
		for i := range p.tensors {
			if p.tensors[i].Name == name {
				value, err = element(&p.tensors[i])
				return value, err == nil, err
			}
		}
		p = &payload{body: parameters}
	}
	part, err := p.part(path)
	if err != nil {
		return nil, false, nil //nolint:nilerr // there is none
	}
	if err := json.Unmarshal(part.body, &value); err != nil {
		return nil, false, errors.New("has no value that can be compared")
	}
	switch value.(type) {
	case []any, map[string]any:
		return nil, false, errors.New("is a list or an object, which cannot be compared with a value")
	}
	return value, true, nil
}

// element is the only element of a tensor.
func element(t *engine.Tensor) (any, error) {
	if err := v2.CheckData(t); err != nil {
		return nil, err
	}
	if n, err := engine.Elements(t.Shape); err != nil || n != 1 {
		return nil, fmt.Errorf("has the shape %s, but one element is compared with a value", engine.Shape(t.Shape))
	}
	switch t.Datatype {
	case engine.Bytes:
		return string(t.Data[4:]), nil
	case engine.Bool:
		return t.Data[0] != 0, nil
	}
	numbers, err := floats(t)
	if err != nil {
		return nil, err
	}
	return numbers[0], nil
}

// sources are what the data of a step is made of.
type sources struct {
	request, response payload
	answers           []*payload // by step, nil: it has none
}

// of is a source, nil if its step has failed.
func (f *sources) of(s serving.GraphSource) *payload {
	switch s.Of {
	case serving.SourceResponse:
		return &f.response
	case serving.SourceStep:
		return f.answers[s.Step]
	}
	return &f.request
}

// make makes the data of a step, or the response of a Sequence. Names whose step has failed are left out.
func (f *sources) make(n *serving.GraphNode, d *serving.GraphData) (payload, error) {
	if d.Named == nil {
		return f.one(n, d.Whole)
	}
	parts, fields, tensors := make([]payload, 0, len(d.Named)), make([]serving.GraphField, 0, len(d.Named)), true
	for _, field := range d.Named {
		if f.of(field.GraphSource) == nil {
			continue
		}
		part, err := f.one(n, field.GraphSource)
		if err != nil {
			return payload{}, err
		}
		parts, fields = append(parts, part), append(fields, field)
		tensors = tensors && part.tensors != nil
	}
	if len(parts) == 0 {
		return payload{}, unusable(n, "the data %s has nothing in it: its steps have failed", d)
	}
	all := payload{answer: true}
	if tensors {
		for i := range parts {
			if len(parts[i].tensors) != 1 {
				return payload{}, f.misfit(n, fields[i].GraphSource, fmt.Errorf("has %d tensors, where '%s' is one: name it", len(parts[i].tensors), fields[i].Name))
			}
			t := parts[i].tensors[0]
			t.Name = fields[i].Name
			all.tensors = append(all.tensors, t)
		}
		return all, nil
	}
	all.contentType, all.body = jsonType, []byte{'{'}
	for i := range parts {
		value, err := parts[i].value()
		if err != nil {
			return payload{}, f.misfit(n, fields[i].GraphSource, err)
		}
		if i > 0 {
			all.body = append(all.body, ',')
		}
		all.body = append(append(v2.AppendText(all.body, fields[i].Name), ':'), value...)
	}
	all.body = append(all.body, '}')
	return all, nil
}

// one is one source.
func (f *sources) one(n *serving.GraphNode, s serving.GraphSource) (payload, error) {
	from := f.of(s)
	if from == nil {
		return payload{}, unusable(n, "the step of %s has failed", s)
	}
	if s.Path == nil {
		return *from, nil
	}
	part, err := from.part(s.Path)
	if err != nil {
		return payload{}, f.misfit(n, s, err)
	}
	return part, nil
}

// misfit is the fault of a source that is not as it should be: of the request, or of an answer.
func (f *sources) misfit(n *serving.GraphNode, s serving.GraphSource, err error) error {
	if s.Of == serving.SourceRequest && !f.request.answer {
		return badRequest(n, "the request cannot be used for %s: %v", s, err)
	}
	return unusable(n, "the answer cannot be used for %s: %v", s, err)
}
