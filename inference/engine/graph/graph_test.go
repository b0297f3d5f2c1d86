package graph_test

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"clearmlserving/inference/engine"
	"clearmlserving/inference/engine/enginetest"
	"clearmlserving/inference/engine/graph"
	v2 "clearmlserving/inference/v2"
	"clearmlserving/serving"
)

// world answers for the endpoints of a test, as the core does.
type world struct {
	mu         sync.Mutex // guards asked
	asked      []string
	endpoints  map[serving.EndpointURL]func(ctx context.Context, req *engine.Request) (*engine.Response, error)
	signatures map[serving.EndpointURL]engine.Signature
	canaries   map[serving.EndpointURL][]serving.EndpointURL
}

func (w *world) Call(context.Context, engine.Call) (*engine.Response, error) {
	return nil, errors.New("not used")
}

func (w *world) Ask(ctx context.Context, url serving.EndpointURL, req *engine.Request, whole bool) (*engine.Response, error) {
	w.mu.Lock()
	w.asked = append(w.asked, string(url))
	answer := w.endpoints[url]
	w.mu.Unlock()
	if answer == nil {
		return nil, &engine.Error{Kind: engine.KindUnavailable, Endpoint: url, Text: "there is no " + string(url)}
	}
	if req.Depth != 1 {
		return nil, fmt.Errorf("the depth is %d", req.Depth)
	}
	resp, err := answer(ctx, req)
	if err == nil && resp.Stream != nil && whole {
		resp.Body, err = engine.ReadAll(ctx, resp.Stream, 1<<20)
		resp.Stream = nil
	}
	return resp, err
}

func (w *world) Signature(url serving.EndpointURL, _ int) engine.Signature { return w.signatures[url] }

func (w *world) Targets(url serving.EndpointURL) []serving.EndpointURL {
	if targets := w.canaries[url]; targets != nil {
		return targets
	}
	return []serving.EndpointURL{url}
}

func (w *world) Obstacle(url serving.EndpointURL) error {
	if w.endpoints[url] == nil {
		return errors.New("it is not there")
	}
	return nil
}

// says answers with a text around the body.
func says(text string) func(context.Context, *engine.Request) (*engine.Response, error) {
	return func(_ context.Context, req *engine.Request) (*engine.Response, error) {
		return &engine.Response{Status: 200, ContentType: "application/json", Body: []byte(strings.ReplaceAll(text, "$", string(req.Body)))}, nil
	}
}

func fails(status int, text string) func(context.Context, *engine.Request) (*engine.Response, error) {
	return func(context.Context, *engine.Request) (*engine.Response, error) {
		return &engine.Response{Status: status, ContentType: "application/json", Body: serving.Detail(text)}, nil
	}
}

// started runs an engine until the end of the test.
func started(tb testing.TB, w *world) *graph.Engine {
	tb.Helper()
	e := graph.New(slog.New(slog.DiscardHandler))
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- e.Run(ctx, w) }()
	tb.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			tb.Error(err)
		}
	})
	return e
}

func spec(url, text string) engine.Spec {
	return engine.Spec{URL: serving.EndpointURL(url), Endpoint: serving.Endpoint{EngineType: serving.EngineGraph, ServingURL: url, AuxiliaryCfg: text}}
}

// loaded is a graph with these nodes.
func loaded(tb testing.TB, w *world, nodes string) engine.Model {
	tb.Helper()
	m, err := started(tb, w).Load(tb.Context(), spec("g", "nodes:\n"+nodes))
	if err != nil {
		tb.Fatal(err)
	}
	return m
}

func ask(t *testing.T, m engine.Model, body string) string {
	t.Helper()
	resp, err := m.Infer(t.Context(), &engine.Request{Body: []byte(body), ContentType: "application/json"})
	if err != nil {
		return err.Error()
	}
	return fmt.Sprintf("%d %s", resp.Status, resp.Body)
}

