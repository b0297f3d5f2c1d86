package jsontensor

import (
	"encoding/binary"
	"fmt"
	"math"
	"slices"
	"strconv"
	"strings"
	"unsafe"

	"clearmlserving/inference/engine"
)

// BodyError says why a body is not the inputs of a model.
type BodyError struct {
	Text string
	// At is the place in the body where its JSON ends to be valid, -1: it is valid.
	At int
}

func (e *BodyError) Error() string { return e.Text }

func refuse(format string, args ...any) error {
	return &BodyError{Text: fmt.Sprintf(format, args...), At: -1}
}

// deepest bounds nested lists.
const deepest = 32

// Tensors reads a body into tensors for the inputs, in their order: the nested list of a single input,
// an object with a list for each input, or, if each input has one value for each row, a record or a list
// of records. A null in an input of floating point numbers is NaN. A body that is something else is a
// *BodyError.
func Tensors(body []byte, inputs []engine.TensorSpec) ([]engine.Tensor, error) {
	p := &tensorParser{s: scanner{b: body}, inputs: inputs}
	p.s.space()
	if p.s.at == len(body) {
		return nil, refuse("the body is empty: the model has the inputs %s", named(inputs))
	}
	var err error
	switch p.s.peek() {
	case '{':
		err = p.object()
	case '[':
		if p.isTable() && p.s.recordsFollow() {
			err = p.records()
			break
		}
		fallthrough
	default:
		if len(inputs) != 1 {
			return nil, refuse("the body is not an object: the model has the inputs %s", named(inputs))
		}
		err = p.only()
	}
	if err != nil {
		return nil, err
	}
	p.s.space()
	if p.s.at != len(body) {
		return nil, p.s.syntax("Extra data")
	}
	return p.tensors()
}

type tensorParser struct {
	s      scanner
	inputs []engine.TensorSpec
	parts  []part
	rows   int
}

// part is what has been read of an input.
type part struct {
	data  []byte
	shape []int64 // as far as lists have ended
	depth int     // of the values, -1: none was seen
	seen  bool
}

func (p *tensorParser) only() error {
	p.parts = make([]part, 1)
	return p.value(0)
}

// object reads inputs by their names: lists of values, or one value each.
func (p *tensorParser) object() error {
	p.parts = make([]part, len(p.inputs))
	if err := p.members(p.value); err != nil {
		return err
	}
	if missing := p.missing(); missing != "" {
		return refuse("the body has no %s", missing)
	}
	if !p.isTable() {
		return nil
	}
	for i := range p.parts {
		if p.parts[i].depth != 0 {
			return nil // columns
		}
	}
	for i := range p.parts { // a record is a table of one row
		p.parts[i].shape, p.parts[i].depth = []int64{1}, 1
	}
	return nil
}

// members reads an object whose names are inputs.
func (p *tensorParser) members(read func(i int) error) error {
	s := &p.s
	s.at++
	s.space()
	if s.take('}') {
		return nil
	}
	for n := 0; ; n++ {
		s.space()
		if s.peek() != '"' {
			return s.syntax("Expecting property name enclosed in double quotes")
		}
		name, err := s.text()
		if err != nil {
			return s.syntax("Invalid text")
		}
		i := n
		if n >= len(p.inputs) || p.inputs[n].Name != name {
			i = slices.IndexFunc(p.inputs, func(t engine.TensorSpec) bool { return t.Name == name })
		}
		if i < 0 {
			return refuse("the model has no input %s: its inputs are %s", quoted(name), named(p.inputs))
		}
		if p.parts[i].seen {
			return refuse("the body has %s twice", quoted(name))
		}
		p.parts[i].seen = true
		s.space()
		if !s.take(':') {
			return s.syntax("Expecting ':' delimiter")
		}
		if err := read(i); err != nil {
			return err
		}
		s.space()
		if s.take('}') {
			return nil
		}
		if !s.take(',') {
			return s.syntax("Expecting ',' delimiter")
		}
	}
}

