package docs_test

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"go.yaml.in/yaml/v3"

	"clearmlserving/docs"
)

// index is the first page of the site, which the table of README.md does not need.
const index = "index"

func TestEveryPageIsInTheNavigationOnceAndInTheReadme(t *testing.T) {
	places := map[string]int{}
	for _, page := range navigation(t) {
		places[page]++
	}
	readme := read(t, "README.md")
	for _, name := range docs.Names() {
		if places[name+".md"] != 1 {
			t.Errorf("docs/%s.md is in the navigation of mkdocs.yml %d times, not once", name, places[name+".md"])
		}
		decision := strings.HasPrefix(name, "decisions/") // architecture.md and CONTRIBUTING.md have these
		if name != index && !decision && !strings.Contains(readme, "`docs/"+name+".md`") {
			t.Errorf("docs/%s.md is not in the table of README.md", name)
		}
		delete(places, name+".md")
	}
	for page := range places {
		t.Errorf("mkdocs.yml has docs/%s in its navigation, which does not exist", page)
	}
}

// The command of the first page is the one of README.md, which make docs-commands runs.
func TestTheCommandOfTheFirstPageIsOneThatIsRun(t *testing.T) {
	_, rest, found := strings.Cut(string(docs.Page(index)), "```console\n")
	shown, _, closed := strings.Cut(rest, "```")
	if !found || !closed || !strings.HasPrefix(shown, "$ clearml-serving run ") {
		t.Fatalf("docs/index.md shows no command: %q", shown)
	}
	if !strings.Contains(read(t, "README.md"), "```console\n"+shown) {
		t.Errorf("README.md does not have the command and the output of docs/index.md:\n%s", shown)
	}
}

// navigation lists the pages of the site, topic by topic.
func navigation(t *testing.T) (pages []string) {
	t.Helper()
	var config struct {
		Nav []map[string][]string `yaml:"nav"`
	}
	if err := yaml.Unmarshal([]byte(read(t, "mkdocs.yml")), &config); err != nil {
		t.Fatal(err)
	}
	for _, topic := range config.Nav {
		for _, of := range topic {
			pages = append(pages, of...)
		}
	}
	return pages
}

func read(t *testing.T, name string) string {
	t.Helper()
	text, err := os.ReadFile(filepath.Join("..", name))
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}
