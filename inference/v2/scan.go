package v2

import (
	"bytes"
	"fmt"
	"unicode/utf16"
	"unicode/utf8"

	"clearmlserving/inference/engine"
)

// maxDepth bounds the nesting of JSON that is not a tensor.
const maxDepth = 64

func badRequest(format string, args ...any) error {
	return &engine.Error{Kind: engine.KindBadRequest, Text: fmt.Sprintf(format, args...)}
}

func tooLarge(limit int64) error {
	return &engine.Error{Kind: engine.KindTooLarge, Text: fmt.Sprintf("the tensors are larger than the limit of %d bytes", limit)}
}

// scanner reads JSON in place. It accepts NaN and Infinity, as Python and Triton write them.
type scanner struct {
	b []byte
	i int
}

func (s *scanner) broken(what string) error {
	if s.i >= len(s.b) {
		return badRequest("the JSON ends after %d bytes, where %s was expected", len(s.b), what)
	}
	return badRequest("the JSON is broken at byte %d: %s was expected, not %s", s.i, what, near(s.b[s.i:]))
}

// near is the beginning of b for an error text.
func near(b []byte) string {
	const most = 20
	if len(b) > most {
		b = b[:most]
	}
	return fmt.Sprintf("%q", bytes.ToValidUTF8(b, nil))
}

// peek returns the next byte that is not a blank, 0 at the end.
func (s *scanner) peek() byte {
	for s.i < len(s.b) {
		switch c := s.b[s.i]; c {
		case ' ', '\n', '\r', '\t':
			s.i++
		default:
			return c
		}
	}
	return 0
}

// take reads c, and reports whether it came.
func (s *scanner) take(c byte) bool {
	if s.peek() != c {
		return false
	}
	s.i++
	return true
}

// more reads what is between the elements of an array or object: after the first element a comma, or
// the end. It returns false at the end.
func (s *scanner) more(first bool, end byte) (bool, error) {
	switch c := s.peek(); {
	case c == end:
		s.i++
		return false, nil
	case first:
		return true, nil
	case c == ',':
		s.i++
		if s.peek() == end {
			return false, s.broken("a value")
		}
		return true, nil
	}
	return false, s.broken("',' or '" + string(end) + "'")
}

// word reads one of the names of JSON, "" if none follows.
func (s *scanner) word() string {
	switch s.peek() {
	case 't', 'f', 'n', 'N', 'I', '-':
	default: // most values are numbers
		return ""
	}
	for _, w := range [...]string{"true", "false", "null", "NaN", "Infinity", "-Infinity", "Inf", "-Inf"} {
		if len(s.b)-s.i >= len(w) && string(s.b[s.i:s.i+len(w)]) == w {
			s.i += len(w)
			return w
		}
	}
	return ""
}

// object calls each for every key, before its value.
func (s *scanner) object(what string, each func(key []byte) error) error {
	if !s.take('{') {
		return s.broken(what + " as an object")
	}
	for first := true; ; first = false {
		ok, err := s.more(first, '}')
		if err != nil || !ok {
			return err
		}
		key, err := s.bytes("a name")
		if err != nil {
			return err
		}
		if !s.take(':') {
			return s.broken("':'")
		}
		if err := each(key); err != nil {
			return err
		}
	}
}

// array calls each for every element.
func (s *scanner) array(what string, each func() error) error {
	if !s.take('[') {
		return s.broken(what + " as a list")
	}
	for first := true; ; first = false {
		ok, err := s.more(first, ']')
		if err != nil || !ok {
			return err
		}
		if err := each(); err != nil {
			return err
		}
	}
}

// text reads a string.
func (s *scanner) text(what string) (string, error) {
	b, err := s.bytes(what)
	return string(b), err
}

// bytes reads a string, in place if it has no escape sequences.
func (s *scanner) bytes(what string) ([]byte, error) {
	if s.peek() == '"' {
		for i, c := range s.b[s.i+1:] {
			if c == '"' {
				text := s.b[s.i+1 : s.i+1+i]
				s.i += i + 2
				return text, nil
			}
			if c == '\\' || c < ' ' || c >= utf8.RuneSelf {
				break
			}
		}
	}
	return s.appendText(nil, what)
}

// appendText appends the bytes of a string, which is valid UTF-8.
func (s *scanner) appendText(dst []byte, what string) ([]byte, error) {
	if !s.take('"') {
		return dst, s.broken(what + " as a string")
	}
	start, high := s.i, byte(0)
	for s.i < len(s.b) {
		switch c := s.b[s.i]; {
		case c == '"' || c == '\\':
			piece := s.b[start:s.i]
			if high >= utf8.RuneSelf && !utf8.Valid(piece) {
				s.i = start
				return dst, badRequest("the string at byte %d is not valid UTF-8", start)
			}
			dst = append(dst, piece...)
			s.i++
			if c == '"' {
				return dst, nil
			}
			var err error
			if dst, err = s.escape(dst); err != nil {
				return dst, err
			}
			start, high = s.i, 0
		case c < ' ':
			return dst, s.broken("the rest of a string without control characters")
		default:
			high |= c
			s.i++
		}
	}
	return dst, s.broken("the end of a string")
}

