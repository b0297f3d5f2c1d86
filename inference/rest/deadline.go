package rest

import (
	"fmt"
	"math"
	"strconv"
	"time"
)

// timeoutHeader is the header with the client's time limit in seconds.
const timeoutHeader = "X-Request-Timeout"

// allowance is the client's time limit for its request, 0 without one.
func allowance(asked string) (time.Duration, error) {
	if asked == "" {
		return 0, nil
	}
	seconds, err := strconv.ParseFloat(asked, 64)
	if err != nil || math.IsNaN(seconds) || seconds <= 0 {
		return 0, fmt.Errorf("header %s: %q is not a number of seconds: give one above 0, such as 2.5", timeoutHeader, asked)
	}
	if seconds >= time.Duration(math.MaxInt64).Seconds() {
		return math.MaxInt64, nil
	}
	return max(time.Duration(seconds*float64(time.Second)), 1), nil
}
