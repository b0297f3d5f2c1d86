package main

import (
	"bytes"
	"math"
	"os"
	"strings"
	"testing"
	"time"
)

func TestOneCoreWaitsAsTheTheoryOfQueuesSays(t *testing.T) {
	for _, busy := range []float64{0.3, 0.6, 0.8} {
		const service = 10 * time.Millisecond
		var sum time.Duration
		all := waits(busy/service.Seconds(), service, 1, 400_000)
		for _, wait := range all {
			sum += wait
		}
		mean := sum.Seconds() / float64(len(all))
		if want := service.Seconds() * busy / (2 * (1 - busy)); math.Abs(mean-want) > 0.05*want { // Pollaczek and Khinchine
			t.Errorf("with a core that is busy %g of the time the mean wait is %g s, want %g s", busy, mean, want)
		}
	}
}

func TestACoreMoreShortensTheWaitAndNobodyWaitsForAFreeOne(t *testing.T) {
	const service = 10 * time.Millisecond
	before := time.Duration(math.MaxInt64)
	for cores := 1; cores <= 4; cores++ {
		all := waits(80, service, cores, simulated) // one core is busy 80 % of the time
		now := all[len(all)*99/100]
		if now >= before {
			t.Errorf("with %d cores 99 of 100 wait %v, with one less %v", cores, now, before)
		}
		before = now
	}
	if all := waits(1, time.Millisecond, 64, simulated); all[len(all)-1] != 0 {
		t.Errorf("a request waits %v while cores are free", all[len(all)-1])
	}
}

func TestOneInstanceLessWouldBreakTheRule(t *testing.T) {
	for _, k := range kinds {
		for _, rate := range []float64{1000, 20_000} {
			n, wait := instancesFor(rate, k.cpu, coresOfInstance, longestWait)
			if busy := rate * k.cpu.Seconds() / float64(n*coresOfInstance); wait > longestWait || busy > use {
				t.Errorf("%s, %g a second: %d instances are busy %g, the wait is %v", k.name, rate, n, busy, wait)
			}
			if n == 1 {
				continue
			}
			all := waits(rate/float64(n-1), k.cpu, coresOfInstance, simulated)
			if busy := rate * k.cpu.Seconds() / float64((n-1)*coresOfInstance); all[len(all)*99/100] <= longestWait && busy <= use {
				t.Errorf("%s, %g a second: %d instances are enough, not %d", k.name, rate, n-1, n)
			}
		}
	}
}

func TestEndpointsOfAServiceFitIntoItsInstances(t *testing.T) {
	for _, n := range []int{1, 10, 509, 511, 1000, 100_000} {
		for _, each := range []float64{pythonEndpoint, nativeEndpoint} {
			r := house(n, each)
			if most := r.section / sectionPerRecord; r.memory > use*memoryOfInstance || most > endpointsOfInstance || r.services*most < n || (r.services-1)*most >= n {
				t.Errorf("%d endpoints of %g MB: %+v", n, each, r)
			}
		}
	}
}

func TestReference(t *testing.T) {
	const page = "../../docs/scaling.md"
	const begin, end = "<!-- The tables are generated: UPDATE=1 go test ./bench/scaling -run Reference -->\n\n", "\n<!-- end of the tables -->"
	text, err := os.ReadFile(page)
	if err != nil {
		t.Fatal(err)
	}
	head, rest, found := strings.Cut(string(text), begin)
	old, tail, closed := strings.Cut(rest, end)
	if !found || !closed {
		t.Fatalf("%s does not have the marks of the tables", page)
	}
	var b bytes.Buffer
	if err := tables(&b); err != nil {
		t.Fatal(err)
	}
	if b.String() == old {
		return
	}
	if os.Getenv("UPDATE") == "" {
		t.Fatalf("%s is not what bench/scaling computes: UPDATE=1 go test ./bench/scaling -run Reference", page)
	}
	if err := os.WriteFile(page, []byte(head+begin+b.String()+end+tail), 0o644); err != nil {
		t.Fatal(err)
	}
}
