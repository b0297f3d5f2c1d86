// Package jsontensor reads JSON bodies into numbers and writes numbers as JSON, exactly as the
// Python workers do: the same values of the same texts, and the same texts of the same values. What
// it does not read exactly it refuses, so that a caller can leave that body to Python. It does no
// I/O and allocates no more than a multiple of the body's size.
package jsontensor

import (
	"encoding/json"
	"errors"
	"math"
	"strconv"
	"strings"
	"unicode/utf8"
	"unsafe"
)

// Column is a column of a table.
type Column struct {
	Name string
	// Categories holds the numbers of texts, nil for a column of numbers.
	Categories map[string]float64
	// Numbers holds the numbers of categories that are numbers themselves, nil for other columns.
	Numbers map[float64]float64
	// Unknown stands for a category that is not known. Strict: such a body is refused.
	Unknown float64
	Strict  bool
}

func (c *Column) categorical() bool { return c.Categories != nil || c.Numbers != nil }

// Form is what bodies hold: lists of rows, or records.
type Form struct {
	columns []Column
	byName  map[string]int
	rows    bool
	records bool
}

// NewForm returns the form of a table with these columns. rows: lists of rows of numbers are
// accepted. records: records are accepted, with all columns by their names and with categories.
func NewForm(columns []Column, rows, records bool) *Form {
	f := &Form{columns: columns, rows: rows, records: records, byName: make(map[string]int, len(columns))}
	for i := range columns {
		f.byName[columns[i].Name] = i
	}
	f.records = f.records && len(f.byName) == len(columns)
	return f
}

// Width is the number of columns.
func (f *Form) Width() int { return len(f.columns) }

// Rows is a table of a body. It can be used for one body after another.
type Rows struct {
	// N is the number of rows, Values their cells in row-major order; null is NaN.
	N      int
	Values []float64
	// Null: there is a null. Record: the body is a record, or a list of them. Whole: no number has a point or an
	// exponent.
	Null   bool
	Record bool
	Whole  bool

	seen  []uint32 // the record in which a column was seen last
	count uint32
}

// The reasons why a body is not read.
var (
	ErrSyntax   = errors.New("the body is not the JSON that is expected")
	ErrRagged   = errors.New("the rows have not as many values as there are columns")
	ErrCell     = errors.New("a cell is neither a number nor null")
	ErrNumber   = errors.New("a number is too large to be exact")
	ErrColumn   = errors.New("a record has not exactly the columns of the model")
	ErrCategory = errors.New("a cell is not one of the categories of its column")
	ErrText     = errors.New("a text is not plain UTF-8")
)

// Parse reads a body. It fails for every body that Python reads otherwise, refuses, or that has
// another form.
func (f *Form) Parse(body []byte, into *Rows) error {
	into.N, into.Values, into.Null, into.Record = 0, into.Values[:0], false, false
	s := scanner{b: body}
	s.space()
	switch {
	case s.take('{'):
		if !f.records {
			return ErrSyntax
		}
		into.Record = true
		if err := f.record(&s, into); err != nil {
			return err
		}
	case s.take('['):
		s.space()
		if s.at >= len(s.b) {
			return ErrSyntax
		}
		into.Record = s.b[s.at] == '{'
		if into.Record && !f.records || !into.Record && !f.rows {
			return ErrSyntax
		}
		for {
			var err error
			switch {
			case into.Record && s.take('{'):
				err = f.record(&s, into)
			case !into.Record && s.take('['):
				err = f.row(&s, into)
			default:
				err = ErrSyntax
			}
			if err != nil {
				return err
			}
			s.space()
			if s.take(']') {
				break
			}
			if !s.take(',') {
				return ErrSyntax
			}
			s.space()
		}
	default:
		return ErrSyntax
	}
	s.space()
	if s.at != len(s.b) {
		return ErrSyntax
	}
	into.Whole = !s.fractions
	return nil
}

// row reads the cells behind a bracket.
func (f *Form) row(s *scanner, into *Rows) error {
	for n := range f.columns {
		if n > 0 {
			s.space()
			if !s.take(',') {
				return ErrRagged
			}
		}
		s.space()
		value, null, err := s.number()
		if err != nil {
			return err
		}
		into.Null = into.Null || null
		into.Values = append(into.Values, value)
	}
	s.space()
	if !s.take(']') {
		return ErrRagged
	}
	into.N++
	return nil
}

