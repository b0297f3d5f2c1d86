package serving

import (
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"math"
	"slices"
	"strconv"
	"strings"

	"go.yaml.in/yaml/v3"
)

// EngineGraph is the engine of endpoints that are made of others, without code. The graph is the auxiliary
// configuration.
const EngineGraph = "graph"

// MaxCallDepth bounds how many calls between endpoints may be nested.
const MaxCallDepth = 16

// Graph says how an endpoint is made of others, in the words of KServe's InferenceGraph.
type Graph struct {
	Nodes map[string]*GraphNode
}

// GraphRoot is the name of the node where requests begin.
const GraphRoot = "root"

// RouterType says what a node does with its steps.
type RouterType string

// The types of nodes.
const (
	GraphSequence RouterType = "Sequence" // one after the other
	GraphSwitch   RouterType = "Switch"   // the first that fits the request
	GraphEnsemble RouterType = "Ensemble" // all at the same time, the answers combined
	GraphSplitter RouterType = "Splitter" // one of them, drawn by weight
)

// Combiner says what the answer of an Ensemble is made of.
type Combiner string

// The combiners.
const (
	CombineObject Combiner = "object" // all answers, by the names of their steps
	CombineMean   Combiner = "mean"   // the mean of numbers, weighted if the steps have weights
	CombineVote   Combiner = "vote"   // the most frequent value, weighted if the steps have weights
	CombineFirst  Combiner = "first"  // the first answer that there is
)

// GraphNode is a node of a graph.
type GraphNode struct {
	Name  string
	Type  RouterType
	Steps []GraphStep
	// Field is the path to a value of the request that a Switch compares with the values of its steps, nil for
	// none.
	Field    []string
	Combiner Combiner // of an Ensemble
	// Response makes the answer of a Sequence. nil: that of its last step.
	Response *GraphData
}

// GraphStep is a step of a node. Exactly one of Endpoint and Node is set.
type GraphStep struct {
	Name     string // given, or the position in the node, from 0
	Endpoint EndpointURL
	Node     string
	// Data makes the step's request. nil: the node's request.
	Data      *GraphData
	Weight    float64
	Condition string // a path of GJSON that must exist
	Values    []any  // of the field of a Switch: texts, numbers (float64), bools, nil
	Soft      bool   // the graph goes on without the step if it fails
}

// Target names what the step calls.
func (s *GraphStep) Target() string {
	if s.Node != "" {
		return "node '" + s.Node + "'"
	}
	return "endpoint '" + string(s.Endpoint) + "'"
}

// GraphData makes a request or an answer: one source, or an object with a source for each name.
type GraphData struct {
	Whole GraphSource
	Named []GraphField // nil: Whole
}

// GraphField is a named part of a GraphData.
type GraphField struct {
	Name string
	GraphSource
}

// GraphSource is a request or an answer in a node, or a part of it.
type GraphSource struct {
	Of   SourceOf
	Step int      // of SourceStep
	Path []string // nil: all of it
	text string
}

// SourceOf says what a GraphSource is a part of.
type SourceOf int

// What data is made of.
const (
	SourceRequest  SourceOf = iota // the node's request
	SourceResponse                 // the answer of the step before
	SourceStep                     // the answer of an earlier step of the node
)

func (s GraphSource) String() string { return s.text }

func (d *GraphData) String() string {
	if d.Named == nil {
		return d.Whole.text
	}
	parts := make([]string, len(d.Named))
	for i, f := range d.Named {
		parts[i] = f.Name + ": " + f.text
	}
	return "{" + strings.Join(parts, ", ") + "}"
}

// IsRequest reports whether the data is the request as it is.
func (d *GraphData) IsRequest() bool {
	return d.Named == nil && d.Whole.Of == SourceRequest && d.Whole.Path == nil
}

// RequestNames are the parts of the request that the data is made of, "" for all of it.
func (d *GraphData) RequestNames() []string {
	var names []string
	for _, s := range d.sources() {
		if s.Of == SourceRequest {
			names = append(names, strings.Join(s.Path, "."))
		}
	}
	return names
}

