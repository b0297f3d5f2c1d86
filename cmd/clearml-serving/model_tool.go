package main

import (
	"encoding/json"

	"github.com/spf13/cobra"

	"clearmlserving/serving"
)

func modelToolCommand(a *app) *cobra.Command {
	var tool serving.Tool
	cmd := &cobra.Command{
		Use:   "tool",
		Short: "Offer an endpoint to agents as a tool (MCP)",
		Long: `Offer an endpoint or a canary to agents as a tool: instances list and call it over
the Model Context Protocol at /mcp, with the schemas of the endpoint's signature and
the keys of the service. Tell in the description what the tool is for: a language
model decides by it.`,
		Example: `  clearml-serving model tool --endpoint prices --description "The price of a flat by its size in square metres and its town"
  clearml-serving model tool --endpoint prices --off`,
	}
	cmd.Flags().StringVar(&tool.Name, "name", "", "name of the tool: letters, digits, _ and - (default: that of the endpoint)")
	cmd.Flags().StringVar(&tool.Description, "description", "", "what the tool is for (default: made of the endpoint's signature)")
	mark(cmd.Flags(), "name", markOurs)
	mark(cmd.Flags(), "description", markOurs)
	return optionCommand(a, cmd, endpointOption[serving.Tool]{
		what: "tool", doing: "Tool for agents of", which: ": an endpoint or a canary", off: "offer it no more",
		at:    func(o *serving.EndpointOptions) **serving.Tool { return &o.Tool },
		value: replacing(&tool, func(t *serving.Tool) *map[string]json.RawMessage { return &t.Unknown }), result: "tool",
	})
}
