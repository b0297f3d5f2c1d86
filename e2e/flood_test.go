//go:build linux

package e2e_test

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io/fs"
	"net/http"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

const floodModels = 1000

// caller returns a function for API calls that share one login.
func (s *system) caller(t *testing.T) func(name string, request any) string {
	t.Helper()
	token := s.authorization(t)
	return func(name string, request any) string {
		t.Helper()
		body, err := json.Marshal(request)
		if err != nil {
			t.Fatal(err)
		}
		status, answer := roundTrip(http.MethodPost, s.urls["api"]+"/"+name, "application/json", bytes.NewReader(body), "Authorization", token)
		if status != http.StatusOK {
			t.Fatalf("%s: %d %s", name, status, answer)
		}
		return answer
	}
}

func TestOfAThousandModelsOnlyTheNewestAreFetchedAndServed(t *testing.T) {
	s := up(t)
	id := createdID(t, s.must(t, "create"))
	call := s.caller(t)
	var last string
	for i := range floodModels {
		uri := s.urls["files"] + "/flood/never_fetched.txt" // does not exist: fetching it fails
		if i >= floodModels-2 {
			uri = s.upload(t, fmt.Sprintf("flood/%d.txt", i), fmt.Appendf(nil, "model %d", i))
		}
		last = call("models.create", map[string]any{"name": fmt.Sprintf("flood %d", i), "uri": uri, "tags": []string{"flood"}, "ready": true})
	}
	begun := time.Now()
	s.must(t, "--id", id, "model", "auto-update", "--engine", "custom", "--endpoint", "flood", "--tags", "flood", "--max-versions", "2", "--preprocess", code("reads_model.py"))
	s.eventually(t, patience, "the two newest answer", func() error {
		for i, url := range []string{"flood/1", "flood/2"} {
			status, got := s.ask(t, url, `{"x":1}`)
			if err := answerError(status, got, says(fmt.Sprintf("model %d", floodModels-2+i))); err != nil {
				return err
			}
		}
		return nil
	})
	t.Logf("2 of %d models answer %v after model auto-update", floodModels, time.Since(begun).Round(time.Millisecond))
	s.unknown(t, "flood/3")
	if _, status := s.get(t, s.urls["serve"]+"/status"); strings.Count(status, `"endpoint": "flood/`) != 2 || strings.Contains(status, `"failure"`) {
		t.Errorf("more than two versions are served, or one failed: %s", status)
	}
	fetched := 0
	err := filepath.WalkDir(filepath.Join(s.data, "cache"), func(path string, d fs.DirEntry, err error) error {
		if err == nil && d.Type().IsRegular() && strings.HasSuffix(path, ".txt") {
			fetched++
		}
		return err
	})
	if err != nil || fetched != 2 {
		t.Errorf("%d models were fetched, want 2 (%v)", fetched, err)
	}

	// The newest loses its tag and gets it back, a hundred times: its number stays,
	// the other one never stops answering, and no process is left over.
	var made struct{ Data struct{ ID string } }
	decode(t, last, &made)
	c := s.clients(2, "flood/1", `{"x":1}`, func(answer string) error {
		return answerError(http.StatusOK, answer, says(fmt.Sprintf("model %d", floodModels-2)))
	})
	before := len(s.pythons())
	for range 50 {
		for _, tags := range [][]string{{}, {"flood"}} {
			call("models.edit", map[string]any{"model": made.Data.ID, "tags": tags})
			time.Sleep(20 * time.Millisecond) // so that some of the changes are loaded and some are skipped
		}
	}
	s.answers(t, "flood/2", says(fmt.Sprintf("model %d", floodModels-1)))
	c.end(t)
	s.eventually(t, patience, "the previous processes", func() error {
		if now := len(s.pythons()); now > before+1 { // the zygote's standby may have started meanwhile
			return fmt.Errorf("%d processes, %d before", now, before)
		}
		return nil
	})
}
