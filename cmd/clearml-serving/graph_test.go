package main

import (
	"bytes"
	"context"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"

	"clearmlserving/inference"
	"clearmlserving/inference/engine"
	"clearmlserving/inference/engine/graph"
	"clearmlserving/inference/reconcile"
	"clearmlserving/inference/rest"
	"clearmlserving/serving"
)

// adder is an engine in this process: a model adds the number in its url to its only tensor, and says its url around
// any other body.
type adder struct{}

func (adder) Load(_ context.Context, spec engine.Spec) (engine.Model, error) {
	return adderModel{spec.URL}, nil
}

type adderModel struct{ url serving.EndpointURL }

func (m adderModel) Status() serving.ModelReport {
	return serving.ModelReport{State: serving.StateReady}
}
func (m adderModel) Close(context.Context) error { return nil }

func (m adderModel) Signature() engine.Signature {
	one := func(name string) []engine.TensorSpec {
		return []engine.TensorSpec{{Name: name, Datatype: engine.FP32, Shape: []int64{-1}}}
	}
	return engine.Signature{
		Inputs: one("in_" + string(m.url)), Outputs: one("out_" + string(m.url)), Source: engine.SourceModel,
		BodySchema: json.RawMessage(fmt.Sprintf(`{"title":"body of %s"}`, m.url)), AnswerSchema: json.RawMessage(fmt.Sprintf(`{"title":"answer of %s"}`, m.url)),
	}
}

func (m adderModel) Infer(ctx context.Context, req *engine.Request) (*engine.Response, error) {
	switch {
	case strings.HasPrefix(string(m.url), "waits"):
		<-ctx.Done()
		return nil, ctx.Err()
	case strings.HasPrefix(string(m.url), "refuses"):
		return &engine.Response{Status: http.StatusUnprocessableEntity, ContentType: "application/json", Body: serving.Detail("not this")}, nil
	case strings.HasPrefix(string(m.url), "streams"):
		return &engine.Response{Status: http.StatusOK, Stream: &twoPieces{left: [][]byte{[]byte("one "), []byte("two")}}}, nil
	case req.Tensors == nil:
		return &engine.Response{Status: http.StatusOK, ContentType: "application/json", Body: fmt.Appendf(nil, `{"%s":%s}`, m.url, req.Body)}, nil
	}
	out := req.Tensors[0]
	out.Name, out.Data = "out_"+string(m.url), bytes.Clone(out.Data)
	for at := 0; at < len(out.Data); at += 4 {
		v := math.Float32frombits(binary.LittleEndian.Uint32(out.Data[at:])) + float32(m.url[len(m.url)-1]-'0')
		binary.LittleEndian.PutUint32(out.Data[at:], math.Float32bits(v))
	}
	return &engine.Response{Status: http.StatusOK, Tensors: []engine.Tensor{out}}, nil
}

type twoPieces struct{ left [][]byte }

func (s *twoPieces) Next(context.Context) ([]byte, error) {
	if len(s.left) == 0 {
		return nil, io.EOF
	}
	next := s.left[0]
	s.left = s.left[1:]
	return next, nil
}

func (s *twoPieces) Close() error { return nil }

// settled is a follower that tells when everything is loaded, or cannot be.
type settled chan struct{}

func (settled) Planned(*reconcile.State, serving.Plan, bool) {}

func (s settled) StatusChanged(status func() serving.Status) {
	if now := status(); now.Ready() {
		select {
		case s <- struct{}{}:
		default:
		}
	}
}

// serveGraphs runs the data plane with endpoints of the engine adder, graphs and canaries until the end of the test. It
// returns the core and its address.
func serveGraphs(tb testing.TB, adders []string, graphs map[string]string, canaries map[string][]string, options string) (*inference.Service, string) {
	tb.Helper()
	records, splits := map[string]any{}, map[string]any{}
	for _, url := range adders {
		records[url] = map[string]any{"engine_type": "custom", "serving_url": url, "version": ""}
	}
	for url, text := range graphs {
		records[url] = map[string]any{"engine_type": "graph", "serving_url": url, "version": "", "auxiliary_cfg": text}
	}
	for url, targets := range canaries {
		splits[url] = map[string]any{"endpoint": url, "weights": []float64{1, 1}, "load_endpoints": targets}
	}
	sections := map[serving.Section]json.RawMessage{serving.SectionOptions: json.RawMessage(options)}
	for section, content := range map[serving.Section]any{serving.SectionEndpoints: records, serving.SectionCanary: splits} {
		text, err := json.Marshal(content)
		if err != nil {
			tb.Fatal(err)
		}
		sections[section] = text
	}
	l, err := new(net.ListenConfig).Listen(tb.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		tb.Fatal(err)
	}
	loaded := make(settled, 1)
	service := inference.New(inference.Options{
		Files: hotPathFiles{}, RequestTimeout: time.Minute, Followers: []reconcile.Follower{loaded},
		Engines: []inference.Engine{{Kinds: []string{serving.EngineCustom}, Loader: adder{}}, {Kinds: []string{serving.EngineGraph}, Loader: graph.New(slog.New(slog.DiscardHandler))}},
		Source:  hotPathState{&reconcile.State{ServiceID: "S", Sections: sections}},
	})
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- service.Run(ctx, rest.New(service, rest.Options{Listener: l, MaxBody: 1 << 20})) }()
	tb.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			tb.Error(err)
		}
	})
	select {
	case <-loaded:
	case <-time.After(2 * time.Minute):
		tb.Fatal("never ready")
	}
	return service, "http://" + l.Addr().String()
}

