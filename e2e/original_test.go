//go:build linux

package e2e_test

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
)

// originalPython is the interpreter of the original's environment, which only
// "make e2e-original" creates.
func originalPython(t *testing.T) string {
	t.Helper()
	if os.Getenv("CLEARML_SERVING_E2E_ORIGINAL") == "" {
		t.Skip("needs an environment with the original: make e2e-original")
	}
	python := filepath.Join(root, ".venv-original/bin/python")
	if _, err := os.Stat(python); err != nil {
		t.Fatalf("%v; run make e2e-original", err)
	}
	return python
}

func goldenFolder() string { return filepath.Join(root, "serving/testdata/original") }

// filesOf reads the files of a folder with the given suffix.
func filesOf(t *testing.T, dir, ending string) map[string]string {
	t.Helper()
	paths, err := filepath.Glob(filepath.Join(dir, "*"+ending))
	if err != nil || len(paths) == 0 {
		t.Fatalf("no *%s in %s (%v)", ending, dir, err)
	}
	files := map[string]string{}
	for _, path := range paths {
		text, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		files[filepath.Base(path)] = string(text)
	}
	return files
}

func TestTheGoldenFilesAreWhatTheOriginalStores(t *testing.T) {
	python := originalPython(t)
	s := up(t)
	folder := t.TempDir()
	update := os.Getenv("UPDATE") != ""
	if update {
		folder = goldenFolder()
	}
	s.python(t, python, filepath.Join(goldenFolder(), "generate.py"), folder)
	if update {
		return
	}
	for _, ending := range []string{".conf", ".json"} {
		want, got := filesOf(t, goldenFolder(), ending), filesOf(t, folder, ending)
		for name := range want {
			if got[name] != want[name] {
				t.Errorf("%s: the original stored\n%s\nthe golden file has\n%s", name, got[name], want[name])
			}
		}
		if len(got) != len(want) {
			t.Errorf("the original stored %d files *%s, %d are golden: make e2e-original UPDATE=1", len(got), ending, len(want))
		}
	}
}

// The original's code must read the same configuration, field by field, after the same commands of
// both command lines.
func TestTheOriginalReadsOurConfigurationAsItReadsItsOwn(t *testing.T) {
	python := originalPython(t)
	s := up(t)
	folder := t.TempDir()
	s.python(t, python, filepath.Join(goldenFolder(), "generate.py"), folder, binary)
	own, ours := filesOf(t, goldenFolder(), ".json"), filesOf(t, folder, ".json")
	compared := 0
	for name, text := range own {
		if strings.HasPrefix(name, "only-original-") {
			continue // scenarios.txt says why
		}
		compared++
		for _, difference := range differences("", value(t, text), value(t, ours[name])) {
			t.Errorf("%s: %s", name, difference)
		}
	}
	if compared < 10 {
		t.Errorf("only %d configurations were compared", compared)
	}
	for name := range filesOf(t, folder, ".conf") {
		if _, read := ours[strings.TrimSuffix(name, ".conf")+".json"]; !read {
			t.Errorf("%s: the original cannot read what we stored", name)
		}
	}
}

// migrate check reads the services that the original's command line has stored.
func TestServicesThatTheOriginalStoredCanBeChecked(t *testing.T) {
	python := originalPython(t)
	s := up(t)
	s.python(t, python, filepath.Join(goldenFolder(), "generate.py"), t.TempDir())
	var services struct {
		Services []struct {
			ID   string `json:"id"`
			Name string `json:"name"`
		} `json:"services"`
	}
	decode(t, s.must(t, "list", "--json"), &services)
	want := map[string]string{ // what is said of a service beside how many endpoints it has
		"golden metrics":                "metrics of m/*: matched nothing",
		"golden config":                 "statistics are sent to Kafka at kafka:9092",
		"golden add":                    ": 7 endpoints",
		"golden auto-update":            ": 4 endpoints",
		"golden only-original-slash":    "/lead: no request reached it because of its first slash",
		"golden only-original-canary":   "canary /broken: endpoint m/2 does not exist",
		"golden only-original-wildcard": ": 1 endpoint",
	}
	for _, service := range services.Services {
		r := s.cli(t, "--id", service.ID, "migrate", "check")
		if r.code != 0 || strings.Contains(r.out, "fail") || !strings.Contains(r.out, want[service.Name]) {
			t.Errorf("%s: want 0 and %q, got %v", service.Name, want[service.Name], r)
		}
		delete(want, service.Name)
	}
	if len(want) > 0 || len(services.Services) < 20 {
		t.Errorf("of %d services, none is one of %v", len(services.Services), want)
	}
}

func value(t *testing.T, text string) any {
	t.Helper()
	var v any
	if err := json.Unmarshal([]byte(text), &v); err != nil {
		t.Fatalf("%v in %q", err, text)
	}
	return v
}

