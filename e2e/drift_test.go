//go:build linux

package e2e_test

import (
	"encoding/base64"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// driftPatience bounds the wait for a verdict: batches end once a minute.
const driftPatience = 4*time.Minute + 30*time.Second

// driftReport is a variable in the output of the command drift.
type driftReport struct {
	Variable, Verdict, Reference string
	Rows                         int
	PSI, Noise                   float64
	LiveRows                     float64 `json:"live_rows"`
}

// drifts are the variables of a service by name.
func (s *system) drifts(t *testing.T) map[string]driftReport {
	t.Helper()
	var report struct{ Variables []driftReport }
	decode(t, s.must(t, "--json", "drift"), &report)
	all := map[string]driftReport{}
	for _, v := range report.Variables {
		all[v.Variable] = v
	}
	return all
}

// people are rows with an age and an animal.
type people struct {
	random *rand.Rand
	shift  float64
}

func (p *people) row() (age float64, animal string) {
	animal = "cat"
	if p.random.IntN(10) < 3 {
		animal = "dog"
	}
	return 40 + p.shift + 10*p.random.NormFloat64(), animal
}

func (p *people) ask(t *testing.T, s *system, n int) {
	t.Helper()
	for range n {
		age, animal := p.row()
		if status, got := s.ask(t, "m", fmt.Sprintf(`{"age":%g,"animal":%q}`, age, animal)); status != http.StatusOK {
			t.Fatal(status, got)
		}
	}
}

// basic are the credentials of the installation, as a header.
func (s *system) basic(t *testing.T) string {
	t.Helper()
	files, err := filepath.Glob(filepath.Join(s.dir, "*", "credentials.json"))
	if err != nil || len(files) != 1 {
		t.Fatal(files, err)
	}
	text, err := os.ReadFile(files[0])
	if err != nil {
		t.Fatal(err)
	}
	var keys struct {
		Access string `json:"access_key"`
		Secret string `json:"secret_key"`
	}
	decode(t, string(text), &keys)
	return "Basic " + base64.StdEncoding.EncodeToString([]byte(keys.Access+":"+keys.Secret))
}

func TestDriftIsFoundUnderTrafficAlsoAfterAKill(t *testing.T) {
	t.Parallel() // mostly waits
	s := up(t)
	s.must(t, "create", "--name", "drifty")
	p := &people{random: rand.New(rand.NewPCG(1, 2))}
	rows := "row,age,animal\n"
	for i := range 5000 {
		age, animal := p.row()
		rows += fmt.Sprintf("%d,%g,%s\n", i, age, animal)
	}
	work := filepath.Join(s.dir, "work")
	for name, text := range map[string]string{"train.csv": rows, "model.bin": "a model"} {
		if err := os.WriteFile(filepath.Join(work, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	var model struct{ ID string }
	decode(t, s.must(t, "--json", "model", "upload", "--name", "drifty model", "--project", "drifty", "--path", "model.bin", "--reference", "train.csv"), &model)
	s.must(t, "model", "add", "--engine", "custom", "--endpoint", "m", "--model-id", model.ID, "--preprocess", code("echo_fields.py"), "--wait")
	s.must(t, "drift", "set", "--endpoint", "*", "--false-alarms", "1", "--per", "90d")
	wait := func(what string, more int, done func(map[string]driftReport) bool) map[string]driftReport {
		t.Helper()
		for begun := time.Now(); ; time.Sleep(2 * time.Second) {
			all := s.drifts(t)
			if done(all) {
				return all
			}
			if time.Since(begun) > driftPatience {
				t.Fatalf("%s: not within %v: %+v", what, driftPatience, all)
			}
			p.ask(t, s, more)
		}
	}

	p.ask(t, s, 500)
	all := wait("clean rows are seen", 50, func(all map[string]driftReport) bool { return all["age"].LiveRows >= 500 })
	if all["age"].Verdict != "steady" || all["animal"].Verdict != "steady" || all["row"].Verdict != "absent" || all["row"].Rows < 500 {
		t.Fatalf("%+v", all)
	}

	s.kill(t)
	s.start(t, role{})
	s.eventually(t, patience, "the endpoint is back", func() error {
		status, got := s.ask(t, "m", `{"age":40,"animal":"cat"}`)
		return statusError(status, got)
	})
	if after := s.drifts(t)["age"]; after.Rows < 400 { // those since the last minute may be counted anew
		t.Errorf("after the kill %d rows are known", after.Rows)
	}

	p.shift = 12
	all = wait("drift is found", 60, func(all map[string]driftReport) bool { return all["age"].Verdict == "drift" })
	if all["animal"].Verdict != "steady" || all["age"].PSI < 0.05 || all["age"].PSI < all["age"].Noise {
		t.Errorf("%+v", all)
	}
	out := s.must(t, "drift")
	wantWords(t, "the table", out, "m", "age", "drift", "animal", "steady", "row", "absent")
	s.eventually(t, patience, "the metrics have it", func() error {
		status, got := roundTrip(http.MethodGet, s.urls["api"]+"/prometheus/api/v1/query?query="+url.QueryEscape(`clearml_serving_drift_drifting == 1`), "", nil, "Authorization", s.basic(t))
		if status != http.StatusOK || !strings.Contains(got, `"variable":"age"`) || strings.Contains(got, `"variable":"animal"`) {
			return statusError(0, got)
		}
		return nil
	})

	before := all["age"].Reference
	s.must(t, "drift", "accept", "--endpoint", "m", "--wait")
	all = wait("the live values are the reference", 50, func(all map[string]driftReport) bool {
		return all["age"].Reference != before && all["age"].LiveRows >= 100
	})
	if all["age"].Verdict != "steady" {
		t.Errorf("%+v", all["age"])
	}
}

func TestAnArtifactOfTheSDKIsAReference(t *testing.T) {
	for name, python := range sdks() {
		t.Run(name, func(t *testing.T) {
			s := up(t)
			s.must(t, "create", "--name", "drifty")
			id := idIn(t, s.python(t, python, "reference.py"))
			s.must(t, "model", "add", "--engine", "custom", "--endpoint", "m", "--model-id", id, "--preprocess", code("echo_fields.py"))
			if r := s.cli(t, "drift", "reference", "--endpoint", "m", "--artifact", "nothing"); r.code != 3 || !strings.Contains(r.out+r.err, "train_data") {
				t.Error(r)
			}
			wantWords(t, "the command", s.must(t, "drift", "reference", "--endpoint", "m", "--artifact", "train_data", "--wait"), "Reference of 2 variables: age, animal")
			s.eventually(t, patience, "values are counted", func() error {
				if status, got := s.ask(t, "m", `{"age":40,"animal":"cat"}`); status != http.StatusOK {
					return statusError(status, got)
				}
				_, text := s.get(t, s.urls["admin"]+"/metrics")
				for _, want := range []string{`drift_values_total{bin="cat",`, `drift_unexpected_values_total{endpoint="m",kind="above",variable="age",version=""} 0`} {
					if !strings.Contains(text, want) {
						return errors.New("no " + want)
					}
				}
				return nil
			})
		})
	}
}
