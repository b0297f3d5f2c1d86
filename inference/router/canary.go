package router

import (
	"math"
	"math/rand/v2"
	"slices"

	"clearmlserving/serving"
)

// Canary is a weighted choice among live models.
type Canary struct {
	URL     serving.EndpointURL
	Targets []*Live
	Stats   *Stats // of the requests that reach no target
	Arms    *Arms  // counts the requests of a rollout, nil: there is none, or nothing is drawn
	shares  []float64
	limits  []uint64 // limits[i] is the upper end of target i's range of random numbers
	problem *NotReadyError
}

// NewCanary prepares the choice. Shares are the targets' weights, of any sum;
// without a target of positive weight, Draw fails with the reason.
func NewCanary(url serving.EndpointURL, targets []*Live, shares []float64, reason string) *Canary {
	c := &Canary{URL: url, Targets: targets, Stats: &Stats{}, shares: shares, limits: make([]uint64, len(targets))}
	sum := 0.0
	for _, s := range shares {
		sum += s
	}
	if len(targets) == 0 || !(sum > 0) {
		if reason == "" {
			reason = "it has no endpoint to choose from"
		}
		c.Targets, c.problem = nil, &NotReadyError{URL: url, Obstacle: Obstacle{Reason: "canary: " + reason}}
		return c
	}
	upTo := 0.0
	for i, s := range shares {
		upTo += s / sum
		c.limits[i] = uint64(min(upTo, 1) * (1 << 63))
	}
	c.limits[len(c.limits)-1] = math.MaxUint64 // rounding must not leave draws without a target
	return c
}

// Draw chooses a target. Draws are independent; on average each target
// gets its share. arms counts the request, unless there was no draw.
func (c *Canary) Draw() (live *Live, arms *Arms, err error) {
	if c.problem != nil {
		return nil, nil, c.problem
	}
	if len(c.Targets) == 1 {
		return c.Targets[0], nil, nil
	}
	if c.Arms.Withdrawn() {
		if i := slices.IndexFunc(c.Targets, func(l *Live) bool { return l.URL == c.Arms.Baseline }); i >= 0 {
			return c.Targets[i], nil, nil
		}
	}
	return c.toss(), c.Arms, nil
}

// Main returns the target that gets most requests, the first of several: what is told about the canary does not
// depend on a draw.
func (c *Canary) Main() (*Live, error) {
	if c.problem != nil {
		return nil, c.problem
	}
	main := 0
	for i, share := range c.shares {
		if share > c.shares[main] {
			main = i
		}
	}
	return c.Targets[main], nil
}

func (c *Canary) toss() *Live {
	n := rand.Uint64() >> 1 //nolint:gosec // a traffic split needs no cryptographic randomness
	for i, limit := range c.limits {
		if n < limit {
			return c.Targets[i]
		}
	}
	return c.Targets[len(c.Targets)-1]
}

// Refresh returns the same choice among the present models of the
// targets' urls. It returns nil if there are none.
func (c *Canary) Refresh(models map[serving.EndpointURL]*Live) *Canary {
	var targets []*Live
	var shares []float64
	for i, old := range c.Targets {
		if live, ok := models[old.URL]; ok {
			targets, shares = append(targets, live), append(shares, c.shares[i])
		}
	}
	if len(targets) == 0 {
		return nil
	}
	next := NewCanary(c.URL, targets, shares, "")
	next.Stats = c.Stats
	if len(targets) == len(c.Targets) { // the shares are the same
		next.Arms = c.Arms
	}
	return next
}

// Shares are the targets' fractions of the requests; they sum to 1.
func (c *Canary) Shares() map[serving.EndpointURL]float64 {
	shares := make(map[serving.EndpointURL]float64, len(c.Targets))
	sum := 0.0
	for i := range c.Targets {
		sum += c.shares[i]
	}
	for i, target := range c.Targets {
		shares[target.URL] += c.shares[i] / sum
	}
	return shares
}
