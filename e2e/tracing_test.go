//go:build linux

package e2e_test

import (
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"clearmlserving/tracing/tracingtest"
)

// spanning is code with spans of its own and a call of another endpoint.
const spanning = `from clearml_serving_worker import Response, span, traceparent

class Preprocess:
    def preprocess(self, body, state, collect_custom_statistics_fn=None):
        with span("tokenise", words=len(body["text"].split())) as part:
            part.attributes["language"] = "en"
        return body

    def process(self, data, state, collect_custom_statistics_fn=None):
        if data["text"] == "fail":
            with span("inner"):
                raise ValueError("this text")
        if data["text"] == "stream":
            return Response(self.pieces())
        with span("ask"):
            answer = self.send_request("below", data={"x": 1})
        return {"traceparent": traceparent(), "answer": answer}

    def pieces(self):
        for n in range(3):
            with span("piece", n=n):
                yield str(n)
`

const spanningAsync = `from clearml_serving_worker import span

class Preprocess:
    async def process(self, data, state, collect_custom_statistics_fn=None):
        with span("async part"):
            return data
`

const spanningBatch = `from clearml_serving_worker import span

class Preprocess:
    def preprocess(self, body, state, collect_custom_statistics_fn=None):
        with span("batched part"):
            return body

    def process_batch(self, data, state, collect_custom_statistics_fn=None):
        return data
`

// trace are the spans of one trace.
type spansOf []tracingtest.Span

// named returns the only span of this name.
func (s spansOf) named(t *testing.T, name string) tracingtest.Span {
	t.Helper()
	var found []tracingtest.Span
	for _, one := range s {
		if one.Name == name {
			found = append(found, one)
		}
	}
	if len(found) != 1 {
		t.Fatalf("%d spans named %s in:\n%s", len(found), name, s)
	}
	return found[0]
}

func (s spansOf) String() (text string) {
	for _, one := range s {
		text += fmt.Sprintf("%s  %s below %q  %s\n", one.ID, one.Name, one.Parent, one.End.Sub(one.Begin))
	}
	return text
}

// path checks that each span is below the one before.
func (s spansOf) path(t *testing.T, names ...string) {
	t.Helper()
	for i := 1; i < len(names); i++ {
		above, below := s.named(t, names[i-1]), s.named(t, names[i])
		if below.Parent != above.ID {
			t.Errorf("%s is not below %s:\n%s", names[i], names[i-1], s)
		}
	}
}

// traceOf waits until the spans of a trace have come, one named last among them.
func (s *system) traceOf(t *testing.T, r *tracingtest.Receiver, id string, last ...string) (found spansOf) {
	t.Helper()
	s.eventually(t, patience, "the trace arrives", func() error {
		found = nil
		names := map[string]bool{}
		for _, span := range r.Spans() {
			if span.Trace == id {
				found = append(found, span)
				names[span.Name] = true
			}
		}
		for _, name := range last {
			if !names[name] {
				return fmt.Errorf("no span %s in:\n%s", name, found)
			}
		}
		return nil
	})
	return found
}

func (s *system) askTraced(t *testing.T, endpoint, body, traceparent string) (int, string) {
	t.Helper()
	return roundTrip(http.MethodPost, s.urls["serve"]+"/serve/"+endpoint, "application/json", strings.NewReader(body), "traceparent", traceparent)
}

// traced is a role whose traces go to a receiver.
func traced(r *tracingtest.Receiver, more ...string) []string {
	return append([]string{"OTEL_EXPORTER_OTLP_ENDPOINT=" + r.URL, "OTEL_SERVICE_NAME=my-models", "OTEL_BSP_SCHEDULE_DELAY=50"}, more...)
}

