package main

import (
	"bytes"
	"cmp"
	"encoding/json"
	"fmt"
	"strings"

	"clearmlserving/serving"
)

// Widths of the table of signatures.
const (
	shownInputs = 20 // of one endpoint
	shownValue  = 120
)

// printSignatures shows what each endpoint takes and answers. Instances tell the same as a rule: it is that
// of the first one that knows it.
func (a *app) printSignatures(f fleet) {
	var rows [][]string
	shown := map[serving.EndpointURL]bool{}
	for _, l := range f.instances {
		for _, e := range l.Endpoints {
			if e.Signature != nil && !shown[e.URL] {
				shown[e.URL] = true
				rows = append(rows, signatureRows(e.URL, e.Signature)...)
			}
		}
	}
	a.print.section([]string{"SIGNATURE OF", "PART", "NAME", "TYPE", "SHAPE", "VALUES"}, rows)
}

func signatureRows(url serving.EndpointURL, s *serving.SignatureReport) (rows [][]string) {
	row := func(part string, cells ...string) {
		name := ""
		if len(rows) == 0 {
			name = "/" + string(url)
		}
		rows = append(rows, append([]string{name, part}, cells...))
	}
	row("source", "", "", "", s.Source)
	input, output := "input", "output"
	if s.Table {
		input = "column"
	}
	if s.Preprocessed {
		input = "model's " + input
	}
	if s.Postprocessed {
		output = "model's " + output
	}
	tensors := func(part string, list []serving.TensorReport, more int) {
		for i, t := range list {
			if i == shownInputs {
				more += len(list) - i
				break
			}
			row(part, t.Name, cmp.Or(t.Datatype, "?"), shownShape(t.Shape), serving.Shorten(t.Values(), shownValue))
		}
		if more > 0 {
			row(part, fmt.Sprintf("... %d more", more), "", "", "")
		}
	}
	tensors(input, s.Inputs, s.MoreInputs)
	tensors(output, s.Outputs, s.MoreOutputs)
	body := compactJSON(s.BodySchema)
	switch {
	case body != "":
	case s.Table:
		body = "a record, a list of records, or rows"
	default:
		body = "any JSON"
	}
	row("body", "", "", "", serving.Shorten(body, shownValue))
	if s.AnswerSchema != nil {
		row("answer", "", "", "", serving.Shorten(compactJSON(s.AnswerSchema), shownValue))
	}
	if s.Example != nil {
		row("example", s.ExampleOf, "", "", serving.Shorten(compactJSON(s.Example), shownValue))
	}
	if len(s.Omitted) > 0 {
		row("omitted", "", "", "", "too large: "+strings.Join(s.Omitted, ", "))
	}
	return rows
}

// compactJSON is a JSON text on one line.
func compactJSON(text json.RawMessage) string {
	var b bytes.Buffer
	if json.Compact(&b, text) != nil {
		return string(text)
	}
	return b.String()
}

func shownShape(shape []int64) string {
	if shape == nil {
		return "?"
	}
	return strings.ReplaceAll(strings.Trim(fmt.Sprint(shape), "[]"), " ", " x ")
}
