package main

import (
	"log/slog"
	"net/http"
	"os"

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
	return openai.New(openai.Options{
		Python: workers, Transport: transport, Env: os.Environ(), MaxAnswer: int64(maxBody) << 20, Logger: log,
	}), nil
}