func TestATraceGoesThroughFrontQueueWorkerAndUserCode(t *testing.T) {
	r := tracingtest.New(t)
	s := install(t)
	s.start(t, role{env: traced(r)})
	t.Cleanup(func() { s.stop(t) })
	s.must(t, "create")
	s.must(t, "model", "add", "--engine", "custom", "--endpoint", "below", "--preprocess", code("echo.py"), "--wait")
	s.must(t, "model", "add", "--engine", "custom", "--endpoint", "m", "--preprocess", writeCode(t, s, "spanning.py", spanning), "--wait")
	s.must(t, "model", "add", "--engine", "custom_async", "--endpoint", "async", "--preprocess", writeCode(t, s, "async.py", spanningAsync), "--wait")
	s.must(t, "model", "add", "--engine", "custom", "--endpoint", "batch", "--preprocess", writeCode(t, s, "batch.py", spanningBatch), "--aux-config", "max_batch_size=8", "--wait")

	const client = "b7ad6b7169203331"
	header := func(n int) (id, traceparent string) {
		id = fmt.Sprintf("0af7651916cd43dd8448eb211c8031%02x", n)
		return id, "00-" + id + "-" + client + "-01"
	}
	id, traceparent := header(1)
	status, answer := s.askTraced(t, "m", `{"text": "a b c"}`, traceparent)
	if status != http.StatusOK {
		t.Fatal(answer)
	}
	spans := s.traceOf(t, r, id, "POST /serve/m", "infer below")
	if front := spans.named(t, "POST /serve/m"); front.Parent != client || front.Service != "my-models" || front.Attributes["http.response.status_code"] != "int_value:200" {
		t.Errorf("%+v", front)
	}
	if got := spans.named(t, "tokenise").Attributes; got["words"] != "int_value:3" || got["language"] != "en" {
		t.Errorf("%v", got)
	}
	var userCode, below spansOf // each endpoint has these spans
	for _, span := range spans {
		if span.Name == "queue" || span.Name == "worker" || span.Name == "process" {
			continue
		}
		userCode = append(userCode, span)
	}
	userCode.path(t, "ask", "send_request below", "infer below")
	front, infer := spans.named(t, "POST /serve/m"), spans.named(t, "infer m")
	for _, span := range spans {
		if span.Name == "worker" && span.Parent == infer.ID {
			below = append(below, span)
		}
	}
	if infer.Parent != front.ID || len(below) != 1 {
		t.Fatalf("no worker below infer m:\n%s", spans)
	}
	if pre := spans.named(t, "preprocess"); pre.Parent != below[0].ID || spans.named(t, "tokenise").Parent != pre.ID {
		t.Errorf("preprocess is not below the worker:\n%s", spans)
	}
	if ask := spans.named(t, "ask"); !slices.ContainsFunc(spans, func(one tracingtest.Span) bool {
		return one.Name == "process" && one.ID == ask.Parent && one.Parent == below[0].ID && strings.Contains(answer, id+"-"+one.ID)
	}) {
		t.Errorf("ask is not below process, or user code has another traceparent: %s\n%s", answer, spans)
	}
	if !slices.ContainsFunc(spans, func(one tracingtest.Span) bool { return one.Name == "queue" && one.Parent == infer.ID }) {
		t.Errorf("no queue:\n%s", spans)
	}

	id, traceparent = header(2)
	if status, answer := s.askTraced(t, "m", `{"text": "fail"}`, traceparent); status != http.StatusUnprocessableEntity {
		t.Fatal(status, answer)
	}
	spans = s.traceOf(t, r, id, "POST /serve/m", "inner")
	spans.path(t, "worker", "process", "inner")
	if inner := spans.named(t, "inner"); inner.Error != "ValueError: this text" {
		t.Errorf("%+v", inner)
	}

	id, traceparent = header(3)
	if status, answer := s.askTraced(t, "m", `{"text": "stream"}`, traceparent); status != http.StatusOK || answer != "012" {
		t.Fatal(status, answer)
	}
	spans = s.traceOf(t, r, id, "POST /serve/m", "piece")
	if n := strings.Count(spans.String(), "  piece below \""+spans.named(t, "worker").ID); n != 3 {
		t.Errorf("%d pieces:\n%s", n, spans)
	}

	id, traceparent = header(4)
	if status, answer := s.askTraced(t, "async", `{"x": 1}`, traceparent); status != http.StatusOK {
		t.Fatal(status, answer)
	}
	s.traceOf(t, r, id, "POST /serve/async", "async part").path(t, "infer async", "worker", "process", "async part")

	id, traceparent = header(5)
	if status, answer := s.askTraced(t, "batch", `{"x": 1}`, traceparent); status != http.StatusOK {
		t.Fatal(status, answer)
	}
	s.traceOf(t, r, id, "POST /serve/batch", "batched part").path(t, "infer batch", "worker", "preprocess", "batched part")

	// A trace that is not sampled passes on that it is not.
	id, traceparent = header(6)
	status, answer = s.askTraced(t, "m", `{"text": "a"}`, traceparent[:53]+"00")
	if status != http.StatusOK || !strings.Contains(answer, id+"-") || !strings.Contains(answer, `-00"`) {
		t.Errorf("%d %s", status, answer)
	}
	// A scraper that takes OpenMetrics gets the traces of slow requests.
	_, text := roundTrip(http.MethodGet, s.urls["admin"]+"/metrics", "", nil, "Accept", "application/openmetrics-text; version=1.0.0")
	if !strings.Contains(text, `# {trace_id="`) {
		t.Error("no exemplars")
	}
	// Spans arrive in the order in which they end: those of a later trace come after what is not to come.
	last, traceparent := header(7)
	if status, answer := s.askTraced(t, "m", `{"text": "a"}`, traceparent); status != http.StatusOK {
		t.Fatal(status, answer)
	}
	s.traceOf(t, r, last, "POST /serve/m", "tokenise")
	for _, span := range r.Spans() {
		if span.Trace == id {
			t.Errorf("a span of a trace that is not sampled: %s", span.Name)
		}
	}
}