func TestNodesAnswerAsTheirTypesSay(t *testing.T) {
	w := &world{endpoints: map[serving.EndpointURL]func(context.Context, *engine.Request) (*engine.Response, error){
		"a": says(`{"a":$,"n":1}`), "b": says(`{"b":$}`), "one": says(`[1, 2]`), "two": says(`[4, 6]`), "three": says(`[1, 2.0]`),
		"dog": says(`{"class":"dog","p":{"dog":0.75,"cat":0.25}}`), "cat": says(`{"class":"cat","p":{"dog":0.25,"cat":0.75}}`), "text": says(`hello`),
		"refuses": fails(422, "no such animal"), "breaks": fails(500, "boom"),
	}}
	for name, c := range map[string]struct{ nodes, body, want string }{
		"a sequence": {
			`  root: {routerType: Sequence, steps: [{serviceName: a}, {serviceName: b, data: $response}]}`, `1`, `200 {"b":{"a":1,"n":1}}`,
		},
		"a sequence on the request": {
			`  root: {routerType: Sequence, steps: [{serviceName: a}, {serviceName: b, data: $request}]}`, `1`, `200 {"b":1}`,
		},
		"names of the request and of answers": {
			`  root: {routerType: Sequence, steps: [{serviceName: a, name: first, data: {x: $request.in.x}}, {serviceName: b, data: {y: $response.a.x, z: $steps.first.n, all: $request}}]}`,
			`{"in": {"x": [1.50, NaN]}}`, `200 {"b":{"y":[1.50, NaN],"z":1,"all":{"in": {"x": [1.50, NaN]}}}}`,
		},
		"a response": {
			`  root: {routerType: Sequence, response: {was: $steps.first, is: $response.b}, steps: [{serviceName: a, name: first}, {serviceName: b, data: $request}]}`,
			`2`, `200 {"was":{"a":2,"n":1},"is":2}`,
		},
		"a condition that fits": {
			`  root: {routerType: Sequence, steps: [{serviceName: a}, {serviceName: b, data: $response, condition: n}]}`, `1`, `200 {"b":{"a":1,"n":1}}`,
		},
		"a condition that does not fit": {
			`  root: {routerType: Sequence, steps: [{serviceName: a}, {serviceName: b, data: $response, condition: '[@this].#(n==2)'}]}`, `1`, `200 {"a":1,"n":1}`,
		},
		"a step that fails is named": {
			`  root: {routerType: Sequence, steps: [{serviceName: a}, {serviceName: refuses, name: check, data: $response}]}`,
			`1`, `422 {"detail":"step 'check' of node 'root' (endpoint 'refuses'): no such animal"}`,
		},
		"a soft step that fails": {
			`  root: {routerType: Sequence, response: {a: $steps.bad, b: $response}, steps: [{serviceName: a}, {serviceName: breaks, name: bad, dependency: Soft, data: $response}, {serviceName: b, data: $response}]}`,
			`1`, `200 {"b":{"b":{"a":1,"n":1}}}`,
		},
		"an endpoint that is missing": {
			`  root: {routerType: Sequence, steps: [{serviceName: gone}]}`, `1`, `step '0' of node 'root' (endpoint 'gone'): there is no gone`,
		},
		"a name that the request has not": {
			`  root: {routerType: Sequence, steps: [{serviceName: a, data: $request.x.y}]}`, `{"x":{}}`, `422 {"detail":"node 'root': the request cannot be used for $request.x.y: has no 'x.y'"}`,
		},
		"a name that an answer has not": {
			`  root: {routerType: Sequence, steps: [{serviceName: a}, {serviceName: b, data: $response.z}]}`, `{}`, `node 'root': the answer cannot be used for $response.z: has no 'z'`,
		},
		"a switch by text": {
			`  root: {routerType: Switch, field: animal.name, steps: [{serviceName: dog, value: [dog, puppy]}, {serviceName: cat, value: cat}, {serviceName: a}]}`,
			`{"animal": {"name": "puppy"}}`, `200 {"class":"dog","p":{"dog":0.75,"cat":0.25}}`,
		},
		"a switch by number": {
			`  root: {routerType: Switch, field: n, steps: [{serviceName: dog, value: 1}, {serviceName: b, value: 2}]}`, `{"n": 2.0}`, `200 {"b":{"n": 2.0}}`,
		},
		"a switch by true and null": {
			`  root: {routerType: Switch, field: n, steps: [{serviceName: dog, value: [true, null]}, {serviceName: b, value: "true"}]}`, `{"n": null}`, `200 {"class":"dog","p":{"dog":0.75,"cat":0.25}}`,
		},
		"the default of a switch": {
			`  root: {routerType: Switch, field: n, steps: [{serviceName: dog, value: 1}, {serviceName: b}]}`, `[1]`, `200 {"b":[1]}`,
		},
		"a switch without a default": {
			`  root: {routerType: Switch, field: n, steps: [{serviceName: dog, value: 1}]}`, `{"n":3}`, `422 {"detail":"node 'root': no step is for the value of the field 'n', and there is no default"}`,
		},
		"a switch whose field is missing": {
			`  root: {routerType: Switch, field: n, steps: [{serviceName: dog, value: 1}]}`, `{}`, `422 {"detail":"node 'root': the request has no field 'n', and there is no default"}`,
		},
		"a switch whose field is a list": {
			`  root: {routerType: Switch, field: n, steps: [{serviceName: dog, value: 1}]}`, `{"n":[1]}`,
			`422 {"detail":"node 'root': the field 'n' is a list or an object, which cannot be compared with a value"}`,
		},
		"a switch by a condition of KServe": {
			`  root: {routerType: Switch, steps: [{serviceName: dog, condition: '[@this].#(lang=="de")'}, {serviceName: b, condition: lang}]}`, `{"lang": "en"}`, `200 {"b":{"lang": "en"}}`,
		},
		"a condition without JSON": {
			`  root: {routerType: Switch, steps: [{serviceName: dog, condition: lang}]}`, `{"lang"`, `422 {"detail":"node 'root': the condition lang cannot be asked of the request: it is no JSON"}`,
		},
		"an ensemble": {
			`  root: {routerType: Ensemble, steps: [{serviceName: one, name: "1"}, {serviceName: b, name: x"y}]}`, `3`, `200 {"1":[1, 2],"x\"y":{"b":3}}`,
		},
		"an ensemble without JSON": {
			`  root: {routerType: Ensemble, steps: [{serviceName: text}, {serviceName: b}]}`, `3`, `node 'root': the answer of step '0' cannot be combined (object): it is no JSON`,
		},
		"the mean": {
			`  root: {routerType: Ensemble, combiner: mean, steps: [{serviceName: one}, {serviceName: two}]}`, `3`, `200 [2.5,4]`,
		},
		"the weighted mean of objects": {
			`  root: {routerType: Ensemble, combiner: mean, steps: [{nodeName: dog, weight: 3}, {nodeName: cat, weight: 1}]}
  dog: {routerType: Sequence, response: $response.p, steps: [{serviceName: dog}]}
  cat: {routerType: Sequence, response: $response.p, steps: [{serviceName: cat}]}`, `3`, `200 {"cat":0.375,"dog":0.625}`,
		},
		"no mean of texts": {
			`  root: {routerType: Ensemble, combiner: mean, steps: [{serviceName: dog}, {serviceName: cat}]}`, `3`, `node 'root': 'class': the answer of step '0' cannot be combined (mean): "dog" is no number`,
		},
		"no mean of answers that differ": {
			`  root: {routerType: Ensemble, combiner: mean, steps: [{serviceName: one}, {serviceName: dog}]}`, `3`, `node 'root': the answers of the steps '0' and '1' differ in form, so that they have no mean`,
		},
		"the vote": {
			`  root: {routerType: Ensemble, combiner: vote, steps: [{serviceName: two}, {serviceName: one}, {serviceName: three}]}`, `3`, `200 [1,2]`,
		},
		"a tie goes to the first": {
			`  root: {routerType: Ensemble, combiner: vote, steps: [{serviceName: two}, {serviceName: one}]}`, `3`, `200 [4,6]`,
		},
		"the weighted vote": {
			`  root: {routerType: Ensemble, combiner: vote, steps: [{serviceName: two, weight: 2.5}, {serviceName: one, weight: 1}, {serviceName: three, weight: 1}]}`, `3`, `200 [4,6]`,
		},
		"the first that succeeds": {
			`  root: {routerType: Ensemble, combiner: first, steps: [{serviceName: breaks}, {serviceName: b}]}`, `3`, `200 {"b":3}`,
		},
		"none succeeds": {
			`  root: {routerType: Ensemble, combiner: first, steps: [{serviceName: breaks}]}`, `3`, `500 {"detail":"step '0' of node 'root' (endpoint 'breaks'): boom"}`,
		},
		"an ensemble with a step that fails": {
			`  root: {routerType: Ensemble, combiner: mean, steps: [{serviceName: one}, {serviceName: breaks}]}`, `3`, `500 {"detail":"step '1' of node 'root' (endpoint 'breaks'): boom"}`,
		},
		"an ensemble with a soft step that fails": {
			`  root: {routerType: Ensemble, combiner: mean, steps: [{serviceName: one}, {serviceName: breaks, dependency: Soft}]}`, `3`, `200 [1,2]`,
		},
		"only what weighs nothing has answered": {
			`  root: {routerType: Ensemble, combiner: mean, steps: [{serviceName: one, weight: 0}, {serviceName: breaks, dependency: Soft}]}`, `3`, `sum to 0`,
		},
		"a splitter of one": {
			`  root: {routerType: Splitter, steps: [{serviceName: dog, weight: 0}, {serviceName: b, weight: 100}, {serviceName: cat, weight: 0}]}`, `3`, `200 {"b":3}`,
		},
		"nodes in nodes": {
			`  root: {routerType: Sequence, steps: [{serviceName: a}, {nodeName: both, data: $response.n}]}
  both: {routerType: Ensemble, steps: [{nodeName: choice, name: l}, {serviceName: b, name: r}]}
  choice: {routerType: Switch, steps: [{serviceName: a}]}`, `9`, `200 {"l":{"a":1,"n":1},"r":{"b":1}}`,
		},
	} {
		t.Run(name, func(t *testing.T) {
			if strings.HasPrefix(c.want, "sum to") {
				if _, err := serving.ParseGraph("nodes:\n" + c.nodes); err != nil {
					t.Fatal(err) // one of the weights is the default
				}
				c.want = "200 [1,2]"
			}
			if got := ask(t, loaded(t, w, c.nodes), c.body); got != c.want {
				t.Errorf("got  %s\nwant %s", got, c.want)
			}
		})
	}
}

