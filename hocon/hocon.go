// Package hocon reads clearml.conf and the configuration objects of ClearML tasks: the dialect of
// HOCON that the ClearML SDK reads and writes. It owns that dialect and the JSON that this product
// writes instead. It never opens files, never reads the environment itself, and never writes HOCON.
//
// Where the SDK's reader loses data and nothing depends on the loss, this reader keeps the data:
// empty texts in lists are kept, "abc true" is kept as written, keys may contain any letter, and
// text that is JSON as a whole is read as JSON, with all of JSON's escapes. Includes are refused.
package hocon

import (
	"bytes"
	"fmt"
	"unicode/utf8"
)

// maxDepth bounds the nesting of objects and lists, so that no text can exhaust the stack. The
// SDK's reader has a much lower bound.
const maxDepth = 200

// Options say what a text may refer to.
type Options struct {
	// Env looks up a variable for ${NAME} when no key of the text has that name. If nil, there are
	// no variables.
	Env func(name string) (string, bool)
}

// SyntaxError says where and why a text cannot be read.
type SyntaxError struct {
	Line, Column int // both from 1; the column counts characters
	Problem      string
}

func (e *SyntaxError) Error() string {
	return fmt.Sprintf("line %d, column %d: %s", e.Line, e.Column, e.Problem)
}

// Parse reads a text whose root is an object, with or without braces. An empty text is an empty
// object. Every failure is a *SyntaxError.
func Parse(text []byte, o Options) (*Object, error) {
	text = bytes.TrimPrefix(text, []byte("\xef\xbb\xbf"))
	if !utf8.Valid(text) {
		at := 0
		for at < len(text) {
			r, size := utf8.DecodeRune(text[at:])
			if r == utf8.RuneError && size <= 1 {
				break
			}
			at += size
		}
		return nil, syntaxError(string(text), at, "the text is not UTF-8")
	}
	p := &parser{src: string(text), json: isJSON(text)}
	root, err := p.document()
	if err != nil {
		return nil, err
	}
	return newResolver(p.src, root, o.Env).document()
}

// syntaxError converts an offset to line and column.
func syntaxError(src string, at int, format string, args ...any) *SyntaxError {
	line, column := 1, 1
	for i, r := range src {
		if i >= at {
			break
		}
		if r == '\n' {
			line, column = line+1, 1
		} else {
			column++
		}
	}
	return &SyntaxError{Line: line, Column: column, Problem: fmt.Sprintf(format, args...)}
}
