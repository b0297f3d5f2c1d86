package feedback

import (
	"fmt"
	"os"
	"strings"
	"testing"
)

// The page of the reference, and the marks around it.
const (
	docFile        = "../docs/feedback.md"
	referenceBegin = "<!-- The table is generated from the program's own list: UPDATE=1 go test ./feedback -run Reference -->\n"
	referenceEnd   = "<!-- end of the table -->"
)

func TestTheReferenceInTheDocsIsWhatIsExposed(t *testing.T) {
	var b strings.Builder
	b.WriteString("\n| metric | type | labels | meaning |\n|---|---|---|---|\n")
	for _, f := range families {
		fmt.Fprintf(&b, "| `%s` | %s | `%s` | %s |\n", f.Name, f.Type, strings.Join(f.Labels, "`, `"), f.Help)
	}
	b.WriteString("\n")
	text, err := os.ReadFile(docFile)
	if err != nil {
		t.Fatal(err)
	}
	before, rest, ok := strings.Cut(string(text), referenceBegin)
	stands, after, ok2 := strings.Cut(rest, referenceEnd)
	if !ok || !ok2 {
		t.Fatalf("%s has no reference between %q and %q", docFile, referenceBegin, referenceEnd)
	}
	if stands == b.String() {
		return
	}
	if os.Getenv("UPDATE") != "" {
		if err := os.WriteFile(docFile, []byte(before+referenceBegin+b.String()+referenceEnd+after), 0o600); err != nil {
			t.Fatal(err)
		}
		return
	}
	t.Errorf("the reference of %s differs from the exposed metrics; to update it: UPDATE=1 go test ./feedback -run Reference\nthe program:\n%s\nthe docs:\n%s", docFile, b.String(), stands)
}
