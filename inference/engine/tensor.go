package engine

import (
	"encoding/json"
	"fmt"
	"math"
	"strconv"
	"strings"

	"clearmlserving/serving"
)

// Datatype is the type of a tensor's elements, by its name in the Open Inference
// Protocol (V2).
type Datatype string

// The datatypes of the Open Inference Protocol, and BF16, which servers add.
const (
	Bool   Datatype = "BOOL"
	Uint8  Datatype = "UINT8"
	Uint16 Datatype = "UINT16"
	Uint32 Datatype = "UINT32"
	Uint64 Datatype = "UINT64"
	Int8   Datatype = "INT8"
	Int16  Datatype = "INT16"
	Int32  Datatype = "INT32"
	Int64  Datatype = "INT64"
	FP16   Datatype = "FP16"
	BF16   Datatype = "BF16"
	FP32   Datatype = "FP32"
	FP64   Datatype = "FP64"
	Bytes  Datatype = "BYTES" // elements of any length
)

// Size is the number of bytes of one element, 0 if elements differ in length or the
// type is unknown.
func (d Datatype) Size() int64 { return sizes[d] }

var sizes = map[Datatype]int64{ //nolint:gochecknoglobals // a constant table
	Bool: 1, Uint8: 1, Int8: 1, Uint16: 2, Int16: 2, FP16: 2, BF16: 2, Uint32: 4, Int32: 4, FP32: 4, Uint64: 8, Int64: 8, FP64: 8,
}

// otherNames are the names of NumPy and Triton that differ.
var otherNames = map[string]Datatype{ //nolint:gochecknoglobals // a constant table
	"BOOL_": Bool, "BYTE": Uint8, "INT": Int64, "UINT": Uint64, "HALF": FP16, "SINGLE": FP32, "FLOAT": FP64, "DOUBLE": FP64,
	"STR": Bytes, "STRING": Bytes, "BYTES": Bytes, "OBJECT": Bytes, "BFLOAT16": BF16,
}

// DatatypeOf finds the type by its name in NumPy or Triton, "" if there is none.
func DatatypeOf(name string) Datatype {
	name = strings.TrimPrefix(strings.ToUpper(name), "TYPE_")
	if d, ok := otherNames[name]; ok {
		return d
	}
	if bits, ok := strings.CutPrefix(name, "FLOAT"); ok {
		name = "FP" + bits
	}
	if d := Datatype(name); d.Size() > 0 {
		return d
	}
	return ""
}

// Tensor is a named array.
type Tensor struct {
	Name     string
	Datatype Datatype
	Shape    []int64
	// Data holds the elements in row-major order, little-endian. An element of type
	// BYTES is its length as four bytes, then its bytes. It is valid as long as a body, and
	// may begin at any address.
	Data []byte
	// ContentType tells what the elements stand for: the parameter content_type of MLServer, such as
	// "str" or "base64". "": nothing is told.
	ContentType string
}

// TensorSpec describes an input or output tensor of a model.
type TensorSpec struct {
	Name     string   `json:"name"`
	Datatype Datatype `json:"datatype,omitempty"` // "" if unknown
	Shape    []int64  `json:"shape,omitzero"`     // -1 for a dimension of any length; nil if unknown
	// Categories are the values of an element that training had, nil if they are unknown or no
	// categories. Open: the model answers other values too.
	Categories []string `json:"categories,omitempty"`
	Open       bool     `json:"open,omitempty"`
	// Optional: an element may be missing, which is NaN or JSON's null.
	Optional bool `json:"optional,omitempty"`
	// Example is a plausible element as JSON, nil if none is known.
	Example json.RawMessage `json:"example,omitempty"`
}

// Unnamed is the name of the only input of a model that does not name it.
const Unnamed = "input-0"