// differences names every field that differs in the second value. null and an empty list
// are equal.
func differences(at string, a, b any) []string {
	x, isMap := a.(map[string]any)
	y, areMaps := b.(map[string]any)
	if !isMap || !areMaps {
		if reflect.DeepEqual(a, b) || (emptyList(a) && emptyList(b)) {
			return nil
		}
		return []string{fmt.Sprintf("%s: the original's is %#v, ours %#v", at, a, b)}
	}
	var found []string
	for name := range x {
		found = append(found, differences(at+"/"+name, x[name], y[name])...)
	}
	for name := range y {
		if _, there := x[name]; !there {
			found = append(found, fmt.Sprintf("%s/%s: only ours has it", at, name))
		}
	}
	return found
}

func emptyList(v any) bool {
	list, isList := v.([]any)
	return v == nil || (isList && len(list) == 0)
}

// listed decodes the JSON below the titles in the output of "model list".
func listed(t *testing.T, out string, titles ...string) map[string]any {
	t.Helper()
	sections := map[string]any{}
	for _, title := range titles {
		_, text, found := strings.Cut(out, title+":\n")
		if !found {
			t.Fatalf("no %q in\n%s", title, out)
		}
		var v any
		decode(t, text, &v)
		sections[title] = v
	}
	return sections
}

func TestBothCommandLinesEditOneServiceInTurn(t *testing.T) {
	python := originalPython(t)
	s := up(t)
	originals := func(words ...string) string {
		t.Helper()
		r := s.command(t, s.sdk, python, append([]string{"-m", "clearml_serving"}, words...)...)
		if r.code != 0 {
			t.Fatalf("the original's %v: %v", words, r)
		}
		return r.out
	}
	_, id, _ := strings.Cut(originals("create", "--name", "shared"), "id=")
	id = strings.TrimSpace(id)
	ours := func(words ...string) string {
		t.Helper()
		return s.must(t, append([]string{"--id", id}, words...)...)
	}
	theirs := func(words ...string) string {
		t.Helper()
		return originals(append([]string{"--id", id}, words...)...)
	}
	echo := code("echo.py")
	for _, step := range []struct {
		by    func(...string) string
		words []string
	}{
		{ours, []string{"model", "add", "--engine", "custom", "--endpoint", "m", "--version", "1", "--preprocess", echo}},
		{theirs, []string{"model", "add", "--engine", "custom", "--endpoint", "m", "--version", "2", "--preprocess", echo}},
		{ours, []string{"model", "canary", "--endpoint", "c", "--weights", "0.5", "0.5", "--input-endpoints", "m/2", "m/1"}},
		{theirs, []string{"model", "auto-update", "--engine", "custom", "--endpoint", "auto", "--name", "nobody (yet)", "--preprocess", echo}},
		{ours, []string{"metrics", "add", "--endpoint", "m/2", "--variable-scalar", "x=0,1,2", "--variable-enum", "q=a,b"}},
		{theirs, []string{"metrics", "add", "--endpoint", "m/2", "--variable-value", "v"}},
		{theirs, []string{"config", "--kafka-metric-server", "kafka:9092"}},
		{ours, []string{"config", "--base-serving-url", "http://host:8080/serve"}},
		{theirs, []string{"model", "canary", "--endpoint", "p", "--weights", "1", "--input-endpoint-prefix", "m"}},
		{ours, []string{"model", "remove", "--endpoint", "m/1"}},
		{theirs, []string{"metrics", "remove", "--endpoint", "m/2", "--variable", "v"}},
		{theirs, []string{"model", "remove", "--endpoint", "auto"}},
		{ours, []string{"model", "add", "--engine", "custom", "--endpoint", "m", "--version", "3", "--preprocess", echo}},
	} {
		out := step.by(step.words...)
		wantNoQuestion(t, step.words, out)
		titles := []string{"Endpoints", "Model Monitoring", "Canary"}
		for _, d := range differences("", listed(t, theirs("model", "list"), titles...), listed(t, ours("model", "list"), titles...)) {
			t.Errorf("model list after %v: %s", step.words, d)
		}
		for _, d := range differences("", listed(t, theirs("metrics", "list"), "Logged Metrics"), listed(t, ours("metrics", "list"), "Logged Metrics")) {
			t.Errorf("metrics list after %v: %s", step.words, d)
		}
	}
	for _, endpoint := range []string{"m/2", "m/3", "c", "p"} {
		s.eventually(t, patience, endpoint+" answers", func() error {
			status, got := s.ask(t, endpoint, `{"x": 1}`)
			return answerError(status, got, `{"echo":{"x":1}}`)
		})
	}
	if out := theirs("list"); !strings.Contains(out, id) {
		t.Errorf("the original does not list the service:\n%s", out)
	}
}

// wantNoQuestion fails if a command line asked for confirmation because of the
// service's version.
func wantNoQuestion(t *testing.T, words []string, out string) {
	t.Helper()
	if strings.Contains(out, "different version") {
		t.Errorf("%v asked because of the version:\n%s", words, out)
	}
}
