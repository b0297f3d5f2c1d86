package main

import (
	"bytes"
	"context"
	_ "embed" // for exampleRow
	"encoding/json"
	"fmt"
	"net/http"
	"os/exec"
	"strings"

	"clearmlserving/clearml"
	"clearmlserving/modelfile"
	"clearmlserving/serving"
)

// example is a request to an endpoint that run has deployed.
type example struct {
	address string
	request []byte // nil if the model does not tell what it takes
	answer  []byte
	works   bool
	columns []string
	needs   string // what the request must be, if none is known to work
}

// maxShownAnswer bounds how much of an answer is shown.
const maxShownAnswer = 2000

// example makes a request of what the model says of its input, or for code and other models of the endpoint's
// signature, and asks it.
func (a *app) example(ctx context.Context, r *deployment) *example {
	x := &example{address: r.address, columns: r.file.Columns}
	var row object
	if r.file.Class != "" && x.columns != nil {
		row = a.rowOf(ctx, r.file)
	}
	switch {
	case r.table:
		x.needs = "The model takes a JSON object with its columns, or a list of such."
		x.request, _ = marshal(row) // texts and numbers
	case r.code != "":
		x.needs = "The request is what the method preprocess of the code takes."
		if keys := modelfile.BodyKeys(r.runPlan.code); len(keys) > 0 {
			x.request, _ = marshal(known(keys, row))
		}
	case r.file.Features > 0:
		x.needs = fmt.Sprintf("The model takes a JSON list of rows of %s each.", plural(r.file.Features, "value"))
		values := make([]any, r.file.Features)
		for i := range values {
			values[i] = 0
			if i < len(row) {
				values[i] = row[i].value
			}
		}
		x.request, _ = json.Marshal([][]any{values}) // texts and numbers
	default:
		x.needs = "The model takes a JSON list of rows, such as [[1.0, 2.0]]; its file does not say of how many values."
	}
	if r.code != "" || x.request == nil {
		if f, err := a.fleet(ctx, r.service); err == nil { // else what the code reads is known
			if told := f.example(serving.CleanURL(r.runPlan.endpoint)); told != "" {
				x.request = []byte(told)
			}
		}
	}
	if x.request == nil {
		return x
	}
	status, answer, err := a.post(ctx, r.address, "application/json", x.request)
	x.works = err == nil && status == http.StatusOK
	x.answer = bytes.TrimSpace(answer[:min(len(answer), maxShownAnswer)])
	if err != nil {
		x.answer = []byte(err.Error())
	}
	return x
}

// known is an object with the keys, with the values of row where it has them.
func known(keys []string, row object) object {
	filled := make(object, len(keys))
	for i, key := range keys {
		filled[i] = field{key, 0}
		for _, f := range row {
			if f.key == key {
				filled[i].value = f.value
			}
		}
	}
	return filled
}

//go:embed example_row.py
var exampleRow string

// rowOf is a row with values that a pickled model knows, such as its categories. Where the
// interpreter cannot load the model, as without its packages, the values are zeros.
func (a *app) rowOf(ctx context.Context, f modelfile.File) object {
	row := known(f.Columns, nil)
	env := a.workerEnv(clearml.Config{})
	found, err := a.findPython(ctx, env)
	if err != nil {
		return row
	}
	ctx, cancel := context.WithTimeout(ctx, askLimit)
	defer cancel()
	cmd := exec.CommandContext(ctx, found.Python, "-c", exampleRow, f.Path)
	cmd.Env = env
	text, err := cmd.Output()
	values := map[string]json.RawMessage{}
	if err != nil || json.Unmarshal(text, &values) != nil {
		return row
	}
	for i := range row {
		if value := values[row[i].key]; value != nil {
			row[i].value = value
		}
	}
	return row
}

// String is the example for people.
func (x *example) String() string {
	var b strings.Builder
	body := "…"
	if x.works {
		body = string(x.request)
	}
	fmt.Fprintf(&b, "Ask it:\n  %s", curl(x.address, body))
	switch {
	case x.works:
		fmt.Fprintf(&b, "\nIt answers:\n  %s", x.answer)
	case x.request != nil:
		fmt.Fprintf(&b, "\n%s To %s it answers:\n  %s", x.needs, x.request, x.answer)
	default:
		fmt.Fprintf(&b, "\n%s", x.needs)
	}
	if x.columns != nil {
		fmt.Fprintf(&b, "\nIts columns, in order: %s", strings.Join(x.columns, ", "))
	}
	return b.String()
}

// curl is the command that asks an endpoint.
func curl(address, body string) string {
	return fmt.Sprintf(`curl -X POST %s -H "Content-Type: application/json" -d %s`, shellWord(address), shellWord(body))
}
