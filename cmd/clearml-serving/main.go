// Command clearml-serving configures and runs ClearML Serving: the commands of
// the original with the same words, the control plane, and the inference
// service. It is the only place that reads flags and environment, prints, and
// exits; every package behind it takes options and returns values.
package main

import (
	"context"
	"errors"
	"io"
	"os"
	"os/signal"
	"runtime/debug"
	"syscall"

	"github.com/spf13/cobra"
)

func main() {
	os.Exit(run(system{
		args: os.Args[1:], stdin: os.Stdin, stdout: os.Stdout, stderr: os.Stderr, env: os.LookupEnv,
	}))
}

// system is what the process was given by whoever started it.
type system struct {
	args           []string
	stdin          io.Reader
	stdout, stderr io.Writer
	env            func(string) (string, bool)
}

// run reads the command line, runs the command, and turns its error into words
// and an exit code.
func run(sys system) (code int) {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	a := newApp(sys)
	defer func() {
		if fault := recover(); fault != nil {
			code = a.crashed(fault, debug.Stack())
		}
	}()
	root := rootCommand(a)
	w, err := readWords(root, sys.args)
	a.begin(w)
	if err == nil {
		root.SetArgs(w.args)
		// The context of a command ends with the first signal; after that the
		// second one has its usual effect and ends the process at once.
		context.AfterFunc(ctx, stop)
		err = root.ExecuteContext(ctx)
	}
	if err != nil && ctx.Err() != nil && (errors.Is(err, context.Canceled) || errors.Is(err, context.Cause(ctx))) {
		return a.aborted()
	}
	return a.end(err)
}

// rootCommand is the tree of all commands.
func rootCommand(a *app) *cobra.Command {
	root := &cobra.Command{
		Use:   "clearml-serving",
		Short: "Serve the models of a ClearML server",
		Long: `Serve the models of a ClearML server: configure what is served, and serve it.

A serving service is a task on the ClearML server that says which models are
served under which names. The commands below edit it; running instances follow
by themselves within seconds.`,
		Example: `  clearml-serving create --name "serving example"
  clearml-serving model add --engine sklearn --endpoint test_model_sklearn \
      --preprocess preprocess.py --name "train sklearn model" --project "serving examples"
  curl -X POST http://127.0.0.1:8080/serve/test_model_sklearn -d '{"x0": 1, "x1": 2}' \
      -H "Content-Type: application/json"
  clearml-serving model list`,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if version, err := cmd.Flags().GetBool("version"); err == nil && version {
				return a.printVersion()
			}
			return cmd.Help()
		},
		Args:          cobra.ArbitraryArgs,
		SilenceErrors: true,
		SilenceUsage:  true,
	}
	root.Flags().Bool("version", false, "print the version, as the command version does")
	a.globalFlags(root)
	root.CompletionOptions.DisableDefaultCmd = true
	root.SetHelpCommand(helpCommand(a))
	root.AddGroup(
		&cobra.Group{ID: groupConfigure, Title: "Configure a serving service:"},
		&cobra.Group{ID: groupRun, Title: "Run it:"},
		&cobra.Group{ID: groupAssist, Title: "Find out:"},
	)
	add := func(group string, commands ...*cobra.Command) {
		for _, c := range commands {
			c.GroupID = group
			root.AddCommand(c)
		}
	}
	add(groupConfigure, listCommand(a), createCommand(a), configCommand(a), modelsCommand(a), modelCommand(a), metricsCommand(a), driftCommand(a), feedbackCommand(a), authCommand(a))
	add(groupRun, runCommand(a), upCommand(a), serverCommand(a), inferenceCommand(a), statisticsCommand(a), tritonCommand(a), torchServeCommand(a), buildCommand(a))
	add(groupAssist, testCommand(a), envCommand(a), uiCommand(a), doctorCommand(a), probeCommand(a), migrateCommand(a), versionCommand(a), completionCommand(a))
	root.AddCommand(trialCommand(a), guardCommand(a))
	a.offerStored(root)
	root.InitDefaultHelpCmd()
	cobra.AddTemplateFunc("inherited", inheritedNames)
	root.SetHelpTemplate(helpTemplate)
	root.SetUsageTemplate(usageTemplate)
	root.SetOut(a.sys.stdout)
	root.SetErr(a.sys.stderr)
	return root
}

// The groups of commands in the help.
const (
	groupConfigure = "configure"
	groupRun       = "run"
	groupAssist    = "assist"
)
