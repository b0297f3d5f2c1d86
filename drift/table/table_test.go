package table_test

import (
	"bytes"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"clearmlserving/drift"
	"clearmlserving/drift/table"
)

// The files have the same rows, written by pandas: testdata/make.py.
func TestFilesOfPandasAreRead(t *testing.T) {
	var first *drift.Reference
	for _, file := range []string{"snappy.parquet", "zstd.parquet", "frame.csv.gz"} {
		r, notes, err := table.Reference(filepath.Join("testdata", file), "at")
		if err != nil {
			t.Fatal(file, err)
		}
		if got := strings.Join(r.Names(), " "); got != "age animal income member score" {
			t.Error(file, got)
		}
		said := strings.Join(notes, "; ")
		for _, want := range []string{"'never': it has no values"} {
			if !strings.Contains(said, want) {
				t.Error(file, said)
			}
		}
		if file == "snappy.parquet" && !strings.Contains(said, "'tags' is nested") {
			t.Error(said)
		}
		if v := r.Variables["income"]; v.Kind != drift.Number || v.Rows() != 300 || v.Counts[len(v.Counts)-1] != 30 {
			t.Errorf("%s: %+v", file, v)
		}
		if v := r.Variables["animal"]; v.Kind != drift.Category || strings.Join(v.Words, " ") != "cat dog" || v.Counts[3] == 0 {
			t.Errorf("%s: %+v", file, v)
		}
		if v := r.Variables["member"]; v.Kind != drift.Category || strings.Join(v.Words, " ") != "False True" {
			t.Errorf("%s: %+v", file, v)
		}
		if v := r.Variables["score"]; v.Counts[len(v.Counts)-1] != 1 {
			t.Errorf("%s: the infinite value is not missing: %+v", file, v)
		}
		if first == nil {
			first = r
		}
		if d := cmp.Diff(first.Variables, r.Variables, cmpopts.IgnoreUnexported(drift.Variable{}), cmpopts.EquateApprox(1e-6, 0)); d != "" {
			t.Error(file, d)
		}
	}
}

func TestTextFiles(t *testing.T) {
	many := "id\n"
	for i := range 10_000 {
		many += "word" + string(rune('a'+i%26)) + strings.Repeat("x", i/26%30) + string(rune('a'+i/780)) + "\n"
	}
	for name, tc := range map[string]struct {
		text  string
		names string // that are watched
		notes string
		err   string
	}{
		"plain":                  {"x,y\n1,a\n2,b\n", "x y", "", ""},
		"semicolons":             {"x;y\n1;a\n2;b\n", "x y", "", ""},
		"tabs":                   {"x\ty\n1\ta\n", "x y", "", ""},
		"a mark at the front":    {"\xef\xbb\xbfx\n1\n", "x", "", ""},
		"Windows":                {"x,y\r\n1,2\r\n", "x y", "", ""},
		"quotes":                 {"\"x, y\",z\n\"1\",\"a\nb\"\n", "x, y z", "", ""},
		"an index of pandas":     {",x\n0,5\n1,6\n", "x", "no usable name", ""},
		"missing and infinite":   {"x\nNaN\n\"\"\ninf\n-inf\n1e999\n5\n", "x", "", ""},
		"no value at all":        {"x,y\nnan,1\n,2\n", "y", "'x': it has no values", ""},
		"only missing values":    {"x\nnan\n", "", "no values", "no column that can be watched"},
		"10,000 words":           {many, "", "different words", "no column that can be watched"},
		"nested":                 {"x\n\"[1, 2]\"\n\"{'a': 1}\"\n", "x", "", ""}, // texts
		"empty":                  {"", "", "", "empty"},
		"a header":               {"x,y\n", "", "", "no rows"},
		"a short row":            {"x,y\n1,2\n3\n", "", "", "line 3"},
		"a long row":             {"x,y\n1,2\n3,4,5\n", "", "", "line 3"},
		"a column twice":         {"x,x\n1,2\n", "", "", `column "x" occurs twice`},
		"no CSV":                 {"\x00\x01\x02\n\x03", "", "", "neither CSV nor Parquet"},
		"an archive":             {"PK\x03\x04....", "", "", "zip archive"},
		"half a Parquet file":    {"PAR1 and nothing", "", "", "Parquet"},
		"half a compressed file": {"\x1f\x8b\x08", "", "", "unpack"},
		"a quote without end":    {"x\n\"1\n", "", "", "row"},
	} {
		t.Run(name, func(t *testing.T) {
			file := filepath.Join(t.TempDir(), "rows.csv")
			if err := os.WriteFile(file, []byte(tc.text), 0o600); err != nil {
				t.Fatal(err)
			}
			r, notes, err := table.Reference(file, "")
			if tc.err != "" {
				if err == nil || !strings.Contains(err.Error(), tc.err) || !strings.Contains(err.Error(), "rows.csv") {
					t.Error(err)
				}
			} else if err != nil {
				t.Fatal(err)
			}
			if got := strings.Join(r.Names(), " "); got != tc.names {
				t.Errorf("%q", got)
			}
			if got := strings.Join(notes, "; "); !strings.Contains(got, tc.notes) || (tc.notes == "") != (got == "") {
				t.Errorf("%q", got)
			}
		})
	}
	if _, _, err := table.Reference(filepath.Join(t.TempDir(), "none.csv"), ""); !os.IsNotExist(unwrapAll(err)) {
		t.Error(err)
	}
	if _, _, err := table.Reference(t.TempDir(), ""); err == nil {
		t.Error("a folder was read")
	}
}

