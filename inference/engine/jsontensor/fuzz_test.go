package jsontensor

import (
	"bytes"
	"encoding/json"
	"fmt"
	"math"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"clearmlserving/process"
)

// fuzzed are the forms that the fuzzers read: rows, records, and records with categories.
var fuzzed = []*Form{
	NewForm(numbers("a", "b"), true, false),
	NewForm(numbers("a", "b"), true, true),
	NewForm([]Column{{Name: "a"}, {Name: "b", Categories: map[string]float64{"x": 0, "ü": 1}, Numbers: map[float64]float64{1: 2}, Unknown: -1}}, false, true),
}

var seeds = []string{
	`[[1,2.5],[-0,-0.0]]`, `[[null,1e-7],[1E5,0.1e+2]]`, `{"a":1,"b":"x"}`, `[{"b":"\u00fc","a":9007199254740993},{"a":0.30000000000000004,"b":1.0}]`,
	`[[NaN,Infinity],[1e400,01]]`, `{"a":1,"a":2,"b":3}`, " [\t[1,2]\n]\r", `[[123456789012345678901234567890.5,2]]`, `{"a":{},"b":[]}`, `[[true,"x"]]`,
}

// FuzzParse compares with encoding/json: what is read has the same values there.
func FuzzParse(f *testing.F) {
	for _, s := range seeds {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, body []byte) {
		for i, form := range fuzzed {
			var rows Rows
			if form.Parse(bytes.Clone(body), &rows) != nil {
				continue
			}
			var list []any
			d := json.NewDecoder(bytes.NewReader(body))
			d.UseNumber()
			var value any
			if err := d.Decode(&value); err != nil {
				t.Fatalf("form %d reads %q, which is no JSON: %v", i, body, err)
			}
			if record, one := value.(map[string]any); one {
				list = []any{record}
			} else {
				list = value.([]any)
			}
			if len(list) != rows.N || len(rows.Values) != rows.N*form.Width() {
				t.Fatalf("form %d: %d rows of %q", i, rows.N, body)
			}
			for n, one := range list {
				for c := range form.columns {
					var cell any
					if record, ok := one.(map[string]any); ok {
						cell = record[form.columns[c].Name]
					} else {
						cell = one.([]any)[c]
					}
					if number, ok := cell.(json.Number); ok && !form.columns[c].categorical() {
						want, err := strconv.ParseFloat(string(number), 64)
						if got := rows.Values[n*form.Width()+c]; err != nil || want != got {
							t.Fatalf("form %d: %v of %q, want %s", i, got, body, number)
						}
					}
				}
			}
		}
	})
}

// oracle reads bodies as the worker does, and says of each form of fuzzed what a table of it holds:
// "-" for none, else its cells, as bits. Then it writes numbers and texts as the worker does.
const oracle = `
import json, struct, sys
sys.path.insert(0, sys.argv[1])
from answer import RequestError
from codec import decode_request, encode_json

def bits(x):
    return struct.pack(">d", x).hex()

def number(x):
    if x is None:
        return "null"
    if type(x) not in (int, float) or x in (float("inf"), -float("inf")) or x != x:
        raise KeyError
    if type(x) is int and abs(x) > 2 ** 53:
        raise KeyError
    return bits(float(x))

def category(x):
    if x is None:
        return "null"
    if type(x) is str:
        x.encode()  # half of a pair
    else:
        number(x)
    return bits({"x": 0.0, "ü": 1.0, 1: 2.0}.get(x, -1.0))

def table(value, form):
    record = type(value) is dict
    rows = [value] if record else value
    if type(rows) is not list or not rows:
        raise KeyError
    records = type(rows[0]) is dict
    if records and form == 0 or not records and form == 2:
        raise KeyError
    out = []
    for row in rows:
        if (type(row) is dict) != records:
            raise KeyError
        if records:
            if set(row) != {"a", "b"}:
                raise KeyError
            out.append(number(row["a"]))
            out.append(category(row["b"]) if form == 2 else number(row["b"]))
        else:
            if type(row) is not list or len(row) != 2:
                raise KeyError
            out += [number(cell) for cell in row]
    return " ".join(out)

def duplicates(pairs):
    if len({name for name, _ in pairs}) != len(pairs):
        raise KeyError
    return dict(pairs)

lines = []
for line in open(sys.argv[2]):
    body = bytes.fromhex(line.strip())
    for form in range(3):
        try:
            value = decode_request(body, "application/json")
            json.loads(body, object_pairs_hook=duplicates)
            lines.append(table(value, form))
        except (RequestError, KeyError, ValueError, TypeError):
            lines.append("-")
for line in open(sys.argv[3]):
    lines.append(encode_json(struct.unpack(">d", bytes.fromhex(line.strip()))[0]).decode())
for line in open(sys.argv[4]):
    lines.append(encode_json(bytes.fromhex(line.strip()).decode("utf-8")).hex())
open(sys.argv[5], "w").write("\n".join(lines) + "\n")
`

