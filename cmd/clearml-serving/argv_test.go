package main

import (
	"errors"
	"slices"
	"strings"
	"testing"

	"github.com/spf13/cobra"
)

func testRoot() *cobra.Command {
	return rootCommand(newApp(system{env: func(string) (string, bool) { return "", false }}))
}

func TestCommandLinesAreReadAsArgparseReadsThem(t *testing.T) {
	add := []string{"model", "add", "--engine=e", "--endpoint=n"}
	for _, tc := range []struct {
		name string
		in   string // words, separated by "|"
		want []string
	}{
		{"no words", "", nil},
		{"a command", "list", []string{"list"}},
		{"a group without a verb", "model", []string{"model"}},
		{"values behind a blank or an equals sign", "create|--name|a b|--project=x=y", []string{"create", "--name=a b", "--project=x=y"}},
		{"flags of every command in front", "--debug|--id|7|model|list", []string{"model", "list", "--debug=true", "--id=7"}},
		{"flags of every command between", "model|--id|7|list", []string{"model", "list", "--id=7"}},
		{"flags of every command behind", "model|list|--id|7|--json", []string{"model", "list", "--id=7", "--json=true"}},
		{"unique prefixes", "model|add|--eng|e|--end|n", add},
		{"a prefix with a value", "model|add|--eng=e|--end=n", add},
		{"a prefix of ours gives way to one of the original", "model|canary|--end|c|--w|1|2", []string{"model", "canary", "--endpoint=c", "--weights=1", "--weights=2"}},
		{"a prefix of ours that nothing else has", "model|list|--verb", []string{"model", "list", "--verbose=true"}},
		{"a list of words", "create|--tags|a|b|c|--name|nnn", []string{"create", "--tags=a", "--tags=b", "--tags=c", "--name=nnn"}},
		{"a list ends at a flag of every command", "create|--tags|a|b|--debug", []string{"create", "--tags=a", "--tags=b", "--debug=true"}},
		{"the last of a name counts", "create|--name|one|--name|two", []string{"create", "--name=two"}},
		{"the last list replaces the first", "create|--tags|a|b|--tags|c", []string{"create", "--tags=c"}},
		{"negative numbers are values", "model|canary|--end|c|--weights|-1|-.5|2", []string{"model", "canary", "--endpoint=c", "--weights=-1", "--weights=-.5", "--weights=2"}},
		{"negative sizes are values", "model|add|--eng|e|--end|n|--output-size|-1|10", append(slices.Clone(add), "--output-size=-1", "--output-size=10")},
		{"a word with a blank is a value", "create|--name|-not a flag", []string{"create", "--name=-not a flag"}},
		{"a lone dash is a value", "create|--name|-", []string{"create", "--name=-"}},
		{"an empty value", "config|--kafka-metric-server|", []string{"config", "--kafka-metric-server="}},
		{"a value like a flag behind an equals sign", "create|--tags=-old", []string{"create", "--tags=-old"}},
		{"help wins over what is missing", "model|add|--help", []string{"model", "add", "--help"}},
		{"help by a letter", "model|-h", []string{"model", "--help"}},
		{"help by a prefix", "list|--he", []string{"list", "--help"}},
		{"a short switch", "model|list|-v", []string{"model", "list", "--verbose=true"}},
		{"the readme's misspelt flag", "model|canary|--end|c|--weights|1|--input-endpoints-prefix|p", []string{"model", "canary", "--endpoint=c", "--weights=1", "--input-endpoints-prefix=p"}},
		{"a command that takes words", "completion|bash", []string{"completion", "--", "bash"}},
		{"the shell's half-typed words", "__complete|model|add|--en", []string{"__complete", "model", "add", "--en"}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			var in []string
			if tc.in != "" {
				in = strings.Split(tc.in, "|")
			}
			got, err := readWords(testRoot(), in)
			if err != nil || !slices.Equal(got.args, tc.want) {
				t.Errorf("got %q, %v\nwant %q", got.args, err, tc.want)
			}
		})
	}
}

