package jsontensor

import (
	"errors"
	"math"
	"slices"
	"testing"
)

func numbers(names ...string) []Column {
	var columns []Column
	for _, name := range names {
		columns = append(columns, Column{Name: name})
	}
	return columns
}

func TestRowsAndRecordsAreTables(t *testing.T) {
	colour := Column{Name: "colour", Categories: map[string]float64{"red": 0, "grün": 1, "a\"b": 2}, Unknown: -1}
	size := Column{Name: "size", Numbers: map[float64]float64{1: 0, 2.5: 1}, Strict: true}
	nan := math.NaN()
	for name, c := range map[string]struct {
		columns []Column
		records bool
		body    string
		want    []float64
		err     error
	}{
		"rows":                    {numbers("a", "b"), false, `[[1, 2.5],[-3e2,4]]`, []float64{1, 2.5, -300, 4}, nil},
		"blanks":                  {numbers("a"), false, " \t[ [ 1 ] ,\r\n[2]\n] ", []float64{1, 2}, nil},
		"a whole -0 is 0":         {numbers("a", "b"), false, `[[-0,-0.0]]`, []float64{0, math.Copysign(0, -1)}, nil},
		"null":                    {numbers("a"), false, `[[null]]`, []float64{nan}, nil},
		"the largest whole":       {numbers("a", "b"), false, `[[9007199254740992,-9007199254740992]]`, []float64{1 << 53, -1 << 53}, nil},
		"a larger whole":          {numbers("a"), false, `[[9007199254740993]]`, nil, ErrNumber},
		"a large float":           {numbers("a"), false, `[[9007199254740993.0]]`, []float64{9007199254740992}, nil},
		"many digits":             {numbers("a"), false, `[[0.1000000000000000055511151231257827021181583404541015625]]`, []float64{0.1}, nil},
		"tiny":                    {numbers("a", "b"), false, `[[5e-324,1e-400]]`, []float64{5e-324, 0}, nil},
		"infinite":                {numbers("a"), false, `[[1e999]]`, nil, ErrNumber},
		"a record":                {numbers("a", "b"), true, `{"b":2,"a":1}`, []float64{1, 2}, nil},
		"records":                 {numbers("a", "b"), true, `[{"a":1,"b":2}, {"b":4,"a":3}]`, []float64{1, 2, 3, 4}, nil},
		"rows with names":         {numbers("a", "b"), true, `[[1,2]]`, []float64{1, 2}, nil},
		"an escaped name":         {numbers("ä"), true, `{"\u00e4":1}`, []float64{1}, nil},
		"categories":              {[]Column{colour, size}, true, `[{"colour":"gr\u00fcn","size":2.5},{"colour":"a\"b","size":null},{"colour":"blue","size":1}]`, []float64{1, 1, 2, nan, -1, 0}, nil},
		"an unknown category":     {[]Column{size}, true, `{"size":3}`, nil, ErrCategory},
		"a text for numbers":      {[]Column{size}, true, `{"size":"1"}`, nil, ErrCategory},
		"a number for texts":      {[]Column{colour}, true, `{"colour":1}`, nil, ErrCategory},
		"rows of categories":      {[]Column{colour}, true, `[["red"]]`, nil, ErrSyntax},
		"records without names":   {numbers("a"), false, `{"a":1}`, nil, ErrSyntax},
		"a column twice":          {numbers("a", "b"), true, `{"a":1,"a":2}`, nil, ErrColumn},
		"a column too many":       {numbers("a"), true, `{"a":1,"b":2}`, nil, ErrColumn},
		"a column too few":        {numbers("a", "b"), true, `{"a":1}`, nil, ErrColumn},
		"an unknown column":       {numbers("a"), true, `{"b":1}`, nil, ErrColumn},
		"half a pair":             {numbers("a"), true, `{"\ud800":1}`, nil, ErrText},
		"a line in a text":        {numbers("a"), true, "{\"a\n\":1}", nil, ErrText},
		"bytes":                   {numbers("a"), true, "{\"\xff\":1}", nil, ErrText},
		"a short row":             {numbers("a", "b"), false, `[[1]]`, nil, ErrRagged},
		"a long row":              {numbers("a"), false, `[[1,2]]`, nil, ErrRagged},
		"one row":                 {numbers("a"), false, `[1]`, nil, ErrSyntax},
		"a text":                  {numbers("a"), false, `[["1"]]`, nil, ErrCell},
		"true":                    {numbers("a"), false, `[[true]]`, nil, ErrCell},
		"NaN":                     {numbers("a"), false, `[[NaN]]`, nil, ErrCell},
		"no row":                  {numbers("a"), false, `[]`, nil, ErrSyntax},
		"an empty row":            {numbers("a"), false, `[[]]`, nil, ErrCell},
		"nothing":                 {numbers("a"), false, ``, nil, ErrSyntax},
		"half":                    {numbers("a"), false, `[[1`, nil, ErrRagged},
		"a leading zero":          {numbers("a"), false, `[[01]]`, nil, ErrSyntax},
		"a point at the end":      {numbers("a"), false, `[[1.]]`, nil, ErrSyntax},
		"an exponent without one": {numbers("a"), false, `[[1e+]]`, nil, ErrSyntax},
		"a plus":                  {numbers("a"), false, `[[+1]]`, nil, ErrCell},
		"a tail":                  {numbers("a"), false, `[[1]]]`, nil, ErrSyntax},
		"a comma":                 {numbers("a"), false, `[[1],]`, nil, ErrSyntax},
		"a mixture":               {numbers("a"), true, `[{"a":1},[1]]`, nil, ErrSyntax},
	} {
		var rows Rows
		err := NewForm(c.columns, !c.columns[0].categorical(), c.records).Parse([]byte(c.body), &rows)
		if !errors.Is(err, c.err) || (err == nil) != (c.err == nil) {
			t.Errorf("%s: %v", name, err)
			continue
		}
		same := func(a, b float64) bool {
			return math.Float64bits(a) == math.Float64bits(b) || math.IsNaN(a) && math.IsNaN(b)
		}
		if err == nil && (!slices.EqualFunc(rows.Values, c.want, same) || rows.N*len(c.columns) != len(c.want)) {
			t.Errorf("%s: %v in %d rows, want %v", name, rows.Values, rows.N, c.want)
		}
	}
}

