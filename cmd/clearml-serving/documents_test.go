package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	goast "go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
	"github.com/yuin/goldmark"
	"github.com/yuin/goldmark/ast"
	"github.com/yuin/goldmark/text"
)

// These tests hold what the documents say against the program, the Makefile, the chart and the tree. Nothing is run:
// e2e/docs_test.go and make examples run the commands of some documents.

// notOurs are words in the documents that look like ours and are not.
var notOurs = map[string]string{
	"clearml-serving COMMAND --help":                             "COMMAND stands for any",
	"clearml-serving - CLI for launching ClearML serving engine": "a line that the original prints",
	"--target":                           "of docker build",
	"--build-arg":                        "of docker build",
	"--platform":                         "of docker build",
	"--web.enable-remote-write-receiver": "of Prometheus",
	"--set":                              "of helm",
	"--grpc-restricted-protocol":         "of Triton",
	"--dyna":                             "of NVIDIA's examples",
	"feedback cannot be offered to other instances": "a line of the log",
	"values.yaml":            "a file of the chart",
	"values.schema.json":     "a file of the chart",
	"serving/constraints/":   "in a folder that build writes",
	"storage/remote":         "a package of Prometheus",
	"timeseries/damaged/":    "in the data folder",
	"inference/state-*.json": "in the data folder",
	"feedback/*.db":          "in the data folder",
}

func TestWhatIsNotOursIsInTheDocuments(t *testing.T) {
	var all strings.Builder
	for _, name := range documentPaths(t) {
		all.WriteString(strings.ReplaceAll(string(ofTree(t, name)), "\n", " "))
	}
	for words := range notOurs {
		if !strings.Contains(all.String(), words) {
			t.Errorf("no document has %s: it needs no exception", words)
		}
	}
}

// snippet is code in a document.
type snippet struct {
	where    string // file:line
	text     string
	language string
	inline   bool
}

// documentPaths are the documents, relative to the root of the tree. The pages that are made from the program are not
// among them.
func documentPaths(t *testing.T) []string {
	t.Helper()
	paths := []string{"README.md", "CONTRIBUTING.md", "CHANGELOG.md", "python/README.md"}
	for _, pattern := range []string{"docs/*.md", "docs/*/*.md", "examples/readme.md", "examples/*/readme.md"} {
		found, err := filepath.Glob(filepath.Join(repository, pattern))
		if err != nil || len(found) == 0 {
			t.Fatalf("no document is %s (%v)", pattern, err)
		}
		for _, file := range found {
			if name, _ := filepath.Rel(repository, file); !strings.HasPrefix(name, "docs/reference-") {
				paths = append(paths, name)
			}
		}
	}
	return paths
}

const repository = "../.."

func ofTree(t *testing.T, name string) []byte {
	t.Helper()
	content, err := os.ReadFile(filepath.Join(repository, name))
	if err != nil {
		t.Fatal(err)
	}
	return content
}

// eachSnippet calls do with all code of all documents.
func eachSnippet(t *testing.T, do func(snippet)) {
	t.Helper()
	for _, name := range documentPaths(t) {
		source := ofTree(t, name)
		where := func(offset int) string {
			return fmt.Sprintf("%s:%d", name, 1+bytes.Count(source[:offset], []byte("\n")))
		}
		err := ast.Walk(goldmark.DefaultParser().Parse(text.NewReader(source)), func(node ast.Node, entering bool) (ast.WalkStatus, error) {
			switch node := node.(type) {
			case *ast.FencedCodeBlock:
				if entering && node.Lines().Len() > 0 {
					do(snippet{where(node.Lines().At(0).Start), string(node.Lines().Value(source)), string(node.Language(source)), false})
				}
			case *ast.CodeBlock:
				if entering {
					do(snippet{where(node.Lines().At(0).Start), string(node.Lines().Value(source)), "", false})
				}
			case *ast.CodeSpan:
				if first, ok := node.FirstChild().(*ast.Text); entering && ok {
					var b strings.Builder
					for child := node.FirstChild(); child != nil; child = child.NextSibling() {
						if part, ok := child.(*ast.Text); ok {
							b.Write(part.Segment.Value(source))
						}
					}
					// A table's cell has \| for |.
					do(snippet{where(first.Segment.Start), strings.ReplaceAll(strings.ReplaceAll(b.String(), "\n", " "), `\|`, "|"), "", true})
				}
			}
			return ast.WalkContinue, nil
		})
		if err != nil {
			t.Fatal(err)
		}
	}
}

