package serving

import "time"

// Sample is what one answered request leaves for statistics.
type Sample struct {
	URL     EndpointURL
	Latency time.Duration
	// Weight is how many requests the sample stands for: 1 / the share sampled.
	Weight float64
	// Variables is a JSON object of the logged variables, nil for none. It must
	// not be changed.
	Variables []byte
}
