package drift

import (
	"math"
	"time"

	"gonum.org/v1/gonum/mathext"
)

// halfLives are those of the detector's memories, in rows. The distances that are shown are those of memory
// shown.
var halfLives = [...]float64{250, 1000, 4000, 16000} //nolint:gochecknoglobals // a constant table

const shown = 2

// A batch is the rows between two decisions.
const (
	BatchRows = 100
	BatchTime = time.Minute
)

// unlucky is the probability, over all variables together, that the reference itself is a sample so
// unusual that the detector does not allow for it.
const unlucky = 0.01

// Settings are what a user states.
type Settings struct {
	FalseAlarms float64       // at most so many within Period, over all variables
	Period      time.Duration //
	MinPSI      float64       // smaller drift is no drift
}

// DefaultSettings are one false alarm in 30 days, and drift from PSI 0.01 on.
func DefaultSettings() Settings {
	return Settings{FalseAlarms: 1, Period: 30 * 24 * time.Hour, MinPSI: 0.01}
}

// Threshold returns the logarithm of the evidence at which one of k variables is drifting: the
// expected number of batches before a false alarm is at least its exponential.
func (s Settings) Threshold(k int) float64 {
	batches := max(float64(s.Period)/float64(BatchTime), 1)
	return math.Log(max(float64(max(k, 1))*batches/s.FalseAlarms, 2))
}

// Null is the set of distributions that are no drift: those whose divergence from the reference is at
// most rho.
type Null struct {
	p   []float64
	n   float64 // rows of the reference
	rho float64 // nats
	min float64 // least PSI that counts
}

// NewNull returns the null of one of k watched variables.
func NewNull(v *Variable, k int, minPSI float64) Null {
	n := Null{p: shares(v.Counts), n: float64(v.Rows()), min: max(minPSI, v.Swing)}
	n.rho = max(chiSquareQuantile(1-unlucky/float64(max(k, 1)), positive(v.Counts)-1)/(2*n.n), n.min/2)
	return n
}

// MinPSI is the drift that cannot be told from none: what the settings, the reference's daily cycle or its
// size allow.
func (n Null) MinPSI() float64 { return 2 * n.rho }

// Detector watches one variable: a CUSUM e-detector on the counts of its bins. Its state can be stored as
// JSON.
type Detector struct {
	Memories [len(halfLives)]Memory `json:"memories"`
	Squares  float64                `json:"squares"`         // sum of the squared weights of the rows in the shown memory
	Rows     uint64                 `json:"rows"`            // all rows
	Drifting bool                   `json:"drifting"`        //
	Since    time.Time              `json:"since,omitzero"`  // of the state
	Calm     float64                `json:"calm,omitempty"`  // rows without a visible distance, while drifting
	Alarms   uint64                 `json:"alarms,omitzero"` // how often drift began
}

// Memory is what the detector remembers with one half-life.
type Memory struct {
	Counts []float64 `json:"counts"`
	Score  float64   `json:"score"` // logarithm of the evidence
}

// Change is what a batch changed.
type Change int

// The changes.
const (
	None Change = iota
	Began
	Ended
)