func TestASplitterDrawsByWeight(t *testing.T) {
	w := &world{endpoints: map[serving.EndpointURL]func(context.Context, *engine.Request) (*engine.Response, error){"a": says("1"), "b": says("2")}}
	m := loaded(t, w, `  root: {routerType: Splitter, steps: [{serviceName: a, weight: 20}, {serviceName: b, weight: 80}]}`)
	first := 0
	const n = 20_000
	for range n {
		if ask(t, m, "0") == "200 1" {
			first++
		}
	}
	if share := float64(first) / n; math.Abs(share-0.2) > 0.02 { // 7 standard deviations
		t.Errorf("the share of the first is %v, want 0.2", share)
	}
}

func fp32(name string, shape []int64, values ...float32) engine.Tensor {
	var b []byte
	for _, v := range values {
		b = binary.LittleEndian.AppendUint32(b, math.Float32bits(v))
	}
	return engine.Tensor{Name: name, Datatype: engine.FP32, Shape: shape, Data: b}
}

func int64s(name string, values ...int64) engine.Tensor {
	var b []byte
	for _, v := range values {
		b = binary.LittleEndian.AppendUint64(b, uint64(v))
	}
	return engine.Tensor{Name: name, Datatype: engine.Int64, Shape: []int64{int64(len(values))}, Data: b}
}

