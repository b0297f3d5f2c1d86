package main

import (
	"context"

	"github.com/spf13/cobra"
)

func listCommand(a *app) *cobra.Command {
	return &cobra.Command{
		Use:     "list",
		Short:   "List the serving services",
		Long:    "List the serving services of the ClearML server that are not stopped.",
		Example: "  clearml-serving list --json",
		RunE:    func(cmd *cobra.Command, _ []string) error { return a.list(cmd.Context()) },
	}
}

func (a *app) list(ctx context.Context) error {
	client, err := a.connect()
	if err != nil {
		return err
	}
	services, err := client.ListServices(ctx)
	if err != nil {
		return err
	}
	a.print.line("Currently running Serving Services:\n")
	if len(services) == 0 {
		a.print.line("No running services found")
	}
	rows := make([]object, 0, len(services))
	for _, s := range services {
		row := object{{"name", s.Name}, {"tags", tagsOf(s.Tags)}, {"id", s.ID}, {"project", s.Project}}
		a.print.line("%s", pyRepr(row))
		rows = append(rows, row)
	}
	return a.print.result(object{{"services", rows}})
}

// tagsOf is the list of tags, never nil.
func tagsOf(tags []string) []string {
	if tags == nil {
		return []string{}
	}
	return tags
}
