package main

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"os"
	"strings"

	"clearmlserving/inference/engine"
	"clearmlserving/serving"
)

// stubs answer what the code under test asks other endpoints, each with the
// content of a file.
type stubs map[serving.EndpointURL]string

// readStubs takes the words of --stub apart and checks that the files are there.
func readStubs(words []string) (stubs, error) {
	found := stubs{}
	for _, word := range words {
		name, file, ok := strings.Cut(word, "=")
		url := serving.CleanURL(name)
		switch {
		case !ok || url == "" || file == "":
			return nil, fmt.Errorf("--stub %q: give an endpoint and the file with its answer, as in --stub features=answer.json", word)
		case found[url] != "":
			return nil, fmt.Errorf("--stub %q: endpoint '%s' has an answer already, %s", word, url, found[url])
		case !exists(file):
			return nil, notFound("--stub %s: file '%s' could not be found", word, file)
		}
		found[url] = file
	}
	return found, nil
}

// stubbedEngine runs user code whose calls are answered by stubs. What no stub
// answers goes to the service, which has the endpoint under test only.
type stubbedEngine struct {
	engine.Runner
	stubs stubs
}

// Run fulfils engine.Runner.
func (e stubbedEngine) Run(ctx context.Context, caller engine.Caller) error {
	return e.Runner.Run(ctx, stubCaller{caller, e.stubs})
}

type stubCaller struct {
	next  engine.Caller
	stubs stubs
}

// Call fulfils engine.Caller. The file is read each time: with --watch it changes.
func (c stubCaller) Call(ctx context.Context, call engine.Call) (*engine.Response, error) {
	file, ok := c.stubs[serving.JoinURL(call.Endpoint, call.Version)]
	if !ok {
		return c.next.Call(ctx, call)
	}
	body, err := os.ReadFile(file)
	if err != nil {
		return unreadable(err), nil
	}
	kind := "application/octet-stream"
	if json.Valid(body) {
		kind = "application/json"
	}
	return &engine.Response{Status: http.StatusOK, ContentType: kind, Body: body}, nil
}

// unreadable is the answer of a stub whose file has gone since it was checked.
func unreadable(err error) *engine.Response {
	return &engine.Response{Status: http.StatusBadGateway, ContentType: "text/plain; charset=utf-8", Body: []byte("--stub: " + err.Error())}
}
