package native

import (
	"fmt"
	"math"
	"math/big"
)

// The exponential functions of the GNU C library (since 2.28), which the libraries of the models call. The
// algorithms and the numbers in this file are those of Arm's Optimized Routines, from which the
// C library has them; see docs/dependencies.md for their licence. Each function exists with
// fused multiply-adds and without, because the C library chooses by the processor and the results differ in the
// last bit.
//
// A product that is added to something is converted explicitly where it must be rounded: Go may fuse it
// otherwise.

const (
	expN     = 128
	shift    = 0x1.8p52
	invLn2N  = 0x1.71547652b82fep0 * expN
	negLn2hi = -0x1.62e42fefa0000p-8
	negLn2lo = -0x1.cf79abc9e3b39p-47
	expC2    = 0x1.ffffffffffdbdp-2
	expC3    = 0x1.555555555543cp-3
	expC4    = 0x1.55555cf172b91p-5
	expC5    = 0x1.1111167a4d017p-7

	expfN  = 32
	expfC0 = 0x1.c6af84b912394p-5 / expfN / expfN / expfN
	expfC1 = 0x1.ebfce50fac4f3p-3 / expfN / expfN
	expfC2 = 0x1.62e42ff0c52d6p-1 / expfN

	ln2hi = 0x1.62e42fefa3800p-1
	ln2lo = 0x1.ef35793c76730p-45
)

// expTable holds, for 2^(i/expN), its relative rounding error and its bits without the exponent i/expN;
// expfTable the bits for 2^(i/expfN).
var expTable, expfTable = powersOfTwo() //nolint:gochecknoglobals // constant tables

func powersOfTwo() (table [2 * expN]uint64, tablef [expfN]uint64) {
	const precision = 200
	root := new(big.Float).SetPrec(precision).SetInt64(2) // 2^(1/128)
	for range 7 {
		root.Sqrt(root)
	}
	exact := new(big.Float).SetPrec(precision).SetInt64(1)
	for i := range expN {
		rounded, _ := exact.Float64()
		h := new(big.Float).SetPrec(precision).SetFloat64(rounded)
		tail := new(big.Float).SetPrec(precision).Sub(exact, h)
		t, _ := tail.Quo(tail, h).Float64()
		table[2*i] = math.Float64bits(t)
		table[2*i+1] = math.Float64bits(rounded) - uint64(i)<<(52-7)
		if i%(expN/expfN) == 0 {
			j := i / (expN / expfN)
			tablef[j] = math.Float64bits(rounded) - uint64(j)<<(52-5)
		}
		exact.Mul(exact, root)
	}
	return table, tablef
}

func top12(x float64) uint32 { return uint32(math.Float64bits(x) >> 52) }

// expSpecial is the end of exp for results that may overflow or underflow.
func expSpecial(tmp float64, sbits, ki uint64, fused bool) float64 {
	if ki&0x80000000 == 0 {
		scale := math.Float64frombits(sbits - 1009<<52)
		if fused {
			return 0x1p1009 * math.FMA(scale, tmp, scale)
		}
		return 0x1p1009 * (scale + float64(scale*tmp))
	}
	scale := math.Float64frombits(sbits + 1022<<52)
	product := float64(scale * tmp)
	y := scale + product
	if y < 1 {
		lo := scale - y + product
		hi := 1 + y
		lo = 1 - hi + y + lo
		y = (hi + lo) - 1
		if y == 0 {
			y = 0 // not -0
		}
	}
	return 0x1p-1022 * y
}

// expRange tells whether x needs special treatment: the result itself, or that the end is special.
func expRange(x float64) (result float64, done, special bool) {
	abstop := top12(x) & 0x7ff
	if abstop-0x3c9 < 0x408-0x3c9 { // 2^-54 <= |x| < 512
		return 0, false, false
	}
	if abstop-0x3c9 >= 0x80000000 {
		return 1 + x, true, false
	}
	if abstop >= 0x409 { // |x| >= 1024
		switch {
		case math.IsInf(x, -1):
			return 0, true, false
		case abstop >= 0x7ff:
			return 1 + x, true, false
		case x < 0:
			return 0, true, false
		}
		return math.Inf(1), true, false
	}
	return 0, false, true
}

