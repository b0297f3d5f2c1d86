package v2

import (
	"encoding/binary"
	"errors"
	"fmt"
	"math"
	"slices"
	"strconv"
	"strings"
	"unicode/utf8"

	"clearmlserving/inference/engine"
	"clearmlserving/inference/engine/jsontensor"
)

// CheckData checks that the data of a tensor is as its datatype and shape say, and that the elements of
// a BOOL are 0 or 1.
func CheckData(t *engine.Tensor) error {
	if err := t.Check(); err != nil || t.Datatype != engine.Bool {
		return err
	}
	return checkBools(t.Data)
}

func checkBools(data []byte) error {
	for i, b := range data {
		if b > 1 {
			return fmt.Errorf("its element %d is %d, but a BOOL is 0 or 1", i, b)
		}
	}
	return nil
}

// room checks that n elements may be allocated: the datatype is known, and the limit not exceeded.
func room(d engine.Datatype, n, limit int64) error {
	size := d.Size()
	if d == engine.Bytes {
		size = 4
	}
	if n > limit/size {
		return errLimit
	}
	return nil
}

var errLimit = errors.New("the limit is exceeded")

// data reads the list "data" of a tensor with n elements into t.Data, which it appends to dst.
func (s *scanner) data(t *engine.Tensor, n int64, dst []byte) ([]byte, error) {
	if t.Datatype == engine.FP16 || t.Datatype == engine.BF16 {
		return dst, fmt.Errorf("%s has no form in JSON: send it as binary data", t.Datatype)
	}
	if !s.take('[') {
		return dst, errors.New("its data is no list")
	}
	if n > int64(len(s.b)-s.i) { // each element takes a byte at least
		return dst, fmt.Errorf("its shape %s has %d elements, its data has less", engine.Shape(t.Shape), n)
	}
	if size := t.Datatype.Size(); size > 0 {
		dst = slices.Grow(dst, int(n*size))
	}
	r := reader{scanner: s, t: t, total: n, dst: dst}
	nested := len(t.Shape) > 1 && s.peek() == '['
	var err error
	if nested {
		err = r.level(t.Shape)
	} else {
		err = r.row(n)
	}
	return r.dst, err
}

// reader reads the elements of one tensor.
type reader struct {
	*scanner

	t     *engine.Tensor
	total int64
	read  int64
	dst   []byte
}

// level reads one level of nested lists, whose '[' has been read.
func (r *reader) level(shape []int64) error {
	if len(shape) == 1 {
		return r.row(shape[0])
	}
	for i := range shape[0] {
		if i > 0 && !r.take(',') {
			return r.shapeless(shape[0], i)
		}
		if !r.take('[') {
			return fmt.Errorf("its data is not nested as its shape %s", engine.Shape(r.t.Shape))
		}
		if err := r.level(shape[1:]); err != nil {
			return err
		}
	}
	if !r.take(']') {
		return r.shapeless(shape[0], shape[0])
	}
	return nil
}

// shapeless is the error of a list that ends too early or too late.
func (r *reader) shapeless(want, have int64) error {
	switch r.peek() {
	case ']':
		if len(r.t.Shape) > 1 && want != r.total {
			return fmt.Errorf("a list in its data has %d elements, where its shape %s has %d", have, engine.Shape(r.t.Shape), want)
		}
		return fmt.Errorf("its data has %d elements, but its shape %s has %d", r.read, engine.Shape(r.t.Shape), r.total)
	case ',':
		if len(r.t.Shape) > 1 && want != r.total {
			return fmt.Errorf("a list in its data has more than %d elements, against its shape %s", want, engine.Shape(r.t.Shape))
		}
		return fmt.Errorf("its data has more than %d elements, against its shape %s", r.total, engine.Shape(r.t.Shape))
	}
	return r.broken("',' or ']'")
}

// row reads n elements, and the end of their list.
func (r *reader) row(n int64) error {
	var err error
	switch r.t.Datatype {
	case engine.FP32:
		err = r.floats(n, 32)
	case engine.FP64:
		err = r.floats(n, 64)
	case engine.Bool:
		err = r.bools(n)
	case engine.Bytes:
		err = r.texts(n)
	case engine.Uint8, engine.Uint16, engine.Uint32, engine.Uint64:
		err = r.unsigned(n, int(r.t.Datatype.Size()))
	default:
		err = r.signed(n, int(r.t.Datatype.Size()))
	}
	if err != nil {
		return err
	}
	if !r.take(']') {
		return r.shapeless(n, n)
	}
	return nil
}