// sources are all sources of the data.
func (d *GraphData) sources() []GraphSource {
	if d == nil {
		return nil
	}
	if d.Named == nil {
		return []GraphSource{d.Whole}
	}
	list := make([]GraphSource, len(d.Named))
	for i, f := range d.Named {
		list[i] = f.GraphSource
	}
	return list
}

// Endpoints are the endpoints that the graph calls, sorted.
func (g *Graph) Endpoints() []EndpointURL {
	var urls []EndpointURL
	for _, n := range g.Nodes {
		for i := range n.Steps {
			if n.Steps[i].Node == "" {
				urls = append(urls, n.Steps[i].Endpoint)
			}
		}
	}
	slices.Sort(urls)
	return slices.Compact(urls)
}

// GraphLine is a line of the description of a graph: a node, or a step below it.
type GraphLine struct {
	Node     string // of a node; "" for a step
	Step     string
	Endpoint EndpointURL // that a step calls
	Target   string      // the node that a step calls
	Note     string
}

// Lines describe the graph for users, beginning with the root.
func (g *Graph) Lines() []GraphLine {
	var lines []GraphLine
	shown := map[string]bool{}
	queue := []string{GraphRoot}
	for len(queue) > 0 {
		n := g.Nodes[queue[0]]
		queue = queue[1:]
		if n == nil || shown[n.Name] {
			continue
		}
		shown[n.Name] = true
		lines = append(lines, GraphLine{Node: n.Name, Note: n.note()})
		for i := range n.Steps {
			s := &n.Steps[i]
			lines = append(lines, GraphLine{Step: s.Name, Endpoint: s.Endpoint, Target: s.Node, Note: s.note(n)})
			if s.Node != "" {
				queue = append(queue, s.Node)
			}
		}
	}
	return lines
}

func (n *GraphNode) note() string {
	text := string(n.Type)
	switch {
	case n.Field != nil:
		text += " on " + strings.Join(n.Field, ".")
	case n.Type == GraphEnsemble:
		text += ", combiner " + string(n.Combiner)
	case n.Response != nil:
		text += ", response " + n.Response.String()
	}
	return text
}

func (s *GraphStep) note(n *GraphNode) string {
	var parts []string
	switch {
	case s.Values != nil:
		values := make([]string, len(s.Values))
		for i, v := range s.Values {
			text, _ := json.Marshal(v) // scalars
			values[i] = string(text)
		}
		parts = append(parts, strings.Join(values, ", "))
	case s.Condition != "":
		parts = append(parts, "if "+s.Condition)
	case n.Type == GraphSwitch:
		parts = append(parts, "default")
	}
	if s.Weight > 0 && n.weighted() {
		parts = append(parts, "weight "+strconv.FormatFloat(s.Weight, 'g', -1, 64))
	}
	if s.Data != nil {
		parts = append(parts, "data "+s.Data.String())
	}
	if s.Soft {
		parts = append(parts, string(dependencySoft))
	}
	return strings.Join(parts, "; ")
}

// weighted reports whether the weights of the steps differ.
func (n *GraphNode) weighted() bool {
	return slices.ContainsFunc(n.Steps, func(s GraphStep) bool { return s.Weight != n.Steps[0].Weight })
}

// The bounds of a graph.
const (
	maxGraphText  = 64 << 10
	maxGraphNodes = 64
	maxGraphSteps = 64 // of one node
	maxGraphPath  = 32 // names in a path
	maxGraphData  = 256
	// maxGraphCalls bounds the calls of one request, also those of graphs in the graph: nodes that call others
	// several times multiply them.
	maxGraphCalls = 1024
)

