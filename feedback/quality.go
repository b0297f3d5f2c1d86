package feedback

import (
	"math"
	"slices"
)

const (
	maxClasses = 200 // that are counted one by one, of one version
	otherClass = "other"
	bins       = 10 // of the calibration
)

// Prediction is the kept value of one row.
type Prediction struct {
	Class  string             `json:"class,omitempty"`
	Number *float64           `json:"number,omitempty"`
	Score  *float64           `json:"score,omitempty"`  // the probability of the positive class
	Scores map[string]float64 `json:"scores,omitempty"` // by class
}

// Truth is what a row turned out to be.
type Truth struct {
	Class  string   `json:"class,omitempty"`
	Number *float64 `json:"number,omitempty"`
}

// Totals are sums over joined rows. All measures follow from them, and the sums of several instances
// or days can be added.
type Totals struct {
	Rows uint64 `json:"rows"`
	// Correct is the number of rows whose predicted class was true.
	Correct uint64                 `json:"correct,omitempty"`
	Classes map[string]*ClassCount `json:"classes,omitempty"`
	LogLoss Mean                   `json:"log_loss,omitzero"`
	Bins    [bins]Bin              `json:"bins,omitzero"`
	// Absolute and Squared are sums of errors of numbers.
	Absolute Mean `json:"absolute,omitzero"`
	Squared  Mean `json:"squared,omitzero"`
	// Numbers and Positive say how the rows were judged last.
	Numbers  bool   `json:"numbers,omitempty"`
	Positive string `json:"positive,omitempty"`
}

// ClassCount counts the rows of one class.
type ClassCount struct {
	Predicted uint64 `json:"predicted,omitempty"`
	Actual    uint64 `json:"actual,omitempty"`
	Both      uint64 `json:"both,omitempty"`
}

// Mean is a sum with the number of its terms. Low has the rounding error of Sum.
type Mean struct {
	Sum float64 `json:"sum"`
	Low float64 `json:"low,omitempty"`
	N   uint64  `json:"n"`
}

func (m *Mean) add(x float64, n uint64) { // after Neumaier
	sum := m.Sum + x
	if math.Abs(m.Sum) >= math.Abs(x) {
		m.Low += (m.Sum - sum) + x
	} else {
		m.Low += (x - sum) + m.Sum
	}
	m.Sum = sum
	m.N += n
}

// Total is the sum.
func (m Mean) Total() float64 { return m.Sum + m.Low }

// Value is the mean, NaN without terms.
func (m Mean) Value() float64 { return m.Total() / float64(m.N) }

// Bin has the rows whose probability is in one tenth.
type Bin struct {
	Rows     uint64 `json:"rows"`
	Positive uint64 `json:"positive"` // of the class that the probability is about
	Score    Mean   `json:"score"`
}

// add counts one row. positive is the class that single probabilities are about, "" for the default.
func (t *Totals) add(p Prediction, y Truth, positive string) {
	t.Rows++
	if y.Number != nil {
		t.Numbers = true
		if p.Number != nil {
			e := math.Abs(*p.Number - *y.Number)
			t.Absolute.add(e, 1)
			t.Squared.add(e*e, 1)
		}
		return
	}
	t.Positive = positive
	if p.Class == y.Class {
		t.Correct++
	}
	t.class(p.Class).Predicted++
	t.class(y.Class).Actual++
	if p.Class == y.Class {
		t.class(y.Class).Both++
	}
	switch {
	case p.Score != nil:
		hit := isPositive(y.Class, positive)
		if hit {
			t.loss(*p.Score)
		} else {
			t.loss(1 - *p.Score)
		}
		t.calibrate(*p.Score, hit)
	case p.Scores != nil:
		t.loss(p.Scores[y.Class])
		best, class := -1.0, ""
		for name, score := range p.Scores {
			if score > best || score == best && name < class {
				best, class = score, name
			}
		}
		t.calibrate(best, class == y.Class)
	}
}

// class returns the count of a class, or that of all beyond the limit.
func (t *Totals) class(name string) *ClassCount {
	if c := t.Classes[name]; c != nil {
		return c
	}
	if len(t.Classes) >= maxClasses {
		name = otherClass
		if c := t.Classes[name]; c != nil {
			return c
		}
	}
	if t.Classes == nil {
		t.Classes = map[string]*ClassCount{}
	}
	c := &ClassCount{}
	t.Classes[name] = c
	return c
}