// record reads the cells behind a brace.
func (f *Form) record(s *scanner, into *Rows) error {
	if len(into.seen) != len(f.columns) || into.count == math.MaxUint32 {
		into.seen, into.count = make([]uint32, len(f.columns)), 0
	}
	into.count++
	start := len(into.Values)
	for range f.columns {
		into.Values = append(into.Values, 0)
	}
	row := into.Values[start:]
	for n := range f.columns {
		s.space()
		if n > 0 {
			if !s.take(',') {
				return ErrColumn
			}
			s.space()
		}
		name, err := s.text()
		if err != nil {
			return err
		}
		i := n // records usually have the columns in their order
		if f.columns[n].Name != name {
			known := false
			if i, known = f.byName[name]; !known {
				return ErrColumn
			}
		}
		if into.seen[i] == into.count {
			return ErrColumn
		}
		into.seen[i] = into.count
		s.space()
		if !s.take(':') {
			return ErrSyntax
		}
		s.space()
		value, null, err := s.cell(&f.columns[i])
		if err != nil {
			return err
		}
		row[i], into.Null = value, into.Null || null
	}
	s.space()
	if !s.take('}') {
		return ErrColumn
	}
	into.N++
	return nil
}

type scanner struct {
	b         []byte
	at        int
	fractions bool // a number had a point or an exponent
}

func (s *scanner) space() {
	for s.at < len(s.b) {
		switch s.b[s.at] {
		case ' ', '\t', '\n', '\r':
			s.at++
		default:
			return
		}
	}
}

func (s *scanner) take(c byte) bool {
	if s.at < len(s.b) && s.b[s.at] == c {
		s.at++
		return true
	}
	return false
}

// cell reads the value of a column in a record.
func (s *scanner) cell(c *Column) (value float64, null bool, err error) {
	if !c.categorical() {
		return s.number()
	}
	var known bool
	if s.at < len(s.b) && s.b[s.at] == '"' {
		if c.Categories == nil {
			return 0, false, ErrCategory
		}
		text, err := s.text()
		if err != nil {
			return 0, false, err
		}
		value, known = c.Categories[text]
	} else {
		value, null, err = s.number()
		if err != nil || null {
			return value, null, err
		}
		if c.Numbers == nil {
			return 0, false, ErrCategory
		}
		value, known = c.Numbers[value]
	}
	if known {
		return value, false, nil
	}
	if c.Strict {
		return 0, false, ErrCategory
	}
	return c.Unknown, false, nil
}

// exact is the largest whole number below which all are exact.
const exact = 1 << 53

// powers are the powers of ten that are exact.
var powers = [...]float64{1e0, 1e1, 1e2, 1e3, 1e4, 1e5, 1e6, 1e7, 1e8, 1e9, 1e10, 1e11, 1e12, 1e13, 1e14, 1e15, 1e16, 1e17, 1e18, 1e19, 1e20, 1e21, 1e22} //nolint:gochecknoglobals // a constant table