// eachShellCommand calls do with the words of each command of a shell in the documents.
func eachShellCommand(t *testing.T, do func(where string, inline bool, words []string)) {
	t.Helper()
	eachSnippet(t, func(s snippet) {
		script := s.text
		switch s.language {
		case "", "bash", "sh", "text":
		case "console":
			var lines []string
			for line := range strings.Lines(s.text) {
				if command, is := strings.CutPrefix(line, "$ "); is {
					lines = append(lines, command)
				}
			}
			script = strings.Join(lines, "")
		default:
			return
		}
		for _, words := range shellCommands(script) {
			do(s.where, s.inline, words)
		}
	})
}

var assignment = regexp.MustCompile(`^[A-Za-z_][A-Za-z0-9_]*=`)

// shellCommands splits a script into commands, and those into words without quotes. Commands in $(…) come
// before the one that has them. A placeholder <x> is a word.
func shellCommands(script string) (commands [][]string) {
	var words []string
	word, inWord := "", false
	endWord := func() {
		if inWord {
			words = append(words, word)
		}
		word, inWord = "", false
	}
	endCommand := func() {
		endWord()
		if len(words) > 0 {
			commands = append(commands, words)
		}
		words = nil
	}
	quote := byte(0)
	for i := 0; i < len(script); i++ {
		c := script[i]
		switch {
		case c == '$' && quote != '\'' && strings.HasPrefix(script[i:], "$("):
			inner := insideParentheses(script[i+2:])
			commands = append(commands, shellCommands(inner)...)
			word, inWord = word+"$()", true
			i += len("$(") + len(inner)
		case c == '\\' && quote != '\'' && i+1 < len(script):
			i++
			if script[i] != '\n' {
				word, inWord = word+script[i:i+1], true
			}
		case quote != 0:
			if c == quote {
				quote = 0
			} else {
				word += script[i : i+1]
			}
		case c == '\'' || c == '"':
			quote, inWord = c, true
		case c == ' ' || c == '\t':
			endWord()
		case c == '#' && !inWord:
			for i+1 < len(script) && script[i+1] != '\n' {
				i++
			}
		case strings.IndexByte("\n;|&()", c) >= 0:
			endCommand()
		case c == '<' && placeholder.MatchString(script[i:]):
			found := placeholder.FindString(script[i:])
			word, inWord = word+found, true
			i += len(found) - 1
		case c == '<' || c == '>':
			endWord()
			i += len(script[i+1:]) - len(strings.TrimLeft(script[i+1:], "<> "))
			for i+1 < len(script) && strings.IndexByte(" \n;|&", script[i+1]) < 0 { // the file
				i++
			}
		default:
			word, inWord = word+script[i:i+1], true
		}
	}
	endCommand()
	return commands
}

var placeholder = regexp.MustCompile(`^<[a-z_]+>`)

func insideParentheses(script string) string {
	open := 1
	for i := range len(script) {
		switch script[i] {
		case '(':
			open++
		case ')':
			if open--; open == 0 {
				return script[:i]
			}
		}
	}
	return script
}

func TestShellCommands(t *testing.T) {
	for _, tc := range []struct{ script, want string }{
		{"a b\nc", "[[a b] [c]]"},
		{"a 'b c' \"d\"e \\\n  f # g\nh", "[[a b c de f] [h]]"},
		{`eval "$(a b)" && c | d &`, "[[a b] [eval $()] [c] [d]]"},
		{"a --id <service_id> > file 2>&1", "[[a --id <service_id> 2] [1]]"},
	} {
		if got := fmt.Sprint(shellCommands(tc.script)); got != tc.want {
			t.Errorf("%q: %s, not %s", tc.script, got, tc.want)
		}
	}
}

