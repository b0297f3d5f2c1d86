package files

import (
	"errors"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// traversals are known attacks: those of MLflow's five fixes (encoding, double encoding,
// backslash, ";", absolute) and similar ones, after one decoding.
var traversals = []string{
	"..", "../x", "a/../../x", "/../x", "a/..", "./x", "a/./b", "..;/x", "a/..;v=1/b", "a/ .. /b",
	`..\x`, `a\..\..\x`, `..\../x`, `a/..\b`,
	"%2e%2e/x", "%2E%2e/x", ".%2e/x", "%2e./x", "a/%2e%2e%2fx", "..%2fx", "..%5cx", `%2e%2e\x`,
	"%252e%252e/x", "%25252e%25252e%25252fx", "..%252fx", "..%255c..%255cx", "%zz/..%2f", "a%2f..%2f..%2fx",
	"a\x00b", "a%00b", "..\x00", "a/..\x00/b", "..%00/x",
	".incoming", ".incoming/x", "//.incoming//x",
}

func TestTraversalIsRefusedInEveryEncoding(t *testing.T) {
	for _, raw := range traversals {
		if name, err := safePath(raw); !errors.Is(err, errUnsafePath) {
			t.Errorf("safePath(%q) = %q, %v; want it refused as unsafe", raw, name, err)
		}
	}
}

func TestNamesStayAsTheyWereSent(t *testing.T) {
	long := strings.Repeat("n", 255)
	for raw, want := range map[string]string{
		"/P one/T [a].id/models/sk model.pkl": "P one/T [a].id/models/sk model.pkl",
		"a":                                   "a",
		"//a///b/":                            "a/b",
		"/P%C3%A9 %231/sub/n%3F%23.x/é":       "P%C3%A9 %231/sub/n%3F%23.x/é",
		"...":                                 "...",
		"..a/b..":                             "..a/b..",
		"a;b/c=d&e":                           "a;b/c=d&e",
		`a\b`:                                 `a\b`,
		"100%/50%2":                           "100%/50%2",
		"x/.incoming":                         "x/.incoming",
		"etc/passwd":                          "etc/passwd",
		"C:/x":                                "C:/x",
		long:                                  long,
		"bad\xffutf8":                         "bad\xffutf8",
	} {
		if got, err := safePath(raw); err != nil || got != want {
			t.Errorf("safePath(%q) = %q, %v; want %q", raw, got, err, want)
		}
	}
}

func TestPathThatCannotBeStoredIsNamed(t *testing.T) {
	for raw, want := range map[string]string{
		"":                                 "empty",
		"///":                              "empty",
		"a/" + strings.Repeat("n", 256):    "255 bytes",
		strings.Repeat("a/", 2049):         "4096 bytes",
		strings.Repeat("é", 128) + "/x":    "255 bytes",
		"x/" + strings.Repeat("%41", 86):   "255 bytes",
		strings.Repeat("d/", 2048) + "xyz": "4096 bytes",
	} {
		_, err := safePath(raw)
		if told := nameError(""); !errors.As(err, &told) || !strings.Contains(err.Error(), want) {
			t.Errorf("safePath(%.20q…): %v; want a name error with %q", raw, err, want)
		}
	}
}

func TestLinksAreNotFollowed(t *testing.T) {
	dir := t.TempDir()
	s, err := openDisk(dir, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = s.close() })
	outside := filepath.Join(t.TempDir(), "secret")
	for path, content := range map[string]string{outside: "s", filepath.Join(dir, "real"): "r"} {
		if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	for link, target := range map[string]string{
		"out": outside, "outdir": filepath.Dir(outside), "in": "real", "up": "..", "loop": "loop",
	} {
		if err := os.Symlink(target, filepath.Join(dir, link)); err != nil {
			t.Fatal(err)
		}
	}
	for _, name := range []string{"out", "outdir/secret", "in", "up/x", "loop", "loop/x"} {
		if _, _, err := s.open(name); !errors.Is(err, errUnsafePath) {
			t.Errorf("open(%q): %v; want it refused", name, err)
		}
		if _, err := s.remove(t.Context(), name, true); !errors.Is(err, errUnsafePath) {
			t.Errorf("remove(%q): %v; want it refused", name, err)
		}
	}
	if _, err := os.Stat(outside); err != nil {
		t.Errorf("the file outside is gone: %v", err)
	}
}

func FuzzSafePath(f *testing.F) {
	for _, raw := range traversals {
		f.Add(raw)
	}
	f.Add("/P one/T [a].id/models/sk model.pkl")
	f.Fuzz(func(t *testing.T, raw string) {
		name, err := safePath(raw)
		if err != nil {
			return
		}
		if !filepath.IsLocal(name) || name == "." || strings.HasPrefix(name, incoming+"/") || name == incoming {
			t.Fatalf("safePath(%q) = %q leaves the tree", raw, name)
		}
		if again, err := safePath(name); err != nil || again != name {
			t.Fatalf("safePath is not stable: %q -> %q -> %q, %v", raw, name, again, err)
		}
		// The name does not climb after any further decoding.
		for decoded := name; ; {
			for part := range strings.FieldsFuncSeq(decoded, func(r rune) bool { return r == '/' || r == '\\' }) {
				if part == ".." {
					t.Fatalf("safePath(%q) = %q decodes to %q", raw, name, decoded)
				}
			}
			next := decodeOnce(decoded)
			if next == decoded {
				break
			}
			decoded = next
		}
	})
}

func TestNoAnswerIsAbove500(t *testing.T) {
	for _, err := range []error{
		fs.ErrNotExist, fs.ErrPermission, errUnsafePath, nameError("x"), errors.New("odd"),
		refusal(413, "too large"), broken(errors.New("cut")),
	} {
		if status, msg, _ := explain(err); status > 500 || status < 400 || msg == "" {
			t.Errorf("explain(%v) = %d %q; the SDK would repeat that forever", err, status, msg)
		}
	}
}