// next reads what is before element i of n.
func (r *reader) next(i, n int64) error {
	if i > 0 {
		if !r.take(',') {
			return r.shapeless(n, i)
		}
	} else if r.peek() == ']' {
		return r.shapeless(n, 0)
	}
	r.peek()
	return nil
}

// unlike is the error of an element that is not of the datatype.
func (r *reader) unlike() error {
	start := r.i
	c := r.peek()
	if c == '[' {
		return fmt.Errorf("its data is not nested as its shape %s", engine.Shape(r.t.Shape))
	}
	if err := r.skip(0); err != nil {
		return err
	}
	return fmt.Errorf("its element %d is %s, which is no %s", r.read, near(r.b[start:r.i]), r.t.Datatype)
}

// at is unlike for the element that begins at start.
func (r *reader) at(start int) error {
	r.i = start
	return r.unlike()
}

// pow10 are the powers of ten that a float64 holds exactly.
var pow10 = [...]float64{ //nolint:gochecknoglobals // a constant table
	1e0, 1e1, 1e2, 1e3, 1e4, 1e5, 1e6, 1e7, 1e8, 1e9, 1e10, 1e11, 1e12, 1e13, 1e14, 1e15, 1e16, 1e17, 1e18, 1e19, 1e20, 1e21, 1e22,
}

func (r *reader) floats(n int64, size int) error {
	for i := range n {
		if err := r.next(i, n); err != nil {
			return err
		}
		f, err := r.float(size)
		if err != nil {
			return err
		}
		if size == 32 {
			r.dst = binary.LittleEndian.AppendUint32(r.dst, math.Float32bits(float32(f)))
		} else {
			r.dst = binary.LittleEndian.AppendUint64(r.dst, math.Float64bits(f))
		}
		r.read++
	}
	return nil
}

// float reads one number, correctly rounded to 32 or 64 bits. null is a missing value: clients whose
// JSON has no NaN send it.
func (r *reader) float(size int) (float64, error) {
	if r.i >= len(r.b) {
		return 0, r.broken("a number")
	}
	if c := r.b[r.i]; c != '-' && c-'0' > 9 {
		return r.special()
	}
	n, start, err := r.number()
	if err != nil {
		r.i = start
		if f, special := r.special(); special == nil { // -Infinity
			return f, nil
		}
		return 0, err
	}
	if f, ok := n.float(size); ok {
		return f, nil
	}
	f, err := strconv.ParseFloat(string(r.b[start:r.i]), size)
	if err != nil {
		return 0, fmt.Errorf("its element %d is %s, which is out of the range of %s", r.read, near(r.b[start:r.i]), r.t.Datatype)
	}
	return f, nil
}

// float is the number correctly rounded, if its digits and its power of ten are exact in the type:
// then one operation rounds once.
func (n number) float(size int) (f float64, ok bool) {
	switch {
	case !n.exact:
		return 0, false
	case size == 32:
		if n.mantissa > 1<<24 || n.exponent < -10 || n.exponent > 10 {
			return 0, false
		}
		if n.exponent < 0 {
			f = float64(float32(n.mantissa) / float32(pow10[-n.exponent]))
		} else {
			f = float64(float32(n.mantissa) * float32(pow10[n.exponent]))
		}
	case n.mantissa > 1<<53 || n.exponent < -22 || n.exponent > 22:
		return 0, false
	case n.exponent < 0:
		f = float64(n.mantissa) / pow10[-n.exponent]
	default:
		f = float64(n.mantissa) * pow10[n.exponent]
	}
	if n.negative {
		f = -f
	}
	return f, true
}

func (r *reader) special() (float64, error) {
	start := r.i
	switch r.word() {
	case "NaN", "null":
		return math.NaN(), nil
	case "Infinity", "Inf":
		return math.Inf(1), nil
	case "-Infinity", "-Inf":
		return math.Inf(-1), nil
	}
	return 0, r.at(start)
}

// integer reads one integer.
func (r *reader) integer() (number, int, error) {
	if r.i < len(r.b) && r.b[r.i] != '-' && r.b[r.i]-'0' > 9 {
		return number{}, 0, r.unlike()
	}
	n, start, err := r.number()
	if err == nil && !n.integer && !n.whole() {
		err = r.at(start)
	}
	return n, start, err
}