// GraphOf reads the graph of an endpoint from its auxiliary configuration, a text or a map. The error is a
// *FieldError. Other engines have none.
func GraphOf(engine string, aux any) (*Graph, error) {
	if engine != EngineGraph {
		return nil, nil //nolint:nilnil // documented
	}
	wrong := func(err error) error { return &FieldError{Field: "auxiliary_cfg", Why: "is no graph: " + err.Error()} }
	text, isText := aux.(string)
	if !isText {
		if aux == nil {
			return nil, &FieldError{Field: "auxiliary_cfg", Why: "is missing: an endpoint of the engine graph is described by a YAML file; give --aux-config graph.yaml"}
		}
		encoded, err := json.Marshal(aux)
		if err != nil {
			return nil, wrong(err)
		}
		text = string(encoded)
	}
	g, err := ParseGraph(text)
	if err != nil {
		return nil, wrong(err)
	}
	return g, nil
}

// ParseGraph reads a graph written in YAML or JSON: an InferenceGraph of KServe, or its nodes alone.
func ParseGraph(text string) (*Graph, error) {
	if len(text) > maxGraphText {
		return nil, fmt.Errorf("it has %d bytes, at most %d", len(text), maxGraphText)
	}
	var document yaml.Node
	if err := yaml.Unmarshal([]byte(text), &document); err != nil {
		return nil, errors.New(strings.TrimPrefix(err.Error(), "yaml: "))
	}
	if len(document.Content) != 1 {
		return nil, errors.New("it is empty")
	}
	r := graphReader{g: &Graph{Nodes: map[string]*GraphNode{}}}
	if err := r.document(document.Content[0]); err != nil {
		return nil, err
	}
	if err := r.g.check(); err != nil {
		return nil, err
	}
	return r.g, nil
}

// graphReader reads the nodes of a YAML document.
type graphReader struct{ g *Graph }

func atLine(n *yaml.Node, format string, args ...any) error {
	return fmt.Errorf("line %d: "+format, append([]any{n.Line}, args...)...)
}

// members calls each with the members of a mapping.
func members(n *yaml.Node, what string, each func(name string, key, value *yaml.Node) error) error {
	if n.Kind != yaml.MappingNode {
		return atLine(n, "%s is no mapping", what)
	}
	seen := map[string]bool{}
	for i := 0; i+1 < len(n.Content); i += 2 {
		key, value := n.Content[i], n.Content[i+1]
		switch {
		case key.Kind != yaml.ScalarNode:
			return atLine(key, "a name in %s is no text", what)
		case seen[key.Value]:
			return atLine(key, "%s has '%s' twice", what, Shorten(key.Value, 60))
		case value.Kind == yaml.AliasNode || key.Value == "<<":
			return atLine(key, "aliases are not supported")
		}
		seen[key.Value] = true
		if err := each(key.Value, key, value); err != nil {
			return err
		}
	}
	return nil
}

// unknownName is the error of a name that is none of those known.
func unknownName(key *yaml.Node, what string, known ...string) error {
	hint := ""
	if near := nearest(key.Value, known); near != "" {
		hint = fmt.Sprintf(" (did you mean '%s'?)", near)
	}
	return atLine(key, "%s has no field '%s'%s; it has %s", what, Shorten(key.Value, 60), hint, strings.Join(known, ", "))
}

// nearest is the name that a misspelled one probably means, "" if none is near.
func nearest(name string, names []string) string {
	best, distance := "", 2 // or more edits are too many
	if len(name) > 3 {
		distance = len(name)/3 + 2
	}
	if len(name) > 64 {
		return ""
	}
	for _, n := range names {
		if d := Edits(name, n, distance); d < distance {
			best, distance = n, d
		}
	}
	return best
}

func textOf(n *yaml.Node, what string) (string, error) {
	if n.Kind != yaml.ScalarNode || n.Tag == "!!null" || n.Value == "" {
		return "", atLine(n, "%s is no text", what)
	}
	return n.Value, nil
}

// deployment are fields of an InferenceGraph about its router's container, which does not exist here.
var deployment = []string{"resources", "affinity", "tolerations", "nodeSelector", "nodeName", "serviceAccountName", "minReplicas", "maxReplicas", "scaleTarget", "scaleMetric", "imagePullSecrets"} //nolint:gochecknoglobals // a constant table

