package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"
)

// configFaults are unreadable configuration, missing files, and dead readers of the log.
func configFaults() []fault {
	return []fault{
		{
			name: "config-broken", about: "section endpoints becomes unreadable, in several ways: the running configuration stays in use",
			inject: func(ctx context.Context, w *world) error { return w.breakSections(ctx, "endpoints") },
		},
		{
			name: "config-broken-all", about: "every section becomes unreadable, in several ways: the running configuration stays in use", slow: true,
			inject: func(ctx context.Context, w *world) error {
				return w.breakSections(ctx, slices.Sorted(maps.Keys(goodRecords))...)
			},
		},
		{
			name: "config-broken-restart", about: "another instance starts while section endpoints is unreadable, from its last good copy", slow: true,
			inject: restartWithBroken,
		},
		{
			name: "cache-vanishes", about: "cache and runtime are removed, and a worker dies: its files are fetched again", hit: victim, statuses: lost,
			inject: vanish("cache", "runtime"),
		},
		{
			name: "data-vanishes", about: "the whole data folder is removed, and the zygote dies", slow: true, hit: everything, statuses: append([]int{http.StatusGatewayTimeout}, lost...),
			inject: func(ctx context.Context, w *world) error {
				pid, err := w.zygote(ctx)
				if err != nil {
					return err
				}
				if err := remove(ctx, filepath.Join(w.dir, w.serving().name)); err != nil {
					return err
				}
				return syscall.Kill(pid, syscall.SIGKILL)
			},
		},
		{name: "log-reader-dies", about: "the reader of the service's log is killed", inject: unread(true)},
		{name: "log-reader-stuck", about: "the reader of the service's log stops reading", slow: true, inject: unread(false)},
		{
			name: "killed-making-environment", about: "SIGKILL to the service while a Python environment is created, and a restart", slow: true,
			hit: everything, statuses: []int{0, http.StatusServiceUnavailable}, inject: killMaking,
		},
	}
}

// goodRecords has a usable record for each section except endpoints, which has some.
var goodRecords = map[string]string{
	"endpoints":                 "",
	"canary":                    `{"split":{"endpoint":"split","weights":[1],"load_endpoints":["steady_1"]}}`,
	"model_monitoring":          `{"watched":{"base_serving_url":"watched","engine_type":"custom","monitor_tags":["nothing has it"]}}`,
	"metric_logging":            `{"steady_1":{"endpoint":"steady_1","metrics":{"x":{"type":"value"}}}}`,
	"model_monitoring_eps":      `{"watched/1":{"engine_type":"custom","serving_url":"watched","version":"1"}}`,
	"model_monitoring_versions": `{"watched":{"0123456789abcdef0123456789abcdef":1}}`,
	"endpoint_options":          `{"steady_2":{"record":{"share":0.01}}}`,
	"access_keys":               `{"kchaos":{"sha256":"0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef"}}`,
}

// breakSections breaks each section in each way, waits until the instance reports it, and repairs
// it.
func (w *world) breakSections(ctx context.Context, sections ...string) (err error) {
	for _, section := range sections {
		good := goodRecords[section]
		if good == "" {
			if good, err = w.stored(ctx, section); err != nil {
				return err
			}
		}
		if err := errors.Join(w.store(ctx, section, good), w.problem(ctx, section, false)); err != nil {
			return err
		}
		if err := pause(ctx, 2*time.Second); err != nil { // the good form has been seen
			return err
		}
		for _, broken := range breakages(good) {
			if err := w.store(ctx, section, broken); err != nil {
				return err
			}
			if err := w.problem(ctx, section, true); err != nil {
				return fmt.Errorf("section %s is %.60q: %w", section, broken, err)
			}
		}
		end := good
		if section != "endpoints" {
			end = "{}"
		}
		if err := errors.Join(w.store(ctx, section, end), w.problem(ctx, section, false)); err != nil {
			return err
		}
	}
	return nil
}

