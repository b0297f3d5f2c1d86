package reconcile

import (
	"encoding/json"
	"math"
	"strconv"

	"clearmlserving/drift"
	"clearmlserving/inference/engine"
	"clearmlserving/serving"
)

// lessons are what golden samples and recorded requests tell of a new model. The requests are those that this
// revision may have answered.
func (r *Reconciler) lessons(url serving.EndpointURL, w want, samples []serving.Exchange) *engine.Lessons {
	var l engine.Lessons
	for _, e := range samples {
		l.Add(e, engine.ExampleGolden)
	}
	if r.o.Recorded == nil {
		return &l
	}
	for _, e := range r.o.Recorded(url) {
		if e.AnsweredBy == "" && e.ModelID == w.planned.ModelID && !e.Time.Before(w.revision.Time) {
			l.Add(e, engine.ExampleRecorded)
		}
	}
	return &l
}

// described is the signature of a model, completed by the reference of its variables.
func described(model engine.Model, reference []byte) engine.Signature {
	signed, ok := model.(engine.Signed)
	if !ok {
		return engine.Signature{Source: engine.SourceNone}
	}
	s := signed.Signature()
	if reference == nil || !s.Table {
		return s // of other bodies it is not known which variables are parts of them
	}
	read, err := drift.Decode(reference)
	if err != nil {
		return s // references has said why
	}
	inputs := make([]engine.TensorSpec, len(s.Inputs))
	known := false
	for i, t := range s.Inputs {
		if v := read.Variables[t.Name]; v != nil {
			t, known = completed(t, v), true
		}
		inputs[i] = t
	}
	if !known {
		return s
	}
	s.Inputs, s.Source = inputs, s.Also(engine.SourceData)
	return s.WithExample()
}

// completed is a column with what a reference tells of it, where the model tells less.
func completed(t engine.TensorSpec, v *drift.Variable) engine.TensorSpec {
	common := 0 // the bin with most values, without those of other and of missing values
	for i, n := range v.Counts[:max(len(v.Counts)-1, 0)] {
		if n > v.Counts[common] {
			common = i
		}
	}
	unknown := t.Datatype == ""
	switch {
	case v.Kind == drift.Number && (unknown || t.Datatype.Size() > 0):
		if unknown {
			t.Datatype = engine.FP64
		}
		if value := center(v, common); t.Example == nil && t.Categories == nil && t.Datatype != engine.Bool && !math.IsNaN(value) {
			if t.Datatype != engine.FP64 && t.Datatype != engine.FP32 {
				value = math.Round(value)
			}
			t.Example = []byte(strconv.FormatFloat(value, 'g', 4, 64))
		}
	case v.Kind == drift.Category && (unknown || t.Datatype == engine.Bytes):
		t.Datatype = engine.Bytes
		if t.Categories == nil && !v.Open {
			t.Categories, t.Open = append(append([]string{}, v.Words...), v.Known...), true
		}
		if t.Example == nil && common < len(v.Words) {
			t.Example, _ = json.Marshal(v.Words[common]) // a text
		}
	}
	if unknown && len(v.Counts) > 0 && v.Counts[len(v.Counts)-1] > 0 {
		t.Optional = true
	}
	return t
}

// center is a value of a bin of numbers, NaN if none is known.
func center(v *drift.Variable, bin int) float64 {
	if bin >= len(v.Centers) || math.IsInf(v.Centers[bin], 0) {
		return math.NaN()
	}
	return v.Centers[bin]
}

// signatureReport is a signature for the status, nil if nothing is known.
func signatureReport(s engine.Signature) *serving.SignatureReport {
	if s.Source == engine.SourceNone {
		return nil
	}
	whole := serving.SignatureReport{
		Source: s.Source, Table: s.Table && !s.Preprocessed,
		BodySchema: s.BodySchema, AnswerSchema: s.AnswerSchema, Example: s.Example, ExampleOf: s.ExampleOf,
	}
	inputs, outputs := s.Inputs, s.Outputs
	if len(inputs) == 0 && len(s.ModelInputs) > 0 {
		inputs, whole.Preprocessed = s.ModelInputs, true
	}
	if len(outputs) == 0 && len(s.ModelOutputs) > 0 {
		outputs, whole.Postprocessed = s.ModelOutputs, true
	}
	whole.Inputs, whole.MoreInputs = tensorReports(inputs)
	whole.Outputs, whole.MoreOutputs = tensorReports(outputs)
	cut := whole.Cut(serving.ToldSignature)
	for _, part := range []*json.RawMessage{&cut.BodySchema, &cut.AnswerSchema, &cut.Example} {
		if !json.Valid(*part) { // of an engine with a fault: the rest of the status is more important
			*part = nil
		}
	}
	return cut
}

func tensorReports(all []engine.TensorSpec) (list []serving.TensorReport, more int) {
	most := min(len(all), serving.ToldSignature.Tensors)
	for _, t := range all[:most] {
		list = append(list, serving.TensorReport{
			Name: t.Name, Datatype: string(t.Datatype), Shape: t.Shape, Categories: t.Categories, Open: t.Open, Optional: t.Optional,
		})
	}
	return list, len(all) - most
}
