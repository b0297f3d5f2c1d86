package inference

import (
	"fmt"
	"math"
	"strconv"
	"time"
)

// timeoutHeader is how a client says within how many seconds it wants its answer.
const timeoutHeader = "X-Request-Timeout"

// allowance is the time that a request may take: the endpoint's, or less when the
// client asks for less; 0 for no bound. More than the endpoint's is not to be had.
func allowance(asked string, endpoint time.Duration) (time.Duration, error) {
	if asked == "" {
		return endpoint, nil
	}
	seconds, err := strconv.ParseFloat(asked, 64)
	if err != nil || math.IsNaN(seconds) || seconds <= 0 {
		return 0, fmt.Errorf("header %s: %q is no number of seconds: give one above 0, such as 2.5", timeoutHeader, asked)
	}
	most := endpoint
	if most <= 0 {
		most = math.MaxInt64
	}
	if seconds >= most.Seconds() {
		return endpoint, nil
	}
	return max(time.Duration(seconds*float64(time.Second)), 1), nil
}
