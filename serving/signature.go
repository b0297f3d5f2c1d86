package serving

import (
	"encoding/json"
	"fmt"
	"slices"
	"strings"
)

// SignatureReport describes the inputs and outputs of an endpoint in brief: long parts are cut, and say so.
type SignatureReport struct {
	// Source is the origin of the description: "settings", "model", "type hints", "reference", "requests".
	Source string `json:"source"`
	// Table: each input is a column of a table, and a body is a record, a list of records, or rows.
	Table bool `json:"table,omitempty"`
	// Preprocessed: the inputs are those of the model behind user code, which makes them of the body;
	// Postprocessed: the same of the outputs and the answer.
	Preprocessed  bool           `json:"preprocessed,omitempty"`
	Postprocessed bool           `json:"postprocessed,omitempty"`
	Inputs        []TensorReport `json:"inputs,omitempty"`
	Outputs       []TensorReport `json:"outputs,omitempty"`
	// MoreInputs and MoreOutputs are how many were cut.
	MoreInputs  int `json:"more_inputs,omitempty"`
	MoreOutputs int `json:"more_outputs,omitempty"`
	// BodySchema and AnswerSchema are JSON Schemas, Example is a body that is answered; nil if unknown. Those
	// that were too large are in Omitted, by the names here.
	BodySchema   json.RawMessage `json:"body_schema,omitempty"`
	AnswerSchema json.RawMessage `json:"answer_schema,omitempty"`
	Example      json.RawMessage `json:"example,omitempty"`
	Omitted      []string        `json:"omitted,omitempty"`
	// ExampleOf is "made" of the signature, given by the "code", "golden" or "recorded".
	ExampleOf string `json:"example_of,omitempty"`
}

// TensorReport describes one input or output.
type TensorReport struct {
	Name           string   `json:"name"`
	Datatype       string   `json:"datatype,omitempty"`
	Shape          []int64  `json:"shape,omitzero"` // -1 for a dimension of any length; nil if unknown
	Categories     []string `json:"categories,omitempty"`
	MoreCategories int      `json:"more_categories,omitempty"`
	// Open: other values than the categories are answered too. Optional: it may be missing.
	Open     bool `json:"open,omitempty"`
	Optional bool `json:"optional,omitempty"`
}

// SignatureSize bounds a SignatureReport.
type SignatureSize struct {
	Tensors, Categories int // of each side, of each tensor
	Text                int // bytes of a name, a category
	JSON                int // bytes of a schema, an example
	// Recorded keeps an example that is a recorded request of a client.
	Recorded bool
}

// exampleRecorded is the origin of an example that is a recorded request.
const exampleRecorded = "recorded"

// The sizes of a report: as an instance tells it to its operators, and as it is stored, where everybody who
// may read the service reads it.
var (
	ToldSignature   = SignatureSize{Tensors: 200, Categories: 50, Text: 200, JSON: 8 << 10, Recorded: true} //nolint:gochecknoglobals // a constant
	storedSignature = SignatureSize{Tensors: 50, Categories: 10, Text: 100, JSON: 1500}                     //nolint:gochecknoglobals // a constant
)

// Cut is the report in at most that size. The report is not changed.
func (r *SignatureReport) Cut(to SignatureSize) *SignatureReport {
	if r == nil {
		return nil
	}
	c := *r
	c.Inputs, c.MoreInputs = cutTensors(r.Inputs, r.MoreInputs, to)
	c.Outputs, c.MoreOutputs = cutTensors(r.Outputs, r.MoreOutputs, to)
	c.Omitted = slices.Clone(r.Omitted)
	if c.ExampleOf == exampleRecorded && !to.Recorded {
		c.Example, c.ExampleOf = nil, ""
	}
	for _, part := range []struct {
		name string
		text *json.RawMessage
	}{{"body_schema", &c.BodySchema}, {"answer_schema", &c.AnswerSchema}, {"example", &c.Example}} {
		if len(*part.text) > to.JSON {
			*part.text, c.Omitted = nil, append(c.Omitted, part.name)
		}
	}
	return &c
}

func cutTensors(all []TensorReport, more int, to SignatureSize) ([]TensorReport, int) {
	if len(all) == 0 {
		return nil, more
	}
	list := slices.Clone(all[:min(len(all), to.Tensors)])
	for i, t := range list {
		list[i].Name = Shorten(t.Name, to.Text)
		kept := slices.Clone(t.Categories[:min(len(t.Categories), to.Categories)])
		for j, c := range kept {
			kept[j] = Shorten(c, to.Text)
		}
		list[i].Categories, list[i].MoreCategories = kept, t.MoreCategories+len(t.Categories)-len(kept)
	}
	return list, more + len(all) - len(list)
}

// Values says in words which values an element may have.
func (t TensorReport) Values() string {
	var said []string
	if len(t.Categories) > 0 {
		text := strings.Join(t.Categories, ", ")
		if t.MoreCategories > 0 {
			text += fmt.Sprintf(", ... (%d more)", t.MoreCategories)
		}
		if t.Open {
			text += ", or others"
		}
		said = append(said, text)
	}
	if t.Optional {
		said = append(said, "may be missing")
	}
	return strings.Join(said, "; ")
}
