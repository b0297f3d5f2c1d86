package serving

import (
	"strings"
	"testing"
)

const kserveGraph = `
apiVersion: serving.kserve.io/v1alpha1
kind: InferenceGraph
metadata: {name: dogs}
spec:
  minReplicas: 1
  nodes:
    root:
      routerType: Sequence
      steps:
      - serviceName: cat-dog-classifier
        name: cat_dog
        dependency: Hard
      - nodeName: breeds
        data: $request
        condition: '[@this].#(predictions.0=="dog")'
    breeds:
      routerType: Switch
      steps:
      - serviceName: small/2
        condition: '[@this].#(size=="small")'
      - serviceName: large
`

func TestAGraphOfKServeIsRead(t *testing.T) {
	g, err := ParseGraph(kserveGraph)
	if err != nil {
		t.Fatal(err)
	}
	if got := g.Endpoints(); len(got) != 3 || got[0] != "cat-dog-classifier" || got[1] != "large" || got[2] != "small/2" {
		t.Errorf("it calls %v", got)
	}
	root := g.Nodes["root"]
	if root.Type != GraphSequence || root.Steps[0].Name != "cat_dog" || root.Steps[1].Name != "1" || root.Steps[1].Node != "breeds" || !root.Steps[1].Data.IsRequest() {
		t.Errorf("the root is %+v", root)
	}
	var text strings.Builder
	for _, l := range g.Lines() {
		text.WriteString(l.Node + "|" + l.Step + "|" + string(l.Endpoint) + l.Target + "|" + l.Note + "\n")
	}
	want := `root|||Sequence
|cat_dog|cat-dog-classifier|
|1|breeds|if [@this].#(predictions.0=="dog"); data $request
breeds|||Switch
|0|small/2|if [@this].#(size=="small")
|1|large|default
`
	if text.String() != want {
		t.Errorf("it is described as\n%s", text.String())
	}
}

// node is a graph whose root has these lines.
func node(lines string) string {
	return "nodes:\n  root:\n" + "    " + strings.ReplaceAll(strings.TrimSpace(lines), "\n", "\n    ") + "\n"
}

