//go:build linux

package e2e_test

import (
	"bytes"
	"io"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
)

// floodClients is the number of clients that flood one endpoint, quietRequests the number of
// requests that another endpoint must answer meanwhile.
const (
	floodClients  = 300
	quietRequests = 200
)

func TestAFloodedEndpointShedsAndItsNeighbourAnswersEverything(t *testing.T) {
	s := up(t)
	s.must(t, "create")
	slow := writeCode(t, s, "slow.py", "import time\n\nclass Preprocess:\n    def process(self, data, state, collect_custom_statistics_fn=None):\n        time.sleep(0.02)\n        return {\"code\": \"slow\"}\n")
	s.must(t, "model", "add", "--engine", "custom", "--endpoint", "flooded", "--preprocess", slow)
	s.must(t, "model", "add", "--engine", "custom", "--endpoint", "quiet", "--preprocess", writeCode(t, s, "quiet.py", answersWith("quiet")))
	s.must(t, "model", "limits", "--endpoint", "flooded", "--max-queue", "20")
	s.answers(t, "flooded", `{"code":"slow"}`)
	s.answers(t, "quiet", `{"code":"quiet"}`)

	var answered, shed atomic.Int64
	var over atomic.Bool
	var flood sync.WaitGroup
	many := &http.Client{Transport: &http.Transport{MaxIdleConnsPerHost: floodClients}}
	defer many.CloseIdleConnections()
	for range floodClients {
		flood.Go(func() {
			for !over.Load() {
				resp, err := many.Post(s.urls["serve"]+"/serve/flooded", "application/json", strings.NewReader(`{"x":1}`))
				if err != nil {
					t.Errorf("the flood: %v", err)
					return
				}
				body, _ := io.ReadAll(resp.Body)
				_ = resp.Body.Close()
				switch {
				case resp.StatusCode == http.StatusOK:
					answered.Add(1)
				case resp.StatusCode == http.StatusTooManyRequests && resp.Header.Get("Retry-After") != "" && bytes.Contains(body, []byte("wait already")):
					shed.Add(1)
				default:
					t.Errorf("the flood was answered %d (Retry-After %q): %s", resp.StatusCode, resp.Header.Get("Retry-After"), body)
					return
				}
			}
		})
	}
	s.eventually(t, patience, "the flood is shed", func() error {
		if shed.Load() == 0 {
			return io.ErrNoProgress
		}
		return nil
	})
	for i := range quietRequests {
		if status, got := s.ask(t, "quiet", `{"x":1}`); answerError(status, got, `{"code":"quiet"}`) != nil {
			t.Errorf("request %d of the quiet endpoint was answered %d %s", i, status, got)
		}
	}
	if status, body := s.get(t, s.urls["serve"]+"/readyz?endpoint=flooded"); status != http.StatusOK {
		t.Errorf("the flooded endpoint, which answers, is not ready: %d %s", status, body)
	}
	over.Store(true)
	flood.Wait()
	t.Logf("the flood: %d answered, %d shed; its neighbour answered %d", answered.Load(), shed.Load(), quietRequests)
	if answered.Load() == 0 {
		t.Error("the flooded endpoint gave no answer")
	}
}
