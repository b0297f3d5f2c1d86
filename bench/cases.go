package main

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"strings"
)

// group is a set of cases that share one deployment and start of each server.
type group struct {
	name  string
	about string
	cases []loadCase
	// workers is the number of worker processes of every server.
	workers int
	measure func(ctx context.Context, b *bench, g group, n *notes) error
}

// loadCase is one endpoint under load.
type loadCase struct {
	name        string
	about       string
	endpoint    string // the name under which all serve it, if it differs from the case's
	connections []int
	body        func() []byte
	contentType string // default application/json
	// protocol, if not the servers' own way, and the input of the model in it.
	protocol protocol
	in       input
	// bare: ours gets the rows alone, because its endpoint has no code.
	bare bool
	// against are the rivals that have the case; few are those that are measured only at the
	// largest number of connections.
	against, few []string
	// beside is the case of a rival that does not have this one.
	beside map[string]string
}

func (c loadCase) served() string {
	if c.endpoint != "" {
		return c.endpoint
	}
	return c.name
}

var (
	everyone = []string{original, fastAPI, mosec, mlServer, litServe, bentoML}
	// The original without Python's garbage collector is measured where the tail latency has a
	// goal.
	withoutGC     = append([]string{originalGC}, everyone...)
	withoutGCOnly = []string{original, originalGC}
	// Cases with a small JSON object are for all servers; larger ones are for servers that accept
	// any body, and batched forests for servers that batch.
	takeAnything = []string{original, fastAPI, mosec}
	oneProcess   = append([]string{coglet}, takeAnything...)
	stackers     = []string{original, fastAPI, mosec, mlServer, litServe}
	lesser       = []string{mlServer, litServe, bentoML}
	// Their case with the same model.
	alike = func(name string) map[string]string { return map[string]string{original: name, fastAPI: name} }
	// A server without batching is compared without it.
	unstacked = func(name string) map[string]string {
		return map[string]string{original: name, fastAPI: name, bentoML: name}
	}
)

