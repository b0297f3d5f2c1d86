package main

import "time"

// Where the constants were measured.
const (
	fromBenchmarks = "make bench (docs/benchmarks.md)"
	fromCluster    = "make cluster-test"
	fromStore      = "make bench-store (docs/control-plane.md)"
	fromMany       = "go run ./bench/scaling -endpoints 100"
)

// kind is what requests ask for.
type kind struct {
	name string
	// cpu is the CPU time of a request in an instance, workers included, while the instance has free time: in the middle between
	// requests one by one and as many as it can answer.
	cpu  time.Duration
	load string // under which it was measured
}

// kinds are in the order of the table.
var kinds = []kind{
	{"forest of 100 trees, computed in Go", 11 * time.Microsecond, "16 connections"},
	{"nothing, in Python", 73 * time.Microsecond, "11,572 requests a second at random times"},
	{"logistic regression, in Python", 141 * time.Microsecond, "7056 requests a second at random times"},
	{"forest of 100 trees, in Python, micro-batched", 418 * time.Microsecond, "16 connections"},
	{"forest of 100 trees, in Python", 1570 * time.Microsecond, "860 requests a second at random times"},
}

// What a request costs besides, in CPU time.
const (
	haproxyRequest    = 15500 * time.Nanosecond
	kafkaRequest      = 1600 * time.Nanosecond
	statisticsRequest = 1200 * time.Nanosecond
	serverCall        = 719 * time.Microsecond
	postgresCall      = 673 * time.Microsecond
)

// What endpoints take, in MB and bytes.
const (
	instanceMemory   = 120.0 // with one endpoint in Python
	pythonEndpoint   = 9.4   // a small scikit-learn model, one worker
	nativeEndpoint   = 0.59  // a logistic regression
	sectionPerRecord = 146   // bytes of an endpoint in the configuration of its service
	seriesOfEndpoint = 155   // of metrics, at each instance
	embeddedSeries   = 100_000
)

// The same as texts.
const (
	nativeText  = "0.59 MB"
	nativeStart = "2 ms"
)

// callsOfInstance is how many calls a second an instance makes of its own: it looks whether its service has changed.
const callsOfInstance = 1.0

// The machines of the tables.
const (
	// As where the constants were measured: more cores for an instance were not.
	coresOfInstance  = 2
	memoryOfInstance = 8 << 10 // MB
	// use is the part of cores, and of the memory for models, that may be in use: the rest is for bursts, new versions and bodies.
	use = 0.6
	// longestWait is what 99 of 100 requests may wait for a core of an instance.
	longestWait = 5 * time.Millisecond
	// endpointsOfInstance is the most for one instance, and so for one service: the first deployment of so many takes ten minutes.
	endpointsOfInstance = 1000
)

// constant is a row of the table of constants.
type constant struct{ what, value, measured string }

func constants() []constant {
	var all []constant
	for _, k := range kinds {
		all = append(all, constant{"CPU of a request in an instance: " + k.name, micros(k.cpu), fromBenchmarks + ", " + k.load})
	}
	return append(all,
		constant{"CPU of a request in HAProxy", micros(haproxyRequest), fromCluster + ", 2 instances, 64 connections"},
		constant{"CPU of a request in the Kafka broker", micros(kafkaRequest), fromCluster},
		constant{"CPU of a request in the role statistics", micros(statisticsRequest), fromCluster},
		constant{"CPU of a call in a ClearML server", micros(serverCall), fromCluster + ", tasks.get_by_id, 8 connections"},
		constant{"the same in PostgreSQL", micros(postgresCall), fromCluster},
		constant{"calls of an idle instance", "1 a second", "the interval is the program's"},
		constant{"memory of an instance with one endpoint in Python", "120 MB", fromBenchmarks},
		constant{"memory of a further endpoint in Python", "6.8 to 10 MB", fromBenchmarks + "; 9.4 in the tables"},
		constant{"memory of an endpoint computed in Go", nativeText, fromMany},
		constant{"time of an endpoint computed in Go, when many are deployed at once", nativeStart, "go run ./bench/scaling -endpoints 1000"},
		constant{"an endpoint in the configuration of its service", "146 bytes", fromMany},
		constant{"series of metrics of an endpoint, at each instance", "155", fromMany},
		constant{"series that a ClearML server keeps in memory", "100,000", "the bound is the program's; 3 to 4 kB each (docs/timeseries.md)"},
		constant{"a list of 100,000 models, first page, on SQLite", "12 ms of CPU", fromStore},
		constant{"memory of a ClearML server, of a replica of statistics", "61 MB, 25 MB", fromCluster},
		constant{"memory of HAProxy, of the Kafka broker, of PostgreSQL", "12 MB, 372 MB, 89 MB", fromCluster},
	)
}
