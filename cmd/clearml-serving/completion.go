package main

import (
	"fmt"
	"strings"

	"github.com/spf13/cobra"
)

func completionCommand(a *app) *cobra.Command {
	shells := []string{"bash", "zsh", "fish"}
	return &cobra.Command{
		Use:   "completion bash|zsh|fish",
		Short: "Print the completion script of a shell",
		Long:  "Print a script that makes a shell complete commands and flags with the Tab key.",
		Example: `  source <(clearml-serving completion bash)
  clearml-serving completion zsh > "${fpath[1]}/_clearml-serving"
  clearml-serving completion fish > ~/.config/fish/completions/clearml-serving.fish`,
		Annotations: map[string]string{markQuiet: "", markWords: ""},
		ValidArgs:   shells,
		RunE: func(cmd *cobra.Command, args []string) error {
			root, out := cmd.Root(), a.sys.stdout
			if len(args) == 1 {
				switch args[0] {
				case "bash":
					return root.GenBashCompletionV2(out, true)
				case "zsh":
					return root.GenZshCompletion(out)
				case "fish":
					return root.GenFishCompletion(out, true)
				}
			}
			return &usageError{command: cmd, problem: fmt.Sprintf("give one shell: %s", strings.Join(shells, ", ")), hint: "Try: clearml-serving completion bash"}
		},
	}
}

// completeFrom makes the shell offer fixed words for a flag.
func completeFrom(cmd *cobra.Command, flag string, words []string) {
	// The only error is a flag that does not exist or has words already: ours to avoid.
	_ = cmd.RegisterFlagCompletionFunc(flag, cobra.FixedCompletions(words, cobra.ShellCompDirectiveNoFileComp))
}