// Batch adds the counts of a batch and decides. threshold is Settings.Threshold.
func (d *Detector) Batch(n Null, counts []uint64, threshold float64, now time.Time) Change {
	m := float64(total(counts))
	if m == 0 {
		return None
	}
	bins := float64(len(n.p))
	q := make([]float64, len(n.p))
	for h := range d.Memories {
		memory := &d.Memories[h]
		if len(memory.Counts) != len(n.p) {
			*memory = Memory{Counts: make([]float64, len(n.p))}
		}
		sum := bins + total(memory.Counts) + 1
		for b := range q { // a prediction from earlier batches only
			q[b] = (bins*n.p[b] + memory.Counts[b] + 1/bins) / sum
		}
		memory.Score = max(0, memory.Score) + n.gain(q, counts)
		keep := math.Exp2(-m / halfLives[h])
		for b, c := range counts {
			memory.Counts[b] = memory.Counts[b]*keep + float64(c)
		}
	}
	d.Squares = d.Squares*math.Exp2(-2*m/halfLives[shown]) + m
	d.Rows += uint64(m)
	if !d.Drifting {
		if d.Evidence() < threshold {
			return None
		}
		d.Drifting, d.Since, d.Calm = true, now, 0
		d.Alarms++
		return Began
	}
	psi, noise := d.Distance(n)
	if psi < max(n.min, noise) {
		d.Calm += m
	} else {
		d.Calm = 0
	}
	if d.Calm < halfLives[shown] {
		return None
	}
	d.Drifting, d.Since, d.Calm = false, now, 0
	for h := range d.Memories {
		d.Memories[h].Score = 0
	}
	return Ended
}

// gain is the logarithm of the batch's likelihood under the prediction q over that under the nearest
// distribution of the null.
func (n Null) gain(q []float64, counts []uint64) float64 {
	if divergence(n.p, q) <= n.rho {
		return 0
	}
	// -sum p ln(1 + t (q/p - 1)) grows with t: find where it is rho.
	low, high := 0.0, 1.0
	for range 30 {
		t := (low + high) / 2
		k := 0.0
		for b, p := range n.p {
			if p > 0 {
				k -= p * math.Log(1+t*(q[b]/p-1))
			}
		}
		if k < n.rho {
			low = t
		} else {
			high = t
		}
	}
	l := 0.0
	for b, c := range counts {
		if c > 0 {
			l += float64(c) * math.Log(q[b]/((1-high)*n.p[b]+high*q[b]))
		}
	}
	return l
}

// divergence is the Kullback-Leibler divergence of q from p, in nats. q is positive.
func divergence(p, q []float64) (k float64) {
	for b := range p {
		if p[b] > 0 {
			k += p[b] * math.Log(p[b]/q[b])
		}
	}
	return k
}

// Evidence is the logarithm of the evidence against the null.
func (d *Detector) Evidence() float64 {
	most := math.Inf(-1)
	for _, m := range d.Memories {
		most = max(most, m.Score)
	}
	sum := 0.0
	for _, m := range d.Memories {
		sum += math.Exp(m.Score - most)
	}
	return most + math.Log(sum) - math.Log(float64(len(d.Memories)))
}

// Live are the decayed counts that the distances are shown of, nil before the first batch.
func (d *Detector) Live() []float64 { return d.Memories[shown].Counts }

// LiveRows is the number of rows that tell as much as the decayed counts.
func (d *Detector) LiveRows() float64 {
	if d.Squares == 0 {
		return 0
	}
	sum := total(d.Live())
	return sum * sum / d.Squares
}

// Shares are the live shares of the bins. A bin whose decayed count is less than half a row is empty.
func (d *Detector) Shares() []float64 {
	q := shares(d.Live())
	least := 0.5 / d.LiveRows()
	for b := range q {
		if q[b] < least {
			q[b] = 0
		}
	}
	return q
}

// Distance returns the PSI of the live values without its expected noise, and the value up to which a PSI
// is noise at 95 %.
func (d *Detector) Distance(n Null) (psi, noise float64) {
	rows := d.LiveRows()
	if rows == 0 {
		return 0, 0
	}
	bins := 0
	for _, p := range n.p {
		if p > 0 {
			bins++
		}
	}
	variance := 1/rows + 1/n.n
	psi = PSI(occupied(n.p, d.Shares())) - float64(bins-1)*variance
	return max(psi, 0), chiSquareQuantile(0.95, bins-1) * variance
}

// chiSquareQuantile is the inverse of the distribution function of chi-squared.
func chiSquareQuantile(p float64, freedom int) float64 {
	if freedom <= 0 {
		return 0
	}
	return 2 * mathext.GammaIncRegCompInv(float64(freedom)/2, 1-p)
}