func textTensor(name, value string) engine.Tensor {
	t := v2.FreeAnswer([]byte(value))
	t.Name = name
	return t
}

// answers answers tensors with these.
func answers(out ...engine.Tensor) func(context.Context, *engine.Request) (*engine.Response, error) {
	return func(_ context.Context, req *engine.Request) (*engine.Response, error) {
		if req.Tensors == nil {
			return &engine.Response{Status: 200, Body: []byte("not tensors: " + string(req.Body))}, nil
		}
		return &engine.Response{Status: 200, Tensors: out}, nil
	}
}

func askTensors(t *testing.T, m engine.Model, parameters string, in ...engine.Tensor) string {
	t.Helper()
	resp, err := m.Infer(t.Context(), &engine.Request{Tensors: in, Parameters: []byte(parameters)})
	switch {
	case err != nil:
		return err.Error()
	case resp.Status != 200 || resp.Tensors == nil:
		return fmt.Sprintf("%d %s", resp.Status, resp.Body)
	}
	var b strings.Builder
	for i := range resp.Tensors {
		one := &resp.Tensors[i]
		values, err := v2.AppendNested(nil, one)
		if err != nil {
			t.Fatal(err)
		}
		fmt.Fprintf(&b, "%s %s %s;", one.Name, one.Datatype, values)
	}
	return b.String()
}