func TestWhatIsWrongWithAGraphIsNamed(t *testing.T) {
	for text, want := range map[string]string{
		"":                            "it is empty",
		"nodes: [":                    "line 1",
		"- a":                         "line 1: the graph is no mapping",
		"nodes: {}":                   "the graph has no node 'root', where requests begin",
		"node: {}":                    "line 1: the graph has no field 'node' (did you mean 'nodes'?); it has nodes",
		"kind: Deployment":            "kind Deployment is not InferenceGraph",
		"kind: InferenceGraph":        "the graph has no nodes",
		"spec: {timeout: 3}":          "line 1: a timeout is set with: clearml-serving model limits --deadline",
		"nodes: {root: 1}":            "line 1: node 'root' is no mapping",
		"nodes: {root: {steps: [1]}}": "line 1: node 'root' has no routerType: give Sequence, Switch, Ensemble or Splitter",
		node("routerType: Loop"):      "routerType Loop of node 'root' is none of Sequence, Switch, Ensemble, Splitter",
		node("routerType: Sequence"):  "node 'root' has no list of steps",
		"a: &x {b: 1}\nnodes: *x":     "line 1: the graph has no field 'a'",
		"nodes: {root: &r {routerType: Sequence, steps: [{nodeName: x}]}, x: *r}":                                       "aliases are not supported",
		node("routerType: Sequence\nsteps: [1]"):                                                                        "step 1 of node 'root' is no mapping",
		node("routerType: Sequence\nsteps:\n- name: a"):                                                                 "line 5: step 1 of node 'root' needs either a serviceName or a nodeName",
		node("routerType: Sequence\nsteps:\n- {serviceName: a, nodeName: b}"):                                           "needs either a serviceName or a nodeName",
		node("routerType: Sequence\nsteps:\n- {serviceUrl: 'http://h'}"):                                                "has a serviceUrl: a graph calls endpoints of its service",
		node("routerType: Sequence\nsteps:\n- {serviceName: 'a//b'}"):                                                   "has an empty part between slashes",
		node("routerType: Sequence\nsteps:\n- {service: a}"):                                                            "has no field 'service'",
		node("routerType: Sequence\nsteps:\n- {serviceName: a, data: $response}"):                                       "$response, but no step is before it",
		node("routerType: Sequence\nsteps:\n- {serviceName: a, data: request}"):                                         "begins with none of $request, $response and $steps",
		node("routerType: Sequence\nsteps:\n- {serviceName: a, data: $request..x}"):                                     "has an empty name",
		node("routerType: Sequence\nsteps:\n- {serviceName: a, data: {}}"):                                              "data of step 1 of node 'root' is empty",
		node("routerType: Sequence\nsteps:\n- serviceName: a\n- {serviceName: b, data: $steps.c.x}"):                    "no step before it has the name 'c'",
		node("routerType: Sequence\nsteps:\n- serviceName: a\n- serviceName: b"):                                        "nobody uses the answer of step 1 of node 'root': give step 2 data: $response, or data: $request if that is meant",
		node("routerType: Sequence\nsteps:\n- {serviceName: a, condition: x}"):                                          "has a condition, but no answer before it: use a Switch",
		node("routerType: Sequence\nsteps:\n- {serviceName: a, weight: 1}"):                                             "has a weight, which only steps of a Splitter",
		node("routerType: Sequence\nsteps:\n- {serviceName: a, name: s}\n- {serviceName: b, name: s, data: $response}"): "two steps of node 'root' have the name 's'",
		node("routerType: Sequence\ncombiner: mean\nsteps:\n- serviceName: a"):                                          "is no Ensemble, but has a combiner",
		node("routerType: Sequence\nfield: x\nsteps:\n- serviceName: a"):                                                "is no Switch, but has a field",
		node("routerType: Ensemble\nresponse: $response\nsteps:\n- serviceName: a"):                                     "is no Sequence, but has a response",
		node("routerType: Ensemble\ncombiner: median\nsteps:\n- serviceName: a"):                                        "combiner median of node 'root' is none of object, mean, vote, first",
		node("routerType: Ensemble\nsteps:\n- {serviceName: a, data: $response}"):                                       "no step is before it",
		node("routerType: Ensemble\nsteps:\n- serviceName: a\n- {serviceName: b, data: $response}"):                     "the steps of a Ensemble only have the $request",
		node("routerType: Ensemble\nsteps:\n- {serviceName: a, weight: 2}"):                                             "has a weight, which only steps",
		node("routerType: Splitter\nsteps:\n- serviceName: a"):                                                          "step 1 of node 'root' has no weight",
		node("routerType: Splitter\nsteps:\n- {serviceName: a, weight: -1}"):                                            "no number of 0 or more",
		node("routerType: Splitter\nsteps:\n- {serviceName: a, weight: .inf}"):                                          "no number of 0 or more",
		node("routerType: Splitter\nsteps:\n- {serviceName: a, weight: 0}"):                                             "the weights of node 'root' sum to 0",
		node("routerType: Splitter\nsteps:\n- {serviceName: a, weight: 1, dependency: Soft}"):                           "is Soft, but its answer is that of the Splitter",
		node("routerType: Switch\nsteps:\n- serviceName: a\n- serviceName: b"):                                          "step 1 of node 'root' has neither a condition nor a value: only the last step may be the default",
		node("routerType: Switch\nsteps:\n- {serviceName: a, value: x}"):                                                "has a value, but the node has no field",
		node("routerType: Switch\nfield: l\nsteps:\n- {serviceName: a, value: {x: 1}}"):                                 "is neither a text, a number, true, false nor null",
		node("routerType: Switch\nfield: l\nsteps:\n- {serviceName: a, value: []}"):                                     "is an empty list",
		node("routerType: Switch\nfield: l\nsteps:\n- {serviceName: a, value: x, condition: y}"):                        "has a value and a condition",
		node("routerType: Sequence\nsteps:\n- {serviceName: a, dependency: soft}"):                                      "dependency soft of step 1 of node 'root' is neither Hard nor Soft",
		node("routerType: Sequence\nsteps:\n- nodeName: roo"):                                                           "calls the node 'roo', which does not exist (did you mean 'root'?)",
		node("routerType: Sequence\nsteps:\n- nodeName: root"):                                                          "the nodes call each other in a circle: root -> root",
		node("routerType: Sequence\nsteps:\n- serviceName: a") + "  b: {routerType: Sequence, steps: [serviceName: a]}": "no step calls the node 'b'",
		strings.Repeat(" ", maxGraphText+1):                                                                             "it has 65537 bytes, at most 65536",
	} {
		_, err := ParseGraph(text)
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%.300s\nis refused with %v, want %q", text, err, want)
		}
	}
}

