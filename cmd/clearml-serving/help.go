package main

import (
	"strings"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
)

// The help of a command teaches: what it is for, examples to paste, its flags,
// and the exit codes that a script may count on.
const (
	helpTemplate = `{{with (or .Long .Short)}}{{. | trimTrailingWhitespaces}}

{{end}}{{.UsageString}}`

	usageTemplate = `Usage:
  {{.UseLine}}{{if .HasAvailableSubCommands}} COMMAND …{{end}}
{{- if .HasExample}}

Examples:
{{.Example}}{{end}}
{{- if .HasAvailableSubCommands}}{{$commands := .Commands}}
{{- if .Groups}}{{range $group := .Groups}}

{{.Title}}{{range $commands}}{{if and (eq .GroupID $group.ID) .IsAvailableCommand}}
  {{rpad .Name .NamePadding}} {{.Short}}{{end}}{{end}}{{end}}
{{- else}}

Commands:{{range $commands}}{{if .IsAvailableCommand}}
  {{rpad .Name .NamePadding}} {{.Short}}{{end}}{{end}}{{end}}{{end}}
{{- if .HasAvailableLocalFlags}}

Flags:
{{.LocalFlags.FlagUsages | trimTrailingWhitespaces}}{{end}}
{{- if .HasAvailableInheritedFlags}}

Flags of every command (clearml-serving --help explains them):
 {{range (inherited .)}} --{{.}}{{end}}{{end}}
{{- if .HasAvailableSubCommands}}

{{.CommandPath}} COMMAND --help tells more{{if not .HasParent}}; clearml-serving help environment lists all settings{{end}}{{end}}

` + exitCodesHelp + `
`
)

// inheritedNames are the flags of every command, by name.
func inheritedNames(cmd *cobra.Command) (names []string) {
	cmd.InheritedFlags().VisitAll(func(f *pflag.Flag) { names = append(names, f.Name) })
	return names
}

func helpCommand(a *app) *cobra.Command {
	return &cobra.Command{
		Use:         "help [COMMAND … | environment]",
		Short:       "Tell about a command, or list all settings",
		Long:        "Tell about a command. help environment lists every setting: flag, variables, default.",
		Annotations: map[string]string{markWords: ""},
		RunE: func(cmd *cobra.Command, args []string) error {
			if len(args) == 1 && (args[0] == "environment" || args[0] == "settings") {
				return a.printSettings()
			}
			found, rest, err := cmd.Root().Find(args)
			if err != nil || len(rest) > 0 {
				return &usageError{command: cmd, problem: "no help for " + pyText(strings.Join(args, " ")), hint: "Try: clearml-serving --help"}
			}
			found.InitDefaultHelpFlag()
			return found.Help()
		},
	}
}

// printSettings lists the table of options.
func (a *app) printSettings() error {
	var list []object
	group := ""
	for _, o := range optionTable {
		if o.group != group {
			group = o.group
			a.print.line("\n%s", a.print.paint(bold, group))
		}
		var names []string
		if !o.noFlag {
			names = append(names, "--"+o.name)
		}
		names = append(names, o.variables...)
		a.print.line("  %s", strings.Join(names, ", "))
		text := o.help
		if o.def != "" {
			text += " (default: " + o.def + ")"
		}
		a.print.line("      %s", text)
		list = append(list, object{
			{"name", o.name},
			{"flag", !o.noFlag},
			{"variables", o.variables},
			{"default", orNull(o.def)},
			{"config_file", !o.noFile},
			{"secret", o.secret},
			{"group", o.group},
			{"help", o.help},
		})
	}
	a.print.line(`
A flag wins over the variables, these over the configuration file (serving.conf
in the data folder, keys with _ for -: serve_addr = "127.0.0.1:8080"), and that
over the default. Empty variables count as not set. The settings of the ClearML
server come from the variables above, else from the SDK's clearml.conf, else from
a local "clearml-serving up".`)
	return a.print.result(object{{"settings", list}})
}
