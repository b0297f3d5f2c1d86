// Package v2 is the codec of the Open Inference Protocol (V2), which Triton, KServe and MLServer share:
// requests and answers in JSON, with tensors in JSON or in the binary tensor extension, and the rules
// for tensors that both fronts of the protocol apply. It also gives tensors a form in plain JSON, for
// models that only take bodies. It does no I/O.
package v2

import (
	"errors"
	"fmt"
	"math"
	"strconv"
	"time"

	"clearmlserving/inference/engine"
)

// Request is an inference request.
type Request struct {
	// ID is the client's, "" if it sent none.
	ID string
	// Parameters are the request's as a JSON object, nil if there are none that the protocol does not
	// define.
	Parameters []byte
	// ContentType is what the inputs are together, by MLServer's parameter content_type.
	ContentType string
	Inputs      []engine.Tensor
	// Outputs are those that the client asks for, nil: all of the model's.
	Outputs []Output
	// Timeout is the client's limit for the request, 0 for none.
	Timeout time.Duration
	// BinaryOutput: outputs that Outputs does not name are wanted as binary data.
	BinaryOutput bool
}

// Output is an output that a client asks for.
type Output struct {
	Name string
	// Binary: as binary data.
	Binary bool
	// Classes, if above 0, asks for that many of the largest elements, as the classification extension says.
	Classes int64

	set bool // Binary is what the client says of this output
}

// Names are the names of the outputs that the client asks for, nil: all.
func (r *Request) Names() []string {
	var names []string
	for _, o := range r.Outputs {
		names = append(names, o.Name)
	}
	return names
}

// WholeBody is the header length of a body without binary data.
const WholeBody = -1

// ParseRequest reads the body of an inference request. header is the length of its JSON, which binary
// data follows, or WholeBody. The data of all tensors is at most limit bytes; binary data is not copied
// out of the body. Its errors are *engine.Error of KindBadRequest or KindTooLarge, and name the tensor.
func ParseRequest(body []byte, header int, limit int64) (*Request, error) {
	var rest []byte
	if header != WholeBody {
		if header < 0 || header > len(body) {
			return nil, badRequest("the header length is %d, but the body has %d bytes", header, len(body))
		}
		body, rest = body[:header], body[header:]
	}
	p := parser{scanner: scanner{b: body}, rest: rest, limit: limit, left: limit}
	if err := p.request(); err != nil {
		return nil, err
	}
	return &p.r, nil
}

// parser reads one request.
type parser struct {
	scanner

	r           Request
	rest        []byte // the binary data that no tensor has taken yet
	limit, left int64
	named       bool // an error names its input
	answer      bool // the tensors are outputs of an answer
}

// once refuses a second value of a name.
type once uint

func (o *once) see(bit once, key []byte) error {
	if *o&bit != 0 {
		return badRequest("the JSON has %q twice in one object", key)
	}
	*o |= bit
	return nil
}

func (p *parser) request() error {
	var seen once
	err := p.object("the request", func(key []byte) error {
		switch string(key) {
		case "id":
			if err := seen.see(1, key); err != nil || p.null() {
				return err
			}
			id, err := p.text("the request's id")
			p.r.ID = id
			return err
		case "parameters":
			if err := seen.see(2, key); err != nil || p.null() {
				return err
			}
			params, err := p.parameters("its parameters")
			p.r.Parameters, p.r.BinaryOutput, p.r.ContentType = params.raw, params.binaryOutput, params.contentType
			p.r.Timeout = params.timeout
			return err
		case "inputs":
			if err := seen.see(4, key); err != nil {
				return err
			}
			p.r.Inputs = []engine.Tensor{} // not nil without any
			return p.array("the request's inputs", p.input)
		case "outputs":
			if err := seen.see(8, key); err != nil || p.null() {
				return err
			}
			return p.array("the request's outputs", p.output)
		}
		return p.skip(0)
	})
	if err != nil {
		return err
	}
	if err := p.end(); err != nil {
		return err
	}
	if seen&4 == 0 {
		return badRequest("the request has no inputs: send {\"inputs\": [{\"name\": ..., \"shape\": [...], \"datatype\": ..., \"data\": [...]}]}")
	}
	if len(p.rest) > 0 {
		return badRequest("the body has %d bytes of binary data that no input takes with binary_data_size", len(p.rest))
	}
	for i := range p.r.Outputs {
		if o := &p.r.Outputs[i]; !o.set {
			o.Binary = p.r.BinaryOutput
		}
	}
	return p.r.CheckNames()
}

