package main

import (
	"fmt"
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
)

const referenceNote = "<!-- Made from the program: UPDATE=1 go test ./cmd/clearml-serving -run Reference. Don't edit. -->\n\n"

func TestReferenceOfCommands(t *testing.T) {
	var b strings.Builder
	b.WriteString(`# Reference: commands

` + referenceNote + `Every command also takes the flags of ` + "`clearml-serving`" + ` itself. Defaults can be set by variables and by the configuration file:
[reference-settings.md](reference-settings.md).

| exit code | meaning |
|---|---|
`)
	for part := range strings.SplitSeq(strings.TrimPrefix(exitCodesHelp, "Exit codes: "), ", ") {
		code, meaning, _ := strings.Cut(part, " ")
		fmt.Fprintf(&b, "| %s | %s |\n", code, meaning)
	}
	eachCommand(silentRoot(), func(cmd *cobra.Command) {
		fmt.Fprintf(&b, "\n## %s\n\n", cmd.CommandPath())
		for paragraph := range strings.SplitSeq(strings.TrimSpace(firstOf(cmd.Long, cmd.Short)), "\n\n") {
			if strings.HasPrefix(paragraph, " ") {
				fmt.Fprintf(&b, "```\n%s\n```\n\n", strings.TrimRight(paragraph, "\n"))
			} else {
				fmt.Fprintf(&b, "%s\n\n", inMarkdown(paragraph))
			}
		}
		fmt.Fprintf(&b, "```\n%s\n", cmd.UseLine())
		if cmd.Example != "" {
			fmt.Fprintf(&b, "\n%s\n", strings.TrimRight(cmd.Example, "\n"))
		}
		b.WriteString("```\n")
		writeFlags(&b, cmd)
	})
	compareReference(t, "../../docs/reference-commands.md", b.String())
}

// writeFlags writes the table of a command's own flags.
func writeFlags(b *strings.Builder, cmd *cobra.Command) {
	flags := cmd.NonInheritedFlags()
	if !flags.HasAvailableFlags() {
		return
	}
	b.WriteString("\n| flag | default | meaning |\n|---|---|---|\n")
	flags.VisitAll(func(f *pflag.Flag) {
		if f.Hidden || f.Name == "help" {
			return
		}
		name, usage := pflag.UnquoteUsage(f)
		flag := "--" + f.Name
		if name != "" {
			flag += " " + name
		}
		def := ""
		if f.DefValue != "" && f.DefValue != "false" && f.DefValue != "0" && f.DefValue != "[]" {
			def = "`" + f.DefValue + "`"
		}
		if values := f.Annotations[markChoices]; len(values) > 0 && !strings.Contains(usage, values[0]) {
			usage += " (" + strings.Join(values, ", ") + ")"
		}
		if instead, required := f.Annotations[markRequired]; required {
			def = "required"
			if len(instead) > 0 {
				def = "required, or --" + strings.Join(instead, ", --")
			}
		}
		fmt.Fprintf(b, "| `%s` | %s | %s |\n", flag, def, inMarkdown(usage))
	})
}

func TestReferenceOfSettings(t *testing.T) {
	var b strings.Builder
	b.WriteString(`# Reference: settings

` + referenceNote + `A flag wins over the variables, the first variable that is set and not empty over the next, all of them over the
configuration file, and that over the default. The file is ` + "`serving.conf`" + ` in the data folder, in the syntax of ` + "`clearml.conf`" + `. The
settings of the ClearML server are read from the variables below, else from the SDK's ` + "`clearml.conf`" + `, else from a local
` + "`clearml-serving up`" + `.
`)
	group := ""
	for _, o := range optionTable {
		if o.group != group {
			group = o.group
			fmt.Fprintf(&b, "\n## %s\n\n| flag | variables | in the file | default | meaning |\n|---|---|---|---|---|\n", group)
		}
		flag, key, def, help := "", "", "", o.help
		if !o.noFlag {
			flag = "`--" + o.name + "`"
		}
		if !o.noFile {
			key = "`" + strings.ReplaceAll(o.name, "-", "_") + "`"
		}
		if o.def != "" {
			def = "`" + o.def + "`"
		}
		var variables []string
		for _, v := range o.variables {
			variables = append(variables, "`"+v+"`")
		}
		if o.secret {
			help += ". Secret: never printed"
		}
		fmt.Fprintf(&b, "| %s | %s | %s | %s | %s |\n", flag, strings.Join(variables, ", "), key, def, inMarkdown(help))
	}
	compareReference(t, "../../docs/reference-settings.md", b.String())
}

// inMarkdown writes a text so that nothing of it is taken for Markdown.
func inMarkdown(text string) string {
	return strings.NewReplacer(`\`, `\\`, "|", `\|`, "*", `\*`, "<", `\<`, "_", `\_`, "[", `\[`, "`", "\\`", "\n", " ").Replace(text)
}

func compareReference(t *testing.T, path, want string) {
	t.Helper()
	if os.Getenv("UPDATE") != "" {
		if err := os.WriteFile(path, []byte(want), 0o644); err != nil { //nolint:gosec // a page of the documentation
			t.Fatal(err)
		}
	}
	got, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if string(got) == want {
		return
	}
	stands, made := strings.Split(string(got), "\n"), strings.Split(want, "\n")
	for i, line := range made {
		if i >= len(stands) || stands[i] != line {
			t.Errorf("%s is stale at line %d: the program has %q; to write it anew: UPDATE=1 go test ./cmd/clearml-serving -run Reference", path, i+1, line)
			return
		}
	}
	t.Errorf("%s has %d lines that the program has not: UPDATE=1 go test ./cmd/clearml-serving -run Reference", path, len(slices.Delete(stands, 0, len(made))))
}
