//go:build linux

package e2e_test

import (
	"encoding/json"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
)

// toolCode is the code of endpoints that are tools, by their names. Those of the conformance suite have its names and
// answer what it asks for.
var toolCode = map[string]string{
	"sum_of": `
from typing import TypedDict

class Numbers(TypedDict):
    a: float
    b: float

class Sum(TypedDict):
    sum: float

class Preprocess:
    def process(self, data: Numbers, state, collect) -> Sum:
        return {"sum": data["a"] + data["b"]}
`,
	"rows": `
class Preprocess:
    def process(self, data, state, collect):
        return [sum(row) for row in data]
`,
	"fails": `
class Preprocess:
    def process(self, data: dict, state, collect):
        raise ValueError("this tool fails")
`,
	"test_simple_text":       responds(`"This is a simple text response for testing.", content_type="text/plain"`),
	"test_image_content":     responds(`base64.b64decode("iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mP8z8BQDwAEhQGAhKmMIQAAAABJRU5ErkJggg=="), content_type="image/png"`),
	"test_audio_content":     responds(`base64.b64decode("UklGRiQAAABXQVZFZm10IBAAAAABAAEAQB8AAAB9AAACABAAZGF0YQAAAAA="), content_type="audio/wav"`),
	"test_embedded_resource": responds(`b"\xff\xfe\x00 no text", content_type="application/octet-stream"`),
	"test_error_handling": `
class Preprocess:
    def process(self, data: dict, state, collect):
        raise ValueError("This tool intentionally returns an error for testing")
`,
}

func responds(arguments string) string {
	return "import base64\nfrom clearml_serving_worker import Response\n\nclass Preprocess:\n    def process(self, data: dict, state, collect):\n        return Response(" + arguments + ")\n"
}

// conformanceScenarios are those of the suite that a server of tools can pass, each with the checks that fail because they are
// about something else. The other scenarios test prompts, resources, completion, logging, sampling, elicitation, progress, tasks,
// several parts in one answer, references in schemas, sessions, and the resumption of streams, which endpoints do not have.
var conformanceScenarios = map[string][]string{
	"server-initialize": nil, "ping": nil, "tools-list": nil, "tools-call-simple-text": nil, "tools-call-image": nil, "tools-call-audio": nil,
	"tools-call-embedded-resource": nil, "tools-call-error": nil, "dns-rebinding-protection": nil, "http-header-validation": nil,
	"server-stateless": {
		"sep-2575-server-rejects-undeclared-capability", "sep-2575-missing-capability-http-400", // tools that need a client's capability
		"sep-2575-http-server-no-independent-requests-on-stream", // elicitation
		"sep-2575-server-no-log-without-loglevel",                // logging
	},
	"caching": {"sep-2549-prompts-list-caching-hints", "sep-2549-resources-list-caching-hints", "sep-2549-resources-templates-list-caching-hints"},
}