// ours are the words behind the name of our program, or nil if the command is of another one.
func ours(words []string) []string {
	for i, word := range words {
		isName := word == "clearml-serving" || strings.HasSuffix(word, "bin/clearml-serving")
		switch {
		case isName && (i == 0 || words[i-1] != "-u"): // sudo -u clearml-serving
			return words[i+1:]
		case !assignment.MatchString(word) && !slices.Contains([]string{"sudo", "nohup", "exec", "docker", "kubectl", "$"}, words[0]):
			return nil
		}
	}
	return nil
}

// incomplete reports whether a document leaves something out.
func incomplete(words []string) bool {
	return slices.ContainsFunc(words, func(word string) bool { return strings.Contains(word, "…") || word == "..." })
}

func TestTheCommandsOfTheDocumentsExist(t *testing.T) {
	var names []string
	for _, cmd := range silentRoot().Commands() {
		names = append(names, cmd.Name())
	}
	checked := 0
	eachShellCommand(t, func(where string, inline bool, words []string) {
		args := ours(words)
		if args == nil && inline && len(words) > 1 && slices.Contains(names, words[0]) {
			args = words // `model list` in a sentence
		}
		if args == nil || notOurs[strings.Join(words, " ")] != "" {
			return
		}
		checked++
		if err := understood(args, inline); err != nil {
			t.Errorf("%s: %s: %v", where, strings.Join(words, " "), err)
		}
	})
	if checked < 300 {
		t.Errorf("only %d commands were found", checked)
	}
}

// understood reports what the program would say of the form of a command. A sentence may name a command, or one with a
// flag, without all that it needs.
func understood(args []string, inline bool) error {
	partial := inline || incomplete(args)
	var kept []string
	for i, word := range args {
		if !incomplete([]string{word}) || i > 0 && strings.HasPrefix(args[i-1], "--") { // --id …
			kept = append(kept, word)
		}
	}
	root := silentRoot()
	w, err := readWords(root, kept)
	switch {
	case err != nil && partial && leftOut.MatchString(err.Error()):
		return nil
	case err != nil || w.help:
		return err
	}
	if w.command.HasAvailableSubCommands() && !w.command.Runnable() {
		if inline {
			return nil
		}
		return errors.New("which of its commands?")
	}
	if err := w.command.ParseFlags(w.args[strings.Count(w.command.CommandPath(), " "):]); err != nil {
		return err
	}
	given := w.command.Flags().Args()
	if len(given) == 0 && partial || w.command.Args == nil {
		return nil
	}
	return w.command.ValidateArgs(given)
}

var leftOut = regexp.MustCompile(`arguments are required|expected (one|at least one) argument$`)

func TestTheFlagsOfTheDocumentsExist(t *testing.T) {
	flags := map[string]bool{"--help": true}
	eachCommand(silentRoot(), func(cmd *cobra.Command) {
		add := func(f *pflag.Flag) { flags["--"+f.Name] = true }
		cmd.LocalFlags().VisitAll(add)
		cmd.InheritedFlags().VisitAll(add)
	})
	eachSnippet(t, func(s snippet) {
		if !s.inline || !strings.HasPrefix(s.text, "--") {
			return
		}
		name, _, _ := strings.Cut(strings.Fields(s.text)[0], "=")
		begin, several := strings.CutSuffix(strings.ReplaceAll(name, "…", "*"), "*")
		known := flags[name] || several && slices.ContainsFunc(slices.Collect(maps.Keys(flags)), func(flag string) bool { return strings.HasPrefix(flag, begin) })
		if !known && notOurs[name] == "" {
			t.Errorf("%s: no command has a flag %s", s.where, name)
		}
	})
}

