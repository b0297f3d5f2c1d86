package main

import (
	"context"
	"fmt"
	"strings"
	"unicode/utf8"

	"github.com/spf13/cobra"

	"clearmlserving/clearml"
)

func createCommand(a *app) *cobra.Command {
	var name, project string
	var tags []string
	cmd := &cobra.Command{
		Use:   "create",
		Short: "Create a serving service",
		Long: `Create a serving service: a task on the ClearML server that holds what is served.
Each call makes a new one, even if the name exists.`,
		Example: `  clearml-serving create --name "serving example"
  clearml-serving create --name prices --project DevOps --tags production`,
		RunE: func(cmd *cobra.Command, _ []string) error { return a.create(cmd.Context(), name, project, tags) },
	}
	cmd.Flags().StringVar(&name, "name", "Serving Service", "name of the service")
	cmd.Flags().Var(wordList(&tags), "tags", "tags of the service")
	cmd.Flags().StringVar(&project, "project", "DevOps", "project of the service, created when it does not exist")
	return cmd
}

func (a *app) create(ctx context.Context, name, project string, tags []string) error {
	for _, v := range []struct{ flag, text string }{{"name", name}, {"project", project}} {
		// The server refuses shorter names, with words that name no flag.
		if utf8.RuneCountInString(strings.TrimSpace(v.text)) < 3 {
			return fmt.Errorf("argument --%s: %s is too short: give at least 3 characters", v.flag, pyText(v.text))
		}
	}
	client, err := a.connect()
	if err != nil {
		return err
	}
	others, err := client.ListServices(ctx)
	if err != nil {
		return err
	}
	id, err := client.CreateService(ctx, clearml.NewService{Name: name, Project: project, Tags: tags, Version: compatVersion})
	if err != nil {
		return err
	}
	a.print.line("New Serving Service created: id=%s", id)
	if len(others) > 0 {
		verb := "exist"
		if len(others) == 1 {
			verb = "exists"
		}
		a.print.notice("Notice: %s %s besides; to serve this one: clearml-serving inference --id %s", plural(len(others), "serving service"), verb, id)
	}
	return a.print.result(object{{"id", id}, {"name", name}, {"project", project}, {"tags", tagsOf(tags)}})
}
