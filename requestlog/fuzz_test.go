package requestlog

import (
	"bytes"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/parquet-go/parquet-go"

	"clearmlserving/serving"
)

// FuzzRows: whatever requests and answers have, their rows become a Parquet file that can be read, and
// blanked fields are not in it.
func FuzzRows(f *testing.F) {
	for _, seed := range [][3]string{
		{`{"x": 1, "secret": "s3cr3t"}`, `{"y": 1.5}`, `{"x": "text", "y": null}`},
		{`{"x": 1e999, "": 1, "a.b": {"c": [1]}}`, `[1]`, "\xff\xfe"},
		{`{"x": 9007199254740993}`, `{"x": 0.5}`, `{"x": true}`},
		{`{"input": 1, "time": 2}`, ``, `null`},
		{`{"\ud800": 1, "a\u0000b": 2}`, `{`, ` {"x":-0}`},
	} {
		f.Add([]byte(seed[0]), []byte(seed[1]), []byte(seed[2]), "secret")
	}
	f.Fuzz(func(t *testing.T, one, two, three []byte, redact string) {
		option := &serving.RequestLog{Share: 1}
		if strings.Trim(redact, ". ") != "" {
			option.Redact = []string{redact}
		}
		dir := t.TempDir()
		from, to := filepath.Join(dir, "a"+spoolEnd), filepath.Join(dir, "a"+parquetEnd)
		var spooled []byte
		want := 0
		for _, o := range []serving.Observed{observed("a", string(one), string(two)), observed("b", string(two), string(three)), observed("c", string(three), string(one))} {
			if text, ok := encode(o, option, &table{}); ok {
				spooled = append(append(spooled, text...), '\n')
				want++
			}
		}
		if err := os.WriteFile(from, spooled, 0o600); err != nil {
			t.Fatal(err)
		}
		_, n, err := writeParquet(from, to)
		if err != nil || n != want {
			t.Fatalf("%d rows of %d: %v", n, want, err)
		}
		if n == 0 {
			return
		}
		text, err := os.ReadFile(to)
		if err != nil {
			t.Fatal(err)
		}
		file, err := parquet.OpenFile(bytes.NewReader(text), int64(len(text)))
		if err != nil || file.NumRows() != int64(want) {
			t.Fatalf("%v: %d rows, want %d", err, file.NumRows(), want)
		}
	})
}

// FuzzSpool: whatever is in a spool file, it becomes a Parquet file, or an error.
func FuzzSpool(f *testing.F) {
	for _, seed := range []string{
		`{"time":"2026-11-01T12:00:00Z","input":"e30=","input_encoding":"object","output":"e30=","output_encoding":"object"}` + "\n",
		`{"input":"bnVsbA==","input_encoding":"object"}` + "\n", `{"input":"WzFd","input_encoding":"object"}` + "\n{}\n[]\n\n{", "",
		`{"input":"eyJhIjoxfQ==","input_encoding":"object"}` + "\n" + `{"input":"eyJhIjoieCJ9","input_encoding":"object"}` + "\n",
	} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, text []byte) {
		dir := t.TempDir()
		from := filepath.Join(dir, "a"+fullEnd)
		if err := os.WriteFile(from, text, 0o600); err != nil {
			t.Fatal(err)
		}
		_, n, err := writeParquet(from, filepath.Join(dir, "a"+parquetEnd))
		if err != nil && !errors.Is(err, os.ErrNotExist) {
			t.Logf("%d rows: %v", n, err)
		}
	})
}