func TestTheTargetsOfTheDocumentsExist(t *testing.T) {
	makefile := string(ofTree(t, "Makefile"))
	eachShellCommand(t, func(where string, inline bool, words []string) {
		words = slices.DeleteFunc(slices.Clone(words), func(word string) bool { return word == "$" || word == "sudo" })
		for len(words) > 0 && assignment.MatchString(words[0]) {
			words = words[1:]
		}
		if len(words) < 2 || words[0] != "make" {
			return
		}
		for _, word := range words[1:] {
			name, value, isVariable := strings.Cut(word, "=")
			switch {
			case isVariable && !regexp.MustCompile(`\b`+name+`\b`).MatchString(makefile):
				t.Errorf("%s: the Makefile has no variable %s", where, name)
			case isVariable && name == "E2E" && !hasTest(t, "e2e", value):
				t.Errorf("%s: e2e has no test %s", where, value)
			case !isVariable && !regexp.MustCompile(`(?m)^`+regexp.QuoteMeta(word)+`:`).MatchString(makefile):
				t.Errorf("%s: the Makefile has no target %s", where, word)
			}
		}
	})
}

func TestTheGoTestsOfTheDocumentsExist(t *testing.T) {
	eachShellCommand(t, func(where string, _ bool, words []string) {
		i := slices.Index(words, "test")
		if i < 1 || words[i-1] != "go" {
			return
		}
		var folders []string
		for _, word := range words[i+1:] {
			if strings.HasPrefix(word, "./") {
				folders = append(folders, word)
			}
		}
		for _, flag := range []string{"-run", "-bench", "-fuzz"} {
			at := slices.Index(words, flag)
			if at < 0 || at+1 == len(words) || words[at+1] == "^$" {
				continue
			}
			for _, folder := range folders {
				if !hasTest(t, folder, words[at+1]) {
					t.Errorf("%s: no test of %s is %s", where, folder, words[at+1])
				}
			}
		}
		for _, folder := range folders {
			if files, _ := filepath.Glob(filepath.Join(repository, strings.TrimSuffix(folder, "/..."), "*")); len(files) == 0 {
				t.Errorf("%s: there is no folder %s", where, folder)
			}
		}
	})
}

var testFunction = regexp.MustCompile(`(?m)^func ((?:Test|Benchmark|Fuzz)\w*)\(`)

// hasTest reports whether a folder's tests have one that the first part of a pattern matches.
func hasTest(t *testing.T, folder, pattern string) bool {
	t.Helper()
	first, _, _ := strings.Cut(pattern, "/")
	name, err := regexp.Compile(first)
	if err != nil {
		t.Fatal(err)
	}
	files, err := filepath.Glob(filepath.Join(repository, folder, "*_test.go"))
	if err != nil {
		t.Fatal(err)
	}
	for _, file := range files {
		content, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		for _, function := range testFunction.FindAllSubmatch(content, -1) {
			if name.Match(function[1]) {
				return true
			}
		}
	}
	return false
}

// chartValue is a value of the chart in a sentence: a path, perhaps with what it is set to.
var chartValue = regexp.MustCompile(`^([a-z]\w*(?:\.[a-zA-Z]\w*)+)(?:$|[:=])`)

func TestTheChartsValuesOfTheDocumentsExist(t *testing.T) {
	var schema map[string]any
	if err := json.Unmarshal(ofTree(t, "helm/clearml-serving-go/values.schema.json"), &schema); err != nil {
		t.Fatal(err)
	}
	checked := 0
	check := func(where, key string) {
		checked++
		if at := missingIn(schema, strings.Split(key, ".")); at != "" {
			t.Errorf("%s: the chart's values have no %s (%s)", where, key, at)
		}
	}
	eachShellCommand(t, func(where string, _ bool, words []string) {
		for i, word := range words[:len(words)-1] {
			if words[0] != "helm" || !slices.Contains([]string{"--set", "--set-string", "--set-file"}, word) {
				continue
			}
			for pair := range strings.SplitSeq(words[i+1], ",") {
				key, _, _ := strings.Cut(pair, "=")
				check(where, key)
			}
		}
	})
	eachSnippet(t, func(s snippet) {
		found := chartValue.FindStringSubmatch(s.text)
		if !s.inline || found == nil || !strings.HasPrefix(s.where, "docs/kubernetes.md") || notOurs[found[1]] != "" {
			return
		}
		check(s.where, found[1])
	})
	if checked < 10 {
		t.Errorf("only %d values were found", checked)
	}
}