// CheckNames refuses inputs, and outputs that the client asks for, of the same name.
func (r *Request) CheckNames() error {
	if i := Duplicate(len(r.Inputs), func(i int) string { return r.Inputs[i].Name }); i >= 0 {
		return badRequest("the request has two inputs with the name '%s'", r.Inputs[i].Name)
	}
	if i := Duplicate(len(r.Outputs), func(i int) string { return r.Outputs[i].Name }); i >= 0 {
		return badRequest("the request asks for the output '%s' twice", r.Outputs[i].Name)
	}
	return nil
}

// Duplicate finds an element whose name another one before it has, -1 if there is none.
func Duplicate(n int, name func(i int) string) int {
	const few = 16
	if n > few {
		seen := make(map[string]struct{}, n)
		for i := range n {
			if _, ok := seen[name(i)]; ok {
				return i
			}
			seen[name(i)] = struct{}{}
		}
		return -1
	}
	for i := range n {
		for j := range i {
			if name(i) == name(j) {
				return i
			}
		}
	}
	return -1
}

// null reads a null, which stands for a missing value, and reports whether it came.
func (p *parser) null() bool {
	if p.peek() != 'n' {
		return false
	}
	return p.word() == "null"
}

// parameters are those of a request or a tensor.
type parameters struct {
	raw          []byte // nil without any that the protocol does not define
	binarySize   int64  // -1: none
	binary       bool
	binarySet    bool
	binaryOutput bool
	classes      int64
	timeout      time.Duration
	contentType  string
}

func (p *parser) parameters(what string) (parameters, error) {
	params := parameters{binarySize: -1}
	p.peek()
	start, others := p.i, false
	err := p.object(what, func(key []byte) (err error) {
		if string(key) == "content_type" {
			others = true
			if p.null() {
				return nil
			}
			params.contentType, err = p.text(what + ": content_type")
			return err
		}
		p.peek()
		at := p.i
		value, err := p.raw()
		if err != nil {
			return err
		}
		ok := true
		switch string(key) {
		case "binary_data_size":
			params.binarySize, err = strconv.ParseInt(string(value), 10, 64)
			ok = err == nil && params.binarySize >= 0
		case "binary_data":
			params.binary, ok = boolean(value)
			params.binarySet = true
		case "binary_data_output":
			params.binaryOutput, ok = boolean(value)
		case "classification":
			params.classes, err = strconv.ParseInt(string(value), 10, 64)
			ok = err == nil && params.classes >= 0
		case "timeout": // in microseconds
			var us int64
			us, err = strconv.ParseInt(string(value), 10, 64)
			ok = err == nil && us >= 0
			params.timeout = time.Duration(min(us, math.MaxInt64/1000)) * time.Microsecond
		case "shared_memory_region", "shared_memory_byte_size", "shared_memory_offset":
			return badRequest("%s has %s: this server does not read clients' shared memory, send the tensor", what, key)
		default:
			others = true
		}
		if !ok {
			return badRequest("%s: %s at byte %d cannot be %s", what, key, at, near(value))
		}
		return nil
	})
	if others {
		params.raw = p.b[start:p.i]
	}
	return params, err
}

func boolean(value []byte) (set, ok bool) {
	set = string(value) == "true"
	return set, set || string(value) == "false"
}

// input reads one input tensor.
func (p *parser) input() error {
	var seen once
	var t engine.Tensor
	params := parameters{binarySize: -1}
	data, done := -1, false // where the data begins, if it is not read yet
	err := p.object("an "+p.side(), func(key []byte) error {
		switch string(key) {
		case "name":
			if err := seen.see(1, key); err != nil {
				return err
			}
			name, err := p.text("its name")
			t.Name = name
			return err
		case "shape":
			if err := seen.see(2, key); err != nil {
				return err
			}
			return p.shape(&t)
		case "datatype":
			if err := seen.see(4, key); err != nil {
				return err
			}
			name, err := p.text("its datatype")
			t.Datatype = engine.Datatype(name)
			return err
		case "parameters":
			if err := seen.see(8, key); err != nil || p.null() {
				return err
			}
			var err error
			params, err = p.parameters("its parameters")
			t.ContentType = params.contentType
			return err
		case "data":
			if err := seen.see(16, key); err != nil {
				return err
			}
			if seen&7 == 7 { // else what it is comes later
				done = true
				return p.fill(&t)
			}
			p.peek()
			data = p.i
		}
		return p.skip(0)
	})
	if err != nil {
		return p.numbered(p.side(), len(p.r.Inputs), err)
	}
	for i, key := range [...]string{"name", "shape", "datatype"} {
		if seen&(1<<i) == 0 {
			return badRequest("%s %d has no %s", p.side(), len(p.r.Inputs), key)
		}
	}
	switch {
	case params.binarySize >= 0 && seen&16 != 0:
		return badRequest("%s '%s' has both data and a binary_data_size", p.side(), t.Name)
	case params.binarySize >= 0:
		err = p.binary(&t, params.binarySize)
	case data >= 0:
		after := p.i
		p.i = data
		err = p.fill(&t)
		p.i = after
	case !done:
		return badRequest("%s '%s' has no data", p.side(), t.Name)
	}
	if err != nil {
		return err
	}
	p.r.Inputs = append(p.r.Inputs, t)
	return nil
}

