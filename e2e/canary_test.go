//go:build linux

package e2e_test

import (
	"encoding/json"
	"fmt"
	"math"
	"math/rand/v2"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

// traffic sends requests to an endpoint at a rate, and counts who answered.
type traffic struct {
	candidate, baseline, failed, bad atomic.Int64
	stop                             func()
}

// send begins traffic at perSecond to the given installations, one after the other.
func send(t *testing.T, perSecond int, to ...*system) *traffic {
	t.Helper()
	return sendUpTo(t, 1, perSecond, to...)
}

// sendUpTo sends requests whose r is below a bound.
func sendUpTo(t *testing.T, bound float64, perSecond int, to ...*system) *traffic {
	t.Helper()
	tr := &traffic{}
	done := make(chan struct{})
	var all sync.WaitGroup
	all.Go(func() {
		ticker := time.NewTicker(time.Second / time.Duration(perSecond))
		defer ticker.Stop()
		slots := make(chan struct{}, 200)
		var requests sync.WaitGroup
		defer requests.Wait()
		for i := 0; ; i++ {
			select {
			case <-done:
				return
			case <-ticker.C:
			}
			slots <- struct{}{}
			requests.Go(func() {
				defer func() { <-slots }()
				req, err := http.NewRequest(http.MethodPost, to[i%len(to)].urls["serve"]+"/serve/m", strings.NewReader(fmt.Sprintf(`{"r":%g}`, bound*rand.Float64())))
				if err != nil {
					t.Error(err)
					return
				}
				req.Header.Set("Content-Type", "application/json")
				resp, err := client.Do(req)
				if err != nil {
					tr.failed.Add(1)
					return
				}
				resp.Body.Close()
				switch resp.Header.Get("X-Clearml-Endpoint") {
				case "m/2":
					tr.candidate.Add(1)
				case "m/1":
					tr.baseline.Add(1)
				}
				if resp.StatusCode != http.StatusOK {
					tr.bad.Add(1)
				}
			})
		}
	})
	tr.stop = sync.OnceFunc(func() {
		close(done)
		all.Wait()
	})
	t.Cleanup(tr.stop)
	return tr
}

// canaryVersions adds a baseline m/1 and a candidate m/2 with these bodies of process.
func canaryVersions(t *testing.T, s *system, candidate string) {
	t.Helper()
	s.must(t, "create", "--name", "canary")
	addVersions(t, s, candidate)
}

func addVersions(t *testing.T, s *system, candidate string) {
	t.Helper()
	for version, answer := range map[string]string{"1": `return {"y": 1}`, "2": candidate} {
		s.must(t, "model", "add", "--engine", "custom", "--endpoint", "m", "--version", version, "--preprocess", judgedVersion(t, s, "version"+version, answer), "--wait")
	}
}

// rollout is the stored state of the canary m.
type rollout struct {
	Phase  string
	Step   int
	Events []struct {
		Time           time.Time
		By, What, Note string
		Share          float64
	}
}

func (s *system) rollout(t *testing.T) rollout {
	t.Helper()
	var list struct {
		Rollouts map[string]rollout `json:"canary_rollouts"`
	}
	out := s.must(t, "--json", "model", "list")
	if err := json.Unmarshal([]byte(out), &list); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	return list.Rollouts["m"]
}

// becomes waits until the rollout has this phase.
func (s *system) becomes(t *testing.T, phase string) rollout {
	t.Helper()
	var r rollout
	s.eventually(t, patience, "the canary is "+phase, func() error {
		if r = s.rollout(t); r.Phase != phase {
			_, status := s.get(t, s.urls["admin"]+"/status")
			return fmt.Errorf("it is %+v; status: %s", r, status)
		}
		return nil
	})
	return r
}

// failingHalf is a candidate that fails for half of the requests.
func failingHalf(exception string) string {
	return "if data[\"r\"] < 0.5:\n            raise " + exception + "(\"broken\")\n        return {\"y\": 1}"
}

func TestAWorseCanaryIsBackAtTheBaselineWithinTenSeconds(t *testing.T) {
	for _, exception := range []string{"RuntimeError", "ValueError"} { // status 500, and 422
		t.Run(exception, func(t *testing.T) {
			s := up(t)
			canaryVersions(t, s, failingHalf(exception))
			s.must(t, "model", "canary", "--endpoint", "m", "--steps", "10", "50", "100", "--step-time", "1s", "--input-endpoints", "m/2", "m/1", "--wait")
			begun := time.Now()
			tr := send(t, 100, s)
			r := s.becomes(t, "rolled back")
			end := r.Events[len(r.Events)-1]
			t.Logf("rolled back after %s: %s; candidate answered %d, baseline %d", end.Time.Sub(begun).Round(time.Second), end.Note, tr.candidate.Load(), tr.baseline.Load())
			if end.By != "canary analysis" || !strings.Contains(end.Note, "evidence") {
				t.Errorf("the history does not tell who decided and why: %+v", end)
			}
			if took := end.Time.Sub(begun); took > 10*time.Second {
				t.Errorf("it was rolled back after %s", took)
			}
			for _, e := range r.Events {
				if e.Share > 0.1 {
					t.Errorf("it got more than the first step: %+v", e)
				}
			}
			got, all := float64(tr.candidate.Load()), float64(tr.candidate.Load()+tr.baseline.Load())
			if got > 0.1*all+5*math.Sqrt(0.09*all)+1 {
				t.Errorf("the candidate answered %v of %v requests", got, all)
			}
			s.eventually(t, patience, "the baseline answers all requests", func() error {
				before := tr.candidate.Load()
				time.Sleep(time.Second)
				if n := tr.candidate.Load() - before; n > 0 {
					return fmt.Errorf("the candidate answered %d requests in a second", n)
				}
				return nil
			})
			tr.stop()
			if n := tr.failed.Load(); n > 0 {
				t.Errorf("%d requests were not answered", n)
			}
		})
	}
}

func TestAnEqualCanaryIsPromotedStepByStep(t *testing.T) {
	t.Parallel() // mostly waits
	s := up(t)
	canaryVersions(t, s, `return {"y": 1}`)
	s.must(t, "model", "canary", "--endpoint", "m", "--steps", "20", "50", "100", "--step-time", "1s", "--tolerance", "3", "--input-endpoints", "m/2", "m/1", "--wait")
	s.must(t, "model", "canary", "--endpoint", "m", "--pause")
	send(t, 200, s)
	var told struct {
		Canaries []struct {
			Rollout struct {
				Requests uint64 `json:"candidate_requests"`
				Verdict  string
			}
		}
	}
	s.eventually(t, patience, "the next step is known to be safe", func() error {
		_, status := s.get(t, s.urls["admin"]+"/status")
		decode(t, status, &told)
		if len(told.Canaries) != 1 || told.Canaries[0].Rollout.Verdict != "go on" {
			return fmt.Errorf("%s", status)
		}
		return nil
	})
	if r := s.rollout(t); r.Phase != "paused" || r.Step != 0 {
		t.Errorf("a paused canary went on: %+v", r)
	}
	if out := s.must(t, "model", "list", "--verbose"); !strings.Contains(out, "EVIDENCE AGAINST") || !strings.Contains(out, "paused") {
		t.Errorf("the list does not show the steps:\n%s", out)
	}
	if _, metrics := s.get(t, s.urls["admin"]+"/metrics"); !strings.Contains(metrics, `clearml_serving_canary_share{candidate="m/2",endpoint="m",version=""} 0.2`) {
		t.Errorf("no metrics of the canary: %s", metrics)
	}
	s.must(t, "model", "canary", "--endpoint", "m", "--resume")
	r := s.becomes(t, "promoted")
	var shares []float64
	for _, e := range r.Events {
		shares = append(shares, e.Share)
	}
	if got := fmt.Sprint(shares); got != "[0.2 0.2 0.2 0.5 1]" {
		t.Errorf("shares %s, events %+v", got, r.Events)
	}
	if e := r.Events[len(r.Events)-1]; e.By != "canary analysis" {
		t.Errorf("%+v", e)
	}
	s.eventually(t, patience, "the candidate answers all requests", func() error {
		for range 20 {
			if status, body := roundTrip(http.MethodPost, s.urls["serve"]+"/serve/m", "application/json", strings.NewReader(`{"r":1}`)); status != http.StatusOK {
				return fmt.Errorf("%d %s", status, body)
			}
		}
		return nil
	})
	if r := s.cli(t, "model", "canary", "--endpoint", "m", "--abort"); r.code == 0 {
		t.Error("a promoted canary was taken back")
	}
}

// Two instances see half of the requests each. Both are killed before the evidence suffices, and
// started again: what they had stored counts on.
func TestEvidenceOutlivesItsInstances(t *testing.T) {
	t.Parallel() // mostly waits
	plane := controlPlane(t)
	id := createdID(t, plane.must(t, "create", "--name", "canary"))
	a, b := instance(t, plane, id), instance(t, plane, id)
	addVersions(t, plane, "return {\"y\": 1} if data[\"r\"] < 0.97 else 1/0")
	plane.must(t, "model", "canary", "--endpoint", "m", "--steps", "10", "50", "100", "--step-time", "1h", "--input-endpoints", "m/2", "m/1", "--wait")
	tr := sendUpTo(t, 0.9, 100, a, b) // no error: by chance, a few could decide too early
	requests := func(of *system) (n, errors uint64) {
		var told struct {
			Canaries []struct {
				Rollout struct {
					Requests uint64 `json:"candidate_requests"`
					Errors   uint64 `json:"candidate_errors"`
				}
			}
		}
		_, status := of.get(t, of.urls["admin"]+"/status")
		decode(t, status, &told)
		if len(told.Canaries) == 1 {
			n, errors = told.Canaries[0].Rollout.Requests, told.Canaries[0].Rollout.Errors
		}
		return n, errors
	}
	a.eventually(t, patience, "both instances have the requests of both", func() error {
		na, _ := requests(a)
		nb, _ := requests(b)
		if sent := uint64(tr.candidate.Load()); na < 50 || na < sent*3/4 || nb < sent*3/4 {
			return fmt.Errorf("%d and %d of %d requests of the candidate", na, nb, sent)
		}
		return nil
	})
	tr.stop()
	time.Sleep(3 * time.Second) // the last evidence is stored once a second
	sent := uint64(tr.candidate.Load())
	for _, s := range []*system{a, b} {
		s.kill(t)
		s.startInstance(t, plane, id)
	}
	a.eventually(t, patience, "the evidence is there again", func() error {
		if n, _ := requests(a); n != sent {
			return fmt.Errorf("%d of %d requests of the candidate", n, sent)
		}
		return nil
	})
	send(t, 100, a, b)
	r := plane.becomes(t, "rolled back")
	if len(r.Events) != 2 {
		t.Errorf("the decision was stored %d times: %+v", len(r.Events)-1, r.Events)
	}
}

func TestABadCandidateThatGetsCopiesReachesNoClient(t *testing.T) {
	s := up(t)
	canaryVersions(t, s, failingHalf("RuntimeError"))
	s.must(t, "model", "canary", "--endpoint", "m", "--steps", "10", "100", "--mirror", "1h", "--input-endpoints", "m/2", "m/1", "--wait")
	tr := send(t, 50, s)
	r := s.becomes(t, "rolled back")
	tr.stop()
	if n := tr.candidate.Load(); n > 0 || tr.bad.Load() > 0 {
		t.Errorf("clients got %d answers of the candidate and %d bad ones", n, tr.bad.Load())
	}
	if end := r.Events[len(r.Events)-1]; r.Step != -1 || !strings.Contains(end.Note, "more errors") {
		t.Errorf("%+v", r)
	}
}

func TestAConditionOnTimeSeriesTakesACandidateBack(t *testing.T) {
	plane := controlPlane(t)
	id := createdID(t, plane.must(t, "create", "--name", "canary"))
	a := instance(t, plane, id)
	addVersions(t, plane, `return {"y": 1}`)
	plane.must(t, "model", "canary", "--endpoint", "m", "--steps", "10", "100", "--guard", `clearml_serving_endpoint_ready{endpoint="m",version="2"} == 1`, "--input-endpoints", "m/2", "m/1", "--wait")
	r := plane.becomes(t, "rolled back")
	if end := r.Events[len(r.Events)-1]; !strings.Contains(end.Note, "the condition of --guard holds: clearml_serving_endpoint_ready") {
		t.Errorf("%+v", end)
	}
	a.answers(t, "m", `{"y":1}`)
}
