package main

import (
	"context"
	"fmt"

	"github.com/spf13/cobra"

	"clearmlserving/operations"
	"clearmlserving/serving"
)

// group makes cmd a command that only holds others.
func group(cmd *cobra.Command, subs ...*cobra.Command) *cobra.Command {
	cmd.RunE = func(cmd *cobra.Command, _ []string) error { return cmd.Help() }
	cmd.AddCommand(subs...)
	return cmd
}

// required marks flags that must be given.
func required(cmd *cobra.Command, names ...string) {
	for _, name := range names {
		mark(cmd.Flags(), name, markRequired)
	}
}

// oneOf marks the values that a flag takes; the shell offers them.
func oneOf(cmd *cobra.Command, flag string, values ...string) {
	mark(cmd.Flags(), flag, markChoices, values...)
	offer(cmd, flag, values...)
}

// usagef is an error about the words of a command, with its help as the next step.
func usagef(cmd *cobra.Command, format string, args ...any) error {
	return &usageError{command: cmd, problem: fmt.Sprintf(format, args...), hint: "Try: " + cmd.CommandPath() + " --help"}
}

// oneArg reads the one word that a command takes without a flag.
func oneArg(to *string, problem, next string) cobra.PositionalArgs {
	return func(cmd *cobra.Command, args []string) error {
		if len(args) != 1 {
			return &usageError{command: cmd, problem: problem, hint: next}
		}
		*to = args[0]
		return nil
	}
}

// nameHint is the next step where the name of an endpoint is missing.
const nameHint = "Try: clearml-serving model list   (shows the names)"

// change is what an editing command has done: the urls that --wait waits for, all if
// there are none, and the result for scripts, to which finish adds the service's id.
type change struct {
	urls   []serving.EndpointURL
	result object
}

// edit changes a service that is open.
type edit func(ctx context.Context, s *operations.Service) (change, error)

// edits makes cmd a command that changes the stored service: it opens the service, calls
// do, waits if asked to, and prints the result.
func (a *app) edits(cmd *cobra.Command, do edit) *cobra.Command { return a.editing(cmd, false, do) }

// deploys is edits for commands that wait by themselves on a terminal.
func (a *app) deploys(cmd *cobra.Command, do edit) *cobra.Command { return a.editing(cmd, true, do) }

func (a *app) editing(cmd *cobra.Command, deploys bool, do edit) *cobra.Command {
	wait := waitFlags{implied: deploys}
	wait.declare(a, cmd)
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		s, err := a.openForEdit(cmd.Context())
		if err != nil {
			return err
		}
		done, err := do(cmd.Context(), s)
		if err != nil {
			return err
		}
		return a.finish(cmd.Context(), s, wait, done.urls, append(object{{"id", s.Doc.ID}}, done.result...))
	}
	return cmd
}

// reads makes cmd a command that shows something of a service: it opens the service, calls do,
// and prints the result for scripts.
func (a *app) reads(cmd *cobra.Command, do func(ctx context.Context, s *operations.Service) (object, error)) *cobra.Command {
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		s, err := a.openService(cmd.Context())
		if err != nil {
			return err
		}
		result, err := do(cmd.Context(), s)
		if err != nil {
			return err
		}
		return a.print.result(result)
	}
	return cmd
}

// sayEdit prints the original's first lines of an edit.
func (a *app) sayEdit(s *operations.Service, format string, args ...any) {
	a.print.line("Serving service Task %s, %s", s.Doc.ID, fmt.Sprintf(format, args...))
	a.printSync(s)
}