func TestTensorsStayTensorsBetweenSteps(t *testing.T) {
	w := &world{endpoints: map[serving.EndpointURL]func(context.Context, *engine.Request) (*engine.Response, error){
		"echo": func(_ context.Context, req *engine.Request) (*engine.Response, error) {
			out := req.Tensors
			if out == nil {
				return &engine.Response{Status: 200, Body: append([]byte("body "), req.Body...)}, nil
			}
			if req.Renames {
				out = append([]engine.Tensor{textTensor("renames", "yes")}, out...)
			}
			return &engine.Response{Status: 200, Tensors: out}, nil
		},
		"x": answers(fp32("p", []int64{2}, 1, 2)), "y": answers(fp32("q", []int64{2}, 3, 5)), "i": answers(int64s("label", 7, 8)), "j": answers(int64s("label", 7, 9)), "k": answers(int64s("label", 5, 9)),
		"two": answers(fp32("p", []int64{1}, 1), int64s("n", 3)), "free": answers(textTensor(v2.FreeOutput, `{"boxes":[1]}`)),
	}}
	for name, c := range map[string]struct {
		nodes, parameters string
		in                []engine.Tensor
		want              string
	}{
		"a sequence": {
			nodes: `  root: {routerType: Sequence, steps: [{serviceName: x}, {serviceName: echo, data: $response}]}`,
			want:  "renames BYTES [\"yes\"];p FP32 [1.0,2.0];",
		},
		"names": {
			nodes: `  root: {routerType: Sequence, steps: [{serviceName: two, name: s}, {serviceName: echo, data: {label: $response.n, in: $request.in}}]}`,
			in:    []engine.Tensor{fp32("in", []int64{1, 1}, 9), fp32("other", []int64{1}, 1)},
			want:  "renames BYTES [\"yes\"];label INT64 [3];in FP32 [[9.0]];",
		},
		"a name with points": {
			nodes: `  root: {routerType: Sequence, steps: [{serviceName: echo, data: $request.layer.1}]}`,
			in:    []engine.Tensor{fp32("layer.1", []int64{1}, 9), fp32("layer", []int64{1}, 1)},
			want:  "renames BYTES [\"yes\"];layer.1 FP32 [9.0];",
		},
		"a name that is not there": {
			nodes: `  root: {routerType: Sequence, steps: [{serviceName: echo, data: $request.b}]}`,
			want:  `422 {"detail":"node 'root': the request cannot be used for $request.b: has no tensor 'b'"}`,
		},
		"several where one is wanted": {
			nodes: `  root: {routerType: Sequence, steps: [{serviceName: two}, {serviceName: echo, data: {x: $response}}]}`,
			want:  "node 'root': the answer cannot be used for $response: has 2 tensors, where 'x' is one: name it",
		},
		"all answers of an ensemble": {
			nodes: `  root: {routerType: Ensemble, steps: [{serviceName: x, name: l}, {serviceName: two, name: r}]}`,
			want:  "l.p FP32 [1.0,2.0];r.p FP32 [1.0];r.n INT64 [3];",
		},
		"the answer of one step of an ensemble": {
			nodes: `  root: {routerType: Sequence, steps: [{nodeName: both}, {serviceName: echo, data: {n: $response.r.n}}]}
  both: {routerType: Ensemble, steps: [{serviceName: x, name: l}, {serviceName: two, name: r}]}`,
			want: "renames BYTES [\"yes\"];n INT64 [3];",
		},
		"all tensors of one step of an ensemble": {
			nodes: `  root: {routerType: Sequence, response: $steps.b.r, steps: [{nodeName: both, name: b}]}
  both: {routerType: Ensemble, steps: [{serviceName: x, name: l}, {serviceName: two, name: r}]}`,
			want: "p FP32 [1.0];n INT64 [3];",
		},
		"the mean": {
			nodes: `  root: {routerType: Ensemble, combiner: mean, steps: [{serviceName: x}, {serviceName: y}]}`, want: "p FP32 [2.0,3.5];",
		},
		"the mean of whole numbers": {
			nodes: `  root: {routerType: Ensemble, combiner: mean, steps: [{serviceName: i}, {serviceName: j}]}`, want: "label FP64 [7.0,8.5];",
		},
		"the vote": {
			nodes: `  root: {routerType: Ensemble, combiner: vote, steps: [{serviceName: i}, {serviceName: j}, {serviceName: k}]}`, want: "label INT64 [7,9];",
		},
		"no vote of different types": {
			nodes: `  root: {routerType: Ensemble, combiner: vote, steps: [{serviceName: i}, {serviceName: x}]}`, want: "node 'root': the answers of the steps '0' and '1' differ in form, so that they have no vote",
		},
		"a switch by a tensor": {
			nodes: `  root: {routerType: Switch, field: lang, steps: [{serviceName: x, value: de}, {serviceName: y}]}`,
			in:    []engine.Tensor{textTensor("lang", "de")}, want: "p FP32 [1.0,2.0];",
		},
		"a switch by a number": {
			nodes: `  root: {routerType: Switch, field: n, steps: [{serviceName: x, value: 3}, {serviceName: y}]}`,
			in:    []engine.Tensor{int64s("n", 3)}, want: "p FP32 [1.0,2.0];",
		},
		"a switch by several numbers": {
			nodes: `  root: {routerType: Switch, field: n, steps: [{serviceName: x, value: 3}, {serviceName: y}]}`,
			in:    []engine.Tensor{int64s("n", 3, 4)}, want: `422 {"detail":"node 'root': the field 'n' has the shape [2], but one element is compared with a value"}`,
		},
		"a switch by a parameter": {
			nodes: `  root: {routerType: Switch, field: lang, steps: [{serviceName: x, value: de}, {serviceName: y}]}`, parameters: `{"lang":"de"}`,
			want: "p FP32 [1.0,2.0];",
		},
		"a condition": {
			nodes: `  root: {routerType: Switch, steps: [{serviceName: x, condition: in.#(>8)}, {serviceName: y}]}`,
			in:    []engine.Tensor{fp32("in", []int64{1}, 9)}, want: "p FP32 [1.0,2.0];",
		},
		"an answer that is no tensor": {
			nodes: `  root: {routerType: Sequence, steps: [{serviceName: free}, {serviceName: echo, data: $response.boxes}]}`, want: "200 body [1]",
		},
	} {
		t.Run(name, func(t *testing.T) {
			if c.in == nil {
				c.in = []engine.Tensor{fp32("a", []int64{1}, 1)}
			}
			if got := askTensors(t, loaded(t, w, c.nodes), c.parameters, c.in...); got != c.want {
				t.Errorf("got  %s\nwant %s", got, c.want)
			}
		})
	}
}