func steps(urls ...string) string {
	text := "nodes: {root: {routerType: Sequence, steps: ["
	for i, url := range urls {
		data := ", data: $response"
		if i == 0 {
			data = ""
		}
		text += fmt.Sprintf("{serviceName: %s%s},", url, data)
	}
	return text + "]}}"
}

func post(t *testing.T, url, body string) (int, string) {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), http.MethodPost, url, strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("Content-Type", "application/json")
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return resp.StatusCode, string(text)
}

func TestAGraphIsServedThroughTheCore(t *testing.T) {
	service, address := serveGraphs(t, []string{"add1", "add2", "waits", "refuses", "streams"}, map[string]string{
		"both": steps("add1", "split"), "late": steps("add1", "waits"), "bad": steps("refuses"), "gone": steps("nowhere"),
		"told": steps("streams"), "outer": steps("both", "add1"), "read": steps("streams", "add1"),
		"mean": "nodes: {root: {routerType: Ensemble, combiner: mean, steps: [{serviceName: add1}, {serviceName: add2}]}}",
	}, map[string][]string{"split": {"add1", "add2"}}, `{"late":{"limits":{"deadline":0.05}}}`)

	// JSON, through a canary, with the counts of all that took part.
	counts := map[string]int{}
	for range 40 {
		status, body := post(t, address+"/serve/both", "5")
		if status != http.StatusOK {
			t.Fatalf("%d %s", status, body)
		}
		counts[body]++
	}
	if counts[`{"add1":{"add1":5}}`]+counts[`{"add2":{"add1":5}}`] != 40 || len(counts) != 2 {
		t.Errorf("the answers through a canary are %v", counts)
	}
	for _, e := range service.Status().Endpoints {
		want := map[serving.EndpointURL]uint64{"both": 40, "add1": 40 + uint64(counts[`{"add1":{"add1":5}}`]), "add2": uint64(counts[`{"add2":{"add1":5}}`])}[e.URL] //nolint:gosec // small
		if want > 0 && e.Counts.Requests != want {
			t.Errorf("%s has %d requests, want %d", e.URL, e.Counts.Requests, want)
		}
	}
	if status, body := post(t, address+"/serve/outer", "5"); status != http.StatusOK || !strings.HasPrefix(body, `{"add1":{"add`) {
		t.Errorf("a graph in a graph: %d %s", status, body)
	}

	// Tensors go from the output of one model to the only input of the next, whatever their names are.
	const tensors = `{"inputs":[{"name":"in_add1","datatype":"FP32","shape":[2],"data":[1,2]}]}`
	status, body := post(t, address+"/v2/models/mean/infer", `{"inputs":[{"name":"in_add1","datatype":"FP32","shape":[2],"data":[1,2]}]}`)
	if status != http.StatusBadRequest || !strings.Contains(body, "step '1' of node 'root' (endpoint 'add2'): the model has no input 'in_add1'") {
		t.Errorf("models with inputs of other names: %d %s", status, body)
	}
	status, body = post(t, address+"/v2/models/both/infer", tensors)
	if status != http.StatusOK || !strings.Contains(body, `"datatype":"FP32","shape":[2],"data":[3.0,4.0]`) && !strings.Contains(body, `"datatype":"FP32","shape":[2],"data":[4.0,5.0]`) {
		t.Errorf("tensors: %d %s", status, body)
	}

	// What a graph is described as follows its steps.
	resp, err := http.Get(address + "/v2/models/outer")
	if err != nil {
		t.Fatal(err)
	}
	text, err := io.ReadAll(resp.Body)
	if err := errors.Join(err, resp.Body.Close()); err != nil {
		t.Fatal(err)
	}
	if !bytes.Contains(text, []byte(`"inputs":[{"name":"in_add1","datatype":"FP32","shape":[-1]}],"outputs":[{"name":"out_add1"`)) {
		t.Errorf("the metadata is %s", text)
	}
	list, _ := service.Catalog(func(serving.EndpointURL) bool { return true })
	for _, l := range list {
		if l.URL == "outer" && (string(l.Signature.BodySchema) != `{"title":"body of add1"}` || string(l.Signature.AnswerSchema) != `{"title":"answer of add1"}`) {
			t.Errorf("the catalogue has %s -> %s", l.Signature.BodySchema, l.Signature.AnswerSchema)
		}
	}

	for endpoint, want := range map[string]string{
		"late": "504 step '1' of node 'root' (endpoint 'waits'): ",
		"bad":  "422 step '0' of node 'root' (endpoint 'refuses'): not this",
		"gone": "503 step '0' of node 'root' (endpoint 'nowhere'): Error processing request, endpoint was not found",
		"told": "200 one two",
		"read": `200 {"add1":one two}`,
	} {
		status, body := post(t, address+"/serve/"+endpoint, "5")
		if got := fmt.Sprintf("%d %s", status, strings.TrimPrefix(body, `{"detail":"`)); !strings.HasPrefix(got, want) {
			t.Errorf("%s: %s, want %s", endpoint, got, want)
		}
	}
	for _, e := range service.Status().Endpoints {
		if e.URL == "gone" && (len(e.Model.Warnings) != 1 || !strings.Contains(e.Model.Warnings[0], "a step calls 'nowhere', which cannot answer")) {
			t.Errorf("the report of a graph without its endpoint has the warnings %q", e.Model.Warnings)
		}
		if e.URL == "late" && e.Counts.TimedOut != 1 {
			t.Errorf("the graph that is late is counted as %+v", e.Counts)
		}
	}
}