// missingIn is the first part of a path that a schema does not know, "" if it knows all.
func missingIn(schema map[string]any, keys []string) string {
	for _, key := range keys {
		key, _, _ = strings.Cut(key, "[")
		properties, _ := schema["properties"].(map[string]any)
		next, known := properties[key].(map[string]any)
		if !known {
			if next, known = schema["additionalProperties"].(map[string]any); !known {
				if kind, _ := schema["type"].(string); kind == "object" && properties == nil && schema["additionalProperties"] == nil {
					return "" // an object of Kubernetes, of which the schema knows nothing
				}
				return key
			}
		}
		if items, is := next["items"].(map[string]any); is {
			next = items
		}
		schema = next
	}
	return ""
}

var variable = regexp.MustCompile(`CLEARML_SERVING_[A-Z0-9_]*[A-Z0-9]`)

func TestTheVariablesOfTheDocumentsExist(t *testing.T) {
	program, tests := variablesOfTheTree(t)
	for _, name := range documentPaths(t) {
		for i, line := range strings.Split(string(ofTree(t, name)), "\n") {
			for _, v := range variable.FindAllString(line, -1) {
				ofTests := tests[v] && (strings.Contains(line, "make ") || strings.Contains(line, "go test"))
				if !program[v] && !ofTests && notOurs[v] == "" {
					t.Errorf("%s:%d: nothing reads %s", name, i+1, v)
				}
			}
		}
	}
}