// numbered adds to an error which input or output it is about, if it does not name it.
func (p *parser) numbered(what string, i int, err error) error {
	if p.named {
		return err
	}
	return badRequest("%s %d: %v", what, i, err)
}

// shape reads the shape of a tensor.
func (p *parser) shape(t *engine.Tensor) error {
	t.Shape = make([]int64, 0, 4)
	return p.array("its shape", func() error {
		n, start, err := p.number()
		if err != nil {
			return badRequest("its shape has a dimension that is no integer: %s", near(p.b[p.i:]))
		}
		text := p.b[start:p.i]
		switch {
		case !n.integer:
			return badRequest("its shape has a dimension that is no integer: %s", near(text))
		case n.negative && n.mantissa > 0:
			return badRequest("its shape has a negative dimension: %s", near(text))
		case !n.exact || n.mantissa > 1<<63-1:
			return badRequest("its shape has a dimension that is too large: %s", near(text))
		case len(t.Shape) == engine.MaxRank:
			return badRequest("its shape has more than %d dimensions", engine.MaxRank)
		}
		t.Shape = append(t.Shape, int64(n.mantissa))
		return nil
	})
}

// inputError is an error about an input.
func (p *parser) inputError(t *engine.Tensor, err error) error {
	p.named = true
	if errors.Is(err, errLimit) {
		failed := tooLarge(p.limit)
		return &engine.Error{Kind: engine.KindTooLarge, Text: fmt.Sprintf("%s '%s' of shape %s: %s", p.side(), t.Name, engine.Shape(t.Shape), failed)}
	}
	return badRequest("%s '%s': %v", p.side(), t.Name, err)
}

// begin checks an input before its data is read, and returns its number of elements.
func (p *parser) begin(t *engine.Tensor) (int64, error) {
	if t.Datatype.Size() == 0 && t.Datatype != engine.Bytes {
		return 0, p.inputError(t, fmt.Errorf("its datatype %q is not known", t.Datatype))
	}
	n, err := engine.Elements(t.Shape)
	if err == nil {
		err = room(t.Datatype, n, p.left)
	}
	if err != nil {
		return 0, p.inputError(t, err)
	}
	return n, nil
}

// fill reads the data of an input from JSON.
func (p *parser) fill(t *engine.Tensor) error {
	n, err := p.begin(t)
	if err != nil {
		return err
	}
	t.Data, err = p.data(t, n, nil)
	if p.left -= int64(len(t.Data)); err == nil && p.left < 0 {
		err = errLimit
	}
	if err != nil {
		return p.inputError(t, err)
	}
	return nil
}

// binary takes the data of an input from what follows the JSON.
func (p *parser) binary(t *engine.Tensor, size int64) error {
	if _, err := p.begin(t); err != nil {
		return err
	}
	if size > int64(len(p.rest)) {
		return badRequest("%s '%s': its binary_data_size is %d, but only %d bytes are left in the body", p.side(), t.Name, size, len(p.rest))
	}
	t.Data, p.rest = p.rest[:size:size], p.rest[size:]
	if err := CheckData(t); err != nil {
		return p.inputError(t, err)
	}
	p.left -= size
	return nil
}

// output reads one output that the client asks for.
func (p *parser) output() error {
	var seen once
	var out Output
	err := p.object("an output", func(key []byte) error {
		switch string(key) {
		case "name":
			if err := seen.see(1, key); err != nil {
				return err
			}
			name, err := p.text("its name")
			out.Name = name
			return err
		case "parameters":
			if err := seen.see(2, key); err != nil || p.null() {
				return err
			}
			params, err := p.parameters("its parameters")
			out.Binary, out.Classes, out.set = params.binary, params.classes, params.binarySet
			return err
		}
		return p.skip(0)
	})
	if err != nil {
		return p.numbered("output", len(p.r.Outputs), err)
	}
	if seen&1 == 0 {
		return badRequest("output %d has no name", len(p.r.Outputs))
	}
	p.r.Outputs = append(p.r.Outputs, out)
	return nil
}