// The configuration was written by another program: the command line refuses it.
func TestOfGraphsInACircleOneIsNotServed(t *testing.T) {
	service, address := serveGraphs(t, []string{"add1"}, map[string]string{"a": steps("b"), "b": steps("a")}, nil, `{}`)
	failed := 0
	for _, e := range service.Status().Endpoints {
		if e.State == serving.StateFailed {
			failed++
			if !strings.Contains(e.Reason(), "the graph would call itself: ") {
				t.Errorf("%s is refused with %s", e.URL, e.Reason())
			}
		}
	}
	if failed != 1 {
		t.Errorf("%d graphs of a circle are refused", failed)
	}
	for _, url := range []string{"a", "b"} {
		if status, body := post(t, address+"/serve/"+url, "1"); status != http.StatusServiceUnavailable {
			t.Errorf("%s: %d %s", url, status, body)
		}
	}
	// A canary may close a circle without a load.
	_, address = serveGraphs(t, nil, map[string]string{"a": steps("split"), "c": steps("a")}, map[string][]string{"split": {"c", "c"}}, `{}`)
	if status, body := post(t, address+"/serve/a", "1"); status != http.StatusLoopDetected && status != http.StatusServiceUnavailable {
		t.Errorf("a circle through a canary: %d %.300s", status, body)
	}
}

// BenchmarkGraph compares a call of an endpoint with one through graphs.
func BenchmarkGraph(b *testing.B) {
	ensemble := "nodes: {root: {routerType: Ensemble, combiner: mean, steps: [{serviceName: add1}, {serviceName: add1, name: b}, {serviceName: add1, name: c}, {serviceName: add1, name: d}]}}"
	service, _ := serveGraphs(b, []string{"add1"}, map[string]string{
		"one": steps("add1"), "five": steps("add1", "add1", "add1", "add1", "add1"), "ensemble": ensemble,
		"switch": "nodes: {root: {routerType: Switch, field: a.b, steps: [{serviceName: add1, value: x}, {serviceName: add1}]}}",
		"named":  "nodes: {root: {routerType: Sequence, steps: [{serviceName: add1}, {serviceName: add1, data: {x: $request.a, y: $response.add1}}]}}",
	}, nil, `{}`)
	body := []byte(`{"a":{"b":"x"},"rows":[[5.1,3.5,1.4,0.2],[5.1,3.5,1.4,0.2]]}`)
	data := make([]byte, 4*64)
	for _, url := range []string{"add1", "one", "five", "switch", "named", "ensemble"} {
		for _, kind := range []string{"json", "tensors"} {
			if url == "ensemble" && kind == "json" || kind == "tensors" && (url == "switch" || url == "named") {
				continue
			}
			b.Run(url+"/"+kind, func(b *testing.B) {
				b.ReportAllocs()
				for b.Loop() {
					ticket, failure := service.Admit(inference.Head{Endpoint: serving.EndpointURL(url)})
					if failure != nil {
						b.Fatal(failure)
					}
					q := inference.Question{Request: engine.Request{Body: body, ContentType: "application/json"}}
					if kind == "tensors" {
						q.Request = engine.Request{Tensors: []engine.Tensor{{Name: "in_add1", Datatype: engine.FP32, Shape: []int64{64}, Data: data}}}
					}
					if resp, failure := service.AskWhole(b.Context(), ticket, &q); failure != nil || resp.Status != http.StatusOK {
						b.Fatal(failure, resp)
					}
				}
			})
		}
	}
}
