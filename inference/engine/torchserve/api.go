package torchserve

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"clearmlserving/serving"
)

const (
	apiTimeout = 10 * time.Second
	mostAPI    = 4 << 20 // bytes of an answer of the management API
)

// server is one TorchServe.
type server struct {
	Server

	keys   *keys
	client *http.Client
}

// refusal is an error that the server answers, in its own words.
type refusal struct {
	Status  int    `json:"code"`
	Type    string `json:"type"`
	Message string `json:"message"`
}

func (r *refusal) Error() string {
	if r.Message == "" {
		return fmt.Sprintf("TorchServe answers %d", r.Status)
	}
	return "TorchServe: " + r.Message
}

// refusedKey reports whether the server has refused the key.
func (r *refusal) refusedKey() bool {
	return r.Type == "InvalidKeyException" || r.Type == "KeyTimeOutException"
}

// unknownModel reports whether the server has no such model.
func (r *refusal) unknownModel() bool {
	return r.Type == "ModelNotFoundException" || r.Type == "ModelVersionNotFoundException"
}

// refusalOf reads an error of the server. ok is false if it is none of its own.
func refusalOf(status int, body []byte) (r *refusal, ok bool) {
	r = &refusal{}
	if json.Unmarshal(body, r) != nil || r.Status != status || r.Type == "" {
		return &refusal{Status: status, Message: serving.Shorten(strings.TrimSpace(string(body)), 300)}, false
	}
	return r, true
}

func wordsOf(status int, body []byte) string {
	r, _ := refusalOf(status, body)
	return r.Error()
}

// call asks the management API. The error is a *refusal if the server has answered one.
func (s *server) call(ctx context.Context, method, path string, query url.Values) (body []byte, err error) {
	err = s.keys.with(ctx, forManagement, func(key string) (refusedKey bool, err error) {
		request, err := http.NewRequestWithContext(ctx, method, s.Management+path+"?"+query.Encode(), nil)
		if err != nil {
			return false, err
		}
		if key != "" {
			request.Header.Set("Authorization", "Bearer "+key)
		}
		response, err := s.client.Do(request)
		if err != nil {
			if wrapped, ok := errors.AsType[*url.Error](err); ok { // which has the address and the query in its text
				err = wrapped.Err
			}
			return false, fmt.Errorf("TorchServe's management API at %s: %w", s.Management, err)
		}
		body, err = io.ReadAll(io.LimitReader(response.Body, mostAPI))
		if err = errors.Join(err, response.Body.Close()); err != nil {
			return false, err
		}
		if response.StatusCode < http.StatusMultipleChoices {
			return false, nil
		}
		r, _ := refusalOf(response.StatusCode, body)
		return r.refusedKey(), r
	})
	if err != nil {
		return nil, err
	}
	return body, nil
}

// described is what the server tells of a model.
type described struct {
	Name       string `json:"modelName"`
	Version    string `json:"modelVersion"`
	MinWorkers int    `json:"minWorkers"`
	MaxWorkers int    `json:"maxWorkers"`
	Workers    []struct {
		ID     string `json:"id"`
		Status string `json:"status"`
		PID    int    `json:"pid"`
		Memory int64  `json:"memoryUsage"`
	} `json:"workers"`
}

func (d *described) ready() (n int) {
	for _, w := range d.Workers {
		if w.Status == "READY" {
			n++
		}
	}
	return n
}

func parseDescribed(body []byte) (*described, error) {
	var list []described
	if err := json.Unmarshal(body, &list); err != nil || len(list) == 0 {
		return nil, fmt.Errorf("TorchServe's description of the model is not usable: %s", serving.Shorten(string(bytes.TrimSpace(body)), 100))
	}
	return &list[0], nil
}

func (s *server) describe(ctx context.Context, name, version string) (*described, error) {
	path := "/models/" + url.PathEscape(name)
	if version != "" {
		path += "/" + url.PathEscape(version)
	}
	body, err := s.call(ctx, http.MethodGet, path, nil)
	if err != nil {
		return nil, err
	}
	return parseDescribed(body)
}

// register registers the archive of a model and waits until its workers have loaded it. A model that is
// registered already is scaled.
func (s *server) register(ctx context.Context, file string, m *model) error {
	at, err := s.place(file, m.name)
	if err != nil {
		return err
	}
	if s.Admin != "" {
		err = s.registerGRPC(ctx, at, m)
	} else {
		err = s.registerREST(ctx, at, m)
	}
	if r, ok := errors.AsType[*refusal](err); ok && r.Status == http.StatusConflict {
		err = nil
	} else if err == nil && m.settings.MaxWorkers == m.settings.MinWorkers {
		return nil
	}
	if err != nil {
		return err
	}
	return s.scale(ctx, m)
}

func (s *server) registerREST(ctx context.Context, at string, m *model) error {
	query := url.Values{
		"url": {at}, "model_name": {m.name}, "initial_workers": {strconv.Itoa(m.settings.MinWorkers)}, "synchronous": {"true"},
		"batch_size": {strconv.Itoa(m.settings.BatchSize)}, "max_batch_delay": {strconv.FormatInt(m.settings.MaxBatchDelay.Milliseconds(), 10)},
	}
	if t := m.settings.ResponseTimeout; t > 0 {
		query.Set("response_timeout", strconv.Itoa(int(t.Seconds())))
	}
	_, err := s.call(ctx, http.MethodPost, "/models", query)
	return err
}