// breakages are unusable forms of a section's text.
func breakages(good string) []string {
	texts := []string{strings.TrimSpace(good)[:len(strings.TrimSpace(good))-1], good + "x", "null", "[]", "1", "\x00", strings.Repeat("[", 100_000), `{"a":` + strings.Repeat("{", 10_000)}
	var records map[string]json.RawMessage
	if json.Unmarshal([]byte(good), &records) == nil {
		if len(records) > 0 {
			key := slices.Min(slices.Collect(maps.Keys(records)))
			for _, raw := range []string{"null", "[]", `"text"`} {
				other := maps.Clone(records)
				other[key] = json.RawMessage(raw)
				text, _ := json.Marshal(other) // it was JSON
				texts = append(texts, string(text))
			}
		}
	}
	return texts
}

// problem waits until /readyz names a problem of the section, or no longer names one.
func (w *world) problem(ctx context.Context, section string, there bool) error {
	s := w.serving()
	return s.wait(ctx, func() error {
		body, err := fetch(ctx, s.urls["serve"]+"/readyz")
		if err != nil {
			return err
		}
		var state struct{ Problems []string }
		if err := json.Unmarshal(body, &state); err != nil {
			return err
		}
		if named := slices.ContainsFunc(state.Problems, func(p string) bool { return strings.Contains(p, section) }); named != there {
			return fmt.Errorf("/readyz names a problem: %v, want %v: %.300s", named, there, body)
		}
		return nil
	})
}

// stored is the text of a section, and store replaces it as a program without validation would.
func (w *world) stored(ctx context.Context, section string) (string, error) {
	var answer struct {
		Data struct {
			Task struct {
				Configuration map[string]struct{ Value string }
			}
		}
	}
	err := w.call(ctx, "tasks.get_by_id", map[string]any{"task": w.service}, &answer)
	return answer.Data.Task.Configuration[section].Value, err
}

func (w *world) store(ctx context.Context, section, text string) error {
	return w.call(ctx, "tasks.edit_configuration", map[string]any{
		"task": w.service, "force": true, "configuration": []any{map[string]any{"name": section, "value": text}},
	}, nil)
}

func (w *world) call(ctx context.Context, name string, question, answer any) error {
	body, err := json.Marshal(question)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, 30*time.Second)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, w.api.url()+"/"+name, bytes.NewReader(body))
	if err != nil {
		return err
	}
	variables := map[string]string{}
	for _, v := range w.env {
		key, value, _ := strings.Cut(v, "=")
		variables[key] = value
	}
	req.SetBasicAuth(variables["CLEARML_API_ACCESS_KEY"], variables["CLEARML_API_SECRET_KEY"])
	req.Header.Set("Content-Type", "application/json")
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	if err == nil && resp.StatusCode != http.StatusOK {
		err = fmt.Errorf("%s: %s: %.300s", name, resp.Status, text)
	}
	if err != nil || answer == nil {
		return err
	}
	return json.Unmarshal(text, answer)
}

// restartWithBroken restarts an instance that has the good form while the section is broken.
func restartWithBroken(ctx context.Context, w *world) error {
	first, err := w.startInference(ctx, "knows")
	if err != nil {
		return err
	}
	if err := first.stop(); err != nil {
		return err
	}
	good, err := w.stored(ctx, "endpoints")
	if err != nil {
		return err
	}
	if err := w.store(ctx, "endpoints", good+"x"); err != nil {
		return err
	}
	second, err := w.startInference(ctx, "knows")
	if err == nil {
		err = second.wait(ctx, func() error {
			status, body, err := post(ctx, http.DefaultClient, second.endpoint(victim), []byte(`{"x": 3}`))
			if err == nil && (status != http.StatusOK || !right(victim, 3, body)) {
				err = fmt.Errorf("%d %.300s", status, body)
			}
			return err
		})
		err = errors.Join(err, second.stop())
	}
	return errors.Join(err, w.store(ctx, "endpoints", good), w.problem(ctx, "endpoints", false))
}