// The first failure ends the other steps of an ensemble, and a first answer too; the request's end ends all.
func TestStepsEndWithTheirEnsemble(t *testing.T) {
	ended := make(chan error, 10)
	waits := func(ctx context.Context, _ *engine.Request) (*engine.Response, error) {
		<-ctx.Done()
		ended <- ctx.Err()
		return nil, &engine.Error{Text: "ended", Err: ctx.Err()}
	}
	w := &world{endpoints: map[serving.EndpointURL]func(context.Context, *engine.Request) (*engine.Response, error){
		"waits": waits, "breaks": fails(500, "boom"), "a": says("1"),
		"busy": func(context.Context, *engine.Request) (*engine.Response, error) {
			return nil, &engine.Error{Kind: engine.KindOverloaded, Text: "full", RetryAfter: 3 * time.Second}
		},
		"panics": func(context.Context, *engine.Request) (*engine.Response, error) { panic("a step breaks") },
	}}
	for nodes, want := range map[string]string{
		`  root: {routerType: Ensemble, steps: [{serviceName: waits}, {serviceName: breaks}, {serviceName: waits}]}`:             `500 {"detail":"step '1' of node 'root' (endpoint 'breaks'): boom"}`,
		`  root: {routerType: Ensemble, combiner: first, steps: [{serviceName: waits}, {serviceName: a}, {serviceName: waits}]}`: `200 1`,
		`  root: {routerType: Ensemble, steps: [{serviceName: waits}, {serviceName: panics}, {serviceName: waits}]}`:             `node 'root': step '1': Internal Server Error`,
	} {
		if got := ask(t, loaded(t, w, nodes), "0"); got != want {
			t.Errorf("got  %s\nwant %s", got, want)
		}
		for range 2 {
			if err := <-ended; !errors.Is(err, context.Canceled) {
				t.Error(err)
			}
		}
	}
	ctx, cancel := context.WithTimeout(t.Context(), time.Millisecond)
	defer cancel()
	_, err := loaded(t, w, `  root: {routerType: Sequence, steps: [{serviceName: waits, dependency: Soft}, {serviceName: a, data: $response}]}`).Infer(ctx, &engine.Request{Body: []byte("0")})
	if !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("after its deadline: %v", err)
	}
	_, err = loaded(t, w, `  root: {routerType: Sequence, steps: [{serviceName: busy}]}`).Infer(t.Context(), &engine.Request{Body: []byte("0")})
	if failed, ok := errors.AsType[*engine.Error](err); !ok || failed.Kind != engine.KindOverloaded || failed.RetryAfter != 3*time.Second || failed.Endpoint != "g" {
		t.Errorf("an overloaded step: %v", err)
	}
}