func (r graphReader) document(n *yaml.Node) error {
	var nodes *yaml.Node
	err := members(n, "the graph", func(name string, key, value *yaml.Node) error {
		switch name {
		case "apiVersion", "metadata", "status":
			return nil
		case "kind":
			if value.Value != "InferenceGraph" {
				return atLine(value, "kind %s is not InferenceGraph", Shorten(value.Value, 60))
			}
			return nil
		case "spec":
			return members(value, "spec", func(name string, key, value *yaml.Node) error {
				switch {
				case name == "nodes" && nodes == nil:
					nodes = value
				case name == "timeout":
					return atLine(key, "a timeout is set with: clearml-serving model limits --deadline")
				case !slices.Contains(deployment, name):
					return unknownName(key, "spec", "nodes")
				}
				return nil
			})
		case "nodes":
			if nodes == nil {
				nodes = value
				return nil
			}
		}
		return unknownName(key, "the graph", "nodes", "apiVersion", "kind", "metadata", "spec")
	})
	if err != nil {
		return err
	}
	if nodes == nil {
		return atLine(n, "the graph has no nodes")
	}
	return members(nodes, "nodes", func(name string, key, value *yaml.Node) error {
		if len(r.g.Nodes) == maxGraphNodes {
			return atLine(key, "the graph has more than %d nodes", maxGraphNodes)
		}
		node := &GraphNode{Name: name}
		r.g.Nodes[name] = node
		return r.node(node, key, value)
	})
}

func (r graphReader) node(to *GraphNode, at, n *yaml.Node) error {
	what := fmt.Sprintf("node '%s'", Shorten(to.Name, 60))
	var steps, response *yaml.Node
	err := members(n, what, func(name string, key, value *yaml.Node) (err error) {
		switch name {
		case "routerType":
			to.Type = RouterType(value.Value)
			if !slices.Contains([]RouterType{GraphSequence, GraphSwitch, GraphEnsemble, GraphSplitter}, to.Type) {
				return atLine(value, "routerType %s of %s is none of Sequence, Switch, Ensemble, Splitter", Shorten(value.Value, 60), what)
			}
		case "steps":
			steps = value
		case "field":
			to.Field, err = pathOf(value, "field of "+what)
		case "combiner":
			to.Combiner = Combiner(value.Value)
			if !slices.Contains([]Combiner{CombineObject, CombineMean, CombineVote, CombineFirst}, to.Combiner) {
				return atLine(value, "combiner %s of %s is none of object, mean, vote, first", Shorten(value.Value, 60), what)
			}
		case "response":
			response = value
		default:
			return unknownName(key, what, "routerType", "steps", "field", "combiner", "response")
		}
		return err
	})
	switch {
	case err != nil:
		return err
	case to.Type == "":
		return atLine(at, "%s has no routerType: give Sequence, Switch, Ensemble or Splitter", what)
	case steps == nil || steps.Kind != yaml.SequenceNode || len(steps.Content) == 0:
		return atLine(at, "%s has no list of steps", what)
	case len(steps.Content) > maxGraphSteps:
		return atLine(at, "%s has more than %d steps", what, maxGraphSteps)
	case to.Field != nil && to.Type != GraphSwitch:
		return atLine(at, "%s is no Switch, but has a field", what)
	case to.Combiner != "" && to.Type != GraphEnsemble:
		return atLine(at, "%s is no Ensemble, but has a combiner", what)
	case response != nil && to.Type != GraphSequence:
		return atLine(at, "%s is no Sequence, but has a response", what)
	}
	if to.Type == GraphEnsemble {
		to.Combiner = cmp.Or(to.Combiner, CombineObject)
	}
	for i, step := range steps.Content {
		if err := r.step(to, i, step); err != nil {
			return err
		}
	}
	if response != nil {
		if to.Response, err = r.data(to, response, "response of "+what); err != nil {
			return err
		}
	}
	return r.checkNode(to, at, what)
}

