package serving

import (
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"
)

// The kinds of predictions.
const (
	TaskClassification = "classification"
	TaskRegression     = "regression"
)

// Tasks lists the kinds of predictions.
func Tasks() []string { return []string{TaskClassification, TaskRegression} }

// Feedback makes instances keep the predictions of an endpoint, so that they can be compared with
// what turns out to be true later.
type Feedback struct {
	Task string `record:"task,required"`
	// Prediction is the path of the predicted value in the answer, "" for the whole answer.
	Prediction string `record:"prediction"`
	// Score is the path of the probabilities in the answer, "" for none.
	Score string `record:"score"`
	// Key is the path of the client's own key in the request, "": feedback names the request id.
	Key string `record:"key"`
	// Positive is the class that a single probability is about; "": 1 or true.
	Positive string `record:"positive"`
	// Classes are the classes in the order of a list of probabilities; nil: 0, 1, 2, ...
	Classes []string `record:"classes"`
	Days    int      `record:"days"`    // for which predictions are kept; 0: DefaultFeedbackDays
	MaxMiB  int      `record:"max_mib"` // of the predictions of one endpoint; 0: DefaultFeedbackMiB
	Unknown map[string]json.RawMessage
}

// The default bounds of kept predictions.
const (
	DefaultFeedbackDays = 30
	DefaultFeedbackMiB  = 256

	maxFeedbackDays = 3660
	maxFeedbackMiB  = 1 << 20
	maxClasses      = 10_000
)

// Retention is the time for which predictions are kept.
func (f Feedback) Retention() time.Duration {
	days := f.Days
	if days == 0 {
		days = DefaultFeedbackDays
	}
	return time.Duration(days) * 24 * time.Hour
}

// Limit is the size in bytes of the kept predictions.
func (f Feedback) Limit() int64 {
	size := f.MaxMiB
	if size == 0 {
		size = DefaultFeedbackMiB
	}
	return int64(size) << 20
}

// FeedbackOf returns the feedback option of an endpoint: its own, that of the auto-updated endpoint that
// makes it, or that of one of its versions; nil without one.
func (s Service) FeedbackOf(endpoint EndpointURL) *Feedback {
	var near *Feedback
	for _, key := range slices.Sorted(maps.Keys(s.Options)) {
		url, f := CleanURL(key), s.Options[key].Feedback
		switch {
		case f == nil:
		case url == endpoint:
			return f
		case strings.HasPrefix(string(endpoint), string(url)+"/"), strings.HasPrefix(string(url), string(endpoint)+"/"):
			near = f
		}
	}
	return near
}

func (f Feedback) validate() error {
	if !slices.Contains(Tasks(), f.Task) {
		return &FieldError{Field: "task", Value: f.Task, Why: "is not known: give one of " + strings.Join(Tasks(), ", ")}
	}
	if f.Task == TaskRegression && (f.Score != "" || f.Positive != "" || f.Classes != nil) {
		return &FieldError{Field: "task", Value: f.Task, Why: "has no probabilities: leave out score, positive and classes"}
	}
	for field, path := range map[string]string{"prediction": f.Prediction, "score": f.Score, "key": f.Key} {
		if path != "" && strings.Trim(path, ". ") == "" {
			return &FieldError{Field: field, Value: fmt.Sprintf("%q", path), Why: "names no field"}
		}
	}
	if len(f.Classes) > maxClasses {
		return &FieldError{Field: "classes", Value: fmt.Sprint(len(f.Classes)), Why: fmt.Sprintf("are too many: give at most %d", maxClasses)}
	}
	known := map[string]bool{}
	for _, class := range f.Classes {
		if known[class] {
			return &FieldError{Field: "classes", Value: fmt.Sprintf("%q", class), Why: "is there twice: give each class once, in the order of the probabilities"}
		}
		known[class] = true
	}
	if f.Days < 0 || f.Days > maxFeedbackDays {
		return &FieldError{Field: "days", Value: fmt.Sprint(f.Days), Why: fmt.Sprintf("is not usable: give 1 to %d", maxFeedbackDays)}
	}
	if f.MaxMiB < 0 || f.MaxMiB > maxFeedbackMiB {
		return &FieldError{Field: "max_mib", Value: fmt.Sprint(f.MaxMiB), Why: fmt.Sprintf("is not usable: give 1 to %d", maxFeedbackMiB)}
	}
	return nil
}

// RequestLog makes instances keep a share of the requests and answers as tables in Parquet files.
type RequestLog struct {
	Share   float64  `record:"share,always"` // 0 to 1
	Redact  []string `record:"redact"`       // fields that are blanked before anything is written; see RedactJSON
	Unknown map[string]json.RawMessage
}

func (l RequestLog) validate() error {
	if err := validateShare(l.Share); err != nil {
		return err
	}
	return validateRedact(l.Redact)
}

func validateRedact(names []string) error {
	for _, name := range names {
		if strings.Trim(name, ". ") == "" {
			return &FieldError{Field: "redact", Value: fmt.Sprintf("%q", name), Why: "names no field"}
		}
	}
	return nil
}

// Observed is an answered or failed request of a client or of user code, as copied for those that
// keep it. Its memory is not reused.
type Observed struct {
	Exchange

	ID      string // of the request
	Latency time.Duration
	// Streamed: the answer was a stream, and is not in the Exchange.
	Streamed bool
}

// Answerer is the endpoint that answered.
func (o Observed) Answerer() EndpointURL {
	if o.AnsweredBy != "" {
		return o.AnsweredBy
	}
	return o.Endpoint
}