// otelCode is code that uses OpenTelemetry's own SDK.
const otelCode = `import os
from opentelemetry import trace
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor

provider = TracerProvider(resource=Resource.create({"service.name": "the code"}))
provider.add_span_processor(SimpleSpanProcessor(OTLPSpanExporter(endpoint="DESTINATION/v1/traces")))
trace.set_tracer_provider(provider)
tracer = trace.get_tracer("code")

class Preprocess:
    def process(self, data, state, collect_custom_statistics_fn=None):
        with tracer.start_as_current_span("of the SDK"):
            return data
`

// otelClient sends a request within a span of OpenTelemetry's own SDK.
const otelClient = `import sys, urllib.request
from opentelemetry import propagate, trace
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor

provider = TracerProvider()
provider.add_span_processor(SimpleSpanProcessor(OTLPSpanExporter(endpoint=sys.argv[2] + "/v1/traces")))
trace.set_tracer_provider(provider)
with trace.get_tracer("client").start_as_current_span("the client") as span:
    headers = {"Content-Type": "application/json"}
    propagate.inject(headers)
    print(urllib.request.urlopen(urllib.request.Request(sys.argv[1], b'{"x": 1}', headers)).read().decode())
    print(format(span.get_span_context().trace_id, "032x"))
provider.shutdown()
`

func TestSpansOfOpenTelemetrysOwnSDKJoinTheTrace(t *testing.T) {
	python := filepath.Join(root, ".venv-otel/bin/python")
	if _, err := os.Stat(python); err != nil {
		t.Fatal("no .venv-otel: make venv-otel")
	}
	r := tracingtest.New(t)
	s := install(t)
	s.start(t, role{env: traced(r), python: python})
	t.Cleanup(func() { s.stop(t) })
	s.must(t, "create")
	s.must(t, "model", "add", "--engine", "custom", "--endpoint", "m", "--preprocess", writeCode(t, s, "otel.py", strings.Replace(otelCode, "DESTINATION", r.URL, 1)), "--wait")
	out := s.command(t, nil, python, writeCode(t, s, "client.py", otelClient), s.urls["serve"]+"/serve/m", r.URL)
	lines := strings.Fields(out.out)
	if out.code != 0 || len(lines) != 2 || lines[0] != `{"x":1}` {
		t.Fatal(out)
	}
	spans := s.traceOf(t, r, lines[1], "the client", "POST /serve/m", "of the SDK")
	spans.path(t, "the client", "POST /serve/m", "infer m", "worker", "process", "of the SDK")
	if got := spans.named(t, "of the SDK").Service; got != "the code" {
		t.Errorf("service %q", got)
	}
}
