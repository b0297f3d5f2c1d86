package batching

import (
	"math"
	"time"
)

// fit estimates the duration of a batch: perRow·rows + perBatch. Older batches count less,
// so that it follows a model whose inputs or neighbours change. The zero value has no
// samples.
type fit struct {
	samples          int
	n, x, y, xx, xy  float64 // weighted sums
	perRow, perBatch float64 // in nanoseconds
}

// fitMemory is the factor by which each new sample reduces the weight of older ones: about
// 64 samples count.
const fitMemory = 1 - 1.0/64

// fitSamples is the number of samples that a fit needs.
const fitSamples = 3

func (f *fit) add(rows int, took time.Duration) {
	if rows <= 0 || took <= 0 {
		return
	}
	x, y := float64(rows), float64(took)
	f.samples++
	f.n, f.x, f.y = f.n*fitMemory+1, f.x*fitMemory+x, f.y*fitMemory+y
	f.xx, f.xy = f.xx*fitMemory+x*x, f.xy*fitMemory+x*y

	meanX, meanY := f.x/f.n, f.y/f.n
	spread := f.xx/f.n - meanX*meanX
	slope := 0.0
	if spread > 1e-3*meanX*meanX {
		slope = (f.xy/f.n - meanX*meanY) / spread
	} else {
		slope = meanY / meanX // all of one size: attributed to the rows, which never promises too much
	}
	// A negative part is noise: the other part then has all.
	f.perRow = min(max(slope, 0), meanY/meanX)
	f.perBatch = max(meanY-f.perRow*meanX, 0)
}

func (f *fit) known() bool { return f.samples >= fitSamples }

// of estimates the duration of a batch of this many rows; 0 if unknown.
func (f *fit) of(rows float64) time.Duration {
	if !f.known() {
		return 0
	}
	return time.Duration(f.perRow*rows + f.perBatch)
}

// rowsIn estimates how many rows can be executed in that time; below 1 if not even one can.
func (f *fit) rowsIn(d time.Duration) float64 {
	left := float64(d) - f.perBatch
	switch {
	case !f.known():
		return math.Inf(1)
	case left < 0:
		return 0
	case f.perRow == 0:
		return math.Inf(1)
	}
	return left / f.perRow
}