func TestAGraphThatClosesACircleIsNotLoaded(t *testing.T) {
	w := &world{canaries: map[serving.EndpointURL][]serving.EndpointURL{"split": {"a", "model"}}}
	e := started(t, w)
	load := func(url, calls string) (engine.Model, error) {
		return e.Load(t.Context(), spec(url, "nodes: {root: {routerType: Sequence, steps: [{serviceName: "+calls+"}]}}"))
	}
	a, err := load("a", "b")
	if err != nil {
		t.Fatal(err)
	}
	b, err := load("b", "model")
	if err != nil {
		t.Fatal(err)
	}
	_, err = load("b", "split")
	if failed, ok := errors.AsType[*engine.LoadError](err); !ok || failed.Final || failed.Text != "the graph would call itself: b -> split -> a -> b" {
		t.Errorf("a circle is loaded: %v", err)
	}
	if err := a.Close(t.Context()); err != nil {
		t.Fatal(err)
	}
	if _, err := load("b", "split"); err != nil {
		t.Errorf("a circle that is no more: %v", err)
	}
	if got := b.Status(); len(got.Warnings) != 1 || got.Warnings[0] != "a step calls 'model', which cannot answer: it is not there" {
		t.Errorf("the status is %+v", got)
	}
	_, err = e.Load(t.Context(), spec("c", "nodes: []"))
	if failed, ok := errors.AsType[*engine.LoadError](err); !ok || !failed.Final {
		t.Errorf("a graph that is none: %v", err)
	}
}

func TestTheSignatureOfAGraphIsThatOfItsFirstAndLastSteps(t *testing.T) {
	x := []engine.TensorSpec{{Name: "x", Datatype: engine.FP32, Shape: []int64{-1, 4}}}
	y := []engine.TensorSpec{{Name: "y", Datatype: engine.Int64, Shape: []int64{-1}}}
	z := []engine.TensorSpec{{Name: "z", Datatype: engine.FP32, Shape: []int64{-1, 3}}}
	w := &world{signatures: map[serving.EndpointURL]engine.Signature{
		"xy": {Inputs: x, Outputs: y, Source: "model"}, "yz": {Inputs: y, Outputs: z, Source: "model"}, "xz": {Inputs: x, Outputs: z, Source: "settings"},
	}}
	for nodes, want := range map[string]string{
		`  root: {routerType: Sequence, steps: [{serviceName: xy}, {serviceName: yz, data: $response}]}`:                       "x z model",
		`  root: {routerType: Sequence, steps: [{serviceName: xy}, {serviceName: yz, data: {y: $response.y, x: $request.x}}]}`: "x z model",
		`  root: {routerType: Sequence, steps: [{serviceName: xy}, {serviceName: yz, data: {y: $response.y, q: $request.q}}]}`: "? z model",
		`  root: {routerType: Sequence, steps: [{serviceName: xy}, {serviceName: yz, data: $request}]}`:                        "? z model",
		`  root: {routerType: Sequence, steps: [{serviceName: xy}, {serviceName: xz, data: $request}]}`:                        "x z model, settings",
		`  root: {routerType: Sequence, steps: [{serviceName: xy, data: $request.a}]}`:                                         "? y model",
		`  root: {routerType: Sequence, response: {a: $response}, steps: [{serviceName: xy}]}`:                                 "x ? model",
		`  root: {routerType: Sequence, steps: [{serviceName: xy}, {serviceName: yz, data: $response, condition: y}]}`:         "x ? model",
		`  root: {routerType: Splitter, steps: [{serviceName: xy, weight: 1}, {serviceName: xz, weight: 1}]}`:                  "x ? model",
		`  root: {routerType: Splitter, steps: [{serviceName: xy, weight: 1}, {serviceName: yz, weight: 1}]}`:                  "? ? none",
		`  root: {routerType: Switch, steps: [{serviceName: xy}]}`:                                                             "x y model",
		`  root: {routerType: Ensemble, combiner: mean, steps: [{serviceName: xy}, {serviceName: xy, name: b}]}`:               "x y:FP64 model",
		`  root: {routerType: Ensemble, combiner: vote, steps: [{serviceName: xy}, {serviceName: xy, name: b}]}`:               "x y model",
		`  root: {routerType: Ensemble, steps: [{serviceName: xy, name: a}, {serviceName: xz, name: b}]}`:                      "x a.y,b.z model",
		`  root: {routerType: Sequence, steps: [{serviceName: unknown}]}`:                                                      "? ? none",
	} {
		signed, ok := loaded(t, w, nodes).(engine.Composed)
		if !ok {
			t.Fatal("a graph is no engine.Composed")
		}
		s := signed.Signature()
		got := names(s.Inputs) + " " + names(s.Outputs) + " " + s.Source
		if got != want {
			t.Errorf("%s\nhas the signature %s, want %s", nodes, got, want)
		}
	}
}

