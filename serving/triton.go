package serving

import (
	"fmt"
	"strings"
)

// validateTriton refuses settings that the Triton sidecar writes by itself. A text that
// cannot be read is left to Triton.
func validateTriton(engine string, aux any) error {
	if engine != EngineTriton {
		return nil
	}
	settings := TritonSettings(aux)
	_, input := settings["input"]
	_, output := settings["output"]
	_, filename := settings["default_model_filename"]
	switch {
	case input || output:
		//nolint:staticcheck // the original's words
		return fmt.Errorf("Triton engine requires *manual* input/output specification, "+
			"You input/output in your pbtxt, please remove them and specify manually.\nAdd to your command line: %s", suggestTensorFlags(settings))
	case filename:
		//nolint:staticcheck // the original's words
		return fmt.Errorf("ERROR: You have `default_model_filename` in your config pbtxt, please remove it. It will be added automatically by the system.")
	}
	return nil
}

// TritonSettings are the settings of an auxiliary configuration, be it a map or a config.pbtxt. There are none if
// it cannot be read.
func TritonSettings(aux any) map[string]any {
	settings, _ := aux.(map[string]any)
	if text, ok := aux.(string); ok {
		settings, _ = parsePbtxt(text)
	}
	return settings
}

// suggestTensorFlags returns the flags that replace the groups input and output; "?"
// stands for what they do not name.
func suggestTensorFlags(settings map[string]any) string {
	var flags []string
	for _, kind := range []string{"input", "output"} {
		var names, types, sizes []string
		for _, tensor := range groupsIn(settings[kind]) {
			if name, ok := tensor["name"].(string); ok {
				names = append(names, `"`+unquoted(name)+`"`)
			}
			if name, ok := tensor["data_type"].(string); ok {
				types = append(types, numpyName(unquoted(name)))
			}
			if dims, ok := tensor["dims"]; ok {
				sizes = append(sizes, `"[`+strings.Join(strings.Fields(strings.Trim(fmt.Sprint(dims), "[]")), ", ")+`]"`)
			}
		}
		flags = append(flags, fmt.Sprintf("--%s-name %s --%s-type %s --%s-size %s", kind, orUnknown(names), kind, orUnknown(types), kind, orUnknown(sizes)))
	}
	return strings.Join(flags, " ")
}

// groupsIn returns a group, or the groups of a list.
func groupsIn(value any) []map[string]any {
	switch v := value.(type) {
	case map[string]any:
		return []map[string]any{v}
	case []any:
		var all []map[string]any
		for _, item := range v {
			all = append(all, groupsIn(item)...)
		}
		return all
	}
	return nil
}

func orUnknown(words []string) string {
	if len(words) == 0 {
		return "?"
	}
	return strings.Join(words, " ")
}

// numpyName is NumPy's name of a data type of Triton.
func numpyName(name string) string {
	name = strings.ToLower(strings.TrimPrefix(name, "TYPE_"))
	switch {
	case strings.HasPrefix(name, "fp"):
		return "float" + name[2:]
	case name == "string":
		return "str"
	case name == "bytes":
		return "object"
	}
	return name
}

// TritonPort is Triton's port for gRPC, if an address has none.
const TritonPort = 8001

// TritonModel is the name that an endpoint's model has on a Triton server: the folder of the model in Triton's
// repository.
func TritonModel(url EndpointURL) string { return strings.ReplaceAll(string(url), "/", "_") }

// TritonDecoupled reports whether the settings for Triton say that the model answers a request with any number of
// messages.
func TritonDecoupled(aux any) bool {
	policy, _ := TritonSettings(aux)["model_transaction_policy"].(map[string]any)
	decoupled, err := trueOrFalse(policy["decoupled"], "")
	return err == nil && decoupled
}

// TritonCompression reports whether requests to Triton are compressed with gzip: otherwise if the service does not say.
func (p Parameters) TritonCompression(otherwise bool) (bool, error) {
	if p.TritonGRPCCompression == "" {
		return otherwise, nil
	}
	return trueOrFalse(p.TritonGRPCCompression, ParamTritonGRPCCompression)
}
