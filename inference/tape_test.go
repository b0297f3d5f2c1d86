package inference_test

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"clearmlserving/inference"
)

func TestTheNewestRecordedRequestsAreFoundWhateverTheFileHolds(t *testing.T) {
	const first, second = `{"endpoint":"a/b","body":"1","status":200,"answer":"x"}`, `{"endpoint":"a/b","body":"2","status":200,"answer":"y"}`
	for name, tc := range map[string]struct{ file, want string }{
		"two":                     {first + "\n" + second + "\n", "21"},
		"one":                     {first + "\n", "1"},
		"a line is being written": {first + "\n" + second[:20], "1"},
		"behind much else":        {strings.Repeat(first+"\n", 10_000) + second + "\n", "211"},
		"a damaged line":          {first + "\nnonsense\n" + second + "\n", "2"},
		"a line that is too long": {strings.Repeat("x", 1<<20) + "\n", ""},
		"no exchange":             {"nonsense\n", ""},
		"empty":                   {"", ""},
	} {
		dir := t.TempDir()
		if err := os.WriteFile(filepath.Join(dir, "a%2Fb.jsonl"), []byte(tc.file), 0o600); err != nil {
			t.Fatal(err)
		}
		var got string
		for _, e := range inference.LastRecorded(dir, "a/b", 3) {
			got += string(e.Body)
		}
		if got != tc.want {
			t.Errorf("%s: %q, want %q", name, got, tc.want)
		}
	}
	if got := inference.LastRecorded(t.TempDir(), "a/b", 3); got != nil {
		t.Errorf("without a file: %v", got)
	}
}