const (
	dependencyHard = "Hard"
	dependencySoft = "Soft"
)

func (r graphReader) step(to *GraphNode, i int, n *yaml.Node) error {
	s := GraphStep{Name: strconv.Itoa(i)}
	what := fmt.Sprintf("step %d of node '%s'", i+1, Shorten(to.Name, 60))
	weighs := false
	var data *yaml.Node
	err := members(n, what, func(name string, key, value *yaml.Node) (err error) {
		switch name {
		case "name":
			if s.Name, err = textOf(value, "the name of "+what); err == nil && slices.ContainsFunc(to.Steps, func(o GraphStep) bool { return o.Name == s.Name }) {
				err = atLine(value, "two steps of node '%s' have the name '%s'", to.Name, Shorten(s.Name, 60))
			}
		case "serviceName":
			var text string
			if text, err = textOf(value, "serviceName of "+what); err == nil {
				if bad := validateURL("serviceName", text); bad != nil {
					return atLine(value, "%s: %w", what, bad)
				}
				s.Endpoint = CleanURL(text)
			}
		case "nodeName":
			s.Node, err = textOf(value, "nodeName of "+what)
		case "serviceUrl":
			return atLine(key, "%s has a serviceUrl: a graph calls endpoints of its service; give their names as serviceName", what)
		case "data":
			data = value
		case "weight":
			weighs = true
			if bad := value.Decode(&s.Weight); bad != nil || math.IsNaN(s.Weight) || math.IsInf(s.Weight, 0) || s.Weight < 0 {
				return atLine(value, "the weight of %s is no number of 0 or more", what)
			}
		case "condition":
			s.Condition, err = textOf(value, "condition of "+what)
		case "value":
			s.Values, err = scalars(value, "value of "+what)
		case "dependency":
			if value.Value != dependencyHard && value.Value != dependencySoft {
				return atLine(value, "dependency %s of %s is neither Hard nor Soft", Shorten(value.Value, 60), what)
			}
			s.Soft = value.Value == dependencySoft
		default:
			return unknownName(key, what, "name", "serviceName", "nodeName", "data", "weight", "condition", "value", "dependency")
		}
		return err
	})
	switch {
	case err != nil:
		return err
	case (s.Endpoint == "") == (s.Node == ""):
		return atLine(n, "%s needs either a serviceName or a nodeName", what)
	case weighs && to.Type != GraphSplitter && (to.Type != GraphEnsemble || to.Combiner != CombineMean && to.Combiner != CombineVote):
		return atLine(n, "%s has a weight, which only steps of a Splitter and of an Ensemble with the combiner mean or vote have", what)
	case !weighs && to.Type == GraphSplitter:
		return atLine(n, "%s has no weight", what)
	case s.Condition != "" && to.Type != GraphSwitch && to.Type != GraphSequence:
		return atLine(n, "%s has a condition, which only steps of a Switch and a Sequence have", what)
	case s.Condition != "" && to.Type == GraphSequence && i == 0:
		return atLine(n, "%s has a condition, but no answer before it: use a Switch", what)
	case s.Values != nil && to.Field == nil:
		return atLine(n, "%s has a value, but the node has no field to compare it with", what)
	case s.Values != nil && s.Condition != "":
		return atLine(n, "%s has a value and a condition: give one of them", what)
	case s.Soft && to.Type != GraphSequence && to.Type != GraphEnsemble:
		return atLine(n, "%s is Soft, but its answer is that of the %s: nothing goes on without it", what, to.Type)
	}
	if !weighs {
		s.Weight = 1
	}
	if data != nil {
		if s.Data, err = r.data(to, data, "data of "+what); err != nil {
			return err
		}
	}
	to.Steps = append(to.Steps, s)
	return nil
}

