package docs_test

import (
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/yuin/goldmark"
	"github.com/yuin/goldmark/ast"
	"github.com/yuin/goldmark/text"
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

// The site has only the pages of docs/, so its build does not see the links of the other documents.
func TestTheLinksOfTheDocumentsLeadSomewhere(t *testing.T) {
	documents := []string{"README.md", "CONTRIBUTING.md", "CHANGELOG.md", "python/README.md", "examples/readme.md"}
	for _, name := range docs.Names() {
		documents = append(documents, "docs/"+name+".md")
	}
	examples, err := filepath.Glob("../examples/*/readme.md")
	if err != nil || len(examples) == 0 {
		t.Fatalf("no examples (%v)", err)
	}
	for _, file := range examples {
		documents = append(documents, strings.TrimPrefix(file, "../"))
	}
	checked := 0
	for _, name := range documents {
		for _, link := range linksOf(t, name) {
			file, anchor, _ := strings.Cut(link, "#")
			if strings.Contains(file, ":") { // of another site, or mailto:
				continue
			}
			checked++
			target := name
			if file != "" {
				target = filepath.Join(filepath.Dir(name), file)
			}
			if _, err := os.Stat(filepath.Join("..", target)); err != nil {
				t.Errorf("%s: the link %s leads nowhere", name, link)
			} else if anchor != "" && strings.HasSuffix(target, ".md") && !slices.Contains(anchorsOf(t, target), anchor) {
				t.Errorf("%s: the link %s leads to no heading of %s", name, link, target)
			}
		}
	}
	if checked < 200 {
		t.Errorf("only %d links were found", checked)
	}
}

func linksOf(t *testing.T, name string) (links []string) {
	t.Helper()
	eachNode(t, name, func(node ast.Node, _ []byte) {
		switch node := node.(type) {
		case *ast.Link:
			links = append(links, string(node.Destination))
		case *ast.Image:
			links = append(links, string(node.Destination))
		}
	})
	return links
}

// notInAnchors is what a repository's pages and the site leave out of a heading's anchor.
var notInAnchors = regexp.MustCompile(`[^\p{L}\p{N}_ -]`)

func anchorsOf(t *testing.T, name string) (anchors []string) {
	t.Helper()
	eachNode(t, name, func(node ast.Node, source []byte) {
		if heading, ok := node.(*ast.Heading); ok {
			words := strings.ToLower(string(heading.Lines().Value(source)))
			anchors = append(anchors, strings.ReplaceAll(notInAnchors.ReplaceAllString(words, ""), " ", "-"))
		}
	})
	return anchors
}

func eachNode(t *testing.T, name string, do func(ast.Node, []byte)) {
	t.Helper()
	source := []byte(read(t, name))
	err := ast.Walk(goldmark.DefaultParser().Parse(text.NewReader(source)), func(node ast.Node, entering bool) (ast.WalkStatus, error) {
		if entering {
			do(node, source)
		}
		return ast.WalkContinue, nil
	})
	if err != nil {
		t.Fatal(err)
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
