package grpcfront

import (
	"encoding/binary"
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
)

// The messages of inference are read and written by hand: the data of tensors is neither
// copied nor converted, where the wire already has the form of engine.Tensor.

// Limits before allocation: a part of a message takes as little as two bytes on the wire.
const (
	maxTensors    = 16384 // inputs of a request: a table may have many columns
	maxRank       = 64    // dimensions of a tensor
	maxParameters = 1024  // of a request
)

// parameter is one entry of a map of parameters.
type parameter struct {
	name  string
	value any // bool, int64, string, float64 or uint64; nil without one
}

// request is a ModelInferRequest. Its tensors lie in the message.
type request struct {
	v2.Request

	model, version string
	// emptyFinal: a streamed answer ends with a message without outputs.
	emptyFinal bool

	parameters []parameter // those of the model
	entries    int         // of the map of parameters on the wire
	dimensions []int64     // of all inputs
	raw        [][]byte    // data of the inputs, or none
	contents   [][]byte    // typed data of the inputs as on the wire, nil if no input has any

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
	if r.broken = r.parse(message); r.broken == nil {
		r.broken = r.finish(r.limit)
	}
	r.took = time.Since(begun)
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
		number, kind, value, _, rest, err := field(piece)
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

// errWire is a message that is not what protobuf writes.
var errWire = badRequest("the message is no ModelInferRequest: its protobuf is broken")

// field reads the next field of b: its value in bytes or, of a scalar, as number.
func field(b []byte) (number protowire.Number, kind protowire.Type, value []byte, scalar uint64, rest []byte, err error) {
	number, kind, n := protowire.ConsumeTag(b)
	if n < 0 || number > protowire.MaxValidNumber {
		return 0, 0, nil, 0, nil, errWire
	}
	b = b[n:]
	switch kind {
	case protowire.BytesType:
		value, n = protowire.ConsumeBytes(b)
	case protowire.VarintType:
		scalar, n = protowire.ConsumeVarint(b)
	case protowire.Fixed32Type:
		var v uint32
		v, n = protowire.ConsumeFixed32(b)
		scalar = uint64(v)
	case protowire.Fixed64Type:
		scalar, n = protowire.ConsumeFixed64(b)
	default: // groups are of proto2
		return 0, 0, nil, 0, nil, errWire
	}
	if n < 0 {
		return 0, 0, nil, 0, nil, errWire
	}
	return number, kind, value, scalar, b[n:], nil
}

func text(value []byte) (string, error) {
	if !utf8.Valid(value) {
		return "", badRequest("a text in the message is not valid UTF-8")
	}
	return string(value), nil
}

// parse reads a message. The tensors refer to b.
func (r *request) parse(b []byte) error {
	for len(b) > 0 {
		number, kind, value, _, rest, err := field(b)
		if err != nil {
			return err
		}
		b = rest
		if number > 7 {
			continue // of a newer protocol
		}
		if kind != protowire.BytesType {
			return errWire
		}
		switch number {
		case 1:
			r.model, err = text(value)
		case 2:
			r.version, err = text(value)
		case 3:
			r.ID, err = text(value)
		case 4:
			err = r.addParameter(value)
		case 5:
			err = r.addInput(value)
		case 6:
			err = r.addOutput(value)
		case 7:
			if len(r.raw) == maxTensors {
				return badRequest("the request has more than %d raw_input_contents", maxTensors)
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
	if len(r.Inputs) == maxTensors {
		return badRequest("the request has more than %d inputs", maxTensors)
	}
	var t engine.Tensor
	var data []byte
	first := len(r.dimensions)
	for len(b) > 0 {
		number, kind, value, scalar, rest, err := field(b)
		if err != nil {
			return err
		}
		b = rest
		if number != 3 && number <= 5 && kind != protowire.BytesType {
			return errWire
		}
		switch number {
		case 1:
			t.Name, err = text(value)
		case 2:
			t.Datatype, err = datatype(value)
		case 3:
			err = r.addDimensions(first, kind, value, scalar)
		case 4:
			err = inputParameter(&t, value)
		case 5:
			if data != nil {
				return badRequest("the input %d has two contents", len(r.Inputs))
			}
			if len(value) > 0 { // MLServer's clients send empty ones beside raw data
				data = slices.Clip(value)
			}
		}
		if err != nil {
			return err
		}
	}
	if data != nil && len(r.contents) == 0 {
		r.contents = slices.Grow(r.contents[:0], len(r.Inputs)+1)[:len(r.Inputs)]
		clear(r.contents)
	}
	if data != nil || len(r.contents) > 0 {
		r.contents = append(r.contents, data)
	}
	t.Shape = r.dimensions[first:len(r.dimensions):len(r.dimensions)]
	r.Inputs = append(r.Inputs, t)
	return nil
}

// inputParameter reads a parameter of an input.
func inputParameter(t *engine.Tensor, b []byte) error {
	p, err := parameterOf(b)
	if err != nil {
		return err
	}
	switch p.name {
	case "content_type":
		t.ContentType, _ = p.value.(string)
	case "shared_memory_region", "shared_memory_byte_size", "shared_memory_offset":
		return sharedMemory(p.name)
	}
	return nil
}

func sharedMemory(name string) error {
	return badRequest("a tensor has the parameter %s: this server does not read or write clients' shared memory, send the tensor", name)
}

// datatypes are the names on the wire, so that they need not be allocated.
var datatypes = map[string]engine.Datatype{ //nolint:gochecknoglobals // a constant table
	"BOOL": engine.Bool, "UINT8": engine.Uint8, "UINT16": engine.Uint16, "UINT32": engine.Uint32, "UINT64": engine.Uint64,
	"INT8": engine.Int8, "INT16": engine.Int16, "INT32": engine.Int32, "INT64": engine.Int64,
	"FP16": engine.FP16, "BF16": engine.BF16, "FP32": engine.FP32, "FP64": engine.FP64, "BYTES": engine.Bytes,
}

func datatype(name []byte) (engine.Datatype, error) {
	if d, ok := datatypes[string(name)]; ok {
		return d, nil
	}
	unknown, err := text(name)
	return engine.Datatype(unknown[:min(len(unknown), 32)]), err // finish refuses it
}

// addDimensions adds to the dimensions of the input whose own begin at first.
func (r *request) addDimensions(first int, kind protowire.Type, packed []byte, scalar uint64) error {
	if kind == protowire.VarintType {
		return r.addDimension(first, scalar)
	}
	if kind != protowire.BytesType {
		return errWire
	}
	for len(packed) > 0 {
		v, n := protowire.ConsumeVarint(packed)
		if n < 0 {
			return errWire
		}
		if err := r.addDimension(first, v); err != nil {
			return err
		}
		packed = packed[n:]
	}
	return nil
}

func (r *request) addDimension(first int, d uint64) error {
	if len(r.dimensions)-first == maxRank {
		return errRank
	}
	r.dimensions = append(r.dimensions, int64(d)) //nolint:gosec // negative numbers are refused with the shape
	return nil
}

var errRank = badRequest("a shape has more than %d dimensions", maxRank)

func (r *request) addOutput(b []byte) error {
	if len(r.Outputs) == maxTensors {
		return badRequest("the request asks for more than %d outputs", maxTensors)
	}
	var o v2.Output
	for len(b) > 0 {
		number, kind, value, _, rest, err := field(b)
		if err != nil {
			return err
		}
		b = rest
		if number > 2 {
			continue
		}
		if kind != protowire.BytesType {
			return errWire
		}
		if number == 1 {
			o.Name, err = text(value)
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
	p, err := parameterOf(b)
	if err != nil {
		return err
	}
	switch p.name {
	case "classification":
		var ok bool
		if o.Classes, ok = p.value.(int64); !ok || o.Classes < 0 {
			return badRequest("the parameter classification of an output is %v, not a number of classes", p.value)
		}
	case "shared_memory_region", "shared_memory_byte_size", "shared_memory_offset":
		return sharedMemory(p.name)
	}
	return nil
}

// addParameter reads a parameter of the request. The last one of a name counts.
func (r *request) addParameter(b []byte) error {
	if r.entries++; r.entries > maxParameters { // also those that replace another: each is compared with all
		return badRequest("the request has more than %d parameters", maxParameters)
	}
	p, err := parameterOf(b)
	if err != nil {
		return err
	}
	switch p.name {
	case "content_type":
		r.ContentType, _ = p.value.(string)
	case "timeout": // in microseconds
		us, ok := p.value.(int64)
		if unsigned, is := p.value.(uint64); is {
			us, ok = int64(min(unsigned, math.MaxInt64)), true
		}
		if !ok || us < 0 {
			return badRequest("the parameter timeout of the request is %v, not a number of microseconds", p.value)
		}
		r.Timeout = time.Duration(min(us, math.MaxInt64/int64(time.Microsecond))) * time.Microsecond
	case "triton_enable_empty_final_response":
		r.emptyFinal, _ = p.value.(bool)
		return nil
	}
	for i := range r.parameters {
		if r.parameters[i].name == p.name {
			r.parameters[i] = p
			return nil
		}
	}
	r.parameters = append(r.parameters, p)
	return nil
}

// parameterOf reads one entry of a map.
func parameterOf(b []byte) (p parameter, err error) {
	for len(b) > 0 {
		number, kind, value, _, rest, err := field(b)
		if err != nil {
			return p, err
		}
		b = rest
		if number > 2 {
			continue
		}
		if kind != protowire.BytesType {
			return p, errWire
		}
		if number == 1 {
			p.name, err = text(value)
		} else {
			p.value, err = choice(value)
		}
		if err != nil {
			return p, err
		}
	}
	return p, nil
}

// choice reads an InferParameter, nil without a value.
func choice(b []byte) (any, error) {
	var v any
	for len(b) > 0 {
		number, kind, value, scalar, rest, err := field(b)
		if err != nil {
			return nil, err
		}
		b = rest
		want := protowire.VarintType
		switch number {
		case 1, 2, 5:
		case 3:
			want = protowire.BytesType
		case 4:
			want = protowire.Fixed64Type
		default:
			continue
		}
		if kind != want {
			return nil, errWire
		}
		switch number {
		case 1:
			v = scalar != 0
		case 2:
			v = int64(scalar)
		case 3:
			if v, err = text(value); err != nil {
				return nil, err
			}
		case 4:
			v = math.Float64frombits(scalar)
		case 5:
			v = scalar
		}
	}
	return v, nil
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
			if t.Data, err = typedData(t, r.contents[i], left); err == nil {
				left -= int64(len(t.Data))
			}
		}
		if err == nil {
			err = v2.CheckData(t)
		}
		if errors.Is(err, errLimit) {
			return &engine.Error{Kind: engine.KindTooLarge, Text: fmt.Sprintf("input '%s' of shape %s: the tensors are larger than the limit of %d bytes", t.Name, engine.Shape(t.Shape), limit)}
		}
		if err != nil {
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
		if f, ok := p.value.(float64); ok && (math.IsNaN(f) || math.IsInf(f, 0)) {
			p.value = nil // JSON has no such number
		}
		object[p.name] = p.value
	}
	var err error
	r.Parameters, err = json.Marshal(object)
	return err
}

func badRequest(format string, args ...any) error {
	return &engine.Error{Kind: engine.KindBadRequest, Text: fmt.Sprintf(format, args...)}
}

// contentFields are the fields of InferTensorContents.
var contentFields = map[engine.Datatype]protowire.Number{ //nolint:gochecknoglobals // a constant table
	engine.Bool: 1, engine.Int8: 2, engine.Int16: 2, engine.Int32: 2, engine.Int64: 3, engine.Uint8: 4, engine.Uint16: 4, engine.Uint32: 4,
	engine.Uint64: 5, engine.FP32: 6, engine.FP64: 7, engine.Bytes: 8,
}

var contentNames = [...]string{1: "bool_contents", 2: "int_contents", 3: "int64_contents", 4: "uint_contents", 5: "uint64_contents", 6: "fp32_contents", 7: "fp64_contents", 8: "bytes_contents"} //nolint:gochecknoglobals // a constant table

// typedData is the data of a tensor from its contents b.
func typedData(t *engine.Tensor, b []byte, limit int64) ([]byte, error) {
	want, ok := contentFields[t.Datatype]
	if !ok {
		return nil, fmt.Errorf("%s has no typed contents: send it in raw_input_contents", t.Datatype)
	}
	count, err := engine.Elements(t.Shape)
	if err != nil {
		return nil, err
	}
	size := t.Datatype.Size()
	if size == 0 {
		size = 4
	}
	if count > int64(len(b)) { // an element has a byte at least
		return nil, fmt.Errorf("its contents have fewer elements than its shape %s", engine.Shape(t.Shape))
	}
	if count > limit/size {
		return nil, errLimit
	}
	var data []byte
	seen := int64(0)
	for len(b) > 0 {
		number, kind, value, scalar, rest, err := field(b)
		if err != nil {
			return nil, err
		}
		if number > 8 {
			b = rest
			continue
		}
		if number != want {
			return nil, fmt.Errorf("its datatype %s needs %s, not %s", t.Datatype, contentNames[want], contentNames[number])
		}
		if kind == protowire.BytesType && len(rest) == 0 && seen == 0 && inPlace(t.Datatype, value, count) {
			return value, nil
		}
		b = rest
		if data == nil {
			data = make([]byte, 0, count*size)
		}
		a := appender{datatype: t.Datatype, data: data, left: count - seen, limit: limit}
		if err := a.add(kind, value, scalar); err != nil {
			return nil, err
		}
		data, seen = a.data, count-a.left
	}
	if seen < count {
		return nil, fmt.Errorf("its contents have %d elements, but its shape %s has %d", seen, engine.Shape(t.Shape), count)
	}
	return data, nil
}

// inPlace reports whether the packed value is already the data of a tensor.
func inPlace(d engine.Datatype, packed []byte, count int64) bool {
	switch d {
	case engine.FP32, engine.FP64:
		return int64(len(packed)) == count*d.Size()
	case engine.Bool, engine.Uint8:
		if int64(len(packed)) != count {
			return false
		}
		for _, v := range packed {
			if v >= 0x80 || d == engine.Bool && v > 1 {
				return false
			}
		}
		return true
	}
	return false
}

// appender makes the data of a tensor of the fields of its contents.
type appender struct {
	datatype engine.Datatype
	data     []byte
	left     int64 // elements that the shape still has
	limit    int64
}

func (a *appender) add(kind protowire.Type, value []byte, scalar uint64) error {
	if a.datatype == engine.Bytes {
		if kind != protowire.BytesType {
			return errWire
		}
		if int64(len(a.data)+4+len(value)) > a.limit {
			return errLimit
		}
		if a.left--; a.left < 0 {
			return errManyElements
		}
		a.data = binary.LittleEndian.AppendUint32(a.data, uint32(len(value))) //nolint:gosec // a message has less than 4 GiB
		a.data = append(a.data, value...)
		return nil
	}
	want, width := protowire.VarintType, 0
	switch a.datatype {
	case engine.FP32:
		want, width = protowire.Fixed32Type, 4
	case engine.FP64:
		want, width = protowire.Fixed64Type, 8
	}
	switch kind {
	case want:
		return a.scalar(scalar)
	case protowire.BytesType:
	default:
		return errWire
	}
	if width > 0 {
		if len(value)%width != 0 {
			return errWire
		}
		if a.left -= int64(len(value) / width); a.left < 0 {
			return errManyElements
		}
		a.data = append(a.data, value...)
		return nil
	}
	for len(value) > 0 {
		v, n := protowire.ConsumeVarint(value)
		if n < 0 {
			return errWire
		}
		if err := a.scalar(v); err != nil {
			return err
		}
		value = value[n:]
	}
	return nil
}

func (a *appender) scalar(v uint64) error {
	if a.left--; a.left < 0 {
		return errManyElements
	}
	switch a.datatype {
	case engine.Bool:
		bit := byte(0)
		if v != 0 {
			bit = 1
		}
		a.data = append(a.data, bit)
	case engine.Int8, engine.Int16, engine.Int32: // sent as int32
		return a.integer(int64(int32(v)), v) //nolint:gosec // as protobuf reads an int32
	case engine.Uint8, engine.Uint16, engine.Uint32:
		v = uint64(uint32(v)) //nolint:gosec // as protobuf reads a uint32
		if size := a.datatype.Size(); size < 4 && v>>(8*size) != 0 {
			return fmt.Errorf("its element %d is out of the range of %s", v, a.datatype)
		}
		a.put(v)
	case engine.FP32:
		a.data = binary.LittleEndian.AppendUint32(a.data, uint32(v)) //nolint:gosec // fixed32
	default: // INT64, UINT64, FP64
		a.data = binary.LittleEndian.AppendUint64(a.data, v)
	}
	return nil
}

func (a *appender) integer(i int64, v uint64) error {
	if size := a.datatype.Size(); size < 4 && (i < -1<<(8*size-1) || i >= 1<<(8*size-1)) {
		return fmt.Errorf("its element %d is out of the range of %s", i, a.datatype)
	}
	a.put(v)
	return nil
}

// put appends the lower bytes of v.
func (a *appender) put(v uint64) {
	switch a.datatype.Size() {
	case 1:
		a.data = append(a.data, byte(v)) //nolint:gosec // checked
	case 2:
		a.data = binary.LittleEndian.AppendUint16(a.data, uint16(v)) //nolint:gosec // checked
	default:
		a.data = binary.LittleEndian.AppendUint32(a.data, uint32(v)) //nolint:gosec // checked
	}
}

var (
	errManyElements = errors.New("its contents have more elements than its shape")
	errLimit        = errors.New("the limit is exceeded")
)