func TestEnginesMCP(t *testing.T) {
	folder := os.Getenv("CLEARML_SERVING_TEST_MCP")
	if folder == "" {
		t.Skip("CLEARML_SERVING_TEST_MCP does not name the folder of the judges: make e2e-mcp")
	}
	s := up(t)
	id := createdID(t, s.must(t, "create"))
	for name, code := range toolCode {
		file := filepath.Join(s.dir, "work", name+".py")
		if err := os.WriteFile(file, []byte(code), 0o600); err != nil {
			t.Fatal(err)
		}
		s.must(t, "--id", id, "model", "add", "--engine", "custom", "--endpoint", name, "--preprocess", file)
		s.must(t, "--id", id, "model", "tool", "--endpoint", name, "--description", "Tool "+name+".", "--wait")
	}
	s.must(t, "--id", id, "model", "graph", "--endpoint", "both", "--file", writtenGraph(t, s), "--wait")
	s.must(t, "--id", id, "model", "tool", "--endpoint", "both", "--wait")

	t.Run("conformance", func(t *testing.T) {
		node, suite := filepath.Join(folder, "node_modules", ".bin", "node"), filepath.Join(folder, "node_modules", "@modelcontextprotocol", "conformance", "dist", "index.js")
		failure, color := regexp.MustCompile(`\[(\S+)\s*\] FAILURE`), regexp.MustCompile("\x1b\\[[0-9;]*m")
		for scenario, others := range conformanceScenarios {
			r := s.command(t, nil, node, suite, "server", "--url", s.urls["serve"]+"/mcp", "--scenario", scenario)
			out := color.ReplaceAllString(r.out, "")
			var failed []string
			for _, f := range failure.FindAllStringSubmatch(out, -1) {
				if !slices.Contains(others, f[1]) {
					failed = append(failed, f[1])
				}
			}
			if failed != nil || !regexp.MustCompile(`Passed: [1-9]\d*/\d+`).MatchString(out) {
				t.Errorf("%s fails %q: %v", scenario, failed, r)
			}
		}
	})
	t.Run("client", func(t *testing.T) {
		for _, told := range askTools(t, s, "") {
			if told.Server != "clearml-serving" || len(told.Tools) != len(toolCode)+1 {
				t.Errorf("%s: %+v", told.Mode, told)
			}
			if got := string(told.Tools["sum_of"]); !strings.Contains(got, `"Tool sum_of."`) || !strings.Contains(got, `"required": ["a", "b"]`) || !strings.Contains(got, `"required": ["sum"]`) {
				t.Errorf("%s: %s", told.Mode, got)
			}
			for name, want := range map[string]string{
				"rows": `[[false, ["[3,7]"], null]]`, "fails": `[[true, ["Error [<class 'ValueError'>] processing request: this tool fails"], null]]`,
			} {
				if got := string(told.Calls[name]); got != want {
					t.Errorf("%s: %s answers %s, want %s", told.Mode, name, got, want)
				}
			}
			if got := string(told.Calls["sum_of"]); !strings.HasPrefix(got, `[[false, ["{\"sum\":5.5}"], {"sum": 5.5}], [true, `) {
				t.Errorf("%s: sum_of answers %s", told.Mode, got)
			}
		}
	})
	t.Run("keys", func(t *testing.T) {
		var made struct{ Key string }
		decode(t, s.must(t, "--id", id, "--json", "auth", "create", "--endpoint", "rows"), &made)
		s.must(t, "--id", id, "config", "--auth", "on", "--wait")
		for _, told := range askTools(t, s, made.Key) {
			if len(told.Tools) != 1 || told.Tools["rows"] == nil {
				t.Errorf("a key for one endpoint sees %v", told.Tools)
			}
		}
		if status, body := roundTrip(http.MethodPost, s.urls["serve"]+"/mcp", "application/json", strings.NewReader(`{}`)); status != http.StatusUnauthorized {
			t.Errorf("without a key: %d %s", status, body)
		}
	})
}

// writtenGraph is a file with a graph of two of the tools.
func writtenGraph(t *testing.T, s *system) string {
	t.Helper()
	file := filepath.Join(s.dir, "work", "graph.yaml")
	if err := os.WriteFile(file, []byte("nodes: {root: {routerType: Ensemble, steps: [{serviceName: rows, name: a}, {serviceName: rows, name: b}]}}"), 0o600); err != nil {
		t.Fatal(err)
	}
	return file
}

// toolsTold is what the client of the official SDK prints.
type toolsTold struct {
	Mode, Protocol, Server string
	Tools, Calls           map[string]json.RawMessage
}

func askTools(t *testing.T, s *system, key string) []toolsTold {
	t.Helper()
	out := s.python(t, filepath.Join(root, ".venv-mcp/bin/python"), "mcp_client.py", s.urls["serve"]+"/mcp", key)
	var all []toolsTold
	for line := range strings.Lines(out) {
		var told toolsTold
		decode(t, line, &told)
		all = append(all, told)
	}
	if len(all) != 2 {
		t.Fatal(fmt.Errorf("the client prints %s", out))
	}
	return all
}