// records reads a list of records.
func (p *tensorParser) records() error {
	p.parts = make([]part, len(p.inputs))
	s := &p.s
	s.at++
	cell := func(i int) error {
		s.space()
		if s.peek() == '[' || s.peek() == '{' {
			return p.wrong(i, "a list or an object: a record has one value")
		}
		return p.scalar(i)
	}
	for {
		s.space()
		if s.peek() != '{' {
			return refuse("row %d is no record, as the rows before it", p.rows)
		}
		for i := range p.parts {
			p.parts[i].seen = false
		}
		if err := p.members(cell); err != nil {
			return err
		}
		if missing := p.missing(); missing != "" {
			return refuse("row %d has no %s", p.rows, missing)
		}
		p.rows++
		s.space()
		if s.take(']') {
			break
		}
		if !s.take(',') {
			return s.syntax("Expecting ',' delimiter")
		}
	}
	for i := range p.parts {
		p.parts[i].shape, p.parts[i].depth = []int64{int64(p.rows)}, 1
	}
	return nil
}

func (p *tensorParser) missing() string {
	var names []string
	for i := range p.parts {
		if !p.parts[i].seen {
			names = append(names, quoted(p.inputs[i].Name))
		}
	}
	return strings.Join(names, ", ")
}

// isTable reports whether each input has one value for each row.
func (p *tensorParser) isTable() bool { return IsTable(p.inputs) }

// IsTable reports whether each input has one value for each row, so that records are accepted.
func IsTable(inputs []engine.TensorSpec) bool {
	return len(inputs) > 0 && !slices.ContainsFunc(inputs, func(t engine.TensorSpec) bool {
		return len(t.Shape) == 0 || len(t.Shape) > 2 || t.Shape[0] >= 0 || len(t.Shape) == 2 && t.Shape[1] != 1
	})
}

// value reads a value of input i with its lists.
func (p *tensorParser) value(i int) error {
	p.parts[i].depth, p.parts[i].shape = -1, nil
	sizes := [deepest]int64{}
	for d := range sizes {
		sizes[d] = -1
	}
	deep := -1
	if err := p.list(i, 0, &sizes, &deep); err != nil {
		return err
	}
	part := &p.parts[i]
	shape := make([]int64, 0, 4)
	for _, n := range sizes {
		if n < 0 {
			break
		}
		shape = append(shape, n)
	}
	part.shape, part.depth = shape, deep
	return nil
}

func (p *tensorParser) list(i, depth int, sizes *[deepest]int64, deep *int) error {
	s := &p.s
	s.space()
	if s.peek() != '[' {
		if *deep >= 0 && *deep != depth {
			return p.ragged(i)
		}
		if *deep < 0 && depth < deepest && sizes[depth] >= 0 { // a list was here
			return p.ragged(i)
		}
		*deep = depth
		return p.scalar(i)
	}
	if depth == deepest || *deep >= 0 && depth >= *deep {
		return p.ragged(i)
	}
	s.at++
	n := int64(0)
	s.space()
	if !s.take(']') {
		for {
			if err := p.list(i, depth+1, sizes, deep); err != nil {
				return err
			}
			n++
			s.space()
			if s.take(']') {
				break
			}
			if !s.take(',') {
				return s.syntax("Expecting ',' delimiter")
			}
		}
	}
	if sizes[depth] >= 0 && sizes[depth] != n {
		return p.ragged(i)
	}
	sizes[depth] = n
	return nil
}

func (p *tensorParser) ragged(i int) error {
	return refuse("input %s: its lists have different lengths or depths", quoted(p.inputs[i].Name))
}

// wrong refuses the value before the cursor.
func (p *tensorParser) wrong(i int, what string) error {
	size := p.inputs[i].Datatype.Size()
	at := ""
	if size > 0 {
		at = fmt.Sprintf(", value %d", int64(len(p.parts[i].data))/size)
	}
	return refuse("input %s%s (of type %s) is %s", quoted(p.inputs[i].Name), at, p.inputs[i].Datatype, what)
}

