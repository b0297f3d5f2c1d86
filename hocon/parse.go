package hocon

import (
	"regexp"
	"strconv"
	"strings"
	"unicode/utf8"
)

// node is the parser's result before substitutions are resolved: *objectNode, *listNode,
// *singleNode, *concatNode, *overrideNode, *substitutionNode, *selfNode. All are pointers, so a
// node is also its own map key.
type node any

type objectNode struct {
	keys   []string
	fields map[string]node
}

type listNode struct{ items []node }

// singleNode is a text, number, boolean or null.
type singleNode struct {
	value any
	text  string // its text in a concatenation
	empty bool   // nothing was written: not an item of a list
}

// concatNode is a value of several pieces, at least one of them a substitution.
type concatNode struct {
	pieces []piece
	at     int
}

// overrideNode is a value on top of an earlier value of the same key. The earlier value may be
// needed, because above may be absent, an object, or a reference to below.
type overrideNode struct {
	below, above node
	at           int
}

// substitutionNode is ${name} or ${?name}.
type substitutionNode struct {
	name     string
	optional bool
	at       int
}

// selfNode stands for the earlier value of the same key in "key += value".
// It has a size so that two of them are never the same pointer.
type selfNode struct{ _ byte }

type piece struct {
	node  node
	space string // blanks after it, kept only between two pieces
}

type parser struct {
	src   string
	json  bool // texts have the escapes of JSON, numbers are kept as written
	pos   int
	depth int
}

func (p *parser) fail(at int, format string, args ...any) error {
	return syntaxError(p.src, at, format, args...)
}

// found describes the text at the position, for messages.
func (p *parser) found() string {
	if p.pos >= len(p.src) {
		return "the end of the text"
	}
	r, _ := utf8.DecodeRuneInString(p.src[p.pos:])
	if r == '\n' || r == '\r' {
		return "the end of the line"
	}
	return strconv.QuoteRune(r)
}

func (p *parser) peek() byte {
	if p.pos < len(p.src) {
		return p.src[p.pos]
	}
	return 0
}

func (p *parser) ahead(prefix string) bool { return strings.HasPrefix(p.src[p.pos:], prefix) }

func (p *parser) blanks() string {
	start := p.pos
	for p.pos < len(p.src) && (p.src[p.pos] == ' ' || p.src[p.pos] == '\t') {
		p.pos++
	}
	return p.src[start:p.pos]
}

// skip skips blanks, line ends, comments and commas that are only separators.
func (p *parser) skip(commas bool) {
	for p.pos < len(p.src) {
		switch c := p.src[p.pos]; {
		case c == ' ' || c == '\t' || c == '\n' || c == '\r' || (c == ',' && commas):
			p.pos++
		case c == '#' || p.ahead("//"):
			p.comment()
		default:
			return
		}
	}
}

func (p *parser) comment() {
	if end := strings.IndexAny(p.src[p.pos:], "\r\n"); end >= 0 {
		p.pos += end
	} else {
		p.pos = len(p.src)
	}
}

func (p *parser) document() (*objectNode, error) {
	p.skip(true)
	switch p.peek() {
	case '[':
		return nil, p.fail(p.pos, "found a list where an object (key = value, …) is expected")
	case '{':
		root, err := p.object()
		if err != nil {
			return nil, err
		}
		if p.skip(true); p.pos < len(p.src) {
			return nil, p.fail(p.pos, "found %s after the closing brace of the whole text", p.found())
		}
		return root, nil
	}
	root := &objectNode{fields: map[string]node{}}
	if err := p.fields(root); err != nil {
		return nil, err
	}
	if p.pos < len(p.src) {
		return nil, p.fail(p.pos, "found %s without an opening one", p.found())
	}
	return root, nil
}

func (p *parser) nest(at int) error {
	if p.depth++; p.depth > maxDepth {
		return p.fail(at, "nested deeper than %d", maxDepth)
	}
	return nil
}

// object reads { … }; the position is at the opening brace.
func (p *parser) object() (*objectNode, error) {
	open := p.pos
	if err := p.nest(open); err != nil {
		return nil, err
	}
	p.pos++
	o := &objectNode{fields: map[string]node{}}
	if err := p.fields(o); err != nil {
		return nil, err
	}
	if p.peek() != '}' {
		return nil, p.fail(open, "the brace opened here is not closed: found %s", p.found())
	}
	p.pos++
	p.depth--
	return o, nil
}

// fields reads "key = value" up to a closing bracket or the end.
func (p *parser) fields(o *objectNode) error {
	for {
		p.skip(true)
		if p.pos >= len(p.src) || p.peek() == '}' || p.peek() == ']' {
			return nil
		}
		if p.includes() {
			return p.fail(p.pos, "include is not supported: put the settings into this text")
		}
		if err := p.field(o); err != nil {
			return err
		}
	}
}

var includeForm = regexp.MustCompile(`^(?i:include)[ \t]+("|(url|file|required)[ \t]*\()`)

