package graph

import (
	"encoding/json"
	"reflect"
	"slices"

	"clearmlserving/inference/engine"
	"clearmlserving/serving"
)

// Signature implements engine.Signed: what the first step takes and the last one answers, as far as they tell it now.
func (m *Model) Signature() engine.Signature { return m.SignatureAt(0) }

// SignatureAt implements engine.Composed.
func (m *Model) SignatureAt(depth int) engine.Signature {
	if depth > serving.MaxCallDepth {
		return engine.Signature{Source: engine.SourceNone}
	}
	s := m.nodeSignature(m.root, depth)
	s.ModelInputs, s.ModelOutputs = nil, nil
	if s.Source == "" {
		s.Source = engine.SourceNone
	}
	return s.With(m.settings)
}

func (m *Model) stepSignature(s *serving.GraphStep, depth int) engine.Signature {
	if s.Node != "" {
		return m.nodeSignature(m.g.Nodes[s.Node], depth)
	}
	return m.asker.Signature(s.Endpoint, depth+1)
}

func (m *Model) nodeSignature(n *serving.GraphNode, depth int) engine.Signature {
	if n.Type == serving.GraphSequence {
		return m.sequenceSignature(n, depth)
	}
	all := make([]engine.Signature, len(n.Steps))
	for i := range n.Steps {
		all[i] = m.stepSignature(&n.Steps[i], depth)
		if s := &n.Steps[i]; s.Data != nil && !s.Data.IsRequest() {
			all[i] = answersOf(engine.Signature{}, all[i])
		}
	}
	s := engine.Common(all)
	if n.Type != serving.GraphEnsemble {
		return s
	}
	switch n.Combiner {
	case serving.CombineMean:
		s.Outputs = slices.Clone(s.Outputs)
		for i := range s.Outputs {
			if s.Outputs[i].Datatype != engine.FP32 && s.Outputs[i].Datatype != "" {
				s.Outputs[i].Datatype = engine.FP64
			}
			s.Outputs[i].Categories = nil
		}
		if len(s.Outputs) == 0 {
			s.AnswerSchema = nil // whole numbers have a mean that is none
		}
	case serving.CombineObject:
		s.Postprocessed, s.Outputs, s.AnswerSchema = false, nil, objectSchema(n, all)
		for i := range all {
			if len(all[i].Outputs) == 0 {
				s.Outputs = nil
				break
			}
			for _, t := range all[i].Outputs {
				t.Name = n.Steps[i].Name + "." + t.Name
				s.Outputs = append(s.Outputs, t)
			}
		}
	}
	return s
}

// objectSchema is the schema of an object of the answers of all steps.
func objectSchema(n *serving.GraphNode, all []engine.Signature) json.RawMessage {
	properties, required := map[string]json.RawMessage{}, []string{}
	for i := range n.Steps {
		properties[n.Steps[i].Name] = json.RawMessage("{}")
		if all[i].AnswerSchema != nil {
			properties[n.Steps[i].Name] = all[i].AnswerSchema
		}
		if !n.Steps[i].Soft {
			required = append(required, n.Steps[i].Name)
		}
	}
	text, err := json.Marshal(map[string]any{"type": "object", "properties": properties, "required": required})
	if err != nil || len(text) > engine.MaxExample {
		return nil
	}
	return text
}

// sequenceSignature is what the first step takes, unless later ones need more of the request, and what the last step
// answers, unless the answer may be another.
func (m *Model) sequenceSignature(n *serving.GraphNode, depth int) engine.Signature {
	first := m.stepSignature(&n.Steps[0], depth)
	all := first
	if d := n.Steps[0].Data; d != nil && !d.IsRequest() {
		all = engine.Signature{}
	}
	conditions := false
	for i := 1; i < len(n.Steps); i++ {
		s := &n.Steps[i]
		conditions = conditions || s.Condition != "" || s.Soft
		if s.Data != nil && !s.Data.IsRequest() {
			for _, name := range s.Data.RequestNames() {
				if !has(&all, name) {
					all = engine.Signature{}
				}
			}
			continue
		}
		if other := m.stepSignature(s, depth); other.Table != all.Table || !reflect.DeepEqual(other.Inputs, all.Inputs) || !reflect.DeepEqual(other.BodySchema, all.BodySchema) {
			all = engine.Signature{}
		}
	}
	if n.Response != nil {
		for _, name := range n.Response.RequestNames() {
			if !has(&all, name) {
				all = engine.Signature{}
			}
		}
		return answersOf(all, engine.Signature{})
	}
	if conditions {
		return answersOf(all, engine.Signature{})
	}
	return answersOf(all, m.stepSignature(&n.Steps[len(n.Steps)-1], depth))
}

// has reports whether a request has a part, as far as that is known.
func has(s *engine.Signature, name string) bool {
	return len(s.Inputs) == 0 && s.BodySchema == nil || slices.ContainsFunc(s.Inputs, func(t engine.TensorSpec) bool { return t.Name == name })
}

// answersOf is what one signature takes and another one answers.
func answersOf(takes, answers engine.Signature) engine.Signature {
	takes.Outputs, takes.Postprocessed, takes.AnswerSchema = answers.Outputs, answers.Postprocessed, answers.AnswerSchema
	takes.Source = takes.Also(answers.Source)
	return takes
}
