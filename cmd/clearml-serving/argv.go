package main

import (
	"errors"
	"fmt"
	"regexp"
	"slices"
	"strings"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
)

// The rules of the words on our command line are those of the original, which is
// written with Python's argparse:
//   - a long flag may be cut to a unique prefix: --end for --endpoint;
//   - values stand behind a flag or an "=": --id X, --id=X; a negative number is
//     a value, and so is a word with a blank;
//   - lists are several words behind one flag: --tags a b c;
//   - a flag given twice keeps the last;
//   - what is left over is an error, told on stderr, exit 2.
//
// Ours are two more: flags for every command may also stand behind it, and a
// prefix that was unique in the original stays so although we have more flags.
// readWords applies them and hands cobra words that can be read in one way only.

// Marks on flags and commands that readWords understands.
const (
	markRequired = "required"    // a flag that must be given, or one of the flags in the values
	markOurs     = "ours"        // a flag that the original does not have
	markWords    = "takes-words" // a command that takes words without a flag
	markChoices  = "choices"     // the values that a flag takes
	completeWord = "__complete"  // cobra's own words for the shell's completion begin so
)

// words is a command line that has been understood.
type words struct {
	command *cobra.Command
	args    []string // for cobra: the command's path, then --flag=value, then "--" and the rest
	json    bool
	help    bool
}

// value is the value of a flag, "" if it is not given.
func (w words) value(flag string) string {
	for _, arg := range w.args {
		if value, ok := strings.CutPrefix(arg, "--"+flag+"="); ok {
			return value
		}
	}
	return ""
}

// usageError says what is wrong with the command line itself. Exit code 2.
type usageError struct {
	command *cobra.Command
	problem string
	hint    string
}

func (e *usageError) Error() string { return e.problem }

// given is one flag as it stood on the command line, the last of its name.
type given struct {
	flag   *pflag.Flag
	values []string
}

// readWords understands a command line. The result is usable even with an
// error, as far as reading came: the error's words depend on --json.
func readWords(root *cobra.Command, args []string) (words, error) {
	r := reader{command: root, left: args}
	w := words{command: root, args: args}
	if isCompletion(args) {
		return w, nil // the shell's half-typed words must reach cobra as they are
	}
	err := r.read()
	w = words{command: r.command, json: r.has("json"), help: r.help}
	if err == nil && !r.help {
		err = r.complete()
	}
	if err != nil {
		w.json = w.json || slices.Contains(args, "--json")
		if problem := (*usageError)(nil); errors.As(err, &problem) {
			return w, err
		}
		return w, &usageError{command: r.command, problem: err.Error(), hint: "Try: " + r.command.CommandPath() + " --help"}
	}
	w.args = r.canonical()
	return w, nil
}

type reader struct {
	command *cobra.Command
	left    []string
	flags   []given
	rest    []string // words without a flag
	help    bool
}

