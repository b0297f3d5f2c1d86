package main

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"clearmlserving/clearml"
	"clearmlserving/operations"
)

func completionCommand(a *app) *cobra.Command {
	shells := []string{"bash", "zsh", "fish"}
	return &cobra.Command{
		Use:   "completion bash|zsh|fish",
		Short: "Print the completion script of a shell",
		Long: `Print a script that makes a shell complete commands, flags, and the names of endpoints,
services, projects and models with the Tab key.`,
		Example: `  source <(clearml-serving completion bash)
  clearml-serving completion zsh > "${fpath[1]}/_clearml-serving"
  clearml-serving completion fish > ~/.config/fish/completions/clearml-serving.fish`,
		Annotations: map[string]string{markWords: ""},
		ValidArgs:   shells,
		RunE: func(cmd *cobra.Command, args []string) error {
			root, out := cmd.Root(), a.sys.stdout
			if len(args) == 1 {
				switch args[0] {
				case "bash":
					return bashCompletion(root, out)
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

// bashWords stands in for a function of the package bash-completion, which is not on every
// machine: the words up to the cursor, split at blanks only.
const bashWords = `local line="${COMP_LINE:0:COMP_POINT}"
    read -ra words <<< "$line"
    [[ $line == *[[:space:]] ]] && words+=("")
    cword=$((${#words[@]} - 1))
    cur="${words[cword]}"
    prev="${words[cword - 1]}"`

func bashCompletion(root *cobra.Command, out io.Writer) error {
	var script bytes.Buffer
	if err := root.GenBashCompletionV2(&script, true); err != nil {
		return err
	}
	_, err := io.WriteString(out, strings.Replace(script.String(), `_get_comp_words_by_ref "$@" cur prev words cword`, bashWords, 1))
	return err
}

// offer makes the shell offer fixed words for a flag.
func offer(cmd *cobra.Command, flag string, words ...string) {
	// The only error is a flag that does not exist or has words already: ours to avoid.
	_ = cmd.RegisterFlagCompletionFunc(flag, cobra.FixedCompletions(words, cobra.ShellCompDirectiveNoFileComp))
}

// finder lists words from what is on the ClearML server.
type finder func(ctx context.Context, a *app, client *clearml.Client) ([]string, error)

// stored are the words that a shell offers from what is on the ClearML server, each with a
// description behind a tab.
var stored = map[string]finder{
	"id":       storedServices,
	"endpoint": storedEndpoints, "input-endpoints": storedEndpoints, "to": storedEndpoints,
	"project":  storedProjects,
	"model-id": storedModels(func(m clearml.Model) string { return m.ID + "\t" + m.Name }),
	"name":     storedModels(func(m clearml.Model) string { return m.Name + "\t" + age(m.Created.Time) }),
}

// namesNew are the commands whose --name and --project are for something new or for a service.
var namesNew = map[string]bool{"create": true, "upload": true, "up": true, "inference": true}

// offerStored makes the shell offer what is stored, for the flags of all commands, and for
// commands that are about an endpoint.
func (a *app) offerStored(cmd *cobra.Command) {
	for flag, find := range stored {
		if cmd.LocalFlags().Lookup(flag) == nil || (flag == "name" && namesNew[cmd.Name()]) {
			continue
		}
		_ = cmd.RegisterFlagCompletionFunc(flag, a.complete(find))
	}
	if strings.Contains(cmd.Use, " ENDPOINT") {
		cmd.ValidArgsFunction = a.complete(storedEndpoints)
	}
	for _, sub := range cmd.Commands() {
		a.offerStored(sub)
	}
}

// completeLimit bounds how long a shell waits for the ClearML server.
const completeLimit = 3 * time.Second

// complete offers the words that begin so. A server that does not answer offers none.
func (a *app) complete(find finder) cobra.CompletionFunc {
	return func(cmd *cobra.Command, _ []string, begun string) ([]string, cobra.ShellCompDirective) {
		ctx, cancel := context.WithTimeout(cmd.Root().Context(), completeLimit)
		defer cancel()
		a.flags = cmd.Flags()
		client, err := a.connect()
		if err != nil {
			return nil, cobra.ShellCompDirectiveNoFileComp
		}
		defer client.Close()
		words, err := find(ctx, a, client)
		if err != nil {
			words = nil
		}
		return slices.DeleteFunc(words, func(word string) bool { return !strings.HasPrefix(word, begun) }), cobra.ShellCompDirectiveNoFileComp
	}
}

func storedServices(ctx context.Context, _ *app, client *clearml.Client) (words []string, err error) {
	services, err := client.ListServices(ctx)
	for _, s := range services {
		words = append(words, s.ID+"\t"+s.Name)
	}
	return words, err
}

func storedProjects(ctx context.Context, _ *app, client *clearml.Client) (words []string, err error) {
	projects, err := client.Projects(ctx, nil)
	for _, p := range projects {
		words = append(words, p.Name)
	}
	return words, err
}

func storedModels(word func(clearml.Model) string) finder {
	return func(ctx context.Context, _ *app, client *clearml.Client) (words []string, err error) {
		models, err := operations.ModelQuery{}.Holding(ctx, client, "", defaultModels)
		for _, m := range models {
			words = append(words, word(m))
		}
		return words, err
	}
}

// storedEndpoints are the urls of the service of --id, else of the first.
func storedEndpoints(ctx context.Context, a *app, client *clearml.Client) (words []string, err error) {
	id := a.serviceID
	if id == "" {
		services, err := client.ListServices(ctx)
		if err != nil || len(services) == 0 {
			return nil, err
		}
		id = services[0].ID
	}
	s, err := operations.Open(ctx, client, id)
	if err != nil {
		return nil, err
	}
	for _, list := range []struct {
		urls []string
		kind string
	}{
		{keys(s.Config.Endpoints), "endpoint"},
		{keys(s.Config.Monitoring), "auto-updated endpoint"},
		{keys(s.Config.MonitoringEndpoints), "version of an auto-updated endpoint"},
		{keys(s.Config.Canaries), "canary"},
	} {
		for _, url := range list.urls {
			words = append(words, url+"\t"+list.kind)
		}
	}
	return words, nil
}
