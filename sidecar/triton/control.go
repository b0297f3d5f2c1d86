package triton

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strings"
	"time"
)

// Control speaks to one Triton server over HTTP.
type Control struct {
	// URL is the address of its HTTP port, Metrics that of its metrics.
	URL, Metrics string
	client       *http.Client
}

// NewControl returns a client of the server at an address, and of its metrics at another.
func NewControl(url, metrics string) *Control {
	return &Control{URL: url, Metrics: metrics, client: &http.Client{
		// Triton's HTTP threads end a connection that was idle; a new one costs nothing on the same machine.
		Transport: &http.Transport{Proxy: nil, DisableKeepAlives: true},
	}}
}

// bounds of what Triton answers.
const (
	maxAnswer  = 16 << 20
	maxMetrics = 64 << 20
)

// refused is an answer with the status of an error, in Triton's own words.
type refused struct {
	status int
	words  string
}

func (r *refused) Error() string { return r.words }

// call sends a request and returns the body of a good answer.
func (c *Control) call(ctx context.Context, method, address string, body any, limit int64) ([]byte, error) {
	var payload io.Reader
	if body != nil {
		encoded, err := json.Marshal(body)
		if err != nil {
			return nil, err
		}
		payload = bytes.NewReader(encoded)
	}
	r, err := http.NewRequestWithContext(ctx, method, address, payload)
	if err != nil {
		return nil, err
	}
	answer, err := c.client.Do(r)
	if err != nil {
		if inner := errors.Unwrap(err); inner != nil {
			err = inner // without the address, which is on this machine
		}
		return nil, err
	}
	defer answer.Body.Close()
	text, err := io.ReadAll(io.LimitReader(answer.Body, limit+1))
	switch {
	case err != nil:
		return nil, err
	case int64(len(text)) > limit:
		return nil, fmt.Errorf("it answers with more than %d bytes", limit)
	case answer.StatusCode != http.StatusOK:
		return nil, &refused{answer.StatusCode, words(answer.Status, text)}
	}
	return text, nil
}

// words are Triton's own words for an error.
func words(status string, body []byte) string {
	var told struct {
		Error string `json:"error"`
	}
	if json.Unmarshal(body, &told) == nil && told.Error != "" {
		return told.Error
	}
	if text := strings.TrimSpace(string(body)); text != "" && len(text) < 1000 {
		return text
	}
	return "HTTP status " + status
}

// Live asks whether the server works.
func (c *Control) Live(ctx context.Context) error {
	_, err := c.call(ctx, http.MethodGet, c.URL+"/v2/health/live", nil, maxAnswer)
	return err
}

// modelState is a version of a model in the index.
type modelState struct {
	Name    string `json:"name"`
	Version string `json:"version"`
	State   string `json:"state"`
	Reason  string `json:"reason"`
}

// ready is the state of a model that can be asked.
const readyState = "READY"

// Index lists the models of the repository by name, with their states.
func (c *Control) index(ctx context.Context) (map[string]modelState, error) {
	text, err := c.call(ctx, http.MethodPost, c.URL+"/v2/repository/index", struct{}{}, maxAnswer)
	if err != nil {
		return nil, err
	}
	var list []modelState
	if err := json.Unmarshal(text, &list); err != nil {
		return nil, fmt.Errorf("read the index of Triton's repository: %w", err)
	}
	models := map[string]modelState{}
	for _, m := range list {
		if before, twice := models[m.Name]; twice && before.State == readyState {
			continue
		}
		models[m.Name] = m
	}
	return models, nil
}

// load loads a model as it is in the repository. Its error is in Triton's words.
func (c *Control) load(ctx context.Context, name string) error {
	_, err := c.call(ctx, http.MethodPost, c.URL+"/v2/repository/models/"+url.PathEscape(name)+"/load", struct{}{}, maxAnswer)
	return err
}

// unload unloads a model.
func (c *Control) unload(ctx context.Context, name string) error {
	_, err := c.call(ctx, http.MethodPost, c.URL+"/v2/repository/models/"+url.PathEscape(name)+"/unload", struct{}{}, maxAnswer)
	return err
}

// Scrape returns the server's metrics in Prometheus' text format.
func (c *Control) Scrape(ctx context.Context) ([]byte, error) {
	ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	return c.call(ctx, http.MethodGet, c.Metrics+"/metrics", nil, maxMetrics)
}