func TestNumbersAreWrittenAsPythonWritesThem(t *testing.T) {
	for want, value := range map[string]float64{
		"0.0": 0, "-0.0": math.Copysign(0, -1), "1.0": 1, "-2.0": -2, "0.1": 0.1, "0.0001": 1e-4, "1e-05": 1e-5,
		"9.999999999999999e-05": 9.999999999999999e-05, "1e+16": 1e16, "9999999999999998.0": 9999999999999998,
		"1.5e+300": 1.5e300, "5e-324": 5e-324, "123456.789": 123456.789, "0.10000000149011612": float64(float32(0.1)),
		"1234567890123456.0": 1234567890123456,
	} {
		if got := string(AppendFloat(nil, value)); got != want {
			t.Errorf("%s, want %s", got, want)
		}
	}
	if got := string(AppendText(nil, "a\"\\\n\r\t\b\f\x01\x7fü</")); got != `"a\"\\\n\r\t\b\f\u0001`+"\x7f"+`ü</"` {
		t.Errorf("%s", got)
	}
	if got := string(AppendFloats(nil, []float64{1, 2, 3, 4}, 2, 2)); got != `[[1.0,2.0],[3.0,4.0]]` {
		t.Errorf("%s", got)
	}
	if Finite([]float64{1, math.NaN()}) || Finite([]float64{math.Inf(-1)}) || !Finite([]float64{math.MaxFloat64}) {
		t.Error("what is finite")
	}
}

func TestRowsAreReadWithoutAllocation(t *testing.T) {
	form := NewForm(numbers("first", "second"), true, true)
	var rows Rows
	for _, body := range []string{`[[1.5,2.25],[3,4]]`, `{"second":1,"first":0.1}`} {
		b := []byte(body)
		if err := form.Parse(b, &rows); err != nil {
			t.Fatal(err)
		}
		if n := testing.AllocsPerRun(100, func() { _ = form.Parse(b, &rows) }); n > 0 {
			t.Errorf("%s: %v allocations", body, n)
		}
	}
}
