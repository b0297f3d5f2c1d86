package canary

import (
	"math"
	"time"
)

// Bins of latencies: bin i ends at least * ratio^i. The last one has all longer latencies.
const (
	Bins  = 400
	least = 100 * time.Microsecond
	ratio = 1.04
)

//nolint:gochecknoglobals // a constant
var logRatio = math.Log(ratio)

// Bin is the bin of a latency.
func Bin(latency time.Duration) int {
	if latency <= least {
		return 0
	}
	return min(int(math.Ceil(math.Log(float64(latency)/float64(least))/logRatio)), Bins-1)
}

// BinEnd is the longest latency of a bin.
func BinEnd(bin int) time.Duration {
	return time.Duration(float64(least) * math.Pow(ratio, float64(bin)))
}

const (
	// enoughLatencies is how many latencies of the baseline the rules of latency wait for.
	enoughLatencies = 500
	// forgetting of the baseline's history in one minute.
	kept = 0.98
	// slackTime is the difference of latencies, beside one bin, that makes no answer slow.
	slackTime = 2 * time.Millisecond
	// leastShare bounds the assumed share of slow answers.
	leastShare = 1e-4
)

// history has the baseline's latencies, older ones with less weight.
type history struct {
	bins  [Bins]float64
	total float64
	unit  float64 // the weight of a new latency
	seen  uint64
}

func (h *history) add(latencies []uint32) {
	if h.unit == 0 {
		h.unit = 1
	}
	for i, n := range latencies {
		if n > 0 {
			h.bins[i] += h.unit * float64(n)
			h.total += h.unit * float64(n)
			h.seen += uint64(n)
		}
	}
}

// forget makes the latencies so far older.
func (h *history) forget(elapsed time.Duration) {
	if h.total == 0 || elapsed <= 0 {
		return
	}
	h.unit *= math.Pow(kept, -elapsed.Minutes())
	if h.unit > 1e9 {
		for i := range h.bins {
			h.bins[i] /= h.unit
		}
		h.total /= h.unit
		h.unit = 1
	}
}

// threshold is the last bin that is not slow, and the share of slow latencies in the history.
func (h *history) threshold(quantile float64) (bin int, share float64) {
	sum := 0.0
	for i, n := range h.bins {
		sum += n
		if sum >= quantile*h.total {
			return i, max(1-sum/h.total, leastShare)
		}
	}
	return Bins - 1, leastShare
}

// Judge collects the evidence of one instance. It belongs to one goroutine.
type Judge struct {
	Evidence  Evidence
	tolerance float64
	history   history
	promotion map[float64][][][3]float64 // by share: the logarithms of a clause's factors, see bets
}

// NewJudge returns a Judge that has seen nothing.
func NewJudge(rules Rules) *Judge {
	return &Judge{tolerance: rules.tolerance()}
}

// Latencies reports whether enough latencies of the baseline are known to compare with.
func (j *Judge) Latencies() bool { return j.history.seen >= enoughLatencies }

// Observe adds the requests of a batch to the evidence. A batch without a draw, with a share of 0 or
// 1, changes nothing.
func (j *Judge) Observe(b Batch) {
	if !(b.Share > 0 && b.Share < 1) {
		return
	}
	e := &j.Evidence
	c, base := b.Canary, b.Baseline
	e.Canary.add(c.Requests, c.Errors, c.ClientErrors)
	e.Baseline.add(base.Requests, base.Errors, base.ClientErrors)
	j.against(Errors, b.Share, c.Errors, base.Errors)
	j.against(ClientErrors, b.Share, c.ClientErrors, base.ClientErrors)
	j.within(FewErrors, b.Share, c.Requests, base.Requests, c.Errors+c.ClientErrors, base.Errors+base.ClientErrors)
	if j.Latencies() && (c.Latencies != nil || base.Latencies != nil) {
		j.compareLatencies(b)
	}
	j.history.forget(b.Elapsed)
	j.history.add(base.Latencies)
}

// compareLatencies compares with the history before the batch.
func (j *Judge) compareLatencies(b Batch) {
	for _, s := range slower {
		bin, share := j.history.threshold(s.quantile)
		allC, slowC := split(b.Canary.Latencies, slack(bin))
		allB, slowB := split(b.Baseline.Latencies, bin)
		if j.tolerance > 1 {
			// Bets on the faster answers need the share of slow ones, which is only assumed: they
			// are valid without a tolerance only.
			j.against(s.rule, b.Share, slowC, slowB)
		} else {
			j.twoSided(s.rule, b.Share, share, slowC, slowB, allC-slowC, allB-slowB)
		}
		switch s.rule {
		case Slower90:
			j.within(Fast90, b.Share, allC, allB, slowC, slowB)
		case Slower99:
			j.within(Fast99, b.Share, allC, allB, slowC, slowB)
		}
	}
}