// scalar reads one element.
func (p *tensorParser) scalar(i int) error {
	s, part := &p.s, &p.parts[i]
	s.space()
	kind := p.inputs[i].Datatype
	c := s.peek()
	if kind == engine.Bytes {
		if c != '"' {
			return p.wrong(i, "no text: "+s.shown())
		}
		text, err := s.text()
		if err != nil {
			return s.syntax("Invalid text")
		}
		if len(text) > math.MaxInt32 {
			return p.wrong(i, "too long")
		}
		part.data = append(binary.LittleEndian.AppendUint32(part.data, uint32(len(text))), text...) //nolint:gosec // checked
		return nil
	}
	if kind == engine.Bool {
		switch {
		case s.word("true"):
			part.data = append(part.data, 1)
		case s.word("false"):
			part.data = append(part.data, 0)
		default:
			return p.wrong(i, "neither true nor false: "+s.shown())
		}
		return nil
	}
	begun := s.at
	switch kind { //nolint:exhaustive // others are whole numbers
	case engine.FP32, engine.FP64, engine.FP16, engine.BF16:
		value, _, err := s.number()
		if err != nil {
			s.at = begun
			text := s.numeral()
			if value, err = strconv.ParseFloat(text, 64); err != nil || text == "" {
				s.at = begun
				return p.wrong(i, "no number: "+s.shown())
			}
		}
		if infinite(kind, value) {
			s.at = begun
			return p.wrong(i, "no such number: "+s.shown())
		}
		part.data = appendFloat(part.data, kind, value)
		return nil
	}
	text := s.numeral()
	ok := text != ""
	if ok {
		part.data, ok = appendWhole(part.data, kind, text)
	}
	if !ok {
		s.at = begun
		return p.wrong(i, "no such number: "+s.shown())
	}
	return nil
}

// infinite reports whether a number is out of the range of a type.
func infinite(kind engine.Datatype, value float64) bool {
	switch kind { //nolint:exhaustive // of floats
	case engine.FP32:
		value = float64(float32(value))
	case engine.FP16:
		value = Float16(float16(value))
	case engine.BF16:
		value = float64(math.Float32frombits(uint32(bfloat16(float32(value))) << 16))
	}
	return math.IsInf(value, 0)
}

func appendFloat(b []byte, kind engine.Datatype, value float64) []byte {
	switch kind { //nolint:exhaustive // of floats
	case engine.FP64:
		return binary.LittleEndian.AppendUint64(b, math.Float64bits(value))
	case engine.FP32:
		return binary.LittleEndian.AppendUint32(b, math.Float32bits(float32(value)))
	case engine.BF16:
		return binary.LittleEndian.AppendUint16(b, bfloat16(float32(value)))
	}
	return binary.LittleEndian.AppendUint16(b, float16(value))
}

// appendWhole appends a whole number, also if it is written as 1.0 or 1e3.
func appendWhole(b []byte, kind engine.Datatype, text string) ([]byte, bool) {
	size := int(kind.Size())
	if size == 0 {
		return b, false
	}
	var bits uint64
	signed := kind == engine.Int8 || kind == engine.Int16 || kind == engine.Int32 || kind == engine.Int64
	if signed {
		n, err := strconv.ParseInt(text, 10, size*8)
		if err != nil {
			f, errFloat := strconv.ParseFloat(text, 64)
			limit := math.Ldexp(1, size*8-1)
			if errFloat != nil || f != math.Trunc(f) || f < -limit || f >= limit || !strings.ContainsAny(text, ".eE") {
				return b, false
			}
			n = int64(f)
		}
		bits = uint64(n) //nolint:gosec // its bits
	} else {
		n, err := strconv.ParseUint(text, 10, size*8)
		if err != nil {
			f, errFloat := strconv.ParseFloat(text, 64)
			if errFloat != nil || f != math.Trunc(f) || f < 0 || f >= math.Ldexp(1, size*8) || !strings.ContainsAny(text, ".eE") && f != 0 {
				return b, false
			}
			n = uint64(f)
		}
		bits = n
	}
	var word [8]byte
	binary.LittleEndian.PutUint64(word[:], bits)
	return append(b, word[:size]...), true
}

