package api_test

import (
	"bufio"
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"clearmlserving/controlplane/api"
)

// knownCall is a line of testdata/calls.txt.
type knownCall struct{ name, mark, clients string }

func knownCalls(t *testing.T) []knownCall {
	t.Helper()
	f, err := os.Open("testdata/calls.txt")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = f.Close() }()
	var out []knownCall
	lines := bufio.NewScanner(f)
	for lines.Scan() {
		if strings.HasPrefix(lines.Text(), "#") {
			continue
		}
		parts := strings.SplitN(lines.Text(), " ", 3)
		if len(parts) != 3 || !slices.Contains([]string{"MUST", "SHOULD", "ours"}, parts[1]) {
			t.Fatalf("testdata/calls.txt: %q isn't: name, mark, clients", lines.Text())
		}
		out = append(out, knownCall{parts[0], parts[1], parts[2]})
	}
	if err := lines.Err(); err != nil {
		t.Fatal(err)
	}
	return out
}

// testsByCall reads this package's tests: which of them names which call in a text.
func testsByCall(t *testing.T) map[string][]string {
	t.Helper()
	files, err := filepath.Glob("*_test.go")
	if err != nil {
		t.Fatal(err)
	}
	out := map[string][]string{}
	for _, name := range files {
		file, err := parser.ParseFile(token.NewFileSet(), name, nil, 0)
		if err != nil {
			t.Fatal(err)
		}
		for _, decl := range file.Decls {
			f, ok := decl.(*ast.FuncDecl)
			if !ok || f.Recv != nil || !strings.HasPrefix(f.Name.Name, "Test") {
				continue
			}
			ast.Inspect(f.Body, func(n ast.Node) bool {
				if text, ok := n.(*ast.BasicLit); ok && text.Kind == token.STRING {
					call := strings.Trim(text.Value, "\"`/")
					call, _, _ = strings.Cut(call, "?")
					if !slices.Contains(out[call], f.Name.Name) {
						out[call] = append(out[call], f.Name.Name)
					}
				}
				return true
			})
		}
	}
	return out
}

// The table of docs/conformance.md is made here; UPDATE=1 writes it anew. So is the one of the traps.
func TestConformanceTableIsCurrentAndEachCallHasATest(t *testing.T) {
	answered := map[string]bool{}
	for _, c := range api.New(api.Options{}).Calls() {
		answered[c.Name] = true
	}
	tests := testsByCall(t)
	var table strings.Builder
	known := map[string]bool{}
	for _, c := range knownCalls(t) {
		known[c.name] = true
		status, test := "answered", "-"
		if found := tests[c.name]; len(found) > 0 {
			slices.Sort(found)
			test = found[0]
			if len(found) > 1 {
				test += fmt.Sprintf(" and %d more", len(found)-1)
			}
		} else {
			status = "answered, without a test"
			t.Errorf("%s has no test", c.name)
		}
		if !answered[c.name] {
			status = "missing"
			if c.mark == "MUST" {
				t.Errorf("%s is a MUST and isn't answered", c.name)
			}
		}
		fmt.Fprintf(&table, "| `%s` | %s | %s | %s | %s |\n", c.name, c.mark, strings.ReplaceAll(c.clients, ",", ", "), test, status)
	}
	for name := range answered {
		if !known[name] {
			t.Errorf("%s is answered, but not listed in testdata/calls.txt", name)
		}
	}
	differences, err := os.ReadFile("testdata/differences.md")
	if err != nil {
		t.Fatal(err)
	}
	want := conformanceHead + table.String() + string(differences) + trapsHead + trapsTable(t)
	const page = "../../docs/conformance.md"
	if os.Getenv("UPDATE") != "" {
		if err := os.WriteFile(page, []byte(want), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	if have, err := os.ReadFile(page); err != nil || string(have) != want {
		t.Errorf("%s is stale: UPDATE=1 go test -run Conformance ./controlplane/api (%v)", page, err)
	}
}

// trapsTable makes the second table of testdata/traps.txt. A trap whose test isn't there
// any more fails the test.
func trapsTable(t *testing.T) string {
	t.Helper()
	text, err := os.ReadFile("testdata/traps.txt")
	if err != nil {
		t.Fatal(err)
	}
	inFolder := map[string]map[string]bool{}
	var table strings.Builder
	for line := range strings.Lines(string(text)) {
		line = strings.TrimSpace(line)
		if line == "" || line[0] == '#' {
			continue
		}
		parts := strings.SplitN(line, "; ", 3)
		if len(parts) != 3 {
			t.Fatalf("testdata/traps.txt: %q isn't: part; tests; the trap", line)
		}
		var names []string
		for test := range strings.FieldsSeq(parts[1]) {
			folder, name, _ := strings.Cut(test, ".")
			if inFolder[folder] == nil {
				inFolder[folder] = testsIn(t, filepath.Join("../..", folder))
			}
			if !inFolder[folder][name] {
				t.Errorf("testdata/traps.txt: %s has no %s: %s", folder, name, parts[2])
			}
			if folder != "controlplane/api" {
				name += " (" + folder + ")"
			}
			names = append(names, name)
		}
		if len(names) == 0 {
			t.Errorf("testdata/traps.txt: no test of: %s", parts[2])
		}
		fmt.Fprintf(&table, "| %s | %s | %s |\n", parts[0], parts[2], strings.Join(names, ", "))
	}
	return table.String()
}

// testsIn are the names of a folder's tests.
func testsIn(t *testing.T, folder string) map[string]bool {
	t.Helper()
	files, err := filepath.Glob(filepath.Join(folder, "*_test.go"))
	if err != nil {
		t.Fatal(err)
	}
	names := map[string]bool{}
	for _, file := range files {
		parsed, err := parser.ParseFile(token.NewFileSet(), file, nil, parser.SkipObjectResolution)
		if err != nil {
			t.Fatal(err)
		}
		for _, decl := range parsed.Decls {
			if f, ok := decl.(*ast.FuncDecl); ok && f.Recv == nil && strings.HasPrefix(f.Name.Name, "Test") {
				names[f.Name.Name] = true
			}
		}
	}
	return names
}

const trapsHead = `
## Traps

What makes clients fail, hang, or lose something without a word though each call is answered, and the
tests that keep us out of it: those of the API's own package, of another folder where one is named.
Those of e2e run with the unmodified SDK.

| Part | Trap | Tests |
|---|---|---|
`

const conformanceHead = `# Which calls of the ClearML API the embedded server answers

<!-- Made by the tests: UPDATE=1 go test -run Conformance ./controlplane/api. Don't edit. -->

The list holds each call that a known client makes, and no other. **MUST** means that the ClearML SDK or
the original ClearML Serving fails without it, **SHOULD** that a part of a client does, and **ours** that it
is an extension of this server. The clients:

- *sdk*: the ClearML SDK 1.x and 2.x with its command lines, pipelines, datasets, optimizers, and autoscalers.
- *serving*: the original ClearML Serving.
- *agent*: clearml-agent. *session*: clearml-session.
- *pages*: the web pages of this program. *ours*: its command line and its serving instances.
- *administration*: scripts of administrators. No other client makes these calls.

ClearML's own web application is no client: this program has pages of its own. Calls that only that application
makes are not answered, though the SDK's APIClient can name them. A call that is not listed is answered with
404, as a ClearML server answers a call that it does not know.

| Call | Mark | Clients | Test | Status |
|---|---|---|---|---|
`
