package drift

import (
	"math"

	"gonum.org/v1/gonum/mathext"
)

// The distances below describe how far live values are from the reference. They decide nothing. p and q
// are shares of the same bins.

// PSI is the population stability index. Empty bins get a small share, as in Evidently.
func PSI(p, q []float64) (psi float64) {
	emptyP, emptyQ := emptyShare(p), emptyShare(q)
	for b := range p {
		x, y := p[b], q[b]
		if x == 0 {
			x = emptyP
		}
		if y == 0 {
			y = emptyQ
		}
		psi += (x - y) * math.Log(x/y)
	}
	return psi
}

// emptyShare is what replaces an empty bin.
func emptyShare(p []float64) float64 {
	least := 1.0
	for _, x := range p {
		if x > 0 {
			least = min(least, x)
		}
	}
	if least <= 0.0001 {
		return least / 1e6
	}
	return 0.0001
}

// occupied returns the shares of the bins that are not empty in both.
func occupied(p, q []float64) (a, b []float64) {
	for i := range p {
		if p[i] > 0 || q[i] > 0 {
			a, b = append(a, p[i]), append(b, q[i])
		}
	}
	return a, b
}

// JensenShannon is the Jensen-Shannon distance: the root of the divergence in nats.
func JensenShannon(p, q []float64) float64 {
	sum := 0.0
	for b := range p {
		m := (p[b] + q[b]) / 2
		if p[b] > 0 {
			sum += p[b] * math.Log(p[b]/m)
		}
		if q[b] > 0 {
			sum += q[b] * math.Log(q[b]/m)
		}
	}
	return math.Sqrt(max(sum/2, 0))
}

// Wasserstein is the distance by which values move on average, between bins at ascending positions,
// divided by the reference's standard deviation.
func Wasserstein(p, q, at []float64, std float64) float64 {
	work, ahead := 0.0, 0.0
	for b := range len(at) - 1 {
		ahead += p[b] - q[b]
		work += math.Abs(ahead) * (at[b+1] - at[b])
	}
	if moved := work / max(std, 0.001); moved <= math.MaxFloat64 {
		return moved
	}
	return math.MaxFloat64 // of huge numbers: a report cannot have an infinite one, or none
}

// KolmogorovSmirnov is the p value of the largest difference between two distribution functions, of n
// and m values.
func KolmogorovSmirnov(p, q []float64, n, m float64) float64 {
	if n < 1 || m < 1 {
		return 1
	}
	most, ahead := 0.0, 0.0
	for b := range p {
		ahead += p[b] - q[b]
		most = max(most, math.Abs(ahead))
	}
	return kolmogorovTail(int(math.RoundToEven(n*m/(n+m))), most)
}

// ChiSquare is the p value of the counts of m values in q if p were the truth. A value in a bin where p has
// none is impossible, which is p value 0.
func ChiSquare(p, q []float64, m float64) float64 {
	sum, bins := 0.0, 0
	for b := range p {
		switch {
		case p[b] > 0:
			d := q[b] - p[b]
			sum += m * d * d / p[b]
			bins++
		case q[b] > 0:
			return 0
		}
	}
	if bins < 2 {
		return 1
	}
	return mathext.GammaIncRegComp(float64(bins-1)/2, sum/2)
}

// exactRows is the size up to which the distribution of Kolmogorov and Smirnov is computed exactly.
const exactRows = 140

// kolmogorovTail is the probability that the distribution function of n values is d or more away from
// the true one.
func kolmogorovTail(n int, d float64) float64 {
	x := float64(n) * d * d
	switch {
	case n < 1 || d <= 0:
		return 1
	case d >= 1:
		return 0
	case x >= 18:
		return 0
	case n <= exactRows, n <= 100_000 && float64(n)*math.Pow(d, 1.5) <= 1.4: // a small matrix
		return min(max(1-marsaglia(n, d), 0), 1)
	}
	return min(max(1-pelzGood(float64(n), d), 0), 1)
}

// marsaglia is the distribution function by Marsaglia, Tsang and Wang (Journal of Statistical Software
// 8(18), 2003): an element of the n-th power of a matrix.
func marsaglia(n int, d float64) float64 {
	k := int(float64(n)*d) + 1
	size := 2*k - 1
	h := float64(k) - float64(n)*d
	matrix := newSquare(size)
	for i := range size {
		for j := range size {
			if i-j+1 >= 0 {
				matrix.set(i, j, 1)
			}
		}
	}
	for i := range size {
		matrix.set(i, 0, matrix.at(i, 0)-math.Pow(h, float64(i+1)))
		matrix.set(size-1, i, matrix.at(size-1, i)-math.Pow(h, float64(size-i)))
	}
	if 2*h-1 > 0 {
		matrix.set(size-1, 0, matrix.at(size-1, 0)+math.Pow(2*h-1, float64(size)))
	}
	for i := range size {
		for j := range size {
			for g := 2; g <= i-j+1; g++ {
				matrix.set(i, j, matrix.at(i, j)/float64(g))
			}
		}
	}
	power, exponent := matrix.power(n)
	s := power.at(k-1, k-1)
	for i := 1; i <= n; i++ {
		s = s * float64(i) / float64(n)
		if s < 1e-140 {
			s *= 1e140
			exponent -= 140
		}
	}
	return s * math.Pow10(exponent)
}