// groups is the list of all measurements.
var groups = []group{
	{
		name: "light", about: "small bodies and small models", workers: 2, measure: measureLoad,
		cases: []loadCase{
			{name: "null", about: "an endpoint that does nothing", connections: []int{1, 16, 64, 256}, body: twoNumbers, against: withoutGC, few: lesser},
			{name: "lr", about: "a logistic regression, one by one", connections: []int{1, 16, 64, 256}, body: twoNumbers, against: withoutGC, few: lesser},
			{
				name: "lr_batched", about: "the same, micro-batched", connections: []int{1, 16, 64}, body: twoNumbers,
				against: everyone, few: lesser, beside: unstacked("lr"),
			},
			{name: constantCase, about: "our listener's constant answer", connections: []int{16, 64}},
		},
	},
	{
		name: "forests", about: "models of 100 trees", workers: 2, measure: measureLoad,
		cases: []loadCase{
			{name: "rf", about: "a random forest, one row", connections: []int{16, 64}, body: rows(1), against: takeAnything},
			{name: "rf_batched", about: "the same, micro-batched", connections: []int{16, 64}, body: rows(1), against: stackers, few: lesser, beside: unstacked("rf")},
			{name: "rf_100", about: "a random forest, 100 rows", endpoint: "rf", connections: []int{16}, body: rows(100), against: takeAnything},
			{name: "xgb", about: "XGBoost, one row", connections: []int{64}, body: rows(1), against: takeAnything},
			{name: "xgb_100", about: "XGBoost, 100 rows", endpoint: "xgb", connections: []int{16}, body: rows(100), against: takeAnything},
		},
	},
	{
		name: "own", about: "custom code that calls its model itself", workers: 2, measure: measureLoad,
		cases: []loadCase{
			{name: "lr_own", about: "a logistic regression, one by one", connections: []int{16, 64}, body: twoNumbers, against: []string{original}},
			{
				name: "lr_own_batched", about: "the same with process_batch", connections: []int{16, 64}, body: twoNumbers,
				against: []string{original}, beside: map[string]string{original: "lr_own"},
			},
			{name: "rf_own", about: "a random forest, one by one", connections: []int{16, 64}, body: rows(1), against: []string{original}},
			{
				name: "rf_own_batched", about: "the same with process_batch", connections: []int{16, 64}, body: rows(1),
				against: []string{original}, beside: map[string]string{original: "rf_own"},
			},
		},
	},
	{
		name: "bodies", about: "large bodies", workers: 2, measure: measureLoad,
		cases: []loadCase{
			{name: "json", about: "1 MB of JSON", connections: []int{1, 16}, body: numbers, against: takeAnything},
			{name: "binary", about: "10 MB of bytes", connections: []int{1, 16}, body: tenMegabytes, contentType: "application/octet-stream", against: takeAnything},
		},
	},
	{
		name: "waiting", about: "code that waits", workers: 2, measure: measureLoad,
		cases: []loadCase{
			{name: "async", about: "custom_async that awaits 10 ms", connections: []int{256}, body: twoNumbers, against: []string{original, fastAPI, litServe, bentoML}},
			{name: "pipeline", about: "two calls of another endpoint", connections: []int{16, 64}, body: twoNumbers, against: []string{original}},
		},
	},
	{
		name: "alone", about: "one worker process each", workers: 1, measure: measureLoad,
		cases: []loadCase{
			{name: "null", about: "an endpoint that does nothing", connections: []int{1, 64}, body: twoNumbers, against: oneProcess},
			{name: "lr", about: "a logistic regression, one by one", connections: []int{1, 64}, body: twoNumbers, against: oneProcess},
		},
	},
	{
		name: "native", about: "models that are computed without Python; ours gets the rows alone, and runs no code", workers: 2, measure: measureLoad,
		cases: []loadCase{
			{name: "lr_native", about: "a logistic regression", connections: []int{1, 16, 64}, body: twoNumbers, bare: true, against: []string{original, fastAPI}, beside: alike("lr_python")},
			{name: "rf_native", about: "a random forest of 100 trees, one row", connections: []int{1, 16, 64}, body: rows(1), bare: true, against: []string{original, fastAPI}, beside: alike("rf_python")},
			{name: "xgb_native", about: "XGBoost, 100 trees, one row", connections: []int{1, 16, 64}, body: rows(1), bare: true, against: []string{original, fastAPI}, beside: alike("xgb_python")},
			{name: "lr_python", about: "the same in Python, with code", endpoint: "lr", connections: []int{1, 16, 64}, body: twoNumbers, against: []string{original, fastAPI}},
			{name: "rf_python", about: "the same in Python, with code", endpoint: "rf", connections: []int{1, 16, 64}, body: rows(1), against: []string{original, fastAPI}},
			{name: "xgb_python", about: "the same in Python, with code", endpoint: "xgb", connections: []int{1, 16, 64}, body: rows(1), against: []string{original, fastAPI}},
			{name: constantCase, about: "our listener's constant answer", connections: []int{1, 16, 64}},
		},
	},
	{
		name: "protocols", about: "the Open Inference Protocol", workers: 2, measure: measureLoad,
		cases: []loadCase{
			{name: "null_v2", about: "an endpoint that does nothing, V2 REST", endpoint: "null", connections: []int{1, 16, 64}, body: twoNumbers, protocol: v2JSON, in: input{name: "x"}, against: []string{mlServer}},
			{name: "null_grpc", about: "the same, V2 gRPC", endpoint: "null", connections: []int{1, 16, 64}, body: twoNumbers, protocol: v2GRPC, in: input{name: "x"}, against: []string{mlServer}},
			{name: "lr_grpc", about: "a logistic regression, V2 gRPC", endpoint: "lr_native", connections: []int{1, 16, 64}, body: twoNumbers, protocol: v2GRPC, in: input{name: "x"}, against: []string{mlServer}},
		},
	},
	{
		name: "onnx", about: "a forest of 100 trees in ONNX Runtime", workers: 2, measure: measureLoad,
		cases: []loadCase{
			{name: "rf_onnx_v2", about: "one row, V2 JSON", endpoint: "rf_onnx", connections: []int{1, 16, 64}, body: rows(1), protocol: v2JSON, in: input{"X", true}, against: []string{triton}},
			{name: "rf_onnx_binary", about: "one row, V2 with binary tensors", endpoint: "rf_onnx", connections: []int{1, 16, 64}, body: rows(1), protocol: v2Binary, in: input{"X", true}, against: []string{triton}},
			{name: "rf_onnx_grpc", about: "one row, V2 gRPC", endpoint: "rf_onnx", connections: []int{1, 16, 64}, body: rows(1), protocol: v2GRPC, in: input{"X", true}, against: []string{triton}},
		},
	},
	{name: embeddingCase, about: "a model of sentence embeddings, one sentence of 32 tokens, V2 gRPC", workers: 1, measure: measureEmbedding},
	{name: ocrCase, about: "text recognition in an image: a graph of three ONNX models and a step of code", workers: 1, measure: measureOCR},
	{
		name: "behind", about: "a model on another server behind an endpoint, compared with that server asked directly", workers: 2, measure: measureBehind,
		cases: []loadCase{
			{name: "triton_v2", about: "a forest on Triton, V2 gRPC", endpoint: "rf_onnx", connections: besideConnections, body: rows(1), protocol: v2GRPC, in: input{"X", true}, against: []string{triton}},
			{name: "mlserver_v2", about: "a logistic regression on MLServer, V2 gRPC", endpoint: "lr_native", connections: besideConnections, body: twoNumbers, protocol: v2GRPC, in: input{name: "input-0"}, against: []string{mlServer}},
			{name: "torchserve", about: "a layer of ten numbers on TorchServe, REST", endpoint: torchModel, connections: besideConnections, body: rows(1), against: []string{torchServe}},
		},
	},
	{
		name: streamGroup, about: "chats whose tokens are streamed, compared with the server behind the endpoint", workers: 2, measure: measureBehind,
		cases: []loadCase{
			{name: "stream_llama", about: "SmolLM2 with 135 million parameters on llama.cpp", endpoint: chatModel, connections: besideConnections, against: []string{llamaCpp}},
			{name: "stream_steady", about: "a stand-in with a token every 20 ms in each stream", endpoint: chatModel, connections: besideConnections, against: []string{standIn}},
		},
	},
	{
		name: hopCase, about: "a graph of two steps, compared with the endpoint that both call", workers: 2, measure: measureHop,
		cases: []loadCase{
			{name: "hop_json", about: "a graph of two steps that call one endpoint, JSON", endpoint: hopModel, connections: besideConnections, body: twoNumbers, bare: true},
			{name: "hop_tensors", about: "the same, V2 gRPC", endpoint: hopModel, connections: besideConnections, body: twoNumbers, protocol: v2GRPC, in: input{name: "x"}},
		},
	},
	{
		name: "arrivals", about: "requests that arrive at 70 % of the original's throughput, answered or not", workers: 2, measure: measureArrivals,
		cases: []loadCase{
			{name: "null_arrivals", about: "an endpoint that does nothing", endpoint: "null", connections: []int{64}, body: twoNumbers, against: withoutGCOnly},
			{name: "lr_arrivals", about: "a logistic regression, one by one", endpoint: "lr", connections: []int{64}, body: twoNumbers, against: withoutGCOnly},
			{name: "rf_arrivals", about: "a random forest, one row", endpoint: "rf", connections: []int{64}, body: rows(1), against: withoutGCOnly},
			{name: "lr_native_arrivals", about: "the logistic regression without Python; the original at the same rate", endpoint: "lr_native", connections: []int{64}, body: twoNumbers, bare: true, against: []string{original}, beside: map[string]string{original: "lr_arrivals"}},
			{name: "rf_native_arrivals", about: "the forest without Python; the original at the same rate", endpoint: "rf_native", connections: []int{64}, body: rows(1), bare: true, against: []string{original}, beside: map[string]string{original: "rf_arrivals"}},
		},
	},
	{name: "cold", about: "from start to health and first answer", workers: 1, measure: measureCold},
	{name: "hundred", about: "100 endpoints: time and memory", workers: 1, measure: measureHundred},
	{name: "neighbour", about: "a fast endpoint beside one that burns CPU", workers: 1, measure: measureNeighbour},
	{name: "change", about: "answers while the configuration changes", workers: 2, measure: measureChange},
	{name: "shared", about: "a forest of 500 MB in 4 workers", workers: 4, measure: measureShared},
}

