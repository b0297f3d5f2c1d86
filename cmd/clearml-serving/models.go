package main

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/dustin/go-humanize"
	"github.com/spf13/cobra"

	"clearmlserving/clearml"
	"clearmlserving/operations"
)

// defaultModels is how many models the command models lists, the newest.
const defaultModels = 50

func modelsCommand(a *app) *cobra.Command {
	var q operations.ModelQuery
	limit := defaultModels
	cmd := &cobra.Command{
		Use:   "models [WORD]",
		Short: "List the registered models",
		Long: `List the models of the model repository, the newest first. A WORD selects those
whose name holds it, in upper or lower case.`,
		Example: `  clearml-serving models
  clearml-serving models churn --project "serving examples" --tags production`,
		Annotations: map[string]string{markWords: ""},
		RunE: func(cmd *cobra.Command, args []string) error {
			if len(args) > 1 {
				return usagef(cmd, "give one word, not %d", len(args))
			}
			return a.models(cmd.Context(), q, strings.Join(args, ""), limit)
		},
	}
	flags := cmd.Flags()
	flags.StringVar(&q.Project, "project", "", "only models of this project (exact name)")
	flags.Var(wordList(&q.Tags), "tags", "only models with any of these tags")
	flags.BoolVar(&q.Published, "published", false, "only published models")
	flags.IntVar(&limit, "limit", limit, "how many are listed at most")
	return cmd
}

func (a *app) models(ctx context.Context, q operations.ModelQuery, word string, limit int) error {
	if limit < 1 {
		return fmt.Errorf("argument --limit: give 1 or more")
	}
	client, err := a.connect()
	if err != nil {
		return err
	}
	found, err := q.Holding(ctx, client, word, limit+1)
	if errors.Is(err, operations.ErrNoProject) {
		return notFound("No projects found when searching for `%s`", q.Project)
	}
	if err != nil {
		return err
	}
	more := len(found) > limit
	found = found[:min(len(found), limit)]
	projects, err := projectNames(ctx, client, found)
	if err != nil {
		return err
	}
	var rows [][]string
	shown := []object{}
	for _, m := range found {
		rows = append(rows, []string{m.Name, projects[m.ProjectID], m.Framework, strings.Join(m.Tags, ", "), yesNo[m.Ready], age(m.Created.Time), m.ID})
		shown = append(shown, object{
			{"id", m.ID},
			{"name", m.Name},
			{"project", projects[m.ProjectID]},
			{"framework", orNull(m.Framework)},
			{"tags", tagsOf(m.Tags)},
			{"published", m.Ready},
			{"created", orNull(stamp(m.Created.Time))},
			{"uri", m.URI},
		})
	}
	if len(rows) > 0 {
		a.print.table([]string{"NAME", "PROJECT", "FRAMEWORK", "TAGS", "PUBLISHED", "AGE", "ID"}, rows)
	} else {
		a.print.line("No model is found; how a model is registered: clearml-serving model upload --help")
	}
	if more {
		a.print.notice("Notice: there are more; to see them: --limit %d", limit*4)
	}
	return a.print.result(object{{"models", shown}, {"more", more}})
}

var yesNo = map[bool]string{true: "yes", false: "no"}

// projectNames are the names of the models' projects by their ids.
func projectNames(ctx context.Context, client *clearml.Client, models []clearml.Model) (map[string]string, error) {
	var ids []string
	for _, m := range models {
		ids = append(ids, m.ProjectID)
	}
	return client.ProjectNames(ctx, ids)
}

// age says how long ago something was, "" if it is not known.
func age(t time.Time) string {
	if t.IsZero() {
		return ""
	}
	return humanize.Time(t)
}
