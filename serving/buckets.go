package serving

import (
	"errors"
	"fmt"
	"math"
	"slices"
	"strconv"
	"strings"
)

// MaxBuckets bounds a histogram, against a mistyped number.
const MaxBuckets = 10_000

// ParseBounds reads the bounds of a histogram: "0,0.5,1", or "0/1/5" for five buckets of the same
// width between 0 and 1. They are sorted, each once.
func ParseBounds(text string) ([]float64, error) {
	var bounds []float64
	if parts := strings.Split(text, "/"); len(parts) > 1 {
		if len(parts) != 3 {
			return nil, fmt.Errorf("'%s' should be min/max/number of buckets, for example 0.0/1.0/5", text)
		}
		low, errLow := parseBound(parts[0])
		high, errHigh := parseBound(parts[1])
		n, errN := parseBound(parts[2])
		if err := errors.Join(errLow, errHigh, errN); err != nil {
			return nil, err
		}
		if n != math.Trunc(n) || n < 1 || n > MaxBuckets || high <= low || math.IsInf((high-low)*n, 0) {
			return nil, fmt.Errorf("'%s' should be min/max/number of buckets with min less than max and 1 to %d buckets, for example 0.0/1.0/5", text, MaxBuckets)
		}
		for i := range int(n) + 1 {
			bounds = append(bounds, low+(high-low)*float64(i)/n)
		}
	} else {
		for part := range strings.SplitSeq(text, ",") {
			bound, err := parseBound(part)
			if err != nil {
				return nil, err
			}
			bounds = append(bounds, bound)
		}
	}
	slices.Sort(bounds)
	return slices.Compact(bounds), nil
}

func parseBound(text string) (float64, error) {
	f, err := strconv.ParseFloat(strings.TrimSpace(text), 64)
	if err != nil || math.IsNaN(f) || math.IsInf(f, 0) {
		return 0, fmt.Errorf("bucket '%s' is not a number", text)
	}
	return f, nil
}

// ParseChoices reads the words that a variable may have: "cat,dog".
func ParseChoices(text string) ([]any, error) {
	var values []any
	for word := range strings.SplitSeq(text, ",") {
		word = strings.TrimSpace(word)
		if word == "" {
			return nil, fmt.Errorf("'%s' has an empty word", text)
		}
		if !slices.Contains(values, any(word)) {
			values = append(values, word)
		}
	}
	return values, nil
}
