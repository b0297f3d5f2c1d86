package main

import (
	"encoding/json"
	"fmt"
	"strings"

	"github.com/spf13/cobra"

	"clearmlserving/operations"
	"clearmlserving/serving"
)

// endpointFlags are the flags that model add and model auto-update share: what
// makes an endpoint's record, and how its model is found.
type endpointFlags struct {
	engine, endpoint                   string
	name, project                      string
	tags                               []string
	published                          bool
	preprocess                         string
	inputSize, inputType, inputName    []string
	outputSize, outputType, outputName []string
	aux                                []string
}

func (f *endpointFlags) declare(cmd *cobra.Command) {
	flags := cmd.Flags()
	flags.StringVar(&f.engine, "engine", "", "engine that runs the model: "+strings.Join(availableEngines(), ", "))
	required(cmd, "engine")
	offer(cmd, "engine", availableEngines()...)
	flags.StringVar(&f.endpoint, "endpoint", "", "name under /serve/, slashes allowed")
	flags.StringVar(&f.name, "name", "", "model by name: exact, else the newest of \"<name> - …\", else a regular expression")
	flags.StringVar(&f.project, "project", "", "model by project (exact name)")
	flags.Var(wordList(&f.tags), "tags", "model by tags: any of these")
	flags.BoolVar(&f.published, "published", false, "only published models")
	flags.StringVar(&f.preprocess, "preprocess", "", "file or folder with the class Preprocess")
	flags.Var(wordList(&f.inputSize), "input-size", "sizes of the inputs: 1 28 28, or \"[1, 784]\" \"[1, 10]\" for several")
	flags.Var(wordList(&f.inputType), "input-type", "types of the inputs, as NumPy names them: float32")
	flags.Var(wordList(&f.inputName), "input-name", "names of the inputs")
	flags.Var(wordList(&f.outputSize), "output-size", "sizes of the outputs")
	flags.Var(wordList(&f.outputType), "output-type", "types of the outputs")
	flags.Var(wordList(&f.outputName), "output-name", "names of the outputs")
	flags.Var(wordList(&f.aux), "aux-config", "engine settings: a file (config.pbtxt), or words such as max_batch_size=32 nan_as_null=true method=predict_proba accelerate=true")
}

// noticeEngine tells of settings that the engine does not have.
func (a *app) noticeEngine(engine string, aux any) {
	if foreign := serving.ForeignSettings(engine, aux); len(foreign) > 0 {
		put(a.sys.stderr, "Notice: engine %s has no setting '%s' (it has %s): --aux-config stores it for your code", engine,
			strings.Join(foreign, "', '"), strings.Join(serving.EngineSettings(engine), ", "))
	}
}

// settings reads the description of inputs and outputs, and the engine's settings.
func (f *endpointFlags) settings() (serving.Tensors, any, error) {
	t := serving.Tensors{InputType: f.inputType, InputName: f.inputName, OutputType: f.outputType, OutputName: f.outputName}
	var err error
	if t.InputSize, err = readSizes("input-size", f.inputSize); err != nil {
		return t, nil, err
	}
	if t.OutputSize, err = readSizes("output-size", f.outputSize); err != nil {
		return t, nil, err
	}
	aux, err := readAuxConfig(f.aux)
	return t, aux, err
}

// query is the search for a model that the flags describe.
func (f *endpointFlags) query() operations.ModelQuery {
	return operations.ModelQuery{Project: f.project, Name: f.name, Tags: f.tags, Published: f.published}
}

// readSizes reads words that are JSON each: a number, or a list of numbers.
func readSizes(flag string, words []string) ([]any, error) {
	if words == nil {
		return nil, nil
	}
	sizes := make([]any, 0, len(words))
	for _, word := range words {
		dec := json.NewDecoder(strings.NewReader(word))
		dec.UseNumber()
		var size any
		if err := dec.Decode(&size); err != nil || dec.More() || !isSize(size, 0) {
			return nil, hint(fmt.Errorf("argument --%s: %s is neither a whole number nor a list of them", flag, pyText(word)),
				`Try: --%s 1 28 28   or, for several:  --%s "[1, 784]" "[1, 10]"`, flag, flag)
		}
		sizes = append(sizes, size)
	}
	return serving.WrapSizes(sizes), nil
}

func isSize(v any, depth int) bool {
	switch v := v.(type) {
	case json.Number:
		_, err := v.Int64()
		return err == nil
	case []any:
		if depth > 0 {
			return false
		}
		for _, item := range v {
			if !isSize(item, depth+1) {
				return false
			}
		}
		return true
	}
	return false
}