// scalars reads a scalar, or a list of them.
func scalars(n *yaml.Node, what string) ([]any, error) {
	list := []*yaml.Node{n}
	if n.Kind == yaml.SequenceNode {
		list = n.Content
	}
	values := make([]any, 0, len(list))
	for _, item := range list {
		var v any
		if item.Kind != yaml.ScalarNode || item.Decode(&v) != nil {
			return nil, atLine(item, "%s is neither a text, a number, true, false nor null", what)
		}
		switch number := v.(type) {
		case int:
			v = float64(number)
		case int64:
			v = float64(number)
		case uint64:
			v = float64(number)
		case float64:
			if math.IsNaN(number) || math.IsInf(number, 0) {
				return nil, atLine(item, "%s is not finite", what)
			}
		case string, bool, nil:
		default:
			v = item.Value // a date
		}
		values = append(values, v)
	}
	if len(values) == 0 {
		return nil, atLine(n, "%s is an empty list", what)
	}
	return values, nil
}

func pathOf(n *yaml.Node, what string) ([]string, error) {
	text, err := textOf(n, what)
	if err != nil {
		return nil, err
	}
	return splitPath(n, text, what)
}

func splitPath(n *yaml.Node, text, what string) ([]string, error) {
	path := strings.Split(text, ".")
	if slices.Contains(path, "") {
		return nil, atLine(n, "%s: '%s' has an empty name", what, Shorten(text, 60))
	}
	if len(path) > maxGraphPath {
		return nil, atLine(n, "%s has more than %d names", what, maxGraphPath)
	}
	return path, nil
}

// data reads the data of a step that is not yet in the node, or the response of the node.
func (r graphReader) data(in *GraphNode, n *yaml.Node, what string) (*GraphData, error) {
	if n.Kind != yaml.MappingNode {
		source, err := r.source(in, n, what)
		return &GraphData{Whole: source}, err
	}
	d := &GraphData{Named: []GraphField{}}
	err := members(n, what, func(name string, key, value *yaml.Node) error {
		if len(d.Named) == maxGraphData {
			return atLine(key, "%s has more than %d names", what, maxGraphData)
		}
		source, err := r.source(in, value, what)
		d.Named = append(d.Named, GraphField{name, source})
		return err
	})
	if err == nil && len(d.Named) == 0 {
		err = atLine(n, "%s is empty", what)
	}
	return d, err
}

func (r graphReader) source(in *GraphNode, n *yaml.Node, what string) (GraphSource, error) {
	s := GraphSource{}
	text, err := textOf(n, what)
	if err != nil {
		return s, err
	}
	s.text = text
	head, rest, more := strings.Cut(text, ".")
	if more {
		if s.Path, err = splitPath(n, rest, what); err != nil {
			return s, err
		}
	}
	switch head {
	case "$request":
	case "$response":
		if s.Of = SourceResponse; len(in.Steps) == 0 {
			return s, atLine(n, "%s is $response, but no step is before it", what)
		}
	case "$steps":
		if s.Path == nil {
			return s, atLine(n, "%s: name a step: $steps.<name>", what)
		}
		s.Of, s.Step = SourceStep, slices.IndexFunc(in.Steps, func(o GraphStep) bool { return o.Name == s.Path[0] })
		if s.Step < 0 {
			return s, atLine(n, "%s: no step before it has the name '%s'", what, Shorten(s.Path[0], 60))
		}
		if s.Path = s.Path[1:]; len(s.Path) == 0 {
			s.Path = nil
		}
	default:
		return s, atLine(n, "%s: '%s' begins with none of $request, $response and $steps", what, Shorten(text, 60))
	}
	if s.Of != SourceRequest && in.Type != GraphSequence {
		return s, atLine(n, "%s is %s, but the steps of a %s only have the $request", what, Shorten(text, 60), in.Type)
	}
	return s, nil
}

// checkNode checks what needs all steps of a node.
func (r graphReader) checkNode(n *GraphNode, at *yaml.Node, what string) error {
	switch n.Type {
	case GraphSplitter, GraphEnsemble:
		sum := 0.0
		for i := range n.Steps {
			sum += n.Steps[i].Weight
		}
		if !(sum > 0) || math.IsInf(sum, 0) {
			return atLine(at, "the weights of %s sum to %v: at least one must be greater than 0", what, sum)
		}
	case GraphSwitch:
		for i := range n.Steps {
			last := i == len(n.Steps)-1
			if s := &n.Steps[i]; s.Condition == "" && s.Values == nil && !last {
				return atLine(at, "step %d of %s has neither a condition nor a value: only the last step may be the default", i+1, what)
			}
		}
	case GraphSequence:
		return n.checkUse(at, what)
	}
	return nil
}