func (r *reader) read() error {
	for len(r.left) > 0 {
		word := r.left[0]
		r.left = r.left[1:]
		var err error
		switch {
		case word == "--":
			r.rest, r.left = append(r.rest, r.left...), nil
		case r.isFlag(word):
			err = r.readFlag(word)
		default:
			err = r.readWord(word)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// readWord takes the name of a command, or a word for a command that takes such.
func (r *reader) readWord(word string) error {
	if !r.command.HasAvailableSubCommands() {
		r.rest = append(r.rest, word)
		return nil
	}
	var names []string
	for _, sub := range r.command.Commands() {
		if sub.Name() == word {
			r.command = sub
			return nil
		}
		if sub.IsAvailableCommand() {
			names = append(names, "'"+sub.Name()+"'")
		}
	}
	e := &usageError{
		command: r.command,
		problem: fmt.Sprintf("argument command: invalid choice: %s (choose from %s)", pyText(word), strings.Join(names, ", ")),
		hint:    "Try: " + r.command.CommandPath() + " --help",
	}
	r.command.SuggestionsMinimumDistance = 2
	if near := r.command.SuggestionsFor(word); len(near) > 0 {
		e.hint = "Did you mean: " + r.command.CommandPath() + " " + near[0]
	}
	for _, g := range r.flags { // --id $ID, and ID is empty
		if len(g.values) == 1 && slices.ContainsFunc(r.command.Commands(), func(c *cobra.Command) bool { return c.Name() == g.values[0] }) {
			e.hint = fmt.Sprintf("--%s has taken %s as its value. Was a variable empty?", g.flag.Name, pyText(g.values[0]))
		}
	}
	return e
}

func (r *reader) readFlag(word string) error {
	if word == "-h" {
		r.help = true
		return nil
	}
	if flag := r.short(word); flag != nil {
		return r.set(flag, flag.NoOptDefVal)
	}
	name, value, hasValue := strings.Cut(word, "=")
	flag, err := r.find(strings.TrimPrefix(name, "--"))
	switch {
	case err != nil:
		return err
	case !strings.HasPrefix(name, "--") || flag == nil:
		r.rest = append(r.rest, word)
		return nil
	case flag.Name == "help":
		r.help = true
		return nil
	case flag.NoOptDefVal != "" && hasValue:
		return fmt.Errorf("argument --%s: ignored explicit argument %s", flag.Name, pyText(value))
	case flag.NoOptDefVal != "":
		return r.set(flag, flag.NoOptDefVal)
	case hasValue:
		return r.set(flag, value)
	case isList(flag):
		values := r.takeValues(-1)
		if len(values) == 0 {
			return fmt.Errorf("argument --%s: expected at least one argument", flag.Name)
		}
		return r.set(flag, values...)
	default:
		values := r.takeValues(1)
		if len(values) == 0 {
			return fmt.Errorf("argument --%s: expected one argument", flag.Name)
		}
		return r.set(flag, values...)
	}
}

// takeValues takes the words up to the next flag, at most n (-1 for all).
func (r *reader) takeValues(n int) []string {
	i := 0
	for i < len(r.left) && i != n && r.left[i] != "--" && !r.isFlag(r.left[i]) {
		i++
	}
	values := r.left[:i]
	r.left = r.left[i:]
	return values
}

// negativeNumber is argparse's own rule for it.
var negativeNumber = regexp.MustCompile(`^-\d+$|^-\d*\.\d+$`)

func (r *reader) isFlag(word string) bool {
	if len(word) < 2 || word[0] != '-' {
		return false
	}
	name, _, _ := strings.Cut(word, "=")
	if flag, err := r.find(strings.TrimPrefix(name, "--")); strings.HasPrefix(name, "--") && (flag != nil || err != nil) {
		return true
	}
	return !negativeNumber.MatchString(word) && !strings.Contains(word, " ")
}

// short finds the switch of one letter; the original has none.
func (r *reader) short(word string) *pflag.Flag {
	if len(word) != 2 || word[0] != '-' || word[1] == '-' {
		return nil
	}
	return r.command.LocalFlags().ShorthandLookup(word[1:])
}

// find looks for a flag by its name, else by a prefix of it: among the command's own that
// the original has, then among ours, then among those of every command.
func (r *reader) find(name string) (*pflag.Flag, error) {
	if name == "" {
		return nil, nil //nolint:nilnil // "no such flag" is not an error here
	}
	if name == "help" {
		return &pflag.Flag{Name: "help"}, nil
	}
	if flag := r.command.Flag(name); flag != nil {
		return flag, nil
	}
	var originals, ours, inherited []*pflag.Flag
	r.command.LocalFlags().VisitAll(func(flag *pflag.Flag) {
		switch _, own := flag.Annotations[markOurs]; {
		case !strings.HasPrefix(flag.Name, name) || flag.Hidden:
		case own:
			ours = append(ours, flag)
		default:
			originals = append(originals, flag)
		}
	})
	r.command.InheritedFlags().VisitAll(func(flag *pflag.Flag) {
		if strings.HasPrefix(flag.Name, name) {
			inherited = append(inherited, flag)
		}
	})
	if strings.HasPrefix("help", name) {
		inherited = append(inherited, &pflag.Flag{Name: "help"})
	}
	for _, candidates := range [][]*pflag.Flag{originals, ours} {
		if len(candidates) > 0 {
			return unique(name, candidates)
		}
	}
	return unique(name, inherited)
}

func unique(name string, candidates []*pflag.Flag) (*pflag.Flag, error) {
	switch len(candidates) {
	case 0:
		return nil, nil //nolint:nilnil // as in find
	case 1:
		return candidates[0], nil
	}
	names := make([]string, len(candidates))
	for i, flag := range candidates {
		names[i] = "--" + flag.Name
	}
	return nil, fmt.Errorf("ambiguous option: --%s could match %s", name, strings.Join(names, ", "))
}

// set checks the values' form and keeps them, in place of earlier ones.
func (r *reader) set(flag *pflag.Flag, values ...string) error {
	for _, value := range values {
		if err := checkValue(flag, value); err != nil {
			return err
		}
	}
	r.flags = slices.DeleteFunc(r.flags, func(g given) bool { return g.flag == flag })
	r.flags = append(r.flags, given{flag: flag, values: values})
	return nil
}

// complete checks what can be told only when all words have been read.
func (r *reader) complete() error {
	if err := r.unknown(); err != nil {
		return err
	}
	var missing []string
	r.command.LocalFlags().VisitAll(func(flag *pflag.Flag) {
		if instead, required := flag.Annotations[markRequired]; required && !r.has(flag.Name) && !slices.ContainsFunc(instead, r.has) {
			missing = append(missing, "--"+flag.Name)
		}
	})
	if missing != nil {
		return fmt.Errorf("the following arguments are required: %s", strings.Join(missing, ", "))
	}
	return nil
}

// unknown is the error about words that mean nothing. It comes before the one about missing
// flags, because a mistyped flag is also a missing one.
func (r *reader) unknown() error {
	if _, takes := r.command.Annotations[markWords]; !takes && len(r.rest) > 0 {
		e := &usageError{command: r.command.Root(), problem: "unrecognized arguments: " + strings.Join(r.rest, " "), hint: "Try: " + r.command.CommandPath() + " --help"}
		for _, word := range r.rest {
			if name, _, _ := strings.Cut(word, "="); strings.HasPrefix(name, "--") {
				if near := r.nearest(name[2:]); near != "" {
					e.hint = "Did you mean: --" + near
				}
			}
		}
		return e
	}
	return nil
}

func (r *reader) has(name string) bool {
	return slices.ContainsFunc(r.flags, func(g given) bool { return g.flag.Name == name })
}

// canonical is the command line in the one form that cobra is given.
func (r *reader) canonical() []string {
	var path []string
	for c := r.command; c.HasParent(); c = c.Parent() {
		path = append(path, c.Name())
	}
	slices.Reverse(path)
	out := path
	if r.help {
		return append(out, "--help")
	}
	for _, g := range r.flags {
		for _, value := range g.values {
			out = append(out, "--"+g.flag.Name+"="+value)
		}
	}
	if len(r.rest) > 0 {
		out = append(append(out, "--"), r.rest...)
	}
	return out
}