func unwrapAll(err error) error {
	for {
		u, ok := err.(interface{ Unwrap() error })
		if !ok {
			return err
		}
		if os.IsNotExist(err) {
			return err
		}
		err = u.Unwrap()
	}
}

func FuzzParquet(f *testing.F) {
	text, err := os.ReadFile("testdata/zstd.parquet")
	if err != nil {
		f.Fatal(err)
	}
	f.Add(text)
	for _, cut := range []int{10, len(text) / 2, len(text) - 20} {
		broken := bytes.Clone(text)
		copy(broken[cut:], "\xff\xff\xff\xff\x7f")
		f.Add(broken)
	}
	f.Fuzz(func(t *testing.T, text []byte) {
		if len(text) > 1<<20 {
			return
		}
		file := filepath.Join(t.TempDir(), "f.parquet")
		if err := os.WriteFile(file, text, 0o600); err != nil {
			t.Fatal(err)
		}
		_, _, _ = table.Reference(file, "")
	})
}

func FuzzCSV(f *testing.F) {
	for _, seed := range []string{"a,b\n1,x\n2,y\n", "a;b\n1;2\n", "\xef\xbb\xbf\"a\nb\",c\n1,2\n", "a\n1e999\nNaN\n-inf\n", "a,a\n1,2\n", "a\n\"", "\n", "time,x\n2026-01-01,1\n", "a,b\n1\n", "\x1f\x8b"} {
		f.Add([]byte(seed), "")
		f.Add([]byte(seed), "time")
	}
	f.Fuzz(func(t *testing.T, text []byte, timeColumn string) {
		file := filepath.Join(t.TempDir(), "f.csv")
		if err := os.WriteFile(file, text, 0o600); err != nil {
			t.Fatal(err)
		}
		r, _, err := table.Reference(file, timeColumn)
		if (r == nil) == (err == nil) {
			t.Fatalf("%v, %v", r, err)
		}
		if err == nil {
			packed, err := r.Encode()
			if err != nil {
				t.Fatal(err)
			}
			if _, err := drift.Decode(packed); err != nil {
				t.Errorf("what was written cannot be read: %v", err)
			}
		}
	})
}