// constantCase is answered by the listener itself: the cost of HTTP alone.
const constantCase = "constant"

// chosen is the groups of the plan, each with the requested cases.
func (p *plan) chosen() ([]group, error) {
	if len(p.cases) == 0 {
		return groups, nil
	}
	left := slices.Clone(p.cases)
	var all []group
	for _, g := range groups {
		if slices.Contains(p.cases, g.name) {
			left = slices.DeleteFunc(left, func(name string) bool { return name == g.name })
			all = append(all, g)
			continue
		}
		var some []loadCase
		for _, c := range g.cases {
			if slices.Contains(p.cases, c.name) {
				left = slices.DeleteFunc(left, func(name string) bool { return name == c.name })
				some = append(some, c)
			}
		}
		if len(some) > 0 {
			g.cases = some
			all = append(all, g)
		}
	}
	if len(left) > 0 {
		return nil, fmt.Errorf("no case or group is named %s; these are:\n%s", strings.Join(left, ", "), listOfCases())
	}
	return all, nil
}

func listOfCases() string {
	var b strings.Builder
	for _, g := range groups {
		fmt.Fprintf(&b, "%-10s %s\n", g.name, g.about)
		for _, c := range g.cases {
			fmt.Fprintf(&b, "  %-12s %s; connections %v; beside %s\n", c.name, c.about, c.connections, strings.Join(c.against, ", "))
		}
	}
	return b.String()
}

func twoNumbers() []byte { return []byte(`{"x0": 1, "x1": 2}`) }

// rows is a body of n rows of ten numbers, the same every time.
func rows(n int) func() []byte {
	return func() []byte {
		matrix := make([][]float64, n)
		for i := range matrix {
			for j := range 10 {
				matrix[i] = append(matrix[i], float64((i*31+j*17)%41)/10-2)
			}
		}
		return encoded(map[string]any{"rows": matrix})
	}
}

// numbers is a body of about 1 MB.
func numbers() []byte {
	values := make([]float64, 128_000)
	for i := range values {
		values[i] = float64((i*7919)%1_000_003) / 1000
	}
	return encoded(map[string]any{"values": values})
}

func tenMegabytes() []byte {
	body := make([]byte, 10_000_000)
	for i := range body {
		body[i] = byte(i * 7)
	}
	return body
}

func encoded(v any) []byte {
	text, err := json.Marshal(v)
	if err != nil {
		panic(err) // numbers can always be encoded
	}
	return text
}