// expFused is exp on processors with fused multiply-add.
func expFused(x float64) float64 {
	result, done, special := expRange(x)
	if done {
		return result
	}
	kd := math.FMA(invLn2N, x, shift)
	ki := math.Float64bits(kd)
	kd -= shift
	r := math.FMA(kd, negLn2lo, math.FMA(kd, negLn2hi, x))
	i := 2 * (ki % expN)
	sbits := expTable[i+1] + ki<<(52-7)
	r2 := r * r
	tmp := math.FMA(r2, math.FMA(r, expC3, expC2), math.Float64frombits(expTable[i])+r)
	tmp = math.FMA(r2*r2, math.FMA(r, expC5, expC4), tmp)
	if special {
		return expSpecial(tmp, sbits, ki, true)
	}
	scale := math.Float64frombits(sbits)
	return math.FMA(scale, tmp, scale)
}

// expPlain is exp on processors without fused multiply-add.
func expPlain(x float64) float64 {
	result, done, special := expRange(x)
	if done {
		return result
	}
	kd := float64(invLn2N*x) + shift
	ki := math.Float64bits(kd)
	kd -= shift
	r := x + float64(kd*negLn2hi) + float64(kd*negLn2lo)
	i := 2 * (ki % expN)
	sbits := expTable[i+1] + ki<<(52-7)
	r2 := float64(r * r)
	tmp := math.Float64frombits(expTable[i]) + r + float64(r2*(expC2+float64(r*expC3))) +
		float64(float64(r2*r2)*(expC4+float64(r*expC5)))
	if special {
		return expSpecial(tmp, sbits, ki, false)
	}
	scale := math.Float64frombits(sbits)
	return scale + float64(scale*tmp)
}

// expf is the C library's expf. Fused or not makes no difference for its results.
func expf(x float32) float32 {
	if abstop := math.Float32bits(x) >> 20 & 0x7ff; abstop >= 0x42b { // |x| >= 88, or NaN
		switch {
		case math.Float32bits(x) == 0xff800000:
			return 0
		case abstop >= 0x7f8:
			return x + x
		case x > 0x1.62e42ep6:
			return float32(math.Inf(1))
		case x < -0x1.9fe368p6:
			return 0
		case x < -0x1.9d1d9ep6:
			return math.SmallestNonzeroFloat32
		}
	}
	z := float64(invLn2N / expN * expfN * float64(x))
	kd := z + shift
	ki := math.Float64bits(kd)
	kd -= shift
	r := z - kd
	s := math.Float64frombits(expfTable[ki%expfN] + ki<<(52-5))
	z = float64(expfC0*r) + expfC1
	y := float64(expfC2*r) + 1
	y = float64(z*float64(r*r)) + y
	return float32(float64(y * s))
}

// exp2Fused is pow(2, y) on processors with fused multiply-add.
func exp2Fused(y float64) float64 {
	if result, done := exp2Range(y); done {
		return result
	}
	hi, lo := ln2()
	ehi := float64(y * hi)
	elo := math.FMA(y, lo, math.FMA(y, hi, -ehi))
	result, done, special := expRange(ehi)
	if done {
		return result
	}
	kd := math.FMA(invLn2N, ehi, shift)
	ki := math.Float64bits(kd)
	kd -= shift
	r := math.FMA(kd, negLn2lo, math.FMA(kd, negLn2hi, ehi)) + elo
	i := 2 * (ki % expN)
	sbits := expTable[i+1] + ki<<(52-7)
	r2 := r * r
	tmp := math.FMA(r2, math.FMA(r, expC3, expC2), math.Float64frombits(expTable[i])+r)
	tmp = math.FMA(r2*r2, math.FMA(r, expC5, expC4), tmp)
	if special {
		return expSpecial(tmp, sbits, ki, true)
	}
	scale := math.Float64frombits(sbits)
	return math.FMA(scale, tmp, scale)
}