// whole makes a number with a fraction or an exponent an integer if it is one: clients that hold all numbers as floats
// send 1.0.
func (n *number) whole() bool {
	if !n.exact {
		return false
	}
	for ; n.exponent < 0; n.exponent++ {
		if n.mantissa == 0 {
			break
		}
		if n.mantissa%10 != 0 {
			return false
		}
		n.mantissa /= 10
	}
	for ; n.exponent > 0 && n.mantissa > 0; n.exponent-- {
		if n.mantissa > math.MaxUint64/10 {
			return false
		}
		n.mantissa *= 10
	}
	n.integer = true
	return true
}

func (r *reader) outOfRange(start int) error {
	return fmt.Errorf("its element %d is %s, which is out of the range of %s", r.read, near(r.b[start:r.i]), r.t.Datatype)
}

func (r *reader) signed(n int64, size int) error {
	most := uint64(1)<<(8*size-1) - 1
	for i := range n {
		if err := r.next(i, n); err != nil {
			return err
		}
		v, start, err := r.integer()
		if err != nil {
			return err
		}
		top := most
		if v.negative {
			top++
		}
		if !v.exact || v.mantissa > top {
			return r.outOfRange(start)
		}
		if v.negative {
			v.mantissa = -v.mantissa
		}
		r.put(v.mantissa, size)
	}
	return nil
}

func (r *reader) unsigned(n int64, size int) error {
	most := uint64(math.MaxUint64) >> (64 - 8*size)
	for i := range n {
		if err := r.next(i, n); err != nil {
			return err
		}
		v, start, err := r.integer()
		if err != nil {
			return err
		}
		if !v.exact { // 20 digits may fit
			u, err := strconv.ParseUint(string(r.b[start:r.i]), 10, 64)
			if err != nil {
				return r.outOfRange(start)
			}
			v.mantissa = u
		}
		if v.mantissa > most || v.negative && v.mantissa > 0 {
			return r.outOfRange(start)
		}
		r.put(v.mantissa, size)
	}
	return nil
}

// put appends an integer of size bytes.
func (r *reader) put(v uint64, size int) {
	switch size {
	case 1:
		r.dst = append(r.dst, byte(v))
	case 2:
		r.dst = binary.LittleEndian.AppendUint16(r.dst, uint16(v))
	case 4:
		r.dst = binary.LittleEndian.AppendUint32(r.dst, uint32(v))
	default:
		r.dst = binary.LittleEndian.AppendUint64(r.dst, v)
	}
	r.read++
}

func (r *reader) bools(n int64) error {
	for i := range n {
		if err := r.next(i, n); err != nil {
			return err
		}
		start := r.i
		value := byte(0)
		switch word := r.word(); word {
		case "true":
			value = 1
		case "false":
		default:
			r.i = start
			if !r.take('0') {
				if !r.take('1') {
					return r.at(start)
				}
				value = 1
			}
			if c := r.peek(); c != ',' && c != ']' {
				return r.at(start)
			}
		}
		r.dst = append(r.dst, value)
		r.read++
	}
	return nil
}

func (r *reader) texts(n int64) error {
	for i := range n {
		if err := r.next(i, n); err != nil {
			return err
		}
		if r.i < len(r.b) && r.b[r.i] != '"' {
			return r.unlike()
		}
		at := len(r.dst)
		dst, err := r.appendText(append(r.dst, 0, 0, 0, 0), "an element")
		if err != nil {
			return err
		}
		length := len(dst) - at - 4
		if int64(length) > math.MaxUint32 {
			return fmt.Errorf("its element %d has more than 4 GiB", r.read)
		}
		binary.LittleEndian.PutUint32(dst[at:], uint32(length))
		r.dst = dst
		r.read++
	}
	return nil
}

// AppendFlat appends the elements of a tensor as a flat JSON list. t has been checked (CheckData).
// Elements of BYTES that are not valid UTF-8, and FP16, have no form in JSON. NaN is null, which every
// client reads as NaN; infinity has no form that all of them read.
func AppendFlat(dst []byte, t *engine.Tensor) ([]byte, error) {
	w := newWriter(t, "null")
	dst, err := w.row(append(dst, '['), countOf(t))
	return append(dst, ']'), err
}

// AppendNested appends the elements as nested lists of the tensor's shape, a scalar without a list. NaN is
// NaN, as in Python.
func AppendNested(dst []byte, t *engine.Tensor) ([]byte, error) {
	w := newWriter(t, "NaN")
	switch {
	case len(t.Shape) == 0:
		return w.row(dst, 1)
	case countOf(t) == 0: // its other dimensions may be huge
		return append(dst, "[]"...), nil
	}
	return w.level(dst, t.Shape)
}