// remove removes a folder in which the service may create files at the same time.
func remove(ctx context.Context, folder string) error {
	for {
		err := os.RemoveAll(folder)
		if !errors.Is(err, syscall.ENOTEMPTY) {
			return err
		}
		if pause(ctx, 10*time.Millisecond) != nil {
			return err
		}
	}
}

// vanish removes folders of the data folder while the service runs, and kills a worker.
func vanish(folders ...string) func(context.Context, *world) error {
	return func(ctx context.Context, w *world) error {
		for range 2 {
			for _, name := range folders {
				if err := remove(ctx, filepath.Join(w.dir, w.serving().name, name)); err != nil {
					return err
				}
			}
			pid, err := w.workerOf(ctx, victim)
			if err != nil {
				return err
			}
			if err := syscall.Kill(pid, syscall.SIGKILL); err != nil {
				return err
			}
			if err := recovered(ctx, w); err != nil {
				return err
			}
		}
		return nil
	}
}

// unread starts an instance whose output goes to a pipe that is not read after the start, or that
// is closed, and makes it log a lot.
func unread(closed bool) func(context.Context, *world) error {
	return func(ctx context.Context, w *world) error {
		r, out, err := os.Pipe()
		if err != nil {
			return err
		}
		defer r.Close() //nolint:errcheck // nothing is written to it
		s, err := w.startInferenceTo(ctx, "unread", out)
		err = errors.Join(err, out.Close())
		if closed {
			err = errors.Join(err, r.Close())
		}
		for i := 0; err == nil && i < 200; i++ {
			var status int
			var body []byte
			status, body, err = post(ctx, http.DefaultClient, s.endpoint(victim), []byte(`{"x": 3, "do": "tell"}`))
			if err == nil && (status != http.StatusOK || !right(victim, 3, body)) {
				err = fmt.Errorf("%d %.300s", status, body)
			}
		}
		if s == nil {
			return err
		}
		if err == nil && s.ended() {
			err = errors.New("the service has ended with the reader of its log")
		}
		return errors.Join(err, s.stop())
	}
}

// killMaking kills the service while it creates an endpoint's environment.
func killMaking(ctx context.Context, w *world) error {
	code := filepath.Join(w.dir, "fresh")
	if err := os.MkdirAll(code, 0o755); err != nil {
		return err
	}
	const text = "class Preprocess:\n    def process(self, data, state, collect):\n        return data\n"
	requirements := fmt.Sprintf("# %d\n", time.Now().UnixNano())
	err := errors.Join(os.WriteFile(filepath.Join(code, "__init__.py"), []byte(text), 0o600), os.WriteFile(filepath.Join(code, "requirements.txt"), []byte(requirements), 0o600))
	if err != nil {
		return err
	}
	if err := w.cli(ctx, "model", "add", "--endpoint", "fresh", "--engine", "custom", "--preprocess", code, "--aux-config", "environment=own"); err != nil {
		return err
	}
	for _, moment := range []time.Duration{0, time.Second} {
		old := w.serving()
		err := old.wait(ctx, func() error {
			found, _ := filepath.Glob(filepath.Join(w.dir, old.name, "environments", "*", "bin"))
			if len(found) == 0 {
				return errors.New("no environment is being created")
			}
			return nil
		})
		if err := errors.Join(err, pause(ctx, moment)); err != nil {
			return err
		}
		old.kill()
		s, err := w.startInference(ctx, old.name)
		if err != nil {
			return err
		}
		w.replaceServing(s)
	}
	if err := w.waitReady(ctx, "fresh"); err != nil {
		return err
	}
	if err := w.ask(ctx, "fresh", `{"x": 3}`, http.StatusOK); err != nil {
		return err
	}
	return w.cli(ctx, "model", "remove", "--endpoint", "fresh")
}
