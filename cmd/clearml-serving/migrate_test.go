package main

import (
	"maps"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
)

// originalsContainers are the containers of the original's own compose files, with the variables of its example.env filled in.
func originalsContainers(t *testing.T) map[string][]container {
	t.Helper()
	files, err := filepath.Glob("../../docker/testdata/original/docker-compose*.yml")
	if err != nil || len(files) != 6 {
		t.Fatalf("compose files of the original: %v, %v", files, err)
	}
	variables, err := readEnvFile("../../docker/testdata/original/example.env")
	if err != nil {
		t.Fatal(err)
	}
	found := map[string][]container{}
	for _, file := range files {
		containers, err := readCompose(file, func(name string) (string, bool) {
			if _, ok := variables[name]; ok {
				return "filled-in", true
			}
			return "", false
		})
		if err != nil {
			t.Fatal(err)
		}
		found[filepath.Base(file)] = containers
	}
	return found
}

func TestTheOriginalsComposeFilesHaveNothingThatIsNotServed(t *testing.T) {
	for file, containers := range originalsContainers(t) {
		found := checkContainers(containers)
		for _, c := range containers {
			if c.product() != "" {
				found = append(found, (&app{}).checkVariables(c.variables)...)
			}
		}
		for _, f := range found {
			if f.state == stateFail || strings.Contains(f.text, "does not reach user code") {
				t.Errorf("%s: %+v", file, f)
			}
		}
	}
}

// Each variable of the original is in the table of docs/containers.md: by its name, or by the start of its name with "…".
func TestEachVariableOfTheOriginalIsDocumented(t *testing.T) {
	page, err := os.ReadFile("../../docs/containers.md")
	if err != nil {
		t.Fatal(err)
	}
	_, table, _ := strings.Cut(string(page), "## Variables of the original")
	table, _, _ = strings.Cut(table, "\n## ")
	var listed, without []string
	for line := range strings.Lines(table) {
		names, meaning, _ := strings.Cut(strings.TrimPrefix(line, "|"), "|")
		for _, name := range regexp.MustCompile("`([A-Z_]+…?)`").FindAllStringSubmatch(names, -1) {
			listed = append(listed, name[1])
			if strings.HasPrefix(strings.TrimSpace(meaning), "no effect") {
				without = append(without, name[1])
			}
		}
	}
	fits := func(list []string, name string) bool {
		return slices.ContainsFunc(list, func(l string) bool {
			start, many := strings.CutSuffix(l, "…")
			return l == name || many && strings.HasPrefix(name, start)
		})
	}
	for file, containers := range originalsContainers(t) {
		for _, c := range containers {
			for _, name := range slices.Sorted(maps.Keys(c.variables)) {
				if c.product() != "" && !fits(listed, name) {
					t.Errorf("docs/containers.md does not say what becomes of %s of %s", name, file)
				}
			}
		}
	}
	for _, o := range otherVariables {
		if name := strings.ReplaceAll(o.name, "*", "…"); !slices.Contains(listed, name) {
			t.Errorf("docs/containers.md does not say what becomes of %s", name)
		}
	}
	for _, o := range optionTable {
		for _, name := range o.variables {
			if slices.Contains(without, name) {
				t.Errorf("docs/containers.md says that %s has no effect, and --%s reads it", name, o.name)
			}
		}
	}
}