// registerGRPC is registerREST over gRPC, where 0 means the default.
func (s *server) registerGRPC(ctx context.Context, at string, m *model) error {
	var b message
	b.number(1, m.settings.BatchSize)
	b.number(3, m.settings.MinWorkers)
	b.number(4, int(max(m.settings.MaxBatchDelay.Milliseconds(), 1)))
	b.text(5, m.name)
	b.number(6, int(m.settings.ResponseTimeout.Seconds()))
	b.number(8, 1)
	b.text(9, at)
	err := s.admin(ctx, "RegisterModel", b)
	if r, ok := errors.AsType[*refusal](err); ok && r.Type == "" { // a conflict has no words there
		if _, unknown := s.describe(ctx, m.name, ""); unknown == nil {
			r.Status = http.StatusConflict
		}
	}
	return err
}

// scale changes the numbers of workers.
func (s *server) scale(ctx context.Context, m *model) error {
	if s.Admin == "" {
		_, err := s.call(ctx, http.MethodPut, "/models/"+url.PathEscape(m.name), url.Values{
			"min_worker": {strconv.Itoa(m.settings.MinWorkers)}, "max_worker": {strconv.Itoa(m.settings.MaxWorkers)}, "synchronous": {"true"},
		})
		return err
	}
	var b message
	b.text(1, m.name)
	b.number(3, m.settings.MaxWorkers)
	b.number(4, m.settings.MinWorkers)
	b.number(6, 1)
	return s.admin(ctx, "ScaleWorker", b)
}

// place makes an archive visible for the server, and returns its name for the API.
func (s *server) place(file, name string) (string, error) {
	if s.Store == "" { // of a server that somebody else runs, on this machine
		return "file://" + file, nil
	}
	target := filepath.Join(s.Store, name+".mar")
	if _, err := os.Stat(target); err == nil {
		return filepath.Base(target), nil
	}
	temp := filepath.Join(s.Store, "."+name+"-"+strconv.Itoa(os.Getpid()))
	_ = os.Remove(temp)
	if err := os.Link(file, temp); err != nil { // another file system
		if err := copyFile(file, temp); err != nil {
			return "", fmt.Errorf("put the archive into TorchServe's model store: %w", err)
		}
	}
	return filepath.Base(target), os.Rename(temp, target)
}

// unregister ends a model, if the server has it.
func (s *server) unregister(ctx context.Context, name string) error {
	var err error
	if s.Admin != "" {
		var b message
		b.text(1, name)
		err = s.admin(ctx, "UnregisterModel", b)
	} else {
		_, err = s.call(ctx, http.MethodDelete, "/models/"+url.PathEscape(name), nil)
	}
	if r, ok := errors.AsType[*refusal](err); ok && r.unknownModel() {
		err = nil
	}
	if s.Store != "" && err == nil {
		_ = os.Remove(filepath.Join(s.Store, name+".mar")) // at the latest the next start of the server removes it
	}
	return err
}

// registered are the names of all models.
func (s *server) registered(ctx context.Context) (names []string, err error) {
	for page := ""; ; {
		query := url.Values{"limit": {"100"}}
		if page != "" {
			query.Set("next_page_token", page)
		}
		body, err := s.call(ctx, http.MethodGet, "/models", query)
		if err != nil {
			return nil, err
		}
		var list struct {
			Next   string `json:"nextPageToken"`
			Models []struct {
				Name string `json:"modelName"`
			} `json:"models"`
		}
		if err := json.Unmarshal(body, &list); err != nil {
			return nil, fmt.Errorf("TorchServe's list of models is not usable: %w", err)
		}
		for _, m := range list.Models {
			names = append(names, m.Name)
		}
		if list.Next == "" || list.Next == page || len(names) > 100_000 {
			return names, nil
		}
		page = list.Next
	}
}

const keptLog = 64 << 10

// said is the end of what the handler of a model wrote: the reason why it could not be loaded.
func (s *server) said(name string) string {
	if s.Log == "" {
		return ""
	}
	f, err := os.Open(s.Log)
	if err != nil {
		return ""
	}
	defer f.Close() //nolint:errcheck // only read from
	if end, err := f.Seek(0, io.SeekEnd); err == nil {
		_, _ = f.Seek(max(end-keptLog, 0), io.SeekStart)
	}
	text, err := io.ReadAll(io.LimitReader(f, keptLog))
	if err != nil {
		return ""
	}
	var lines []string
	for line := range strings.Lines(string(text)) {
		// 2026-11-30T12:00:00,000 [INFO ] W-9000-NAME_1.0-stdout MODEL_LOG - TEXT
		before, said, found := strings.Cut(strings.TrimRight(line, "\n"), " MODEL_LOG - ")
		if found && strings.Contains(before, "-"+name+"_") {
			lines = append(lines, said)
		}
	}
	if begin := lastIndex(lines, "Traceback (most recent call last):"); begin >= 0 {
		lines = lines[begin:]
	}
	return strings.Join(lines[max(0, len(lines)-mostSaid):], "\n")
}

const mostSaid = 40

func lastIndex(lines []string, text string) int {
	reversed := slices.Clone(lines)
	slices.Reverse(reversed)
	if i := slices.Index(reversed, text); i >= 0 {
		return len(lines) - 1 - i
	}
	return -1
}

func copyFile(from, to string) (err error) {
	in, err := os.Open(from)
	if err != nil {
		return err
	}
	defer in.Close() //nolint:errcheck // only read from
	out, err := os.OpenFile(to, os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o644)
	if err != nil {
		return err
	}
	_, err = io.Copy(out, in)
	return errors.Join(err, out.Close())
}