func (p *parser) includes() bool {
	c := p.peek()
	return (c == 'i' || c == 'I') && includeForm.MatchString(p.src[p.pos:min(len(p.src), p.pos+64)])
}

func (p *parser) field(o *objectNode) error {
	at := p.pos
	path, err := p.key()
	if err != nil {
		return err
	}
	p.skip(false)
	var value node
	add := false
	switch {
	case p.peek() == '{':
		value, err = p.object()
	case p.peek() == '=' || p.peek() == ':' || p.ahead("+="):
		add = p.peek() == '+'
		if add {
			p.pos++
		}
		p.pos++
		p.skip(false)
		value, err = p.value()
	default:
		return p.fail(p.pos, "key %q has no value: found %s where = or : or { is expected", strings.Join(path, "."), p.found())
	}
	if err != nil {
		return err
	}
	o.put(path, value, add, at)
	return nil
}

// key reads a key: bare words, in which dots nest, and quoted parts, in which they do not.
func (p *parser) key() ([]string, error) {
	start := p.pos
	var path []string
	element, open := "", false // the current element
	end := func() {
		if open {
			path = append(path, element)
		}
		element, open = "", false
	}
	for {
		if p.peek() == '"' {
			text, err := p.quoted()
			if err != nil {
				return nil, err
			}
			element, open = element+text, true
		} else {
			word := p.bareKey()
			if word == "" {
				break
			}
			next := p.peek()
			if next != '"' {
				word = strings.TrimRight(word, " \t")
			} else if strings.TrimSpace(word) == "" {
				continue
			}
			for i, part := range strings.Split(word, ".") {
				if i > 0 {
					end()
				}
				if part != "" {
					element, open = element+part, true
				}
			}
		}
	}
	end()
	if len(path) > maxDepth {
		return nil, p.fail(start, "nested deeper than %d", maxDepth)
	}
	if len(path) == 0 {
		return nil, p.fail(p.pos, "found %s where a key is expected", p.found())
	}
	return path, nil
}

// bareKey reads the unquoted part of a key. The SDK writes slashes, blanks and letters of any
// script without quotes, and // in a key is not a comment.
func (p *parser) bareKey() string {
	start := p.pos
	for p.pos < len(p.src) {
		switch c := p.src[p.pos]; {
		case strings.IndexByte("=:{}[],#\"\n\r", c) >= 0, c == '+' && p.ahead("+="):
			return p.src[start:p.pos]
		default:
			p.pos++
		}
	}
	return p.src[start:p.pos]
}

// put stores a value under a path, as the SDK does: objects are merged, other values are replaced.
func (o *objectNode) put(path []string, value node, add bool, at int) {
	for _, key := range path[:len(path)-1] {
		inner := &objectNode{fields: map[string]node{}}
		if existing, ok := o.fields[key].(*objectNode); ok {
			inner = existing
		} else {
			o.set(key, inner, at)
		}
		o = inner
	}
	key := path[len(path)-1]
	if add {
		value = added(o.fields[key], value, at)
	}
	o.set(key, value, at)
}

// added evaluates "key += value": a list gets an item, a text is appended with a blank, anything
// else is replaced.
func added(existing, value node, at int) node {
	if existing == nil {
		return value
	}
	switch v := value.(type) {
	case *listNode, *concatNode:
		return &concatNode{pieces: []piece{{node: &selfNode{}}, {node: v}}, at: at}
	case *singleNode:
		if _, isText := v.value.(string); !isText {
			return value
		}
		return &concatNode{pieces: []piece{{node: &selfNode{}, space: " "}, {node: v}}, at: at}
	}
	return value
}

func (o *objectNode) set(key string, value node, at int) {
	existing, exists := o.fields[key]
	if !exists {
		o.keys = append(o.keys, key)
		o.fields[key] = value
		return
	}
	switch v := value.(type) {
	case *objectNode:
		switch old := existing.(type) {
		case *objectNode:
			for _, k := range v.keys {
				old.set(k, v.fields[k], at)
			}
			return
		case *concatNode, *overrideNode:
			value = &overrideNode{below: existing, above: value, at: at}
		}
	case *concatNode, *overrideNode:
		value = &overrideNode{below: existing, above: value, at: at}
	}
	o.fields[key] = value
}

// list reads [ … ]; the position is at the opening bracket.
func (p *parser) list() (*listNode, error) {
	open := p.pos
	if err := p.nest(open); err != nil {
		return nil, err
	}
	p.pos++
	l := &listNode{}
	for {
		p.skip(true)
		if p.peek() == ']' {
			p.pos++
			p.depth--
			return l, nil
		}
		if p.pos >= len(p.src) || p.peek() == '}' {
			return nil, p.fail(open, "the bracket opened here is not closed: found %s", p.found())
		}
		item, err := p.value()
		if err != nil {
			return nil, err
		}
		if single, ok := item.(*singleNode); !ok || !single.empty {
			l.items = append(l.items, item)
		}
	}
}