// checkUse refuses a step of a Sequence whose answer nobody uses, unless the step after it takes the
// request explicitly: without data, a step takes the request, as in KServe.
func (n *GraphNode) checkUse(at *yaml.Node, what string) error {
	for i := 0; i+1 < len(n.Steps); i++ {
		next := &n.Steps[i+1]
		if next.Data != nil || next.Condition != "" {
			continue
		}
		used := false
		for _, later := range n.Steps[i+2:] {
			for _, source := range later.Data.sources() {
				used = used || source.Of == SourceStep && source.Step == i
			}
		}
		for _, source := range n.Response.sources() {
			used = used || source.Of == SourceStep && source.Step == i
		}
		if !used {
			return atLine(at, "nobody uses the answer of step %d of %s: give step %d data: $response, or data: $request if that is meant", i+1, what, i+2)
		}
	}
	return nil
}

// check checks what needs all nodes.
func (g *Graph) check() error {
	if g.Nodes[GraphRoot] == nil {
		return fmt.Errorf("the graph has no node '%s', where requests begin", GraphRoot)
	}
	const visiting, done = 1, 2
	state := map[string]int{}
	var visit func(name string, path []string) error
	visit = func(name string, path []string) error {
		switch state[name] {
		case visiting:
			return fmt.Errorf("the nodes call each other in a circle: %s", strings.Join(append(path[slices.Index(path, name):], name), " -> "))
		case done:
			return nil
		}
		state[name] = visiting
		for i := range g.Nodes[name].Steps {
			s := &g.Nodes[name].Steps[i]
			if s.Node == "" {
				continue
			}
			if g.Nodes[s.Node] == nil {
				return fmt.Errorf("step '%s' of node '%s' calls the node '%s', which does not exist%s", s.Name, name, Shorten(s.Node, 60), didYouMean(s.Node, slices.Sorted(maps.Keys(g.Nodes))))
			}
			if err := visit(s.Node, append(path, name)); err != nil {
				return err
			}
		}
		state[name] = done
		return nil
	}
	if err := visit(GraphRoot, nil); err != nil {
		return err
	}
	for _, name := range slices.Sorted(maps.Keys(g.Nodes)) {
		if state[name] != done {
			return fmt.Errorf("no step calls the node '%s'", Shorten(name, 60))
		}
	}
	if calls := g.calls(func(EndpointURL) int { return 1 }); calls > maxGraphCalls {
		return fmt.Errorf("a request makes more than %d calls", maxGraphCalls)
	}
	return nil
}

// calls is the most calls that a request makes, if calling an endpoint makes as many as of tells. More than
// maxGraphCalls are not counted exactly. The nodes must not call each other in a circle.
func (g *Graph) calls(of func(EndpointURL) int) int {
	known := map[string]int{}
	var count func(name string) int
	count = func(name string) int {
		if n, ok := known[name]; ok {
			return n
		}
		node, sum, most := g.Nodes[name], 0, 0
		for i := range node.Steps {
			n := 0
			if s := &node.Steps[i]; s.Node != "" {
				n = count(s.Node)
			} else {
				n = of(s.Endpoint)
			}
			sum, most = min(sum+n, maxGraphCalls+1), max(most, n)
		}
		if node.Type == GraphSwitch || node.Type == GraphSplitter {
			sum = most
		}
		known[name] = sum
		return sum
	}
	return count(GraphRoot)
}

func didYouMean(name string, names []string) string {
	if near := nearest(name, names); near != "" {
		return fmt.Sprintf(" (did you mean '%s'?)", near)
	}
	return ""
}
