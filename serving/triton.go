package serving

import (
	"fmt"
	"regexp"
	"slices"
	"strings"
)

var (
	pbtxtSection  = regexp.MustCompile(`(?m)(?:^|[\s\]}])(input|output)\s*:?\s*[\[{]`)
	pbtxtFilename = regexp.MustCompile(`(?m)(?:^|\s)default_model_filename\s*:`)
	pbtxtName     = regexp.MustCompile(`\bname\s*:\s*"([^"]*)"`)
	pbtxtType     = regexp.MustCompile(`\bdata_type\s*:\s*"?(?:TYPE_)?(\w+)"?`)
	pbtxtDims     = regexp.MustCompile(`\bdims\s*:\s*\[([^\]]*)\]`)
)

// validateTriton refuses settings that the Triton sidecar writes by itself.
func validateTriton(engine string, aux any) error {
	if engine != EngineTriton || aux == nil {
		return nil
	}
	var sections []string
	var filename bool
	text, isText := aux.(string)
	if isText {
		for _, m := range pbtxtSection.FindAllStringSubmatch(text, -1) {
			sections = append(sections, m[1])
		}
		filename = pbtxtFilename.MatchString(text)
	} else if values, ok := aux.(map[string]any); ok {
		for _, key := range []string{"input", "output"} {
			if _, there := values[key]; there {
				sections = append(sections, key)
			}
		}
		_, filename = values["default_model_filename"]
	}
	switch {
	case len(sections) > 0:
		//nolint:staticcheck // the original's words
		return fmt.Errorf("Triton engine requires *manual* input/output specification, "+
			"You input/output in your pbtxt, please remove them and specify manually.\nAdd to your command line: %s", suggestTensorFlags(text))
	case filename:
		//nolint:staticcheck // the original's words
		return fmt.Errorf("ERROR: You have `default_model_filename` in your config pbtxt, please remove it. It will be added automatically by the system.")
	}
	return nil
}

// suggestTensorFlags makes the flags that say what the sections of a
// config.pbtxt say; "?" stands for what it does not tell.
func suggestTensorFlags(text string) string {
	var flags []string
	for _, kind := range []string{"input", "output"} {
		names, types, sizes := "?", "?", "?"
		if body := pbtxtBody(text, kind); body != "" {
			names = orUnknown(quoted(pbtxtName.FindAllStringSubmatch(body, -1)))
			types = orUnknown(numpyNames(pbtxtType.FindAllStringSubmatch(body, -1)))
			sizes = orUnknown(dims(pbtxtDims.FindAllStringSubmatch(body, -1)))
		}
		flags = append(flags, fmt.Sprintf("--%s-name %s --%s-type %s --%s-size %s", kind, names, kind, types, kind, sizes))
	}
	return strings.Join(flags, " ")
}

// pbtxtBody cuts the text between the brackets that follow a section's name.
func pbtxtBody(text, kind string) string {
	var bodies []string
	for _, at := range pbtxtSection.FindAllStringSubmatchIndex(text, -1) {
		if text[at[2]:at[3]] != kind {
			continue
		}
		depth := 0
		for i := at[1] - 1; i < len(text); i++ {
			switch text[i] {
			case '[', '{':
				depth++
			case ']', '}':
				depth--
			}
			if depth == 0 {
				bodies = append(bodies, text[at[1]:i])
				break
			}
		}
	}
	return strings.Join(bodies, "\n")
}

func orUnknown(words []string) string {
	if len(words) == 0 {
		return "?"
	}
	return strings.Join(words, " ")
}

func quoted(matches [][]string) []string {
	words := make([]string, len(matches))
	for i, m := range matches {
		words[i] = `"` + m[1] + `"`
	}
	return words
}

func dims(matches [][]string) []string {
	words := make([]string, len(matches))
	for i, m := range matches {
		parts := strings.FieldsFunc(m[1], func(r rune) bool { return r == ',' || r == ' ' || r == '\n' || r == '\t' })
		words[i] = `"[` + strings.Join(parts, ", ") + `]"`
	}
	return words
}

func numpyNames(matches [][]string) []string {
	words := make([]string, 0, len(matches))
	for _, m := range matches {
		name := strings.ToLower(m[1])
		switch {
		case strings.HasPrefix(name, "fp"):
			name = "float" + name[2:]
		case name == "string":
			name = "str"
		case name == "bytes":
			name = "object"
		}
		words = append(words, name)
	}
	return slices.Clip(words)
}