// square is a matrix.
type square struct {
	n      int
	values []float64
}

func newSquare(n int) square { return square{n, make([]float64, n*n)} }

func (s square) at(i, j int) float64     { return s.values[i*s.n+j] }
func (s square) set(i, j int, v float64) { s.values[i*s.n+j] = v }

func (s square) times(o square) square {
	r := newSquare(s.n)
	for i := range s.n {
		for k := range s.n {
			v := s.at(i, k)
			for j := range s.n {
				r.values[i*s.n+j] += v * o.at(k, j)
			}
		}
	}
	return r
}

// power returns the n-th power without the factor 10^exponent.
func (s square) power(n int) (result square, exponent int) {
	if n == 1 {
		return s, 0
	}
	half, e := s.power(n / 2)
	result, exponent = half.times(half), 2*e
	if n%2 == 1 {
		result = result.times(s)
	}
	if result.at(s.n/2, s.n/2) > 1e140 {
		for i := range result.values {
			result.values[i] *= 1e-140
		}
		exponent += 140
	}
	return result, exponent
}

// pelzGood is the distribution function by Pelz and Good (Journal of the Royal Statistical Society B
// 38(2), 1976): the limit for large n with three corrections.
func pelzGood(n, d float64) float64 {
	z := math.Sqrt(n) * d
	z2, z4, z6 := z*z, math.Pow(z, 4), math.Pow(z, 6)
	pi2, pi4, pi6 := math.Pi*math.Pi, math.Pow(math.Pi, 4), math.Pow(math.Pi, 6)
	var k0, k1, k2, k3, k2b, k3b float64
	for k := range 40 {
		h := float64(k) + 0.5
		h2 := h * h
		e := math.Exp(-h2 * pi2 / (2 * z2))
		k0 += e
		k1 += (pi2*h2 - z2) * e
		k2 += (6*z6 + 2*z4 + pi2*(2*z4-5*z2)*h2 + pi4*(1-2*z2)*h2*h2) * e
		k3 += (-30*z6 - 90*z6*z2 + pi2*(135*z4-96*z6)*h2 + pi4*(212*z4-60*z2)*h2*h2 + pi6*h2*h2*h2*(5-30*z2)) * e
		if k > 0 {
			i2 := float64(k * k)
			e := math.Exp(-i2 * pi2 / (2 * z2))
			k2b += i2 * e
			k3b += (3*pi2*i2*z2 - pi4*i2*i2) * e
		}
	}
	root := math.Sqrt(2 * math.Pi)
	k0 *= root / z
	k1 *= root / (6 * z4)
	k2 = k2*root/(72*z6*z) - k2b*pi2*root/(36*z2*z)
	k3 = k3*root/(6480*z6*z4) + k3b*root/(216*z6)
	return k0 + k1/math.Sqrt(n) + k2/n + k3/(n*math.Sqrt(n))
}

// Distances are what is shown of a variable.
type Distances struct {
	PSI           float64 `json:"psi"`            // without its expected noise
	Noise         float64 `json:"noise"`          // a PSI up to this is noise, at 95 %
	JensenShannon float64 `json:"jensen_shannon"` //
	Wasserstein   float64 `json:"wasserstein"`    // numbers only, in standard deviations of the reference
	P             float64 `json:"p"`              // of Kolmogorov-Smirnov for numbers, of chi-squared for categories
}

// Distances compares the live values that the detector remembers with the reference.
func (d *Detector) Distances(v *Variable, n Null) Distances {
	rows := d.LiveRows()
	if rows == 0 {
		return Distances{P: 1}
	}
	q := d.Shares()
	all := Distances{JensenShannon: JensenShannon(n.p, q)}
	all.PSI, all.Noise = d.Distance(n)
	if v.Kind == Category {
		all.P = ChiSquare(n.p, q, rows)
		return all
	}
	last := len(n.p) - 1
	presentP, presentQ := 1-n.p[last], 1-q[last]
	if presentP <= 0 || presentQ <= 0 {
		all.P = 1
		return all
	}
	numbersP, numbersQ := shares(n.p[:last]), shares(q[:last])
	all.Wasserstein = Wasserstein(numbersP, numbersQ, v.Centers, v.Std)
	all.P = KolmogorovSmirnov(numbersP, numbersQ, n.n*presentP, rows*presentQ)
	return all
}