// TestBodiesAreReadAndWrittenAsTheWorkersDo runs the workers' own codec.
func TestBodiesAreReadAndWrittenAsTheWorkersDo(t *testing.T) {
	python := os.Getenv("CLEARML_SERVING_TEST_PYTHON")
	if python == "" {
		t.Skip("CLEARML_SERVING_TEST_PYTHON names no interpreter")
	}
	r := rand.New(rand.NewPCG(1, 2))
	bodies := randomBodies(r, 20_000)
	var floats []float64
	for range 50_000 {
		if v := math.Float64frombits(r.Uint64()); v-v == 0 {
			floats = append(floats, v, float64(float32(v)), math.Round(r.NormFloat64()*1e9)/1e4, r.Float64(), float64(r.Int64N(1<<62)))
		}
	}
	floats = deleteInfinite(floats)
	texts := []string{"", "ä\u2028\U0001f600"}
	for c := range 0x180 {
		texts = append(texts, string(rune(c))+"x")
	}
	dir := t.TempDir()
	write := func(name string, n int, line func(i int) string) string {
		var b strings.Builder
		for i := range n {
			b.WriteString(line(i) + "\n")
		}
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, []byte(b.String()), 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	runtime, err := filepath.Abs("../../../worker/runtime")
	if err != nil {
		t.Fatal(err)
	}
	answers := filepath.Join(dir, "answers")
	child, err := process.Start(t.Context(), process.Spec{Path: python, Env: []string{"PYTHONPATH=" + runtime + "/public", "PYTHONIOENCODING=utf-8", "PYTHONDONTWRITEBYTECODE=1"}, Args: []string{
		"-c", oracle, runtime,
		write("bodies", len(bodies), func(i int) string { return fmt.Sprintf("%x", bodies[i]) }),
		write("floats", len(floats), func(i int) string { return fmt.Sprintf("%016x", math.Float64bits(floats[i])) }),
		write("texts", len(texts), func(i int) string { return fmt.Sprintf("%x", texts[i]) }), answers,
	}})
	if err != nil {
		t.Fatal(err)
	}
	if d := child.Death(); d.Code != 0 {
		t.Fatal(d.Detail())
	}
	told, err := os.ReadFile(answers)
	if err != nil {
		t.Fatal(err)
	}
	lines := strings.Split(strings.TrimSuffix(string(told), "\n"), "\n")
	if len(lines) != 3*len(bodies)+len(floats)+len(texts) {
		t.Fatalf("%d lines", len(lines))
	}
	read, wrong := 0, 0
	for i, body := range bodies {
		for n, form := range fuzzed {
			want, got := lines[3*i+n], shown(form, body)
			if want != got {
				if wrong++; wrong < 10 {
					t.Errorf("form %d of %q: %s, want %s", n, body, got, want)
				}
			}
			if want != "-" {
				read++
			}
		}
	}
	if read < len(bodies)/10 {
		t.Errorf("only %d of %d tables could be read: the bodies are no test", read, 3*len(bodies))
	}
	for i, v := range floats {
		if want := lines[3*len(bodies)+i]; string(AppendFloat(nil, v)) != want {
			t.Fatalf("%s, want %s", AppendFloat(nil, v), want)
		}
	}
	for i, text := range texts {
		if want := lines[3*len(bodies)+len(floats)+i]; fmt.Sprintf("%x", AppendText(nil, text)) != want {
			t.Fatalf("%q: %x, want %s", text, AppendText(nil, text), want)
		}
	}
}

func deleteInfinite(values []float64) (finite []float64) {
	for _, v := range values {
		if v-v == 0 {
			finite = append(finite, v)
		}
	}
	return finite
}

// shown is a table in the words of the oracle.
func shown(form *Form, body []byte) string {
	var rows Rows
	if form.Parse(bytes.Clone(body), &rows) != nil {
		return "-"
	}
	var cells []string
	for _, v := range rows.Values {
		if math.IsNaN(v) {
			cells = append(cells, "null")
		} else {
			cells = append(cells, fmt.Sprintf("%016x", math.Float64bits(v)))
		}
	}
	return strings.Join(cells, " ")
}

// randomBodies are tables, most of them with a fault or an odd form.
func randomBodies(r *rand.Rand, n int) [][]byte {
	cells := []string{
		"1", "-0", "0", "-0.0", "null", "1e5", "1E-7", "0.1", "true", `"x"`, `"ü"`, `"\u00fc"`, `"\ud800"`, "NaN", "-Infinity", "1e999", "01", "1.", ".5", "+1",
		"9007199254740992", "9007199254740993", "12345678901234567890", "[]", "{}", `"y`, "0.30000000000000004", "2.2250738585072011e-308", "1e23", "8.5e-15", "-1.7976931348623157e308", "",
	}
	blanks := []string{"", "", "", " ", "\n", "\t \r", "\v", "\u00a0"}
	names := []string{`"a"`, `"b"`, `"a"`, `"b"`, `"\u0061"`, `"c"`, `a`}
	pick := func(from []string, usual int) string { // usually one of the first
		if r.IntN(20) > 0 {
			return from[r.IntN(usual)]
		}
		return from[r.IntN(len(from))]
	}
	cell := func() string {
		if r.IntN(3) == 0 {
			return strconv.FormatFloat(r.NormFloat64()*math.Pow(10, float64(r.IntN(40)-20)), "gef"[r.IntN(3)], r.IntN(25)-1, 64)
		}
		return pick(cells, 8)
	}
	var bodies [][]byte
	for range n {
		var b strings.Builder
		say := func(text string) { b.WriteString(pick(blanks, 3) + text) }
		records := r.IntN(2) == 0
		single := records && r.IntN(4) == 0
		if !single {
			say("[")
		}
		rows := 1 + r.IntN(3)
		for i := range rows {
			if i > 0 {
				say(",")
			}
			if !records {
				say("[")
				say(cell())
				say(",")
				say(cell())
				say("]")
			} else {
				say("{")
				first := r.IntN(2)
				say(names[first])
				say(":")
				say(cell())
				say(",")
				say(names[1-first])
				if r.IntN(20) == 0 {
					say(pick(names, len(names)))
				}
				say(":")
				if r.IntN(2) == 0 {
					say(cells[9+r.IntN(3)])
				} else {
					say(cell())
				}
				say("}")
			}
			if single {
				break
			}
		}
		if !single {
			say("]")
		}
		say("")
		body := []byte(b.String())
		if r.IntN(10) == 0 {
			body[r.IntN(len(body))] = byte(r.IntN(256))
		}
		bodies = append(bodies, body)
	}
	for _, s := range seeds {
		bodies = append(bodies, []byte(s))
	}
	return bodies
}