// Signature describes the inputs and outputs of a model, and the bodies of its endpoint.
type Signature struct {
	Inputs  []TensorSpec `json:"inputs,omitempty"`
	Outputs []TensorSpec `json:"outputs,omitempty"`
	// Table: each input is a column of a table, by its name. A body is then a record, a list of
	// records, or rows in the order of Inputs.
	Table bool `json:"table,omitempty"`
	// Preprocessed: user code makes the model's inputs of the body or of the tensors of a request, Postprocessed:
	// user code makes the answer of the model's outputs. ModelInputs and ModelOutputs are then those in the
	// middle, which tell nothing about the client's.
	Preprocessed  bool         `json:"preprocessed,omitempty"`
	Postprocessed bool         `json:"postprocessed,omitempty"`
	ModelInputs   []TensorSpec `json:"-"`
	ModelOutputs  []TensorSpec `json:"-"`
	// BodySchema and AnswerSchema are JSON Schemas (draft 2020-12, without $ref) of the body of a request
	// and of its answer, nil if unknown. Body also describes the bodies of a Table.
	BodySchema   json.RawMessage `json:"body_schema,omitempty"`
	AnswerSchema json.RawMessage `json:"answer_schema,omitempty"`
	// Example is the JSON body of a request that the model answers, nil if none is known. ExampleOf is
	// its origin.
	Example   json.RawMessage `json:"example,omitempty"`
	ExampleOf string          `json:"example_of,omitempty"`
	// Source is the origin of this description: one or more of the sources, separated by ", ".
	Source string `json:"source,omitempty"`
}

// The sources of a signature.
const (
	SourceSettings = "settings"   // the endpoint's configuration
	SourceModel    = "model"      // the model's file
	SourceHints    = "type hints" // annotations of user code
	SourceData     = "reference"  // the summary of the training data that drift is measured against
	SourceRequests = "requests"   // golden samples or recorded requests
	SourceNone     = "none"       // nothing is known: any JSON
)

// The origins of an example.
const (
	ExampleMade     = "made"     // of the signature; no model has answered it yet
	ExampleCode     = "code"     // given by user code, as an example of its pydantic model
	ExampleGolden   = "golden"   // the first golden sample
	ExampleRecorded = "recorded" // a recorded request
)

// Signed is a Model with a known signature.
type Signed interface {
	// Signature may be called from many goroutines; the result is not changed.
	Signature() Signature
}

// SignatureOf reads a signature from an endpoint's settings, and fails if they are
// invalid. It is empty without settings.
func SignatureOf(t serving.Tensors) (Signature, error) {
	inputs, err := specs("input", t.InputName, t.InputType, t.InputSize)
	if err != nil {
		return Signature{}, err
	}
	outputs, err := specs("output", t.OutputName, t.OutputType, t.OutputSize)
	if err != nil {
		return Signature{}, err
	}
	return Signature{Inputs: inputs, Outputs: outputs, Source: SourceSettings}, nil
}

func specs(what string, names, types []string, sizes []any) ([]TensorSpec, error) {
	shapes := make([][]int64, 0, len(sizes))
	for _, size := range sizes {
		dimensions, ok := size.([]any)
		if !ok { // one tensor, whose shape is not in a nested list
			dimensions = sizes
		}
		shape := make([]int64, 0, len(dimensions))
		for _, d := range dimensions {
			n, err := strconv.ParseInt(fmt.Sprint(d), 10, 64)
			if err != nil || n < -1 {
				return nil, fmt.Errorf("%s_size: %v is not a dimension", what, d)
			}
			shape = append(shape, n)
		}
		if shapes = append(shapes, shape); !ok {
			break
		}
	}
	list := make([]TensorSpec, max(len(names), len(types), len(shapes)))
	for i := range list {
		list[i].Name = what + "-" + strconv.Itoa(i)
		if i < len(names) {
			list[i].Name = names[i]
		}
		if i < len(types) {
			list[i].Datatype = DatatypeOf(types[i])
		}
		if i < len(shapes) {
			list[i].Shape = shapes[i]
		}
	}
	return list, nil
}

// Bytes is the size of all elements of a tensor of this form, 0 if it is not fixed.
func (s TensorSpec) Bytes() int64 {
	size := s.Datatype.Size()
	if s.Shape == nil {
		return 0
	}
	for _, n := range s.Shape {
		if n <= 0 || size > math.MaxInt64/n {
			return 0
		}
		size *= n
	}
	return size
}