func TestWrongCommandLinesSayWhatIsWrong(t *testing.T) {
	for _, tc := range []struct{ name, in, command, problem, hint string }{
		{"unknown command", "lst", "clearml-serving", "argument command: invalid choice: 'lst' (choose from ", "Did you mean: clearml-serving list"},
		{"unknown verb", "model ad", "clearml-serving model", "argument command: invalid choice: 'ad'", "Did you mean: clearml-serving model add"},
		{"unknown flag", "list --engne x", "clearml-serving", "unrecognized arguments: --engne x", ""},
		{"a near miss", "create --projet x", "clearml-serving", "unrecognized arguments: --projet x", "Did you mean: --project"},
		{"too many words", "list me", "clearml-serving", "unrecognized arguments: me", ""},
		{"ambiguous prefix", "model add --input 1", "clearml-serving model add", "ambiguous option: --input could match --input-name, --input-size, --input-type", ""},
		{"missing flags", "model add --name x", "clearml-serving model add", "the following arguments are required: --endpoint, --engine", ""},
		{"canary without weights", "model canary --endpoint x", "clearml-serving model canary", "the following arguments are required: --weights", ""},
		{"missing value", "create --name", "clearml-serving create", "argument --name: expected one argument", ""},
		{"missing value before a flag", "create --name --tags a", "clearml-serving create", "argument --name: expected one argument", ""},
		{"missing list", "create --tags", "clearml-serving create", "argument --tags: expected at least one argument", ""},
		{"not a number", "model canary --endpoint c --weights a", "clearml-serving model canary", "argument --weights: invalid float value: 'a'", ""},
		{"not a whole number", "model auto-update --engine e --endpoint n --max-versions 1.5", "clearml-serving model auto-update", "argument --max-versions: invalid int value: '1.5'", ""},
		{"a number too large for anything", "model auto-update --engine e --endpoint n --max-versions 99999999999999999999", "clearml-serving model auto-update", "argument --max-versions: invalid int value", ""},
		{"not a duration", "model remove --endpoint e --wait-timeout soon", "clearml-serving model remove", "argument --wait-timeout: invalid duration: 'soon'", ""},
		{"a value for a switch", "model add --engine e --endpoint n --published=1", "clearml-serving model add", "argument --published: ignored explicit argument '1'", ""},
		{"not one of the choices", "env --format xml", "clearml-serving env", "argument --format: invalid choice: 'xml' (choose from 'sh', 'json', 'conf')", ""},
	} {
		t.Run(tc.name, func(t *testing.T) {
			_, err := readWords(testRoot(), strings.Fields(tc.in))
			var usage *usageError
			if !errors.As(err, &usage) {
				t.Fatalf("got %v, want a usage error", err)
			}
			if usage.command.CommandPath() != tc.command || !strings.HasPrefix(usage.problem, tc.problem) || !strings.Contains(usage.hint, tc.hint) {
				t.Errorf("got %q %q %q", usage.command.CommandPath(), usage.problem, usage.hint)
			}
		})
	}
}

func TestEveryPrefixThatTheOriginalTakesIsTaken(t *testing.T) {
	original := map[string][]string{
		"create":            {"name", "tags", "project"},
		"config":            {"base-serving-url", "triton-grpc-server", "kafka-metric-server", "metric-log-freq"},
		"model add":         {"engine", "endpoint", "version", "model-id", "preprocess", "input-size", "input-type", "input-name", "output-size", "output-type", "output-name", "aux-config", "name", "tags", "project", "published"},
		"model auto-update": {"engine", "endpoint", "max-versions", "preprocess", "input-size", "input-type", "input-name", "output-size", "output-type", "output-name", "aux-config", "name", "tags", "project", "published"},
		"model canary":      {"endpoint", "weights", "input-endpoints", "input-endpoint-prefix"},
		"model remove":      {"endpoint"},
		"model upload":      {"name", "tags", "project", "framework", "publish", "path", "url", "destination"},
		"metrics add":       {"endpoint", "log-freq", "variable-scalar", "variable-enum", "variable-value"},
		"metrics remove":    {"endpoint", "variable"},
	}
	root := testRoot()
	for path, names := range original {
		command, _, err := root.Find(strings.Fields(path))
		if err != nil {
			t.Fatal(err)
		}
		for _, name := range names {
			for end := 1; end <= len(name); end++ {
				prefix := name[:end]
				matches := 0
				for _, other := range names {
					if strings.HasPrefix(other, prefix) {
						matches++
					}
				}
				if matches > 1 && prefix != name {
					continue
				}
				r := reader{command: command}
				flag, err := r.find(prefix)
				if strings.HasPrefix("help", prefix) {
					continue // argparse finds that ambiguous or takes help
				}
				if err != nil || flag == nil || flag.Name != name {
					t.Errorf("%s --%s: got %v, %v, want --%s", path, prefix, flag, err, name)
				}
			}
		}
	}
}

func FuzzReadWords(f *testing.F) {
	f.Add("model|add|--eng|e|--end|n|--tags|a|b|--input-size|-1|[1, 2]")
	f.Add("--id=7|model|canary|--endpoint|c|--weights|0.1|-1|--|x")
	f.Add("metrics|add|--endpoint|m/*|--variable-scalar|x=0/1/5|--log-freq|1e-3")
	f.Add("-h|--|-v|--=|---|--=x|-")
	f.Fuzz(func(t *testing.T, line string) {
		root := testRoot()
		w, err := readWords(root, strings.Split(line, "|"))
		if err != nil || w.help || isCompletion(w.args) {
			return
		}
		// What was understood must mean the same to cobra, and be accepted by it.
		command, rest, err := root.Find(w.args)
		if err != nil || command != w.command {
			t.Fatalf("%q: cobra finds %v, %v, not %v", w.args, command, err, w.command)
		}
		if err := command.ParseFlags(rest); err != nil {
			t.Fatalf("%q: %v", w.args, err)
		}
	})
}

// A whole name means itself, also behind a command with a flag that begins so.
func TestAWholeNameIsNoPrefixOfAnother(t *testing.T) {
	w, err := readWords(testRoot(), strings.Fields("model limits --endpoint e --off --id x"))
	if err != nil || !slices.Contains(w.args, "--id=x") {
		t.Errorf("got %q, %v", w.args, err)
	}
}
