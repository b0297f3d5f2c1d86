package hocon

import (
	"encoding/json"
	"strings"
	"unicode/utf8"
)

// value reads up to the end of the line, a comma, a closing bracket or a comment. Several pieces in
// a row are one value.
func (p *parser) value() (node, error) {
	start := p.pos
	var pieces []piece
	bare := true       // all pieces so far are unquoted words
	continued := false // a line ended in a backslash: the indentation of the next line is dropped
	for {
		if space := p.blanks(); len(pieces) > 0 && !continued {
			pieces[len(pieces)-1].space = space
		}
		continued = false
		if p.pos >= len(p.src) || p.peek() == '#' || p.ahead("//") || strings.IndexByte(",}]\n\r", p.peek()) >= 0 {
			break
		}
		var n node
		var err error
		switch c := p.peek(); {
		case len(pieces) == 0 && p.includes():
			return nil, p.fail(p.pos, "include is not supported: put the settings into this text")
		case c == '{':
			n, err = p.object()
			bare = false
		case c == '[':
			n, err = p.list()
			bare = false
		case p.ahead(`"""`):
			n, err = p.raw()
			bare = false
		case c == '"':
			var text string
			text, err = p.quoted()
			n, bare = &singleNode{value: text, text: text}, false
		case p.ahead("${"):
			n, err = p.substitution()
			bare = false
		case c == '\\' && p.continued():
			continued = true
			continue
		default:
			var word string
			word, err = p.word()
			n = &singleNode{value: word, text: word}
		}
		if err != nil {
			return nil, err
		}
		pieces = append(pieces, piece{node: n})
	}
	switch {
	case len(pieces) == 0:
		return &singleNode{value: "", empty: true}, nil
	case len(pieces) == 1 && bare:
		return single(pieces[0].node.(*singleNode).text, p.json), nil
	}
	for _, piece := range pieces {
		if _, ok := piece.node.(*substitutionNode); ok {
			return &concatNode{pieces: pieces, at: start}, nil
		}
	}
	return p.join(pieces, start)
}

// continued skips a backslash at the end of a line; the value continues in the next line.
func (p *parser) continued() bool {
	end := p.pos + 1
	for end < len(p.src) && (p.src[end] == '\n' || p.src[end] == '\r') {
		end++
	}
	if end == p.pos+1 {
		return false
	}
	p.pos = end
	return true
}

// join joins pieces without substitutions to one value.
func (p *parser) join(pieces []piece, at int) (node, error) {
	if len(pieces) == 1 {
		return pieces[0].node, nil
	}
	switch pieces[0].node.(type) {
	case *objectNode:
		merged := &objectNode{fields: map[string]node{}}
		for _, piece := range pieces {
			o, ok := piece.node.(*objectNode)
			if !ok {
				return nil, p.fail(at, mixed)
			}
			for _, key := range o.keys {
				merged.set(key, o.fields[key], at)
			}
		}
		return merged, nil
	case *listNode:
		all := &listNode{}
		for _, piece := range pieces {
			l, ok := piece.node.(*listNode)
			if !ok {
				return nil, p.fail(at, mixed)
			}
			all.items = append(all.items, l.items...)
		}
		return all, nil
	default:
		var b strings.Builder
		for i, piece := range pieces {
			s, ok := piece.node.(*singleNode)
			if !ok {
				return nil, p.fail(at, mixed)
			}
			b.WriteString(s.text)
			if i < len(pieces)-1 {
				b.WriteString(piece.space)
			}
		}
		return &singleNode{value: b.String(), text: b.String()}, nil
	}
}

const mixed = "the value mixes text, list and object: separate them by a comma or a new line, or quote the text"

// word reads an unquoted word: up to a blank or a special character.
func (p *parser) word() (string, error) {
	var b strings.Builder
	for p.pos < len(p.src) {
		c := p.src[p.pos]
		switch {
		case strings.IndexByte(" \t\n\r,{}[]#\"", c) >= 0, p.ahead("${"):
			return b.String(), nil
		case c == '=':
			return "", p.fail(p.pos, "found '=' inside a value: put the value in quotes, or end the line before it")
		case c == '\\':
			r, size := utf8.DecodeRuneInString(p.src[p.pos+1:])
			if size == 0 || r == '\n' || r == '\r' {
				if b.Len() == 0 { // a backslash at the end of the text
					return "", p.fail(p.pos, "found a backslash with nothing after it")
				}
				return b.String(), nil
			}
			b.WriteString(unescape(p.src[p.pos : p.pos+1+size]))
			p.pos += 1 + size
		default:
			b.WriteByte(c)
			p.pos++
		}
	}
	return b.String(), nil
}

// quoted reads "…", on one line; the position is at the opening quote.
func (p *parser) quoted() (string, error) {
	open := p.pos
	p.pos++
	var b strings.Builder
	for p.pos < len(p.src) {
		switch c := p.src[p.pos]; c {
		case '"':
			p.pos++
			if p.json {
				var text string
				err := json.Unmarshal([]byte(p.src[open:p.pos]), &text)
				return text, err
			}
			return b.String(), nil
		case '\n':
			return "", p.fail(open, `the quote opened here is not closed on its line: use """ for a text of several lines`)
		case '\\':
			r, size := utf8.DecodeRuneInString(p.src[p.pos+1:])
			if size == 0 || r == '\n' {
				return "", p.fail(p.pos, "found a backslash with nothing after it inside quotes")
			}
			b.WriteString(unescape(p.src[p.pos : p.pos+1+size]))
			p.pos += 1 + size
		default:
			b.WriteByte(c)
			p.pos++
		}
	}
	return "", p.fail(open, "the quote opened here is not closed")
}

// unescape decodes the escapes that the SDK supports; any other pair is kept, including the
// backslash.
func unescape(pair string) string {
	switch pair[1:] {
	case `\`, "=", "#", "!", `"`:
		return pair[1:]
	case "n":
		return "\n"
	case "r":
		return "\r"
	case "t":
		return "\t"
	default:
		return pair
	}
}

// raw reads """…""", which has no escapes. If there are more than three quotes at the end, the
// first ones belong to the text.
func (p *parser) raw() (node, error) {
	open := p.pos
	body := p.src[p.pos+3:]
	end := strings.Index(body, `"""`)
	if end < 0 {
		return nil, p.fail(open, `the """ opened here is not closed`)
	}
	for strings.HasPrefix(body[end+3:], `"`) {
		end++
	}
	p.pos += 3 + end + 3
	return &singleNode{value: body[:end], text: body[:end]}, nil
}

// substitution reads ${name} or ${?name}.
func (p *parser) substitution() (node, error) {
	open := p.pos
	end := strings.IndexAny(p.src[p.pos:], "}\n")
	if end < 0 || p.src[p.pos+end] != '}' {
		return nil, p.fail(open, "the ${ opened here is not closed")
	}
	name := p.src[p.pos+2 : p.pos+end]
	p.pos += end + 1
	name, optional := strings.CutPrefix(strings.TrimSpace(name), "?")
	if name = strings.TrimSpace(name); name == "" {
		return nil, p.fail(open, "${} names nothing")
	}
	return &substitutionNode{name: name, optional: optional, at: open}, nil
}
