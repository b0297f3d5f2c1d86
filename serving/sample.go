package serving

import "time"

// Sample is the data of one answered request for statistics.
type Sample struct {
	URL     EndpointURL
	Latency time.Duration
	// Weight is the number of requests that the sample represents: 1 / the sampled share.
	Weight float64
	// Variables is a JSON object of the logged variables, nil for none. It must not be changed.
	Variables []byte
}
