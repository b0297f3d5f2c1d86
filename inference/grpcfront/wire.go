package grpcfront

import (
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"slices"
	"sync"
	"sync/atomic"
	"time"
	"unicode/utf8"

	"google.golang.org/grpc/mem"
	"google.golang.org/protobuf/encoding/protowire"

	"clearmlserving/inference"
	"clearmlserving/inference/engine"
	"clearmlserving/inference/v2"
	"clearmlserving/inference/v2/wire"
)

// The messages of inference are read and written by hand: the data of tensors is neither
// copied nor converted, where the wire already has the form of engine.Tensor.

// maxParameters bounds the parameters of a request before they are allocated.
const maxParameters = 1024

// request is a ModelInferRequest. Its tensors lie in the message.
type request struct {
	v2.Request

	model, version string
	// emptyFinal: a streamed answer ends with a message without outputs.
	emptyFinal bool

	parameters []wire.Parameter // those of the model
	entries    int              // of the map of parameters on the wire
	dimensions []int64          // of all inputs
	raw        [][]byte         // data of the inputs, or none
	contents   [][]byte         // typed data of the inputs as on the wire, nil if no input has any

	whole    []byte          // the message, which holds the tensors
	message  mem.Buffer      // the memory of whole; nil: it has another
	loan     engine.Loan     // the memory of whole, if a model has lent it
	pieces   mem.BufferSlice // a large message that is not read yet
	limit    int64           // of the data of all tensors
	held     *atomic.Int64   // counts size until release; nil: it is not counted
	size     int64
	broken   error // what is wrong with the message, nil if nothing
	took     time.Duration
	question inference.Question
}

// requests are reused with their lists.
var requests = sync.Pool{New: func() any { return new(request) }} //nolint:gochecknoglobals // a pool of memory

// keptTensors is the length of lists up to which a request is reused.
const keptTensors = 64

// read reads a message and checks it.
func (r *request) read(message []byte) {
	begun := time.Now()
	r.whole = message
	err := r.parse(message)
	if err == nil {
		err = r.finish(r.limit)
	}
	r.broken = refusal(err)
	r.took = time.Since(begun)
}

// refusal says in the words of the protocol what is wrong with a message.
func refusal(err error) error {
	if err == nil {
		return nil
	}
	if _, ok := errors.AsType[*engine.Error](err); ok {
		return err
	}
	if errors.Is(err, wire.ErrBroken) {
		return badRequest("the message is no ModelInferRequest: %v", err)
	}
	return badRequest("%v", err)
}

// join reads a message of several pieces in memory that its model has lent, or else in its own.
func (r *request) join(loan engine.Loan) {
	pieces := r.pieces
	r.pieces = nil
	defer pieces.Free()
	if r.loan = loan; loan == nil {
		r.message = pieces.MaterializeToBuffer(mem.DefaultBufferPool())
		r.read(r.message.ReadOnlyData())
		return
	}
	pieces.CopyTo(loan.Bytes())
	r.read(loan.Bytes())
}

// nameIn is the model and version at the beginning of a message, where all known clients write them. Both are "" if
// the piece of the message ends before the field that follows them: it may have only a part of them.
func nameIn(piece []byte) (model, version string) {
	for len(piece) > 0 {
		if number, _, n := protowire.ConsumeTag(piece); n > 0 && number > 2 {
			return model, version
		}
		number, kind, value, _, rest, err := wire.Field(piece)
		if err != nil || kind != protowire.BytesType || !utf8.Valid(value) {
			break
		}
		if number == 1 {
			model = string(value)
		} else {
			version = string(value)
		}
		piece = rest
	}
	return "", ""
}

// abandon leaves the memory of the message to the garbage collector, as it may be in use, and stops counting it.
func (r *request) abandon() {
	if r.held != nil {
		r.held.Add(-r.size)
		r.held = nil
	}
}