// Nodes that call others several times multiply the calls of a request.
func TestAGraphThatMultipliesItsCallsIsRefused(t *testing.T) {
	var text strings.Builder
	text.WriteString("nodes:\n  root: {routerType: Ensemble, steps: [{nodeName: n0}, {nodeName: n0}]}\n")
	for i := range 20 {
		text.WriteString("  n" + string(rune('a'+i)) + ": {routerType: Ensemble, steps: [{nodeName: X}, {nodeName: X}]}\n")
	}
	lines := strings.Split(text.String(), "\n")
	lines[1] = strings.ReplaceAll(lines[1], "n0", "na")
	for i := range 20 {
		next := "{serviceName: e}, {serviceName: e}"
		if i < 19 {
			name := "n" + string(rune('a'+i+1))
			next = "{nodeName: " + name + "}, {nodeName: " + name + "}"
		}
		lines[2+i] = strings.ReplaceAll(lines[2+i], "{nodeName: X}, {nodeName: X}", next)
	}
	if _, err := ParseGraph(strings.Join(lines, "\n")); err == nil || err.Error() != "a request makes more than 1024 calls" {
		t.Errorf("2^21 calls: %v", err)
	}
}

func sequenceOf(urls ...string) string {
	text := "nodes: {root: {routerType: Sequence, steps: ["
	for i, u := range urls {
		if i > 0 {
			text += ", "
		}
		text += "{serviceName: " + u + ", data: $request}"
	}
	return text + "]}}"
}

func graphEndpoint(url string, calls ...string) Endpoint {
	return Endpoint{EngineType: EngineGraph, ServingURL: url, AuxiliaryCfg: sequenceOf(calls...)}
}

func TestGraphsDoNotCallEachOtherInACircle(t *testing.T) {
	s := Service{
		Endpoints: map[string]Endpoint{"model": {EngineType: EngineCustom, ServingURL: "model"}, "other/1": {EngineType: EngineCustom, ServingURL: "other", Version: "1"}},
		Canaries:  map[string]Canary{}, Metrics: map[string]MetricLogging{},
		Monitoring: map[string]Monitoring{"followed": {BaseServingURL: "followed", EngineType: EngineSklearn, Name: "m"}},
	}
	add := func(e Endpoint, want string) {
		t.Helper()
		_, err := s.AddEndpoint(e)
		if want == "" && err != nil {
			t.Fatalf("%s: %v", e.ServingURL, err)
		}
		if want != "" && (err == nil || !strings.Contains(err.Error(), want)) {
			t.Errorf("%s is refused with %v, want %q", e.ServingURL, err, want)
		}
		if _, stored := s.Endpoints[string(e.URL())]; want != "" && stored && s.Endpoints[string(e.URL())].AuxiliaryCfg == e.AuxiliaryCfg {
			t.Errorf("%s is stored all the same", e.ServingURL)
		}
	}
	add(graphEndpoint("a", "mdoel"), "graph 'a' calls the endpoint 'mdoel', which does not exist (did you mean 'model'?): add it first")
	add(graphEndpoint("a", "a"), "graph 'a' calls itself")
	add(graphEndpoint("a", "model", "other/1", "followed/7"), "")
	add(graphEndpoint("b", "a"), "")
	add(graphEndpoint("c", "b", "model"), "")
	add(graphEndpoint("a", "c"), "'a' would call itself: a -> c -> b -> a")
	if got := s.GraphsThatCall("model"); len(got) != 2 || got[0] != "a" || got[1] != "c" {
		t.Errorf("model is called by %v", got)
	}
	// A canary between them.
	if _, err := s.AddCanary(Canary{Endpoint: "split", Weights: []float64{1, 1}, LoadEndpoints: []string{"c", "model"}}); err != nil {
		t.Fatal(err)
	}
	add(graphEndpoint("a", "split"), "'a' would call itself: a -> split -> c -> b -> a")
	add(graphEndpoint("d", "split"), "")
	if _, err := s.AddCanary(Canary{Endpoint: "split", Weights: []float64{1}, LoadEndpointPrefix: "d"}); err == nil || !strings.Contains(err.Error(), "'split' would call itself: split -> d -> split") {
		t.Errorf("the canary: %v", err)
	}
	// Too deep.
	add(graphEndpoint("g1", "model"), "")
	for i := 2; i <= MaxCallDepth; i++ {
		add(graphEndpoint("g"+string(rune('0'+i/10))+string(rune('0'+i%10)), deeper(i)), "")
	}
	add(graphEndpoint("g17", deeper(17)), "the calls of 'g17' would be nested 17 deep, at most 16")
}

