package serving

import "time"

// Outcome is the result of a request, as Counts describes it.
type Outcome int

// The outcomes.
const (
	Answered Outcome = iota
	Errors
	TimedOut
	Refused
	ClientErrors
	BadRequests
	Outcomes // their number
)

// Sample is the data for statistics of one request that came to a model.
type Sample struct {
	URL EndpointURL
	// Canary is the canary through which the request came, "" for none.
	Canary EndpointURL
	// Latency is the time until the answer or the failure, Queued the part of it before the request
	// was handed to a worker. Only an answer has Queued.
	Latency, Queued time.Duration
	Outcome         Outcome
	// Answered: user code or the engine gave an answer, with any status.
	Answered bool
	// Streamed: the outcome is known, and counted, at the end of the stream.
	Streamed bool
	// RequestBytes and AnswerBytes are the sizes of the bodies, -1 where they are not known: tensors,
	// and streams, whose size is recorded at their end.
	RequestBytes, AnswerBytes int
	// Sampled: the variables of the request are recorded, and it was answered without an error.
	Sampled bool
	// Weight is the number of requests that a sampled one represents: 1 / the sampled share.
	Weight float64
	// Trace is the id of the request's trace, "" if it is not sent.
	Trace string
	// Variables is a JSON object of the logged variables, nil for none. It must not be changed.
	Variables []byte
}
