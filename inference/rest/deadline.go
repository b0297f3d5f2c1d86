package rest

import (
	"fmt"
	"math"
	"strconv"
	"time"
)

// timeoutHeader is how a client says within how many seconds it wants its answer.
const timeoutHeader = "X-Request-Timeout"

// allowance is the time that the client allows for its request, 0 when it does not say.
func allowance(asked string) (time.Duration, error) {
	if asked == "" {
		return 0, nil
	}
	seconds, err := strconv.ParseFloat(asked, 64)
	if err != nil || math.IsNaN(seconds) || seconds <= 0 {
		return 0, fmt.Errorf("header %s: %q is no number of seconds: give one above 0, such as 2.5", timeoutHeader, asked)
	}
	if seconds >= time.Duration(math.MaxInt64).Seconds() {
		return math.MaxInt64, nil
	}
	return max(time.Duration(seconds*float64(time.Second)), 1), nil
}
