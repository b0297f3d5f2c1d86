package inference_test

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"clearmlserving/inference"
)

func TestTheNewestRecordedRequestIsFoundWhateverTheFileHolds(t *testing.T) {
	const first, second = `{"endpoint":"a/b","body":"1","status":200,"answer":"x"}`, `{"endpoint":"a/b","body":"2","status":200,"answer":"y"}`
	for name, tc := range map[string]struct{ file, want string }{
		"two":                     {first + "\n" + second + "\n", "2"},
		"one":                     {first + "\n", "1"},
		"a line is being written": {first + "\n" + second[:20], "1"},
		"behind much else":        {strings.Repeat(first+"\n", 10_000) + second + "\n", "2"},
		"a line that is too long": {strings.Repeat("x", 1<<20) + "\n", ""},
		"no exchange":             {"nonsense\n", ""},
		"empty":                   {"", ""},
	} {
		dir := t.TempDir()
		if err := os.WriteFile(filepath.Join(dir, "a%2Fb.jsonl"), []byte(tc.file), 0o600); err != nil {
			t.Fatal(err)
		}
		got, ok := inference.LastRecorded(dir, "a/b")
		if ok != (tc.want != "") || string(got.Body) != tc.want {
			t.Errorf("%s: %q %v, want %q", name, got.Body, ok, tc.want)
		}
	}
	if _, ok := inference.LastRecorded(t.TempDir(), "a/b"); ok {
		t.Error("found without a file")
	}
}
