package statistics

import (
	"fmt"
	"os"
	"strings"
	"testing"
)

// The page of the reference, and the marks around it.
const (
	docFile        = "../docs/metrics.md"
	referenceBegin = "<!-- The tables are generated from the program's own list: UPDATE=1 go test ./statistics -run Reference -->\n"
	referenceEnd   = "<!-- end of the tables -->"
)

func reference() string {
	var b strings.Builder
	for _, s := range sections() {
		fmt.Fprintf(&b, "\n### %s\n\n| metric | type | labels | meaning |\n|---|---|---|---|\n", s.title)
		for _, f := range s.families {
			labels := ""
			if len(f.labels) > 0 {
				labels = "`" + strings.Join(f.labels, "`, `") + "`"
			}
			fmt.Fprintf(&b, "| `%s` | %s | %s | %s |\n", f.name, f.kind, labels, f.help)
		}
	}
	b.WriteString("\n")
	return b.String()
}

func TestTheReferenceInTheDocsIsWhatIsExposed(t *testing.T) {
	text, err := os.ReadFile(docFile)
	if err != nil {
		t.Fatal(err)
	}
	before, rest, ok := strings.Cut(string(text), referenceBegin)
	stands, after, ok2 := strings.Cut(rest, referenceEnd)
	if !ok || !ok2 {
		t.Fatalf("%s has no reference between %q and %q", docFile, referenceBegin, referenceEnd)
	}
	want := reference()
	if stands == want {
		return
	}
	if os.Getenv("UPDATE") != "" {
		if err := os.WriteFile(docFile, []byte(before+referenceBegin+want+referenceEnd+after), 0o600); err != nil {
			t.Fatal(err)
		}
		return
	}
	t.Errorf("the reference of %s differs from the exposed metrics; to update it: UPDATE=1 go test ./statistics -run Reference\nthe program:\n%s\nthe docs:\n%s", docFile, want, stands)
}
