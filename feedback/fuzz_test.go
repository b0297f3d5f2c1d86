package feedback

import (
	"encoding/json"
	"net/http"
	"testing"
	"time"

	"clearmlserving/serving"
)

// FuzzTake: whatever a client sends as feedback, and whatever the endpoint has answered, the feedback is
// taken or refused with a reason, and the sums can be exposed and stored.
func FuzzTake(f *testing.F) {
	for _, seed := range [][2]string{
		{`{"request_id": "a", "truth": 1}`, `{"y": 1, "p": 0.5}`},
		{`[{"request_id": "a", "truth": [1, 2]}, {"request_id": "b", "truth": "x"}]`, `{"y": [1, 0], "p": [[0.1, 0.9], {"x": 1}]}`},
		{`{"key": 7, "truth": true}`, `{"y": {"a": [1e999]}}`},
		{`[`, `[]`},
		{`{"request_id": "a", "truth": 1e308}`, `{"y": -1e308, "p": 1e-320}`},
		{``, ``},
	} {
		f.Add([]byte(seed[0]), []byte(seed[1]), seed[0], false)
	}
	dir := f.TempDir()
	s := New(Options{Dir: dir, now: time.Now})
	s.Follow(serving.Plan{Options: map[serving.EndpointURL]serving.EndpointOptions{
		"c": {Feedback: &serving.Feedback{Task: serving.TaskClassification, Prediction: "y", Score: "p"}},
		"r": {Feedback: &serving.Feedback{Task: serving.TaskRegression, Prediction: "y", Key: "id"}},
	}})
	f.Cleanup(s.close)
	f.Fuzz(func(t *testing.T, body, answer []byte, id string, regression bool) {
		endpoint := serving.EndpointURL("c")
		if regression {
			endpoint = "r"
		}
		s.Observe(serving.Observed{ID: id, Exchange: serving.Exchange{Time: time.Now(), Endpoint: endpoint, Status: http.StatusOK, Body: body, Answer: answer}})
		status, text := s.Take(endpoint, body)
		if status != http.StatusOK && status != http.StatusUnprocessableEntity {
			t.Fatalf("%d %s", status, text)
		}
		if !json.Valid(text) {
			t.Errorf("the answer is no JSON: %q", text)
		}
		if problem := s.problem.Load(); problem != nil {
			t.Errorf("the store cannot be used: %s", *problem)
		}
		for _, v := range s.Report(endpoint).Versions {
			if _, err := json.Marshal(v); err != nil {
				t.Errorf("the report cannot be written: %v", err)
			}
		}
	})
}
