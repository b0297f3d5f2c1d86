package main

import (
	"fmt"
	"os"
	"strings"
)

// readAuxConfig reads the words behind --aux-config. One word that names a file
// gives the file's text. Else the words are lines of settings in the syntax of
// clearml.conf, where dots nest and quotes stay in the values, because the
// values end in a config.pbtxt: platform="x" is the text "x" with its quotes.
func readAuxConfig(words []string) (any, error) {
	if len(words) == 0 {
		return nil, nil //nolint:nilnil // no settings
	}
	if len(words) == 1 {
		if info, err := os.Stat(words[0]); err == nil && info.Mode().IsRegular() {
			text, err := os.ReadFile(words[0])
			if err != nil {
				return nil, fmt.Errorf("read --aux-config: %w", err)
			}
			return string(text), nil
		}
	}
	text := strings.Join(words, "\n")
	if strings.ContainsAny(text, standIns) {
		return nil, fmt.Errorf("argument --aux-config: %s holds characters that have no meaning", pyText(text))
	}
	values, err := parseHOCON([]byte(hideQuotes.Replace(text)), func(string) (string, bool) { return "", false })
	if err != nil {
		return nil, hint(fmt.Errorf("argument --aux-config: %s is neither a file nor settings: %w", pyText(text), err),
			`Try: --aux-config max_batch_size=32 platform=\"onnxruntime_onnx\"   or the path of a config.pbtxt`)
	}
	return restoreQuotes(values), nil
}

// Quotes, and the slashes of an address, which would begin a comment, are hidden from the
// parser behind characters of the private use area, which no configuration holds.
const standIns = "\ue000\ue001\ue002"

var (
	hideQuotes = strings.NewReplacer(`"`, "\ue000", `'`, "\ue001", "://", "\ue002")
	showQuotes = strings.NewReplacer("\ue000", `"`, "\ue001", `'`, "\ue002", "://")
)

func restoreQuotes(v any) any {
	switch v := v.(type) {
	case string:
		return showQuotes.Replace(v)
	case map[string]any:
		out := make(map[string]any, len(v))
		for key, value := range v {
			out[showQuotes.Replace(key)] = restoreQuotes(value)
		}
		return out
	case []any:
		out := make([]any, len(v))
		for i, item := range v {
			out[i] = restoreQuotes(item)
		}
		return out
	}
	return v
}