// variablesOfTheTree are the variables in the program, the images and the chart, and those in the tests.
func variablesOfTheTree(t *testing.T) (program, tests map[string]bool) {
	t.Helper()
	program, tests = map[string]bool{}, map[string]bool{}
	err := filepath.WalkDir(repository, func(file string, entry fs.DirEntry, err error) error {
		name := entry.Name()
		switch {
		case err != nil:
			return err
		case entry.IsDir():
			if file != repository && (strings.HasPrefix(name, ".") || slices.Contains([]string{"bin", "docs", "site", "testdata", "node_modules"}, name)) {
				return fs.SkipDir
			}
			return nil
		case !entry.Type().IsRegular() || strings.HasSuffix(name, ".md"):
			return nil
		}
		into := program
		if relative, _ := filepath.Rel(repository, file); strings.HasSuffix(name, "_test.go") || slices.Contains([]string{"e2e", "scripts", "bench", "chaos", "Makefile"}, strings.Split(relative, "/")[0]) {
			into = tests
		}
		if info, err := entry.Info(); err != nil || info.Size() > 1<<20 {
			return err
		}
		content, err := os.ReadFile(file)
		for _, v := range variable.FindAll(content, -1) {
			into[string(v)] = true
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return program, tests
}

// A sentence names a file of the tree by its path.
func TestTheFilesOfTheDocumentsExist(t *testing.T) {
	entries, err := os.ReadDir(repository)
	if err != nil {
		t.Fatal(err)
	}
	folders := map[string]bool{}
	for _, entry := range entries {
		folders[entry.Name()] = entry.IsDir()
	}
	eachSnippet(t, func(s snippet) {
		first, _, isPath := strings.Cut(s.text, "/")
		if !s.inline || !isPath || !folders[first] || strings.ContainsAny(s.text, " {<…$") {
			return
		}
		name, _, _ := strings.Cut(s.text, ":")
		if notOurs[name] != "" {
			return
		}
		if found, err := filepath.Glob(filepath.Join(repository, name)); err != nil || len(found) == 0 {
			t.Errorf("%s: the tree has no %s", s.where, name)
		}
	})
}

// notOurMessages are what other programs say.
var notOurMessages = map[string]string{
	"exec format error":          "of the kernel",
	"hostPath type check failed": "of the kubelet",
}

// changing is what a message has in one place and not in another: numbers, durations, NAME, N.
var changing = regexp.MustCompile(`…|\b[A-Z]+\b|[0-9][0-9.a-z]*`)

// The symptom that a table names in its first column is what the program says.
func TestTheMessagesOfTroubleshootingAreTheProgramsOwn(t *testing.T) {
	said := textsOfTheProgram(t)
	checked := 0
	for _, name := range []string{"docs/troubleshooting.md", "docs/kubernetes.md"} {
		content := string(ofTree(t, name))
		if _, part, found := strings.Cut(content, "## Troubleshooting"); found {
			content, _, _ = strings.Cut(part, "\n## ")
		}
		for line := range strings.Lines(content) {
			symptom, _, _ := strings.Cut(strings.TrimPrefix(line, "| "), " | ")
			if !strings.HasPrefix(line, "| ") {
				continue
			}
			for _, quoted := range inBackticks.FindAllStringSubmatch(symptom, -1) {
				message := quoted[1]
				if !strings.Contains(message, " ") || strings.HasPrefix(message, "pip ") || notOurMessages[message] != "" {
					continue
				}
				checked++
				for _, part := range changing.Split(message, -1) {
					if part = strings.Trim(part, " :,;"); len(part) > 3 && !strings.Contains(said, part) {
						t.Errorf("%s: the program never says %q of %q", name, part, message)
					}
				}
			}
		}
	}
	if checked < 6 {
		t.Errorf("only %d messages were found", checked)
	}
}

var inBackticks = regexp.MustCompile("`([^`]+)`")

// textsOfTheProgram has all texts in the program's code.
func textsOfTheProgram(t *testing.T) string {
	t.Helper()
	var texts strings.Builder
	err := filepath.WalkDir(repository, func(file string, entry fs.DirEntry, err error) error {
		name := entry.Name()
		switch {
		case err != nil:
			return err
		case entry.IsDir() && file != repository && (strings.HasPrefix(name, ".") || slices.Contains([]string{"bin", "docs", "site", "testdata", "e2e", "chaos", "bench", "security"}, name)):
			return fs.SkipDir
		case !strings.HasSuffix(name, ".go") || strings.HasSuffix(name, "_test.go"):
			return nil
		}
		tree, err := parser.ParseFile(token.NewFileSet(), file, nil, parser.SkipObjectResolution)
		if err != nil {
			return err
		}
		goast.Inspect(tree, func(node goast.Node) bool {
			if literal, ok := node.(*goast.BasicLit); ok && literal.Kind == token.STRING {
				text, _ := strconv.Unquote(literal.Value) // the parser has accepted it
				texts.WriteString(text + "\n")
			}
			return true
		})
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return texts.String()
}

// The figures of docs/sizing.md, and the loads of docs/scaling.md, are those of the pages that they name.
func TestTheFiguresOfSizingAreThoseOfTheMeasurements(t *testing.T) {
	var measured strings.Builder
	for _, name := range []string{"docs/performance.md", "docs/benchmarks.md", "docs/control-plane.md"} {
		measured.Write(ofTree(t, name))
	}
	figure := regexp.MustCompile(`[0-9][0-9,.]*[0-9]|[0-9]`)
	known := map[string]bool{}
	for _, number := range figure.FindAllString(measured.String(), -1) {
		known[strings.ReplaceAll(number, ",", "")] = true
	}
	checked := 0
	for _, name := range []string{"docs/sizing.md", "docs/scaling.md"} {
		for _, found := range regexp.MustCompile(`([0-9,]+) requests\s+a\s+second at random times`).FindAllStringSubmatch(string(ofTree(t, name)), -1) {
			checked++
			if !known[strings.ReplaceAll(found[1], ",", "")] {
				t.Errorf("%s: no measurement has %s", name, found[0])
			}
		}
	}
	for i, line := range strings.Split(string(ofTree(t, "docs/sizing.md")), "\n") {
		cells := strings.Split(line, "|")
		if len(cells) < 4 {
			continue
		}
		for _, cell := range cells[2 : len(cells)-1] {
			for _, number := range figure.FindAllString(cell, -1) {
				checked++
				if !known[strings.ReplaceAll(number, ",", "")] {
					t.Errorf("docs/sizing.md:%d: no measurement has %s", i+1, number)
				}
			}
		}
	}
	if checked < 25 {
		t.Errorf("only %d figures were found", checked)
	}
}
