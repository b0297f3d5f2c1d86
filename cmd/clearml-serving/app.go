package main

import (
	"fmt"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
)

// titleLine is the first line of every command of the original, help included. A terminal does not get it.
const titleLine = "clearml-serving - CLI for launching ClearML serving engine"

// app is one run of the program: what it was given, and what every command shares.
type app struct {
	sys   system
	print printer
	flags *pflag.FlagSet // of the running command
	files *configFile    // read at first use

	debug, yes bool
	serviceID  string
	original   bool // print the original's lines: they are for scripts, and only its own commands have them
}

func newApp(sys system) *app {
	return &app{sys: sys, print: printer{out: sys.stdout, err: sys.stderr}}
}

// globalFlags declares the flags that every command takes. The original has
// --debug, --yes and --id, in front of the command; here they may also follow it.
func (a *app) globalFlags(root *cobra.Command) {
	flags := root.PersistentFlags()
	flags.BoolVar(&a.debug, "debug", false, "tell more: the whole chain of an error and the calls to the server")
	flags.BoolVar(&a.yes, "yes", false, "answer every question with yes")
	flags.StringVar(&a.serviceID, "id", "", "id of the serving service (default: the first active one)")
	flags.Bool("json", false, "print one JSON object instead of words; errors too")
	for _, name := range []string{"data-dir", "config", "log-format", "log-level", "color"} {
		a.declare(flags, name)
	}
	flags.VisitAll(func(f *pflag.Flag) {
		switch f.Name {
		case "debug", "yes", "id":
		default:
			mark(flags, f.Name, markOurs)
		}
	})
	root.PersistentPreRunE = func(cmd *cobra.Command, _ []string) error {
		a.flags = cmd.Flags()
		if _, tolerant := cmd.Annotations[markTolerant]; !tolerant {
			if err := a.checkConfigFile(); err != nil {
				return err
			}
		}
		return a.checkGlobals()
	}
}

// originals are the commands of the original, without the program's name.
var originals = []string{
	"", "list", "create", "config", "metrics", "metrics add", "metrics remove", "metrics list",
	"model", "model list", "model add", "model remove", "model upload", "model canary", "model auto-update",
}

// begin decides how to print, before anything is.
func (a *app) begin(w words) {
	a.print.json = w.json
	_, path, _ := strings.Cut(w.command.CommandPath(), " ")
	if !slices.Contains(originals, path) || isCompletion(a.sys.args) {
		return
	}
	format := w.value("format")
	a.original = format == formatOriginal || (format == "" && !isTerminal(a.sys.stdout))
	if a.original {
		a.print.line(titleLine)
	}
}

func isCompletion(args []string) bool {
	return len(args) > 0 && strings.HasPrefix(args[0], completeWord)
}

// The forms of a list, for --format.
const (
	formatTable    = "table"
	formatOriginal = "original"
)

// declareFormat adds the choice between a table and the original's lines.
func (a *app) declareFormat(cmd *cobra.Command) {
	cmd.Flags().String("format", "", "table, or original for the lines of the Python product (default: table on a terminal, else original)")
	mark(cmd.Flags(), "format", markOurs)
	oneOf(cmd, "format", formatTable, formatOriginal)
}

// checkGlobals refuses unusable settings before a command does anything.
func (a *app) checkGlobals() error {
	color, err := a.choice("color", "auto", "always", "never")
	if err != nil {
		return err
	}
	a.print.color = a.colors(color, a.sys.stdout)
	a.print.width = terminalWidth(a.sys.stdout)
	if _, err := a.choice("log-format", "text", "json"); err != nil {
		return err
	}
	_, err = a.logLevel()
	return err
}

// logLevel is the setting of the log, "" when there is none.
func (a *app) logLevel() (string, error) {
	s := a.setting("log-level")
	if s.source == uvicornLogLevel {
		switch strings.ToLower(s.value) {
		case "trace":
			return "debug", nil
		case "warning":
			return "warn", nil
		case "critical":
			return "error", nil
		}
	}
	return a.choice("log-level", "", "debug", "info", "warn", "error")
}

// logger makes the log of this run, on stderr. Commands that end by themselves
// log warnings only; roles pass info.
func (a *app) logger(level slog.Level) *slog.Logger {
	if text, err := a.logLevel(); err == nil && text != "" { // checkGlobals has refused others
		_ = level.UnmarshalText([]byte(text)) // it is one of slog's
	}
	if a.debug {
		level = slog.LevelDebug
	}
	if a.text("log-format") == "json" {
		return slog.New(slog.NewJSONHandler(a.sys.stderr, &slog.HandlerOptions{Level: level}))
	}
	return slog.New(newLogHandler(a.sys.stderr, level, a.colors(a.text("color"), a.sys.stderr)))
}

// colors tells whether what is written to w is coloured, by the setting color.
func (a *app) colors(color string, w io.Writer) bool {
	_, noColor := a.sys.env("NO_COLOR")
	return color == "always" || (color == "auto" && !noColor && isTerminal(w))
}

// home is the person's own folder, "" when there is none.
func (a *app) home() string {
	home, _ := a.sys.env("HOME")
	return home
}

// dataDir is the folder that holds everything a local installation keeps.
func (a *app) dataDir() (string, error) {
	if dir := a.text("data-dir"); dir != "" {
		return filepath.Abs(dir)
	}
	if dir, ok := a.sys.env("XDG_DATA_HOME"); ok && filepath.IsAbs(dir) {
		return filepath.Join(dir, "clearml-serving"), nil
	}
	if home := a.home(); home != "" {
		return filepath.Join(home, ".local", "share", "clearml-serving"), nil
	}
	return "", hint(fmt.Errorf("there is no data folder: neither --data-dir nor CLEARML_SERVING_HOME nor HOME is set"), "Try: clearml-serving --data-dir ./data %s", strings.Join(a.sys.args, " "))
}

// mark puts one of readWords' marks on a flag.
func mark(flags *pflag.FlagSet, name, annotation string, values ...string) {
	f := flags.Lookup(name)
	if f == nil {
		return
	}
	if f.Annotations == nil {
		f.Annotations = map[string][]string{}
	}
	f.Annotations[annotation] = values
}

// exists tells whether a file or folder is there.
func exists(path string) bool {
	_, err := os.Stat(path)
	return err == nil
}
