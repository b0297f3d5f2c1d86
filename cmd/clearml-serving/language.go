package main

import (
	"log/slog"
	"net/http"
	"os"
	"slices"
	"strings"

	"clearmlserving/inference/engine/openai"
	"clearmlserving/inference/engine/python"
)

// languageEngine sends requests of the OpenAI API to servers of language models.
func (a *app) languageEngine(workers *python.Engine, log *slog.Logger) (*openai.Engine, error) {
	outgoing, err := a.transport()
	if err != nil {
		return nil, err
	}
	transport, _ := outgoing.(*http.Transport)
	maxBody, err := a.whole("max-body")
	if err != nil {
		return nil, err
	}
	self, err := os.Executable()
	if err != nil {
		return nil, err
	}
	child := openai.ChildOptions{Env: slices.DeleteFunc(os.Environ(), isCredential), Guard: []string{self, guardName, "--"}}
	if s := a.setting("worker-user"); s.value != "" {
		child.Refused = "engine vllm runs its server as the service itself, which " + s.source + " forbids for user code: start the server yourself, and use --engine openai with its address"
	}
	return openai.New(openai.Options{
		Python: workers, Transport: transport, Env: os.Environ(), MaxAnswer: int64(maxBody) << 20, Child: child, Logger: log,
	}), nil
}

// isCredential reports whether a variable may have a credential for the control plane or a storage, which servers of
// models do not need.
func isCredential(variable string) bool {
	return slices.ContainsFunc([]string{"CLEARML_", "TRAINS_", "AWS_", "AZURE_", "GOOGLE_", "OPENAI_"}, func(prefix string) bool { return strings.HasPrefix(variable, prefix) })
}
