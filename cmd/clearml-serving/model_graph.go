package main

import (
	"context"
	"fmt"
	"io"
	"os"

	"github.com/spf13/cobra"

	"clearmlserving/operations"
	"clearmlserving/serving"
)

func modelGraphCommand(a *app) *cobra.Command {
	var endpoint, version, file string
	var why revisionFlags
	cmd := &cobra.Command{
		Use:   "graph",
		Short: "Serve endpoints together as one, without code",
		Long: `Serve other endpoints together as one endpoint, without code: one after the other
(Sequence), at the same time (Ensemble), by a field of the request (Switch), or by
weight (Splitter). A YAML or JSON file describes the graph, in the words of KServe's
InferenceGraph; docs/graphs.md has them all.

The steps are called within the process, with their canaries, limits and statistics.
A graph that calls itself, or an endpoint that does not exist, is refused. It is the
same as model add --engine graph --aux-config FILE.`,
		Example: `  clearml-serving model graph --endpoint ocr --file graph.yaml
  clearml-serving model list --verbose`,
	}
	cmd.Flags().StringVar(&endpoint, "endpoint", "", "name under /serve/, slashes allowed")
	cmd.Flags().StringVar(&version, "version", "", "version of the endpoint, the last part of its url")
	cmd.Flags().StringVar(&file, "file", "", "file with the graph (-: standard input)")
	required(cmd, "endpoint", "file")
	for _, name := range []string{"endpoint", "version", "file"} {
		mark(cmd.Flags(), name, markOurs)
	}
	why.declare(cmd)
	return a.deploys(cmd, func(ctx context.Context, s *operations.Service) (change, error) {
		a.sayEdit(s, "Adding graph '/%s/'", serving.JoinURL(endpoint, version))
		text, err := a.readGraph(file)
		if err != nil {
			return change{}, err
		}
		e := serving.Endpoint{EngineType: serving.EngineGraph, ServingURL: endpoint, Version: version, AuxiliaryCfg: text}
		if err := e.Validate(); err != nil {
			return change{}, fmt.Errorf("%s: %w", file, err)
		}
		why.apply(s)
		url := string(e.URL())
		_, replaced := serving.LookUp(s.Config.Endpoints, url)
		if replaced {
			a.print.notice("Warning: Model endpoint '%s' overwritten", url)
		}
		if err := a.putEndpoint(ctx, s, &e, ""); err != nil {
			return change{}, err
		}
		graph, err := serving.GraphOf(e.EngineType, e.AuxiliaryCfg)
		if err != nil {
			return change{}, err
		}
		a.printGraph(e.URL(), graph)
		return change{[]serving.EndpointURL{e.URL()}, object{{"endpoint", url}, {"calls", graph.Endpoints()}, {"replaced", replaced}}}, nil
	})
}

// readGraph reads the file with a graph.
func (a *app) readGraph(file string) (string, error) {
	if file == "-" {
		text, err := io.ReadAll(a.sys.stdin)
		return string(text), err
	}
	if !exists(file) {
		return "", notFound("graph file '%s' could not be found", file)
	}
	text, err := os.ReadFile(file)
	if err != nil {
		return "", fmt.Errorf("read the graph: %w", err)
	}
	return string(text), nil
}

// printGraphs shows the graphs of a service.
func (a *app) printGraphs(s *operations.Service) {
	for _, key := range keys(s.Config.Endpoints) {
		e := s.Config.Endpoints[key]
		if graph, err := serving.GraphOf(e.EngineType, e.AuxiliaryCfg); err == nil && graph != nil {
			a.printGraph(e.URL(), graph)
		}
	}
}

func (a *app) printGraph(url serving.EndpointURL, graph *serving.Graph) {
	var rows [][]string
	for _, l := range graph.Lines() {
		if l.Node != "" {
			rows = append(rows, []string{l.Node, "", "", l.Note})
			continue
		}
		target := "/" + string(l.Endpoint)
		if l.Target != "" {
			target = "node " + l.Target
		}
		rows = append(rows, []string{"", l.Step, target, l.Note})
	}
	a.print.section([]string{"GRAPH /" + string(url), "STEP", "CALLS", "NOTE"}, rows)
}