// loss adds the logarithmic loss of the probability that the true class had. It is bounded as in
// scikit-learn, by the precision of the number.
func (t *Totals) loss(p float64) {
	const epsilon = 0x1p-52
	t.LogLoss.add(-math.Log(min(max(p, epsilon), 1-epsilon)), 1)
}

func (t *Totals) calibrate(p float64, hit bool) {
	step := 1.0 / bins
	i := 0
	for i < bins-1 && float64(i+1)*step < p {
		i++
	}
	b := &t.Bins[i]
	b.Rows++
	b.Score.add(p, 1)
	if hit {
		b.Positive++
	}
}

// Merge adds the sums of other.
func (t *Totals) Merge(other Totals) {
	t.Rows += other.Rows
	t.Correct += other.Correct
	t.Numbers = t.Numbers || other.Numbers
	if other.Positive != "" {
		t.Positive = other.Positive
	}
	for name, c := range other.Classes {
		sum := t.class(name)
		sum.Predicted += c.Predicted
		sum.Actual += c.Actual
		sum.Both += c.Both
	}
	for _, pair := range [][2]*Mean{{&t.LogLoss, &other.LogLoss}, {&t.Absolute, &other.Absolute}, {&t.Squared, &other.Squared}} {
		pair[0].merge(*pair[1])
	}
	for i := range t.Bins {
		t.Bins[i].Rows += other.Bins[i].Rows
		t.Bins[i].Positive += other.Bins[i].Positive
		t.Bins[i].Score.merge(other.Bins[i].Score)
	}
}

func (m *Mean) merge(other Mean) {
	m.add(other.Sum, other.N)
	m.add(other.Low, 0)
}

// clone copies the sums.
func (t Totals) clone() *Totals {
	next := t
	next.Classes = nil
	for name, c := range t.Classes {
		if next.Classes == nil {
			next.Classes = make(map[string]*ClassCount, len(t.Classes))
		}
		copied := *c
		next.Classes[name] = &copied
	}
	return &next
}

// The measures of quality, as they are named in metrics and answers.
const (
	Accuracy = "accuracy"
	F1Macro  = "f1_macro"
	F1Binary = "f1_binary"
	LogLoss  = "log_loss"
	ECE      = "ece"
	MAE      = "mae"
	RMSE     = "rmse"
)

// Measures computes the measures that the rows have: of classes, of probabilities, or of numbers.
func (t Totals) Measures() map[string]float64 {
	m := map[string]float64{}
	if t.Absolute.N > 0 {
		m[MAE], m[RMSE] = t.Absolute.Value(), math.Sqrt(t.Squared.Value())
	}
	if len(t.Classes) > 0 {
		judged := uint64(0)
		sum, positives := 0.0, 0
		names := make([]string, 0, len(t.Classes))
		for name := range t.Classes {
			names = append(names, name)
		}
		slices.Sort(names) // the same sum each time
		for _, name := range names {
			c := t.Classes[name]
			judged += c.Actual
			f1 := 2 * float64(c.Both) / float64(c.Predicted+c.Actual)
			sum += f1
			if isPositive(name, t.Positive) {
				m[F1Binary] = f1
				positives++
			}
		}
		m[Accuracy], m[F1Macro] = float64(t.Correct)/float64(judged), sum/float64(len(t.Classes))
		if positives != 1 || len(t.Classes) > 2 {
			delete(m, F1Binary)
		}
	}
	if t.LogLoss.N > 0 {
		m[LogLoss] = t.LogLoss.Value()
		gap, rows := 0.0, uint64(0)
		for _, b := range t.Bins {
			if b.Rows > 0 {
				gap += math.Abs(b.Score.Total() - float64(b.Positive))
				rows += b.Rows
			}
		}
		m[ECE] = gap / float64(rows)
	}
	return m
}

// isPositive reports whether a class is the positive one of two.
func isPositive(class, positive string) bool {
	if positive != "" {
		return class == positive
	}
	return class == "1" || class == "true"
}
