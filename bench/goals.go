package main

import "fmt"

// metric is one of the figures of a measurement under load.
type metric struct {
	name string
	of   func(measured) float64
}

var metrics = []metric{
	{"requests/s", func(m measured) float64 { return m.PerSecond }},
	{"p50 us", func(m measured) float64 { return m.P50 }},
	{"p99 us", func(m measured) float64 { return m.P99 }},
	{"CPU us/request", func(m measured) float64 { return m.CPU }},
}

// goal is a bound for a row. The goals were set before the measurements, from preliminary trials,
// and are never adjusted to the results.
type goal struct {
	key
	against, metric string
	bound           float64
	less            bool // at most, else at least
	absolute        bool // of our figure, else of the ratio of ours to theirs
	added           bool // of what ours has more than theirs
}

func atLeast(name string, workers, connections int, against, metric string, bound float64) goal {
	return goal{key: key{name, workers, connections}, against: against, metric: metric, bound: bound}
}

func atMost(name string, workers, connections int, against, metric string, bound float64) goal {
	g := atLeast(name, workers, connections, against, metric, bound)
	g.less = true
	return g
}

func absolutely(name, metric string, bound float64) goal {
	g := atMost(name, 1, 0, "", metric, bound)
	g.absolute = true
	return g
}

func atMostMore(name string, connections int, against, metric string, bound float64) goal {
	g := atMost(name, 2, connections, against, metric, bound)
	g.added = true
	return g
}

// A chunk may hold two tokens if they were late. One in a hundred may.
const sameChunks = 0.99

var goals = []goal{
	atLeast("null", 2, 64, original, "requests/s", 3),
	atMost("null", 2, 64, original, "CPU us/request", 0.35),
	atLeast("lr", 2, 64, original, "requests/s", 2.5),
	atMost("lr", 2, 64, original, "CPU us/request", 0.4),
	atLeast("lr_batched", 2, 64, original, "requests/s", 3.5),
	atMost("lr_batched", 2, 64, original, "CPU us/request", 0.25),
	atLeast("lr_batched", 2, 16, original, "requests/s", 2.7),
	atLeast("rf_batched", 2, 64, original, "requests/s", 12),
	atLeast("rf_batched", 2, 16, original, "requests/s", 4),
	atLeast("null", 2, 16, mosec, "requests/s", 1.2),
	atLeast("null", 2, 64, mosec, "requests/s", 1.2),
	atLeast("lr", 2, 16, mosec, "requests/s", 1.2),
	atLeast("lr", 2, 64, mosec, "requests/s", 1.2),
	atMost("null", 2, 64, original, "p99 us", 0.125),
	atMost("lr", 2, 64, original, "p99 us", 0.125),
	atMost("lr_batched", 2, 64, original, "p99 us", 0.125),
	atMost("rf_batched", 2, 64, original, "p99 us", 0.125),
	atLeast("rf_native", 2, 64, original, "requests/s", 80),
	atMost("rf_native", 2, 64, original, "CPU us/request", 0.02),
	atLeast("lr_native", 2, 64, original, "requests/s", 10),
	atLeast("lr_native", 2, 64, constantCase, "requests/s", 0.8),
	atMost("lr_native", 2, 1, fastAPI, "p50 us", 0.5),
	atMost("rf_native", 2, 1, fastAPI, "p50 us", 0.5),
	atLeast("null_grpc", 2, 64, mlServer, "requests/s", 10),
	atLeast("rf_onnx_binary", 2, 1, triton, "requests/s", 10),
	atLeast("rf_onnx_binary", 2, 16, triton, "requests/s", 10),
	atLeast("rf_onnx_binary", 2, 64, triton, "requests/s", 10),
	atLeast("rf_onnx_grpc", 2, 1, triton, "requests/s", 10),
	atLeast("rf_onnx_grpc", 2, 16, triton, "requests/s", 10),
	atLeast("rf_onnx_grpc", 2, 64, triton, "requests/s", 10),
	atLeast(embeddingCase, 1, 1, loopCase, "requests/s", 0.9),
	atMostMore("stream_llama", 1, directly(llamaCpp), firstP50, 2000),
	atMostMore("stream_steady", 1, directly(standIn), firstP50, 2000),
	atMostMore("stream_steady", 16, directly(standIn), firstP50, 2000),
	atMostMore("stream_steady", 64, directly(standIn), firstP50, 2000),
	atLeast("stream_llama", 2, 1, directly(llamaCpp), tokenChunks, sameChunks),
	atLeast("stream_steady", 2, 1, directly(standIn), tokenChunks, sameChunks),
	atLeast("stream_steady", 2, 16, directly(standIn), tokenChunks, sameChunks),
	atLeast("stream_steady", 2, 64, directly(standIn), tokenChunks, sameChunks),
	atMostMore("hop_json", 1, callItself, "p50 us", 15*hops),
	atMostMore("hop_tensors", 1, callItself, "p50 us", 15*hops),
	atMost("null_arrivals", 2, 64, original, "p99 us", 0.125),
	atMost("lr_arrivals", 2, 64, original, "p99 us", 0.125),
	atMost("rf_arrivals", 2, 64, original, "p99 us", 0.125),
	atMost("lr_native_arrivals", 2, 64, original, "p99 us", 0.125),
	atMost("rf_native_arrivals", 2, 64, original, "p99 us", 0.125),
	atMost("null", 2, 64, originalGC, "p99 us", 1),
	atMost("lr", 2, 64, originalGC, "p99 us", 1),
	atMost("null", 1, 1, fastAPI, "p50 us", 0.8),
	atMost("lr", 1, 1, fastAPI, "p50 us", 0.8),
	atLeast("null", 2, 64, constantCase, "requests/s", 0.55),
	atMost("neighbour", 1, 64, idleCase, "p99 us", 3),
	absolutely("each of 100 endpoints", "PSS MB", 12),
	absolutely("each of 100 endpoints", "ms to ready", 50),
	absolutely("100 endpoints", "ms to ready", 10_000),
	atMost("forest of 500 MB", 4, 0, oneWorkerCase, "PSS MB", 1.3),
	absolutely("cold start", "ms to health", 50),
	absolutely("cold start", "ms to first answer", 500),
}

func goalOf(k key, against, metric string) *goal {
	for i := range goals {
		g := &goals[i]
		if g.key == k && g.metric == metric && (g.absolute || g.against == against) {
			return g
		}
	}
	return nil
}

func (g *goal) String() string {
	sign, unit := ">=", "x"
	if g.less {
		sign = "<="
	}
	switch {
	case g.absolute:
		unit = ""
	case g.added:
		unit = " more"
	}
	return fmt.Sprintf("%s %g%s", sign, g.bound, unit)
}

func (g *goal) met(r *row) bool {
	value := r.Ratio
	switch {
	case g.absolute:
		value = r.Ours
	case g.added:
		value = r.Ours - r.Theirs
	}
	if g.less {
		return value <= g.bound
	}
	return value >= g.bound
}