func countOf(t *engine.Tensor) int64 {
	n, err := engine.Elements(t.Shape)
	if err != nil {
		return 0
	}
	return n
}

// writer appends the elements of one tensor.
type writer struct {
	t    *engine.Tensor
	size int64  // of an element, 0: they differ
	data []byte // the rest
	nan  string
}

func newWriter(t *engine.Tensor, nan string) writer {
	return writer{t: t, size: t.Datatype.Size(), data: t.Data, nan: nan}
}

func (w *writer) level(dst []byte, shape []int64) ([]byte, error) {
	var err error
	dst = append(dst, '[')
	if len(shape) == 1 {
		dst, err = w.row(dst, shape[0])
	} else {
		for i := range shape[0] {
			if i > 0 {
				dst = append(dst, ',')
			}
			if dst, err = w.level(dst, shape[1:]); err != nil {
				break
			}
		}
	}
	return append(dst, ']'), err
}

func (w *writer) row(dst []byte, n int64) ([]byte, error) {
	for i := range n {
		if i > 0 {
			dst = append(dst, ',')
		}
		var err error
		if dst, err = w.element(dst); err != nil {
			return dst, err
		}
	}
	return dst, nil
}

func (w *writer) element(dst []byte) ([]byte, error) {
	b := w.data
	w.data = b[w.size:]
	switch w.t.Datatype {
	case engine.Bool:
		return strconv.AppendBool(dst, b[0] != 0), nil
	case engine.Uint8:
		return strconv.AppendUint(dst, uint64(b[0]), 10), nil
	case engine.Uint16:
		return strconv.AppendUint(dst, uint64(binary.LittleEndian.Uint16(b)), 10), nil
	case engine.Uint32:
		return strconv.AppendUint(dst, uint64(binary.LittleEndian.Uint32(b)), 10), nil
	case engine.Uint64:
		return strconv.AppendUint(dst, binary.LittleEndian.Uint64(b), 10), nil
	case engine.Int8:
		return strconv.AppendInt(dst, int64(int8(b[0])), 10), nil
	case engine.Int16:
		return strconv.AppendInt(dst, int64(int16(binary.LittleEndian.Uint16(b))), 10), nil
	case engine.Int32:
		return strconv.AppendInt(dst, int64(int32(binary.LittleEndian.Uint32(b))), 10), nil
	case engine.Int64:
		return strconv.AppendInt(dst, int64(binary.LittleEndian.Uint64(b)), 10), nil
	case engine.FP32:
		return w.float(dst, float64(math.Float32frombits(binary.LittleEndian.Uint32(b))), 32), nil
	case engine.FP64:
		return w.float(dst, math.Float64frombits(binary.LittleEndian.Uint64(b)), 64), nil
	case engine.Bytes:
		length := int(binary.LittleEndian.Uint32(b))
		text := b[4 : 4+length]
		w.data = b[4+length:]
		if !utf8.Valid(text) {
			return dst, errors.New("it has an element that is not valid UTF-8, which JSON cannot hold: ask for it as binary data")
		}
		return jsontensor.AppendText(dst, text), nil
	}
	return dst, fmt.Errorf("%s has no form in JSON: ask for it as binary data", w.t.Datatype)
}

// float appends a number in its shortest form that is read back as the same number.
func (w *writer) float(dst []byte, f float64, size int) []byte {
	switch {
	case math.IsNaN(f):
		return append(dst, w.nan...)
	case math.IsInf(f, 1):
		return append(dst, "Infinity"...)
	case math.IsInf(f, -1):
		return append(dst, "-Infinity"...)
	}
	if abs := math.Abs(f); abs != 0 && (abs < 1e-4 || abs >= 1e16) { // as Python writes it
		return strconv.AppendFloat(dst, f, 'e', -1, size)
	}
	start := len(dst)
	dst = strconv.AppendFloat(dst, f, 'f', -1, size)
	if slices.Contains(dst[start:], '.') {
		return dst
	}
	return append(dst, ".0"...)
}

// quoted lists names for an error text.
func quoted(names []string) string {
	const most = 20
	more := len(names) - most
	names = slices.Clone(names[:min(len(names), most)])
	for i, name := range names {
		names[i] = "'" + name + "'"
	}
	text := strings.Join(names, ", ")
	if more > 0 {
		text += fmt.Sprintf(" and %d more", more)
	}
	return text
}