// release frees the memory of the message, and clears r for another.
func (r *request) release() {
	r.pieces.Free()
	if r.message != nil {
		r.message.Free()
	}
	if r.loan != nil {
		r.loan.Release()
	}
	if r.held != nil {
		r.held.Add(-r.size)
	}
	inputs, outputs, raw := r.Inputs[:0], r.Outputs[:0], r.raw[:0]
	if cap(inputs) > keptTensors || cap(outputs) > keptTensors || cap(r.dimensions) > 4*keptTensors || cap(raw) > keptTensors {
		*r = request{}
		return
	}
	clear(inputs[:cap(inputs)])
	clear(outputs[:cap(outputs)])
	clear(raw[:cap(raw)])
	*r = request{dimensions: r.dimensions[:0], raw: raw, Request: v2.Request{Inputs: inputs, Outputs: outputs}}
}

// giveBack releases r and returns it to the pool.
func (r *request) giveBack() {
	r.release()
	requests.Put(r)
}

// parse reads a message. The tensors refer to b.
func (r *request) parse(b []byte) error {
	for len(b) > 0 {
		number, kind, value, _, rest, err := wire.Field(b)
		if err != nil {
			return err
		}
		b = rest
		if number > 7 {
			continue // of a newer protocol
		}
		if kind != protowire.BytesType {
			return wire.ErrBroken
		}
		switch number {
		case 1:
			r.model, err = wire.Text(value)
		case 2:
			r.version, err = wire.Text(value)
		case 3:
			r.ID, err = wire.Text(value)
		case 4:
			err = r.addParameter(value)
		case 5:
			err = r.addInput(value)
		case 6:
			err = r.addOutput(value)
		case 7:
			if len(r.raw) == wire.MaxTensors {
				return badRequest("the request has more than %d raw_input_contents", wire.MaxTensors)
			}
			r.raw = append(r.raw, value)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

func (r *request) addInput(b []byte) error {
	if len(r.Inputs) == wire.MaxTensors {
		return badRequest("the request has more than %d inputs", wire.MaxTensors)
	}
	t, data, dimensions, err := wire.Tensor(b, r.dimensions, sharedMemory)
	r.dimensions = dimensions
	if err != nil {
		return err
	}
	if data != nil && len(r.contents) == 0 {
		r.contents = slices.Grow(r.contents[:0], len(r.Inputs)+1)[:len(r.Inputs)]
		clear(r.contents)
	}
	if data != nil || len(r.contents) > 0 {
		r.contents = append(r.contents, data)
	}
	r.Inputs = append(r.Inputs, t)
	return nil
}

// sharedMemory refuses the parameters of a tensor that is not in the message.
func sharedMemory(name string) error {
	switch name {
	case "shared_memory_region", "shared_memory_byte_size", "shared_memory_offset":
		return badRequest("a tensor has the parameter %s: this server does not read or write clients' shared memory, send the tensor", name)
	}
	return nil
}

func (r *request) addOutput(b []byte) error {
	if len(r.Outputs) == wire.MaxTensors {
		return badRequest("the request asks for more than %d outputs", wire.MaxTensors)
	}
	var o v2.Output
	for len(b) > 0 {
		number, kind, value, _, rest, err := wire.Field(b)
		if err != nil {
			return err
		}
		b = rest
		if number > 2 {
			continue
		}
		if kind != protowire.BytesType {
			return wire.ErrBroken
		}
		if number == 1 {
			o.Name, err = wire.Text(value)
		} else {
			err = outputParameter(&o, value)
		}
		if err != nil {
			return err
		}
	}
	r.Outputs = append(r.Outputs, o)
	return nil
}

// outputParameter reads a parameter of an output that the client asks for.
func outputParameter(o *v2.Output, b []byte) error {
	p, err := wire.ParameterOf(b)
	if err != nil {
		return err
	}
	if p.Name != "classification" {
		return sharedMemory(p.Name)
	}
	var ok bool
	if o.Classes, ok = p.Value.(int64); !ok || o.Classes < 0 {
		return badRequest("the parameter classification of an output is %v, not a number of classes", p.Value)
	}
	return nil
}

// addParameter reads a parameter of the request. The last one of a name counts.
func (r *request) addParameter(b []byte) error {
	if r.entries++; r.entries > maxParameters { // also those that replace another: each is compared with all
		return badRequest("the request has more than %d parameters", maxParameters)
	}
	p, err := wire.ParameterOf(b)
	if err != nil {
		return err
	}
	switch p.Name {
	case "content_type":
		r.ContentType, _ = p.Value.(string)
	case "timeout": // in microseconds
		us, ok := p.Value.(int64)
		if unsigned, is := p.Value.(uint64); is {
			us, ok = int64(min(unsigned, math.MaxInt64)), true
		}
		if !ok || us < 0 {
			return badRequest("the parameter timeout of the request is %v, not a number of microseconds", p.Value)
		}
		r.Timeout = time.Duration(min(us, math.MaxInt64/int64(time.Microsecond))) * time.Microsecond
	case "triton_enable_empty_final_response":
		r.emptyFinal, _ = p.Value.(bool)
		return nil
	}
	for i := range r.parameters {
		if r.parameters[i].Name == p.Name {
			r.parameters[i] = p
			return nil
		}
	}
	r.parameters = append(r.parameters, p)
	return nil
}

// finish gives each input its data, of at most limit bytes where it has to be made, and checks it
// against datatype and shape.
func (r *request) finish(limit int64) error {
	switch {
	case len(r.raw) > 0 && len(r.contents) > 0:
		return badRequest("the request has both raw_input_contents and contents in its inputs: give one of them")
	case len(r.raw) > 0 && len(r.raw) != len(r.Inputs):
		return badRequest("the request has %d raw_input_contents for %d inputs", len(r.raw), len(r.Inputs))
	}
	if err := r.CheckNames(); err != nil {
		return err
	}
	if r.Inputs == nil {
		r.Inputs = []engine.Tensor{} // not nil without any
	}
	left := limit
	for i := range r.Inputs {
		t := &r.Inputs[i]
		if t.Datatype.Size() == 0 && t.Datatype != engine.Bytes {
			return badRequest("input '%s': its datatype %q is not known", t.Name, t.Datatype)
		}
		var err error
		switch {
		case len(r.raw) > 0:
			t.Data = r.raw[i]
		case i < len(r.contents):
			if t.Data, err = wire.TypedData(t, r.contents[i], left); err == nil {
				left -= int64(len(t.Data))
			}
		}
		if err == nil {
			err = v2.CheckData(t)
		}
		switch {
		case errors.Is(err, wire.ErrLimit):
			return &engine.Error{Kind: engine.KindTooLarge, Text: fmt.Sprintf("input '%s' of shape %s: the tensors are larger than the limit of %d bytes", t.Name, engine.Shape(t.Shape), limit)}
		case errors.Is(err, wire.ErrUntyped):
			return badRequest("input '%s': %s has no typed contents: send it in raw_input_contents", t.Name, t.Datatype)
		case err != nil:
			return badRequest("input '%s': %v", t.Name, err)
		}
	}
	return r.describe()
}

// describe puts the request's parameters into the form that models get.
func (r *request) describe() error {
	if len(r.parameters) == 0 {
		return nil
	}
	object := make(map[string]any, len(r.parameters))
	for _, p := range r.parameters {
		if f, ok := p.Value.(float64); ok && (math.IsNaN(f) || math.IsInf(f, 0)) {
			p.Value = nil // JSON has no such number
		}
		object[p.Name] = p.Value
	}
	var err error
	r.Parameters, err = json.Marshal(object)
	return err
}

func badRequest(format string, args ...any) error {
	return &engine.Error{Kind: engine.KindBadRequest, Text: fmt.Sprintf(format, args...)}
}
