package main

import (
	"context"
	"strings"

	"github.com/spf13/cobra"
)

func listCommand(a *app) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "list",
		Short: "List the serving services",
		Long:  "List the serving services of the ClearML server that are not stopped.",
		Example: `  clearml-serving list
  clearml-serving list --json`,
		RunE: func(cmd *cobra.Command, _ []string) error { return a.list(cmd.Context()) },
	}
	a.declareFormat(cmd)
	return cmd
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
	rows := make([]object, 0, len(services))
	var table [][]string
	for _, s := range services {
		rows = append(rows, object{{"name", s.Name}, {"tags", tagsOf(s.Tags)}, {"id", s.ID}, {"project", s.Project}})
		table = append(table, []string{s.ID, s.Name, s.Project, strings.Join(s.Tags, ", "), s.Status})
	}
	switch {
	case a.original:
		a.print.line("Currently running Serving Services:\n")
		if len(services) == 0 {
			a.print.line("No running services found")
		}
		for _, row := range rows {
			a.print.line("%s", pyRepr(row))
		}
	case len(services) == 0:
		a.print.line("There is no serving service; to make one: clearml-serving create --name \"serving example\"")
	default:
		a.print.table([]string{"ID", "NAME", "PROJECT", "TAGS", "STATUS"}, table)
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