// slack is the last bin of a canary's latency that is not slow, where bin is that of the baseline. A
// canary with the same code may be a little slower: its processes are asked less often, and have
// colder caches. Such a difference is no reason for a rollback, however sure it is.
func slack(bin int) int { return Bin(BinEnd(bin+1) + slackTime) }

// split counts all latencies, and those above a bin.
func split(latencies []uint32, bin int) (all, above uint64) {
	for i, n := range latencies {
		all += uint64(n)
		if i > bin {
			above += uint64(n)
		}
	}
	return all, above
}

// The bounds of what one batch adds to the logarithm of the evidence against a canary. Requests that wait
// behind the same stall, or die with the same process, are not independent: one incident must not
// decide. A bounded factor has a smaller mean, so that the error bound holds.
//
//nolint:gochecknoglobals // constants
var (
	mostErrors   = math.Log(10)
	mostSlower50 = math.Log(6)
	mostSlower   = math.Log(3)
)

// against bets on the labels of events: c of the canary, b of the baseline.
func (j *Judge) against(rule Rule, w float64, c, b uint64) {
	if c+b == 0 {
		return
	}
	risks := grid(rule, j.tolerance)
	l := j.Evidence.wealth(rule, len(risks))
	even := 1 - w + w*j.tolerance
	for k, r := range risks {
		l[k] += min(float64(c)*math.Log(r/j.tolerance)-float64(c+b)*math.Log((1-w+w*r)/even), most(rule))
	}
}

func most(rule Rule) float64 {
	switch rule {
	case Errors, ClientErrors:
		return mostErrors
	case Slower50:
		return mostSlower50
	case Slower90, Slower99:
	}
	return mostSlower
}

// twoSided bets on the labels of slow and of fast answers, with p the share of slow ones.
func (j *Judge) twoSided(rule Rule, w, p float64, slowC, slowB, fastC, fastB uint64) {
	if slowC+slowB+fastC+fastB == 0 {
		return
	}
	risks := grid(rule, 1)
	l := j.Evidence.wealth(rule, len(risks))
	for k, r := range risks {
		r = min(r, 1+0.95*(1/p-1))
		fast := (1 - p*r) / (1 - p)
		l[k] += min(most(rule), float64(slowC)*math.Log(r)-float64(slowC+slowB)*math.Log(1-w+w*r)+
			float64(fastC)*math.Log(fast)-float64(fastC+fastB)*math.Log(1-w+w*fast))
	}
}

// within bets that the canary's rate of events exceeds the baseline's by less than each difference.
// all and events count the requests of canary and baseline.
func (j *Judge) within(c Clause, w float64, allC, allB, eventsC, eventsB uint64) {
	if allC+allB+eventsC+eventsB == 0 {
		return
	}
	l := j.Evidence.clause(c)
	// It is negative after a stream that failed when its request had been counted as one without an
	// event: that corrects the count.
	none := float64(allC+allB) - float64(eventsC+eventsB)
	for i, bets := range j.bets(c, w) {
		for k, log := range bets {
			l[i][k] += float64(eventsC)*log[0] + float64(eventsB)*log[1] + none*log[2]
		}
	}
}

// bets are the logarithms of a promotion's factors: of an event of the canary, of an event of the
// baseline, and of another request; by difference and fraction.
func (j *Judge) bets(c Clause, w float64) [][][3]float64 {
	key := w
	switch c { // one table for each clause: the shares are below 1
	case Fast90:
		key += 1
	case Fast99:
		key += 2
	}
	if known, ok := j.promotion[key]; ok {
		return known
	}
	var all [][][3]float64
	for _, delta := range c.Deltas() {
		bets := make([][3]float64, len(fractions))
		for k, f := range fractions {
			bet := f / (1/w - delta)
			bets[k] = [3]float64{math.Log1p(bet * (delta - 1/w)), math.Log1p(bet * (delta + 1/(1-w))), math.Log1p(bet * delta)}
		}
		all = append(all, bets)
	}
	if j.promotion == nil || len(j.promotion) > 60 { // steps have few shares
		j.promotion = map[float64][][][3]float64{}
	}
	j.promotion[key] = all
	return all
}