func names(specs []engine.TensorSpec) string {
	if len(specs) == 0 {
		return "?"
	}
	list := make([]string, len(specs))
	for i, s := range specs {
		list[i] = s.Name
		if s.Name == "y" && s.Datatype == engine.FP64 {
			list[i] += ":FP64"
		}
	}
	return strings.Join(list, ",")
}

type pieces struct{ left [][]byte }

func (s *pieces) Next(context.Context) ([]byte, error) {
	if len(s.left) == 0 {
		return nil, io.EOF
	}
	next := s.left[0]
	s.left = s.left[1:]
	return next, nil
}

func (s *pieces) Close() error { return nil }

func TestTheContractOfEngines(t *testing.T) {
	w := &world{endpoints: map[serving.EndpointURL]func(context.Context, *engine.Request) (*engine.Response, error){
		"echo": func(_ context.Context, req *engine.Request) (*engine.Response, error) {
			if req.Tensors != nil {
				if i := slices.IndexFunc(req.Tensors, func(t engine.Tensor) bool { return t.Datatype != engine.Int64 }); i >= 0 {
					return nil, &engine.Error{Kind: engine.KindBadRequest, Text: "unknown tensor"}
				}
				out := req.Tensors[0]
				out.Data = bytes.Clone(out.Data)
				return &engine.Response{Status: 200, Tensors: []engine.Tensor{out}}, nil
			}
			return &engine.Response{Status: 200, Body: bytes.Clone(req.Body)}, nil
		},
		"waits": func(ctx context.Context, _ *engine.Request) (*engine.Response, error) {
			<-ctx.Done()
			return nil, ctx.Err()
		},
		"refuses": fails(422, "no"),
		"streams": func(_ context.Context, req *engine.Request) (*engine.Response, error) {
			return &engine.Response{Status: 200, Stream: &pieces{[][]byte{bytes.Clone(req.Body), []byte("!")}}}, nil
		},
	}}
	request := func(i int) *engine.Request { return &engine.Request{Body: fmt.Appendf(nil, `{"i":%d}`, i)} }
	endpoint := func(url, nodes string) enginetest.Endpoint {
		return enginetest.Endpoint{Spec: spec(url, nodes), Request: request, Want: func(i int) string { return fmt.Sprintf(`{"i":%d}`, i) }}
	}
	through := func(name string) string {
		return "nodes: {root: {routerType: Sequence, steps: [{serviceName: echo}, {serviceName: " + name + ", data: $response}]}}"
	}
	waits, refuses, streams := endpoint("w", through("waits")), endpoint("r", through("refuses")), endpoint("s", through("streams"))
	streams.Want = func(i int) string { return fmt.Sprintf(`{"i":%d}!`, i) }
	broken := endpoint("b", "nodes: {}")
	tensors := endpoint("t", through("echo"))
	tensors.Request = func(i int) *engine.Request { return &engine.Request{Tensors: []engine.Tensor{int64s("x", int64(i))}} }
	enginetest.Run(t, enginetest.Engine{
		Loader: started(t, w), Answers: endpoint("a", through("echo")), Waits: &waits, Refuses: &refuses, Streams: &streams, Tensors: &tensors, Broken: &broken,
	})
}
