package serving

import (
	"encoding/json"
	"fmt"
	"strconv"
	"strings"
)

// Tool offers a URL to agents as a tool, over the Model Context Protocol. The versions of a monitoring do not
// inherit it: they are offered by a canary, or by themselves.
type Tool struct {
	Name        string `record:"name"`        // "": ToolName of the URL
	Description string `record:"description"` // "": made of the endpoint's signature
	Unknown     map[string]json.RawMessage
}

const (
	maxToolName        = 64 // what all providers of models take
	maxToolDescription = 8 << 10
)

func (t Tool) validate() error {
	if t.Name != "" && ToolName(EndpointURL(t.Name)) != t.Name {
		return &FieldError{Field: "name", Value: strconv.Quote(Shorten(t.Name, 80)), Why: fmt.Sprintf("is no name of a tool: give at most %d letters, digits, _ and -", maxToolName)}
	}
	if len(t.Description) > maxToolDescription {
		return &FieldError{Field: "description", Why: fmt.Sprintf("has %d bytes, at most %d", len(t.Description), maxToolDescription)}
	}
	return nil
}

// ToolName is a name for the tool of a URL: its letters, digits, _ and -, and _ for all else.
func ToolName(url EndpointURL) string {
	name := strings.Map(func(r rune) rune {
		if 'a' <= r && r <= 'z' || 'A' <= r && r <= 'Z' || '0' <= r && r <= '9' || r == '-' {
			return r
		}
		return '_'
	}, string(url))
	return name[:min(len(name), maxToolName)]
}