// escape appends the character of an escape sequence, whose backslash has been read.
func (s *scanner) escape(dst []byte) ([]byte, error) {
	if s.i >= len(s.b) {
		return dst, s.broken("an escape sequence")
	}
	c := s.b[s.i]
	s.i++
	switch c {
	case '"', '\\', '/':
		return append(dst, c), nil
	case 'b':
		return append(dst, '\b'), nil
	case 'f':
		return append(dst, '\f'), nil
	case 'n':
		return append(dst, '\n'), nil
	case 'r':
		return append(dst, '\r'), nil
	case 't':
		return append(dst, '\t'), nil
	case 'u':
		r, ok := s.hex()
		if ok && utf16.IsSurrogate(r) {
			ok = false
			if len(s.b)-s.i >= 2 && s.b[s.i] == '\\' && s.b[s.i+1] == 'u' {
				s.i += 2
				var low rune
				if low, ok = s.hex(); ok {
					r = utf16.DecodeRune(r, low)
					ok = r != utf8.RuneError
				}
			}
		}
		if !ok {
			return dst, badRequest("the JSON has a \\u sequence before byte %d that is no character", s.i)
		}
		return utf8.AppendRune(dst, r), nil
	}
	s.i--
	return dst, s.broken("an escape sequence")
}

func (s *scanner) hex() (rune, bool) {
	if len(s.b)-s.i < 4 {
		return 0, false
	}
	r := rune(0)
	for _, c := range s.b[s.i : s.i+4] {
		switch {
		case '0' <= c && c <= '9':
			r = r<<4 | rune(c-'0')
		case 'a' <= c|0x20 && c|0x20 <= 'f':
			r = r<<4 | rune(c|0x20-'a'+10)
		default:
			return 0, false
		}
	}
	s.i += 4
	return r, true
}

// number is a JSON number: its value is mantissa * 10^exponent if it is exact.
type number struct {
	mantissa uint64
	exponent int
	negative bool
	integer  bool // neither a fraction nor an exponent
	exact    bool // mantissa has all digits
}

// number reads a number; the text is b[start:i].
func (s *scanner) number() (n number, start int, err error) {
	s.peek()
	b, i := s.b, s.i
	start = i
	if i < len(b) && b[i] == '-' {
		n.negative = true
		i++
	}
	digits := i
	for i < len(b) && b[i]-'0' <= 9 {
		n.mantissa = n.mantissa*10 + uint64(b[i]-'0')
		i++
	}
	count := i - digits
	if count == 0 || count > 1 && b[digits] == '0' {
		return n, start, s.broken("a number")
	}
	n.integer = true
	if i < len(b) && b[i] == '.' {
		n.integer = false
		i++
		fraction := i
		for i < len(b) && b[i]-'0' <= 9 {
			n.mantissa = n.mantissa*10 + uint64(b[i]-'0')
			i++
		}
		n.exponent = fraction - i
		if i == fraction {
			return n, start, s.broken("a number")
		}
		if b[digits] == '0' { // leading zeros are no digits of the mantissa
			count = 0
			for fraction < i && b[fraction] == '0' {
				fraction++
			}
		}
		count += i - fraction
	}
	n.exact = count <= 19
	if i < len(b) && b[i]|0x20 == 'e' {
		n.integer = false
		i++
		down := false
		if i < len(b) && (b[i] == '+' || b[i] == '-') {
			down = b[i] == '-'
			i++
		}
		exponent, first := 0, i
		for i < len(b) && b[i]-'0' <= 9 {
			exponent = min(exponent*10+int(b[i]-'0'), 1<<20)
			i++
		}
		if i == first {
			return n, start, s.broken("a number")
		}
		if down {
			exponent = -exponent
		}
		n.exponent += exponent
	}
	s.i = i
	return n, start, nil
}

// skip reads any value.
func (s *scanner) skip(depth int) error {
	if depth > maxDepth {
		return badRequest("the JSON is nested deeper than %d levels at byte %d", maxDepth, s.i)
	}
	switch c := s.peek(); {
	case c == '{':
		s.i++
		for first := true; ; first = false {
			ok, err := s.more(first, '}')
			if err != nil || !ok {
				return err
			}
			if err := s.skipText("a name"); err != nil {
				return err
			}
			if !s.take(':') {
				return s.broken("':'")
			}
			if err := s.skip(depth + 1); err != nil {
				return err
			}
		}
	case c == '[':
		s.i++
		for first := true; ; first = false {
			ok, err := s.more(first, ']')
			if err != nil || !ok {
				return err
			}
			if err := s.skip(depth + 1); err != nil {
				return err
			}
		}
	case c == '"':
		return s.skipText("a value")
	case s.word() != "":
		return nil
	case c == '-' || c-'0' <= 9:
		_, _, err := s.number()
		return err
	}
	return s.broken("a value")
}

// skipText reads a string without keeping it.
func (s *scanner) skipText(what string) error {
	var small [64]byte // short strings are not allocated
	_, err := s.appendText(small[:0], what)
	return err
}

// raw reads any value and returns its text.
func (s *scanner) raw() ([]byte, error) {
	s.peek()
	start := s.i
	err := s.skip(0)
	return s.b[start:s.i], err
}

// end checks that nothing follows.
func (s *scanner) end() error {
	if s.peek(); s.i < len(s.b) {
		return s.broken("the end")
	}
	return nil
}
