package jsontensor

import "math"

// Float16 is the value of a number of 16 bits (IEEE 754 binary16).
func Float16(bits uint16) float64 {
	sign, exponent, fraction := 1.0, int(bits>>10&0x1f), float64(bits&0x3ff)
	if bits>>15 == 1 {
		sign = -1
	}
	switch {
	case exponent == 0x1f && fraction == 0:
		return math.Inf(int(sign))
	case exponent == 0x1f:
		return math.NaN()
	case exponent == 0:
		return sign * math.Ldexp(fraction, -24)
	}
	return sign * math.Ldexp(fraction+1024, exponent-25)
}

// float16 rounds to the nearest number of 16 bits, to the even one of two.
func float16(v float64) uint16 {
	sign := uint16(0)
	if math.Signbit(v) {
		sign = 1 << 15
	}
	v = math.Abs(v)
	switch {
	case math.IsNaN(v):
		return 0x7e00
	case v >= 65520: // halfway between the largest number and the next
		return sign | 0x7c00
	case v < math.Ldexp(1, -14):
		return sign | uint16(math.RoundToEven(math.Ldexp(v, 24))) // 1024, if it rounds to the next, is its bits
	}
	_, exponent := math.Frexp(v) // v = f * 2^exponent, 0.5 <= f < 1
	fraction := math.RoundToEven(math.Ldexp(v, 11-exponent))
	return sign | uint16((exponent+13)<<10) + uint16(fraction) //nolint:gosec // in range
}

// bfloat16 rounds to the nearest number of 16 bits with the exponent of 32 bits, to the even one of two.
func bfloat16(v float32) uint16 {
	bits := math.Float32bits(v)
	if v != v {
		return uint16(bits>>16) | 0x40
	}
	return uint16((uint64(bits) + 0x7fff + uint64(bits>>16&1)) >> 16) //nolint:gosec // in range
}
