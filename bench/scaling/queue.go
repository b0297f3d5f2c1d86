package main

import (
	"container/heap"
	"math"
	"math/rand/v2"
	"slices"
	"time"
)

// seed makes every simulation the same.
const seed = 1

// waits simulates requests that come at random times, rate a second, to an instance of some cores, each busy for service with
// one of them, first come first served. It returns how long each waited for a core, sorted.
func waits(rate float64, service time.Duration, cores, requests int) []time.Duration {
	random := rand.New(rand.NewPCG(seed, seed)) //nolint:gosec // a simulation needs no secrecy
	free := make(instants, cores)               // when each core is free
	var now float64
	all := make([]time.Duration, 0, requests)
	for range requests {
		now += random.ExpFloat64() / rate
		begins := max(now, free[0])
		all = append(all, time.Duration((begins-now)*float64(time.Second)))
		free[0] = begins + service.Seconds()
		heap.Fix(&free, 0)
	}
	slices.Sort(all)
	return all
}

// instants is a heap of times in seconds.
type instants []float64

func (h instants) Len() int           { return len(h) }
func (h instants) Less(i, j int) bool { return h[i] < h[j] }
func (h instants) Swap(i, j int)      { h[i], h[j] = h[j], h[i] }
func (h *instants) Push(any)          { panic("the number of cores is fixed") }
func (h *instants) Pop() any          { panic("the number of cores is fixed") }

// simulated is how many requests a simulation has.
const simulated = 100_000

// instancesFor is the least number of instances whose cores are busy no more than they may, and with which 99 of 100 requests
// wait no longer than the limit; wait is what they wait then. The balancer gives each the same part of the requests.
func instancesFor(rate float64, service time.Duration, cores int, limit time.Duration) (n int, wait time.Duration) {
	n = max(1, int(math.Ceil(rate*service.Seconds()/float64(cores)/use)))
	for ; ; n++ {
		all := waits(rate/float64(n), service, cores, simulated)
		if wait = all[len(all)*99/100]; wait <= limit {
			return n, wait
		}
	}
}