func deeper(i int) string {
	if i == 2 {
		return "g1"
	}
	return "g" + string(rune('0'+(i-1)/10)) + string(rune('0'+(i-1)%10))
}

func TestAGraphHasNoModelAndNoCode(t *testing.T) {
	for want, e := range map[string]Endpoint{
		"is missing: an endpoint of the engine graph is described by a YAML file": {},
		"field model_id: M is not for a graph":                                    {ModelID: "M", AuxiliaryCfg: sequenceOf("x")},
		"field preprocess_artifact: p is not for a graph":                         {PreprocessArtifact: "p", AuxiliaryCfg: sequenceOf("x")},
		"is no graph: line 1: the graph has no field 'a'":                         {AuxiliaryCfg: map[string]any{"a": 1}},
	} {
		e.EngineType, e.ServingURL = EngineGraph, "g"
		if err := e.Validate(); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%+v: %v, want %q", e, err, want)
		}
	}
	m := Monitoring{BaseServingURL: "m", EngineType: EngineGraph, Name: "x", AuxiliaryCfg: sequenceOf("x")}
	if err := m.Validate(); err == nil || !strings.Contains(err.Error(), "a graph has no model whose versions could be followed") {
		t.Error(err)
	}
}

func FuzzGraph(f *testing.F) {
	f.Add(kserveGraph)
	f.Add(`{"nodes":{"root":{"routerType":"Switch","field":"a.b","steps":[{"serviceName":"x","value":[1,"a",null,true]},{"nodeName":"n"}]},"n":{"routerType":"Splitter","steps":[{"serviceName":"y","weight":20}]}}}`)
	f.Add(node("routerType: Sequence\nresponse: {a: $steps.s.x, b: $response}\nsteps:\n- {serviceName: a, name: s}\n- {serviceName: b, data: {x: $request.y}, dependency: Soft}"))
	f.Add(node("routerType: Ensemble\ncombiner: vote\nsteps:\n- {serviceName: a, weight: 0.5}"))
	f.Fuzz(func(t *testing.T, text string) {
		g, err := ParseGraph(text)
		if err != nil {
			return
		}
		if len(g.Endpoints()) == 0 || g.Nodes[GraphRoot] == nil {
			t.Errorf("a graph without endpoints or root: %q", text)
		}
		g.Lines()
		if n := g.calls(func(EndpointURL) int { return 1 }); n < 1 || n > maxGraphCalls {
			t.Errorf("%d calls", n)
		}
		for _, n := range g.Nodes {
			for i := range n.Steps {
				for _, source := range n.Steps[i].Data.sources() {
					if source.Of == SourceStep && (source.Step < 0 || source.Step >= i) {
						t.Errorf("step %d takes the answer of step %d", i, source.Step)
					}
				}
			}
		}
	})
}
