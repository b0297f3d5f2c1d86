package main

import (
	"fmt"
	"io"
	"math"
	"strconv"
	"strings"
	"time"

	"github.com/dustin/go-humanize"
)

var (
	rates  = []int{10, 1000, 100_000}
	counts = []int{10, 1000, 100_000}
)

// demand is what a number of requests a second needs.
type demand struct {
	instances                           int
	wait                                time.Duration // while one of them is away
	busy                                float64       // part of the instances' cores
	haproxy, kafka, statistics, servers float64       // cores
	limit                               string
}

// plan computes what a rate of one kind of requests needs.
func plan(rate int, k kind) demand {
	var d demand
	d.instances, d.wait = instancesFor(float64(rate), k.cpu, coresOfInstance, longestWait)
	d.instances++ // one may be away: it is restarted, or its machine is
	models := float64(rate) * k.cpu.Seconds()
	d.busy = models / float64(d.instances*coresOfInstance)
	cores := func(perSecond float64, cost time.Duration) float64 { return perSecond * cost.Seconds() / use }
	d.haproxy = cores(float64(rate), haproxyRequest)
	d.kafka = cores(float64(rate), kafkaRequest)
	d.statistics = cores(float64(rate), statisticsRequest)
	d.servers = cores(float64(d.instances)*callsOfInstance, serverCall)
	switch {
	case float64(rate)*haproxyRequest.Seconds() > models:
		d.limit = "the balancer"
	default:
		d.limit = "cores of instances"
	}
	if d.instances == 2 && d.haproxy < 1 {
		d.limit = "nothing"
	}
	return d
}

// room is what a number of endpoints needs, of one kind.
type room struct {
	services int     // each has endpoints for one instance
	memory   float64 // MB, of an instance of one of them
	section  int     // bytes of the configuration of one of them
	series   int     // of all instances, two for each service
}

// house spreads endpoints of so much memory each over services.
func house(endpoints int, each float64) room {
	most := min(endpointsOfInstance, int((use*memoryOfInstance-instanceMemory)/each))
	services := ceil(float64(endpoints) / float64(most))
	of := ceil(float64(endpoints) / float64(services))
	return room{services, instanceMemory + float64(of-1)*each, of * sectionPerRecord, 2 * endpoints * seriesOfEndpoint}
}

func ceil(f float64) int { return int(math.Ceil(f)) }

// tables prints what docs/scaling.md has.
func tables(w io.Writer) error {
	t := table{w: w}
	t.line("## What a part costs\n")
	t.row("constant", "value", "measured by")
	t.row("---", "---:", "---")
	for _, c := range constants() {
		t.row(c.what, c.value, c.measured)
	}
	t.line("\n## Requests a second\n")
	t.row("requests a second", "kind", "instances, one more than needed", "their cores are busy", "99 of 100 wait less than, with one away", "HAProxy, cores", "Kafka, cores", "statistics, cores", "ClearML servers, cores", "what limits")
	t.row("---:", "---", "---:", "---:", "---:", "---:", "---:", "---:", "---:", "---")
	for _, rate := range rates {
		for _, k := range kinds {
			d := plan(rate, k)
			t.row(humanize.Comma(int64(rate)), k.name, humanize.Comma(int64(d.instances)), percent(d.busy), millis(d.wait),
				few(d.haproxy), few(d.kafka), few(d.statistics), few(d.servers), d.limit)
		}
	}
	t.line("\n## Endpoints and models\n")
	t.row("endpoints", "kind", "services", "endpoints of a service", "memory of an instance", "configuration of a service", "instances, two for each service", "their series of metrics", "kept by")
	t.row("---:", "---", "---:", "---:", "---:", "---:", "---:", "---:", "---")
	for _, n := range counts {
		for _, of := range []struct {
			name string
			each float64
		}{{"in Python, one worker", pythonEndpoint}, {"computed in Go", nativeEndpoint}} {
			r := house(n, of.each)
			keeper := "the ClearML server"
			if r.series > embeddedSeries {
				keeper = "Prometheus"
			}
			t.row(humanize.Comma(int64(n)), of.name, humanize.Comma(int64(r.services)), humanize.Comma(int64(r.section/sectionPerRecord)), size(r.memory), size(float64(r.section)/(1<<20)),
				humanize.Comma(int64(2*r.services)), humanize.Comma(int64(r.series)), keeper)
		}
	}
	return t.err
}

// table prints rows of Markdown; err is the first failure.
type table struct {
	w   io.Writer
	err error
}

func (t *table) row(cells ...string) {
	var text strings.Builder
	text.WriteString("|")
	for _, cell := range cells {
		text.WriteString(" " + cell + " |")
	}
	t.line(text.String())
}

func (t *table) line(text string) {
	if t.err == nil {
		_, t.err = fmt.Fprintln(t.w, text)
	}
}

func micros(d time.Duration) string {
	return strconv.FormatFloat(float64(d)/float64(time.Microsecond), 'f', -1, 64) + " µs"
}

func millis(d time.Duration) string {
	d = max(d, 100*time.Microsecond) // below, the machine's noise is more
	return strconv.FormatFloat(math.Ceil(float64(d)/float64(time.Millisecond)*10)/10, 'f', 1, 64) + " ms"
}

// percent rounds up, so that little is not nothing.
func percent(part float64) string { return strconv.Itoa(ceil(100*part)) + " %" }

// few prints a number of cores.
func few(cores float64) string {
	if cores < 0.01 {
		return "< 0.01"
	}
	return strconv.FormatFloat(cores, 'f', 2, 64)
}

// size prints MB.
func size(mb float64) string {
	switch {
	case mb >= 1<<10:
		return strconv.FormatFloat(mb/(1<<10), 'f', 1, 64) + " GB"
	case mb >= 1:
		return strconv.FormatFloat(mb, 'f', 0, 64) + " MB"
	default:
		return strconv.FormatFloat(mb*(1<<10), 'f', 0, 64) + " kB"
	}
}