// exp2Plain is pow(2, y) on processors without fused multiply-add.
func exp2Plain(y float64) float64 {
	if result, done := exp2Range(y); done {
		return result
	}
	hi, lo := ln2()
	const mask = ^uint64(1<<27 - 1)
	yhi := math.Float64frombits(math.Float64bits(y) & mask)
	ylo := y - yhi
	lhi := math.Float64frombits(math.Float64bits(hi) & mask)
	llo := hi - lhi + lo
	ehi := float64(yhi * lhi)
	elo := float64(ylo*lhi) + float64(y*llo)
	result, done, special := expRange(ehi)
	if done {
		return result
	}
	kd := float64(invLn2N*ehi) + shift
	ki := math.Float64bits(kd)
	kd -= shift
	r := ehi + float64(kd*negLn2hi) + float64(kd*negLn2lo)
	r += elo
	i := 2 * (ki % expN)
	sbits := expTable[i+1] + ki<<(52-7)
	r2 := float64(r * r)
	tmp := math.Float64frombits(expTable[i]) + r + float64(r2*(expC2+float64(r*expC3))) +
		float64(float64(r2*r2)*(expC4+float64(r*expC5)))
	if special {
		return expSpecial(tmp, sbits, ki, false)
	}
	scale := math.Float64frombits(sbits)
	return scale + float64(scale*tmp)
}

// exp2Range has the results of pow(2, y) that need no computation.
func exp2Range(y float64) (result float64, done bool) {
	switch {
	case y != y:
		return y, true
	case math.Abs(y) < 0x1p-65:
		return 1, true
	case y >= 1024:
		return math.Inf(1), true
	case y < -1080:
		return 0, true
	}
	return 0, false
}

// ln2 is the logarithm of 2 as pow computes it: the sum of two numbers.
func ln2() (hi, lo float64) {
	hi, lo = ln2hi, ln2lo
	y := hi + lo
	return y, hi - y + lo
}

// mathVariant are the functions of the process that made the file. A nil function is unknown: the results of
// this program's are close to its, but not the same.
type mathVariant struct {
	exp, exp2, numpyExp, numpyExp2 func(float64) float64
	expf                           func(float32) float32
}

// A Probe is a table of a function's values, computed by the process that made the file.
type Probe struct {
	// Function is exp, expf or exp2 (pow with base 2) of the C library, or numpy.exp or numpy.exp2
	// (numpy.power with base 2).
	Function string `json:"function"`
	X        Array  `json:"x"`
	Y        Array  `json:"y"`
}

// recognize finds the functions with exactly the values of the probes.
func recognize(f *file, probes []Probe) (v mathVariant, err error) {
	for _, p := range probes {
		if p.Function == "expf" {
			x, errX := elements[float32](f, "probe x", p.X)
			y, errY := elements[float32](f, "probe y", p.Y)
			if errX != nil || errY != nil || len(x) != len(y) || len(x) == 0 {
				return v, fmt.Errorf("probe %s: not two arrays of equal length", p.Function)
			}
			if matches(expf, x, y, math.Float32bits) {
				v.expf = expf
			}
			continue
		}
		x, errX := elements[float64](f, "probe x", p.X)
		y, errY := elements[float64](f, "probe y", p.Y)
		if errX != nil || errY != nil || len(x) != len(y) || len(x) == 0 {
			return v, fmt.Errorf("probe %s: not two arrays of equal length", p.Function)
		}
		variants := []func(float64) float64{expFused, expPlain}
		if p.Function == "exp2" || p.Function == "numpy.exp2" {
			variants = []func(float64) float64{exp2Fused, exp2Plain}
		}
		var found func(float64) float64
		for _, f := range variants {
			if matches(f, x, y, math.Float64bits) {
				found = f
				break
			}
		}
		switch p.Function {
		case "exp":
			v.exp = found
		case "exp2":
			v.exp2 = found
		case "numpy.exp":
			v.numpyExp = found
		case "numpy.exp2":
			v.numpyExp2 = found
		default:
			return v, fmt.Errorf("probe of %q, which this program does not know", p.Function)
		}
	}
	return v, nil
}

func matches[F float32 | float64, B uint32 | uint64](f func(F) F, x, y []F, bits func(F) B) bool {
	for i := range x {
		if got := f(x[i]); bits(got) != bits(y[i]) && (got == got || y[i] == y[i]) {
			return false
		}
	}
	return true
}
