package hocon_test

import (
	"errors"
	"os"
	"path/filepath"
	"testing"

	"github.com/google/go-cmp/cmp"

	"clearmlserving/hocon"
)

// FuzzParse holds every text to three rules: no panic, an error is a
// *SyntaxError at a place, and what was read survives our JSON and back.
func FuzzParse(f *testing.F) {
	confs, err := filepath.Glob("testdata/golden/*.conf")
	if err != nil {
		f.Fatal(err)
	}
	for _, conf := range confs {
		text, err := os.ReadFile(conf)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(text)
	}
	f.Add([]byte("a += ${?a} [1]\na += [2]\na += ${a}"))
	f.Add([]byte("a { b = ${a.c}, c = ${?a.b} }\na.b += x"))
	f.Fuzz(func(t *testing.T, text []byte) {
		o, err := hocon.Parse(text, hocon.Options{Env: goldenEnv})
		if err != nil {
			if syntax := (*hocon.SyntaxError)(nil); !errors.As(err, &syntax) || syntax.Line < 1 || syntax.Column < 1 || syntax.Problem == "" {
				t.Fatalf("error %#v is no *SyntaxError with a place", err)
			}
			return
		}
		encoded, err := o.JSON()
		if err != nil {
			t.Fatalf("cannot write %v as JSON: %v", o.ToAny(), err)
		}
		back, err := hocon.Parse(encoded, hocon.Options{})
		if err != nil {
			t.Fatalf("cannot read our JSON %s: %v", encoded, err)
		}
		if diff := cmp.Diff(o.ToAny(), back.ToAny()); diff != "" {
			t.Fatalf("JSON and back changes the value:\n%s", diff)
		}
	})
}
