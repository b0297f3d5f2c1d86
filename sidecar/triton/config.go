package triton

import (
	"encoding/json"
	"fmt"
	"maps"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"clearmlserving/inference/engine"
	"clearmlserving/serving"
)

// configuration is the text of the config.pbtxt of a model: the endpoint's auxiliary configuration, its inputs and
// outputs, and the backend of the model's form unless the auxiliary configuration has one.
func configuration(e serving.Endpoint, f form) (string, error) {
	signature, err := engine.SignatureOf(e.Tensors)
	if err != nil {
		return "", err
	}
	var out strings.Builder
	switch aux := e.AuxiliaryCfg.(type) {
	case nil:
	case string:
		out.WriteString(strings.TrimRight(aux, "\n"))
		out.WriteString("\n")
	case map[string]any:
		writeFields(&out, aux, "")
	default:
		return "", fmt.Errorf("the auxiliary configuration is neither a text nor settings, but %T", aux)
	}
	if backend, platform := chosen(e.AuxiliaryCfg); backend == "" && platform == "" && f.backend != "" {
		fmt.Fprintf(&out, "%s: %s\n", f.word(), quoted(f.backend))
	}
	for _, kind := range []struct {
		name  string
		specs []engine.TensorSpec
	}{{"input", signature.Inputs}, {"output", signature.Outputs}} {
		if len(kind.specs) == 0 {
			continue // some backends complete it
		}
		if err := writeTensors(&out, kind.name, kind.specs); err != nil {
			return "", err
		}
	}
	return out.String(), nil
}

func writeTensors(out *strings.Builder, kind string, specs []engine.TensorSpec) error {
	out.WriteString(kind + " [\n")
	for i, s := range specs {
		if s.Datatype == "" {
			return fmt.Errorf("%s '%s' has no type: give --%s-type", kind, s.Name, kind)
		}
		if len(s.Shape) == 0 {
			return fmt.Errorf("%s '%s' has no size: give --%s-size", kind, s.Name, kind)
		}
		dims := make([]string, len(s.Shape))
		for j, d := range s.Shape {
			dims[j] = strconv.FormatInt(d, 10)
		}
		comma := ","
		if i == len(specs)-1 {
			comma = ""
		}
		fmt.Fprintf(out, "  {\n    name: %s\n    data_type: %s\n    dims: [ %s ]\n  }%s\n", quoted(s.Name), typeName(s.Datatype), strings.Join(dims, ", "), comma)
	}
	out.WriteString("]\n")
	return nil
}

// typeName is Triton's name of a datatype in a configuration.
func typeName(d engine.Datatype) string {
	if d == engine.Bytes {
		return "TYPE_STRING"
	}
	return "TYPE_" + string(d)
}

// chosen is the backend and the platform that an auxiliary configuration names.
func chosen(aux any) (backend, platform string) {
	settings := serving.TritonSettings(aux)
	word := func(name string) string {
		text, _ := settings[name].(string)
		return strings.Trim(text, `"'`)
	}
	return word("backend"), word("platform")
}

// textFields are the fields of a model's configuration that hold a text.
var textFields = []string{ //nolint:gochecknoglobals // a constant table
	"name", "platform", "backend", "runtime", "default_model_filename", "string_value", "profile", "host_policy",
	"input_data_file", "data_file", "model_name", "model_namespace", "input_name", "output_name", "op_library_filename",
}

// mapFields are those that hold a map.
var mapFields = []string{ //nolint:gochecknoglobals // a constant table
	"parameters", "metric_tags", "cc_model_filenames", "input_map", "output_map", "inputs", "priority_queue_policy",
}

// entryOf is an entry of a map. The parameters of the model itself are messages, those of its parts are texts.
func entryOf(name, key string, value any, top bool) map[string]any {
	entry := map[string]any{"key": text(strings.Trim(key, `"`)), "value": value}
	if name == "priority_queue_policy" {
		entry["key"] = key // a number
		return entry
	}
	if _, message := value.(map[string]any); message {
		return entry
	}
	entry["value"] = asText(value)
	if name == "parameters" && top {
		entry["value"] = map[string]any{"string_value": asText(value)}
	}
	return entry
}

// writeFields writes settings as fields of a message. Settings that were given as text keep it.
func writeFields(out *strings.Builder, fields map[string]any, indent string) {
	for _, name := range slices.Sorted(maps.Keys(fields)) {
		value := fields[name]
		if entries, ok := value.(map[string]any); ok && slices.Contains(mapFields, name) && entries["key"] == nil {
			for _, key := range slices.Sorted(maps.Keys(entries)) {
				writeField(out, name, entryOf(name, key, entries[key], indent == ""), indent)
			}
			continue
		}
		writeField(out, name, value, indent)
	}
}

// text is a value that is written with quotes.
type text string

func asText(value any) any {
	if s, ok := value.(string); ok && strings.HasPrefix(s, `"`) {
		return value
	}
	return text(plain(value))
}

func writeField(out *strings.Builder, name string, value any, indent string) {
	if value == nil {
		return
	}
	out.WriteString(indent + name)
	if _, message := value.(map[string]any); !message {
		out.WriteString(":")
	}
	out.WriteString(" ")
	writeValue(out, name, value, indent)
	out.WriteString("\n")
}

func writeValue(out *strings.Builder, name string, value any, indent string) {
	switch v := value.(type) {
	case map[string]any:
		out.WriteString("{\n")
		writeFields(out, v, indent+"  ")
		out.WriteString(indent + "}")
	case []any:
		out.WriteString("[ ")
		for i, item := range v {
			if i > 0 {
				out.WriteString(", ")
			}
			writeValue(out, name, item, indent)
		}
		out.WriteString(" ]")
	case text:
		out.WriteString(quoted(string(v)))
	case string:
		switch {
		case strings.HasPrefix(v, `"`) || strings.HasPrefix(v, "'"):
			out.WriteString(v) // quotes are kept, because they end here
		case slices.Contains(textFields, name) || !bare.MatchString(v):
			out.WriteString(quoted(v))
		default:
			out.WriteString(v)
		}
	default:
		word := plain(v)
		if slices.Contains(textFields, name) {
			word = quoted(word)
		}
		out.WriteString(word)
	}
}

// bare is a text that is a number, a truth value, or the name of a constant.
var bare = regexp.MustCompile(`^(true|false|[-+]?[0-9.]+([eE][-+]?[0-9]+)?|[A-Z][A-Z0-9_]*)$`)

// plain is a number or another plain value as it was given.
func plain(value any) string {
	switch v := value.(type) {
	case string:
		return v
	case float64:
		return strconv.FormatFloat(v, 'g', -1, 64)
	case json.Number:
		return v.String()
	}
	return fmt.Sprint(value)
}

// quoted is a text as protobuf's text format has it.
func quoted(s string) string {
	var out strings.Builder
	out.WriteByte('"')
	for i := range len(s) {
		switch c := s[i]; {
		case c == '"' || c == '\\':
			out.WriteByte('\\')
			out.WriteByte(c)
		case c == '\n':
			out.WriteString(`\n`)
		case c < 0x20 || c == 0x7f:
			fmt.Fprintf(&out, `\%03o`, c)
		default:
			out.WriteByte(c)
		}
	}
	out.WriteByte('"')
	return out.String()
}
