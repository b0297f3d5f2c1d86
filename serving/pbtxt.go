package serving

import (
	"errors"
	"fmt"
	"maps"
	"regexp"
	"strings"
)

var errOpenQuote = errors.New("a quote is not closed")

// deepestPbtxt bounds the nesting of groups.
const deepestPbtxt = 32

// parsePbtxt reads the text form of protocol buffers as far as model configurations use it: `name:
// value`, `name { ... }`, `name [ ... ]`, comments after #. Values stay texts, except groups (maps)
// and lists. "=" is the same as ":", and dots in names nest, so that settings in the syntax of
// clearml.conf can be read too. A repeated name makes a list, as for repeated fields.
// In quoted texts a backslash keeps the next character; it stays in the text.
func parsePbtxt(text string) (map[string]any, error) {
	p := &pbtxt{rest: text}
	p.next()
	settings, err := p.fields("", 0)
	if err != nil {
		line := 1 + strings.Count(text[:len(text)-len(p.rest)], "\n")
		return nil, fmt.Errorf("line %d: %w", line, err)
	}
	return settings, nil
}

// pbtxt is a text that is being read; token is the piece before rest, "" at the end.
type pbtxt struct {
	rest   string
	token  string
	quoted bool
	broken bool // a quote that is not closed
}

const pbtxtMarks = "{}[]:=,;<>"

// pbtxtToken matches one token after blanks and comments: a quoted text, a mark, or a word.
var pbtxtToken = regexp.MustCompile(`(?s)^(?:[ \t\r\n]|#[^\n]*)*(?:"((?:\\.|[^"\\])*)"|'((?:\\.|[^'\\])*)'|([{}\[\]:=,;<>])|([^ \t\r\n#"'{}\[\]:=,;<>]+))?`)

func (p *pbtxt) next() {
	at := pbtxtToken.FindStringSubmatchIndex(p.rest)
	p.token, p.quoted = "", at[2] >= 0 || at[4] >= 0
	for group := 2; group < len(at); group += 2 {
		if at[group] >= 0 {
			p.token = p.rest[at[group]:at[group+1]]
		}
	}
	p.rest = p.rest[at[1]:]
	if p.over() && p.rest != "" {
		p.broken, p.rest = true, ""
	}
}

func (p *pbtxt) is(marks string) bool {
	return !p.quoted && len(p.token) == 1 && strings.Contains(marks, p.token)
}

func (p *pbtxt) over() bool { return p.token == "" && !p.quoted }

// fields reads up to and including the closing mark.
func (p *pbtxt) fields(closing string, depth int) (map[string]any, error) {
	out := map[string]any{}
	for {
		for p.is(",;") {
			p.next()
		}
		switch {
		case p.broken:
			return nil, errOpenQuote
		case p.over() && closing == "":
			return out, nil
		case p.over():
			return nil, fmt.Errorf("%q is missing", closing)
		case closing != "" && p.is(closing):
			p.next()
			return out, nil
		case p.is(pbtxtMarks):
			return nil, fmt.Errorf("%q stands where a name should", p.token)
		}
		name := p.token
		p.next()
		if p.is(":=") {
			p.next()
		}
		value, err := p.value(depth)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", name, err)
		}
		putNested(out, name, value)
	}
}

func (p *pbtxt) value(depth int) (any, error) {
	switch {
	case depth >= deepestPbtxt:
		return nil, fmt.Errorf("nested deeper than %d levels", deepestPbtxt)
	case p.is("{"):
		p.next()
		return p.fields("}", depth+1)
	case p.is("<"):
		p.next()
		return p.fields(">", depth+1)
	case p.is("["):
		p.next()
		list := []any{}
		for !p.is("]") {
			if p.is(",") {
				p.next()
				continue
			}
			item, err := p.value(depth + 1)
			if err != nil {
				return nil, err
			}
			list = append(list, item)
		}
		p.next()
		return list, nil
	case p.broken:
		return nil, errOpenQuote
	case p.over(), p.is(pbtxtMarks):
		return nil, errors.New("a value is missing")
	}
	text := p.token
	p.next()
	return text, nil
}

// putNested sets a value by a name whose dots nest.
func putNested(in map[string]any, name string, value any) {
	for {
		first, rest, nested := strings.Cut(name, ".")
		if !nested {
			break
		}
		inner, ok := in[first].(map[string]any)
		if !ok {
			inner = map[string]any{}
			in[first] = inner
		}
		in, name = inner, rest
	}
	before, twice := in[name]
	if !twice {
		in[name] = value
		return
	}
	group, isMap := before.(map[string]any)
	if more, ok := value.(map[string]any); ok && isMap && name != "input" && name != "output" { // settings in two pieces
		maps.Copy(group, more)
		return
	}
	list, isList := before.([]any)
	if !isList {
		list = []any{before}
	}
	if items, ok := value.([]any); ok {
		list = append(list, items...)
	} else {
		list = append(list, value)
	}
	in[name] = list
}
