package hocon_test

import (
	"bytes"
	"encoding/json"
	"errors"
	"math/big"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"clearmlserving/hocon"
)

// goldenEnv holds the variables that testdata/golden.py sets as well.
func goldenEnv(name string) (string, bool) {
	v, ok := map[string]string{"GOLDEN_HOME": "/home/ada", "GOLDEN_PORT": "8008", "GOLDEN_EMPTY": ""}[name]
	return v, ok
}

// refusedHere are texts that the SDK reads and we refuse on purpose.
var refusedHere = map[string]string{"bad-list-root": "the root of what we read is an object"}

func TestReadsWhatTheSDKReads(t *testing.T) {
	confs, err := filepath.Glob("testdata/golden/*.conf")
	if err != nil || len(confs) < 40 {
		t.Fatalf("found %d golden inputs (%v), want at least 40", len(confs), err)
	}
	for _, conf := range confs {
		name := strings.TrimSuffix(filepath.Base(conf), ".conf")
		t.Run(name, func(t *testing.T) {
			text := read(t, conf)
			var want map[string]any
			expected := read(t, strings.TrimSuffix(conf, ".conf")+".json")
			refused := bytes.Contains(expected, []byte(`"!error"`)) || refusedHere[name] != ""
			got, err := hocon.Parse(text, hocon.Options{Env: goldenEnv})
			if refused {
				if syntax := (*hocon.SyntaxError)(nil); !errors.As(err, &syntax) || syntax.Line < 1 || syntax.Column < 1 {
					t.Fatalf("error = %v, want a *SyntaxError with line and column", err)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			decode(t, expected, &want)
			if diff := cmp.Diff(any(want), got.ToAny(), cmp.Comparer(sameNumber)); diff != "" {
				t.Errorf("differs from what the SDK reads (-SDK +ours):\n%s", diff)
			}
			again, err := got.JSON()
			if err != nil {
				t.Fatal(err)
			}
			back, err := hocon.Parse(again, hocon.Options{})
			if err != nil {
				t.Fatalf("our own JSON is not read: %v\n%s", err, again)
			}
			if diff := cmp.Diff(got.ToAny(), back.ToAny()); diff != "" {
				t.Errorf("JSON and back changes the value:\n%s", diff)
			}
		})
	}
}

// sameNumber compares value and kind: the SDK tells 1 and 1.0 apart.
func sameNumber(a, b json.Number) bool {
	x, _, errX := big.ParseFloat(a.String(), 10, 128, big.ToNearestEven)
	y, _, errY := big.ParseFloat(b.String(), 10, 128, big.ToNearestEven)
	whole := func(n json.Number) bool { return !strings.ContainsAny(n.String(), ".eE") }
	return errX == nil && errY == nil && x.Cmp(y) == 0 && whole(a) == whole(b)
}

func read(t *testing.T, path string) []byte {
	t.Helper()
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func decode(t *testing.T, text []byte, into any) {
	t.Helper()
	dec := json.NewDecoder(bytes.NewReader(text))
	dec.UseNumber()
	if err := dec.Decode(into); err != nil {
		t.Fatal(err)
	}
}