// tensors are the parts, with shapes that the inputs have.
func (p *tensorParser) tensors() ([]engine.Tensor, error) {
	out := make([]engine.Tensor, len(p.inputs))
	for i, spec := range p.inputs {
		part := &p.parts[i]
		shape := part.shape
		if spec.Shape != nil {
			switch rank := len(spec.Shape); {
			case part.depth < 0: // an empty list at some depth
				for d := len(shape); d < rank; d++ {
					shape = append(shape, max(spec.Shape[d], 0))
				}
			case len(shape) == rank-1 && spec.Shape[rank-1] == 1:
				shape = append(shape, 1)
			}
			if !Fits(shape, spec.Shape) {
				return nil, refuse("input %s has the shape %v: the model takes %s", quoted(spec.Name), shape, ShapeText(spec.Shape))
			}
		}
		out[i] = engine.Tensor{Name: spec.Name, Datatype: spec.Datatype, Shape: shape, Data: part.data}
	}
	return out, nil
}

// Fits reports whether a tensor's shape is one that a model takes.
func Fits(shape, wanted []int64) bool {
	return wanted == nil || slices.EqualFunc(shape, wanted, func(n, m int64) bool { return m < 0 || n == m })
}

// ShapeText is a shape for people, with ? for a dimension of any length.
func ShapeText(shape []int64) string {
	words := make([]string, len(shape))
	for i, n := range shape {
		if words[i] = strconv.FormatInt(n, 10); n < 0 {
			words[i] = "?"
		}
	}
	return "[" + strings.Join(words, " ") + "]"
}

func quoted(name string) string { return "'" + name + "'" }

// mostNamed bounds the names in an error.
const mostNamed = 30

func named(inputs []engine.TensorSpec) string {
	var names []string
	for _, t := range inputs[:min(len(inputs), mostNamed)] {
		names = append(names, quoted(t.Name))
	}
	text := strings.Join(names, ", ")
	if more := len(inputs) - mostNamed; more > 0 {
		text += fmt.Sprintf(" and %d more", more)
	}
	return text
}

func (s *scanner) peek() byte {
	if s.at < len(s.b) {
		return s.b[s.at]
	}
	return 0
}

// recordsFollow reports whether the list at the cursor begins with a record.
func (s *scanner) recordsFollow() bool {
	ahead := scanner{b: s.b, at: s.at + 1}
	ahead.space()
	return ahead.peek() == '{'
}

func (s *scanner) word(w string) bool {
	if strings.HasPrefix(unsafe.String(unsafe.SliceData(s.b[s.at:]), len(s.b)-s.at), w) {
		s.at += len(w)
		return true
	}
	return false
}

// numeral reads a number as JSON writes it, "" if there is none.
func (s *scanner) numeral() string {
	i := s.at
	digits := func() bool {
		from := i
		for i < len(s.b) && isDigit(s.b[i]) {
			i++
		}
		return i > from
	}
	has := func(c byte) bool {
		if i < len(s.b) && s.b[i] == c {
			i++
			return true
		}
		return false
	}
	has('-')
	if first := i; !digits() || s.b[first] == '0' && i > first+1 {
		return ""
	}
	if has('.') && !digits() {
		return ""
	}
	if has('e') || has('E') {
		if !has('+') {
			has('-')
		}
		if !digits() {
			return ""
		}
	}
	text := unsafe.String(&s.b[s.at], i-s.at)
	s.at = i
	return text
}

// shown is what is at the cursor, for an error.
func (s *scanner) shown() string {
	rest := s.b[s.at:]
	if i := slices.IndexFunc(rest, func(c byte) bool { return strings.IndexByte(",]} \n\t\r", c) >= 0 }); i >= 0 && (len(rest) == 0 || rest[0] != '"') {
		rest = rest[:i]
	}
	if len(rest) > 24 {
		rest = append(slices.Clone(rest[:24]), "..."...)
	}
	return strings.ToValidUTF8(string(rest), "?")
}

// syntax is the error of a body that is no JSON.
func (s *scanner) syntax(what string) error { return &BodyError{Text: what, At: s.at} }