// number reads a number, or null. A whole number without point and exponent is a Python int, so
// -0 is 0.
func (s *scanner) number() (value float64, null bool, err error) {
	b, from := s.b, s.at
	i := from
	negative := false
	if i < len(b) && b[i] == '-' {
		negative = true
		i++
	}
	first := i
	var mantissa uint64
	digits := 0 // of the mantissa, without leading zeros
	for i < len(b) && isDigit(b[i]) {
		if digits < 19 {
			mantissa = mantissa*10 + uint64(b[i]-'0')
		}
		if mantissa > 0 {
			digits++
		}
		i++
	}
	switch {
	case i == first:
		if !negative && len(b)-i >= 4 && string(b[i:i+4]) == "null" {
			s.at = i + 4
			return math.NaN(), true, nil
		}
		return 0, false, ErrCell
	case b[first] == '0' && i > first+1:
		return 0, false, ErrSyntax
	}
	whole := true
	exponent := 0
	if i < len(b) && b[i] == '.' {
		whole = false
		i++
		begun := i
		for i < len(b) && isDigit(b[i]) {
			if digits < 19 {
				mantissa = mantissa*10 + uint64(b[i]-'0')
			}
			if mantissa > 0 {
				digits++
			}
			i++
		}
		if i == begun {
			return 0, false, ErrSyntax
		}
		exponent = begun - i
	}
	if i < len(b) && (b[i] == 'e' || b[i] == 'E') {
		whole = false
		i++
		minus := false
		if i < len(b) && (b[i] == '+' || b[i] == '-') {
			minus = b[i] == '-'
			i++
		}
		begun, power := i, 0
		for i < len(b) && isDigit(b[i]) {
			power = min(power*10+int(b[i]-'0'), 1_000_000)
			i++
		}
		if i == begun {
			return 0, false, ErrSyntax
		}
		if minus {
			power = -power
		}
		exponent += power
	}
	s.at = i
	if whole {
		if digits > 16 || mantissa > exact {
			return 0, false, ErrNumber
		}
		if value = float64(mantissa); negative && mantissa > 0 {
			value = -value
		}
		return value, false, nil
	}
	s.fractions = true
	if digits <= 19 && mantissa <= exact && exponent >= -22 && exponent <= 22 {
		if value = float64(mantissa); exponent < 0 {
			value /= powers[-exponent]
		} else {
			value *= powers[exponent]
		}
		if negative {
			value = -value
		}
		return value, false, nil
	}
	value, err = strconv.ParseFloat(unsafe.String(&b[from], i-from), 64)
	if err != nil { // infinite
		return 0, false, ErrNumber
	}
	return value, false, nil
}

func isDigit(c byte) bool { return c >= '0' && c <= '9' }

// text reads a text in quotes. It may lie in the body.
func (s *scanner) text() (string, error) {
	if !s.take('"') {
		return "", ErrSyntax
	}
	begun, plain, ascii := s.at, true, true
	for i := begun; i < len(s.b); i++ {
		switch c := s.b[i]; {
		case c == '"':
			s.at = i + 1
			if i == begun {
				return "", nil
			}
			raw := s.b[begun:i]
			switch {
			case !ascii && !utf8.Valid(raw):
				return "", ErrText
			case plain:
				return unsafe.String(&raw[0], len(raw)), nil
			}
			return unescape(s.b[begun-1 : i+1])
		case c == '\\':
			plain = false
			i++
		case c < ' ':
			return "", ErrText
		case c >= utf8.RuneSelf:
			ascii = false
		}
	}
	return "", ErrSyntax
}

// unescape reads a text with escapes. Halves of surrogate pairs are refused: Python keeps them.
func unescape(quoted []byte) (string, error) {
	var text string
	if err := json.Unmarshal(quoted, &text); err != nil || strings.ContainsRune(text, utf8.RuneError) {
		return "", ErrText
	}
	return text, nil
}

// Fields returns the members of a record by their names, as JSON in Python's words. It is nil for a body that Parse
// does not read as one record.
func (f *Form) Fields(body []byte, names []string) []byte {
	s := scanner{b: body}
	s.space()
	if !s.take('{') {
		return nil
	}
	found := map[string][]byte{}
	for {
		s.space()
		name, err := s.text()
		if err != nil {
			return nil
		}
		s.space()
		s.take(':')
		s.space()
		begun := s.at
		if s.at < len(s.b) && s.b[s.at] == '"' {
			text, err := s.text()
			if err != nil {
				return nil
			}
			found[name] = AppendText(nil, text)
		} else {
			value, null, err := s.number()
			if err != nil {
				return nil
			}
			raw := s.b[begun:s.at]
			switch {
			case null:
				found[name] = []byte("null")
			case strings.ContainsAny(string(raw), ".eE"):
				found[name] = AppendFloat(nil, value)
			default:
				found[name] = strconv.AppendInt(nil, int64(value), 10)
			}
		}
		s.space()
		if s.take('}') {
			break
		}
		if !s.take(',') {
			return nil
		}
	}
	var b []byte
	for _, name := range names {
		value, ok := found[name]
		if !ok {
			continue
		}
		delete(found, name) // a name may be listed twice
		if b == nil {
			b = append(b, '{')
		} else {
			b = append(b, ',')
		}
		b = append(append(AppendText(b, name), ':'), value...)
	}
	if b == nil {
		return nil
	}
	return append(b, '}')
}
