package clearml_test

import (
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/http"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"clearmlserving/clearml"
	"clearmlserving/serving"
)

// plainService is a service on a server without conditional writes.
type plainService struct {
	mu   sync.Mutex // guards text
	text string
}

func servePlain(f *fakeServer, text string) *plainService {
	s := &plainService{text: text}
	f.on("server.info", `{"version":"2.3.0"}`)
	f.handle("tasks.get_by_id", func(map[string]any) (int, string) {
		object, _ := json.Marshal(map[string]any{"task": map[string]any{
			"id": "s1", "name": "s", "configuration": map[string]any{"endpoints": map[string]any{"name": "endpoints", "value": s.get()}},
		}})
		return 200, string(object)
	})
	f.handle("tasks.edit_configuration", func(body map[string]any) (int, string) {
		s.set(body["configuration"].([]any)[0].(map[string]any)["value"].(string))
		return 200, `{"updated":1}`
	})
	return s
}

func (s *plainService) get() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.text
}

func (s *plainService) set(text string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.text = text
}

func TestAnEditIsReadAgainWhereWritesHaveNoCondition(t *testing.T) {
	const before = `{"a": {"n": 1, "m": [1]}, "b": {"n": 1}}`
	for name, tc := range map[string]struct {
		wanted, later string // later: what another writer stores a second after us
		lost          bool
	}{
		"nothing happens":                          {`{"a": {"n": 2, "m": [1]}, "b": {"n": 1}}`, "", false},
		"overwritten by what was before":           {`{"a": {"n": 2, "m": [1]}, "b": {"n": 1}}`, before, true},
		"overwritten by an edit of something else": {`{"a": {"n": 2, "m": [1]}, "b": {"n": 1}}`, `{"a": {"n": 1, "m": [1]}, "b": {"n": 7}}`, true},
		"followed by an edit of something else":    {`{"a": {"n": 2, "m": [1]}, "b": {"n": 1}}`, `{"a": {"n": 2, "m": [1]}, "b": {"n": 7}}`, false},
		"followed by an edit of the same":          {`{"a": {"n": 2, "m": [1]}, "b": {"n": 1}}`, `{"a": {"n": 3, "m": [1]}, "b": {"n": 1}}`, false},
		"an added record is gone":                  {`{"a": {"n": 1, "m": [1]}, "b": {"n": 1}, "c": {"n": 1}}`, before, true},
		"a removed record is back":                 {`{"b": {"n": 1}}`, before, true},
		"everything removed":                       {`{}`, `{"c": {"n": 1}}`, false},
		"everything removed is back":               {`{}`, before, true},
		"a list is as before":                      {`{"a": {"n": 1, "m": [2]}, "b": {"n": 1}}`, before, true},
		"HOCON of the original, ours is there":     {`{"a": {"n": 2, "m": [1]}, "b": {"n": 1}}`, "a {\n n = 2\n m = [1]\n}\nb { n = 1 }\nc { n = 1 }", false},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				f := newFake(t)
				s := servePlain(f, before)
				c := f.direct()
				doc, err := c.LoadService(t.Context(), "s1")
				if err != nil {
					t.Fatal(err)
				}
				if tc.later != "" {
					go func() {
						time.Sleep(time.Second)
						s.set(tc.later)
					}()
				}
				begun := time.Now()
				err = c.SaveSection(t.Context(), doc, serving.SectionEndpoints, tc.wanted)
				if lost := errors.Is(err, clearml.ErrConflict); lost != tc.lost || (err != nil && !lost) {
					t.Errorf("lost: %v, want %v: %v", lost, tc.lost, err)
				}
				if took := time.Since(begun); took < 2*time.Second {
					t.Errorf("read again after %v", took)
				}
			})
		})
	}
}

// The Python product writes what it has read seconds before. Where its texts are found,
// the edit is watched for longer.
func TestAnEditIsWatchedLongerWhereThePythonProductEditsToo(t *testing.T) {
	const theirs = "a {\n n = 1\n}\n"
	for name, tc := range map[string]struct {
		before, meanwhile string
	}{
		"before":    {theirs, ""},
		"meanwhile": {`{"a": {"n": 1}}`, "a {\n n = 1\n}\nb {\n n = 2\n}\n"},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				f := newFake(t)
				s := servePlain(f, tc.before)
				c := f.direct()
				doc, err := c.LoadService(t.Context(), "s1")
				if err != nil {
					t.Fatal(err)
				}
				go func() {
					time.Sleep(time.Second)
					if tc.meanwhile != "" {
						s.set(tc.meanwhile)
					}
					time.Sleep(6 * time.Second)
					s.set(theirs)
				}()
				if err := c.SaveSection(t.Context(), doc, serving.SectionEndpoints, `{"a": {"n": 1}, "b": {"n": 2}}`); !errors.Is(err, clearml.ErrConflict) {
					t.Errorf("a write after seven seconds is not noticed: %v", err)
				}
			})
		})
	}
}

func TestAnEditOfAConditionalServerIsNotReadAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFake(t)
		servePlain(f, `{}`)
		f.on("server.info", `{"extensions":["conditional_configuration"]}`)
		c := f.direct()
		doc, err := c.LoadService(t.Context(), "s1")
		if err != nil {
			t.Fatal(err)
		}
		begun := time.Now()
		if err := c.SaveSection(t.Context(), doc, serving.SectionEndpoints, `{"a": 1}`); err != nil || time.Since(begun) != 0 {
			t.Errorf("took %v: %v", time.Since(begun), err)
		}
	})
}

// A write that is repeated by itself would come long after the question that allowed it.
func TestAnUnansweredWriteAsksAgainBeforeItIsRepeated(t *testing.T) {
	for name, stored := range map[string]bool{"refused": false, "stored, answer lost": true} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				f := newFake(t)
				s := servePlain(f, `{}`)
				failed := false
				f.obstacle = func(w http.ResponseWriter, _ *http.Request, call string) bool {
					if call != "tasks.edit_configuration" || failed {
						return false
					}
					failed = true
					if stored {
						s.set(`{"a": 1}`)
					}
					w.WriteHeader(http.StatusBadGateway)
					return true
				}
				c := f.direct()
				doc, err := c.LoadService(t.Context(), "s1")
				if err != nil {
					t.Fatal(err)
				}
				f.seen()
				if err := c.SaveSection(t.Context(), doc, serving.SectionEndpoints, `{"a": 1}`); err != nil || s.get() != `{"a": 1}` {
					t.Errorf("stored %s: %v", s.get(), err)
				}
				want := []string{"server.info", "tasks.get_by_id", "tasks.edit_configuration", "tasks.get_by_id", "tasks.edit_configuration", "tasks.get_by_id"}
				if stored {
					want = slices.Delete(want, 4, 5)
				}
				if got := f.seen(); !slices.Equal(got, want) {
					t.Errorf("calls %q, want %q", got, want)
				}
			})
		})
	}
}

func TestAnEditThatCannotBeReadAgainFails(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFake(t)
		servePlain(f, `{}`)
		written := false
		f.obstacle = func(w http.ResponseWriter, _ *http.Request, call string) bool {
			if call == "tasks.edit_configuration" {
				written = true
				return false
			}
			if written {
				w.WriteHeader(http.StatusServiceUnavailable)
			}
			return written
		}
		c := f.direct()
		doc, err := c.LoadService(t.Context(), "s1")
		if err != nil {
			t.Fatal(err)
		}
		err = c.SaveSection(t.Context(), doc, serving.SectionEndpoints, `{"a": 1}`)
		if !errors.Is(err, clearml.ErrUnavailable) {
			t.Errorf("got %v", err)
		}
	})
}

// Eight writers on a server that answers in 10 to 100 ms, in simulated time. With them
// a writer as the Python product is one: it reads, and writes a second later whatever
// has been stored in between. Each edit that did not fail must be there in the end.
func TestParallelEditsAreNotLostSilently(t *testing.T) {
	const writers, edits = 8, 32 // each
	synctest.Test(t, func(t *testing.T) {
		f := newFake(t)
		s := servePlain(f, `{}`)
		c := f.direct(func(o *clearml.Options) {
			inner := o.HTTP.Transport
			pause := func() { time.Sleep(5*time.Millisecond + rand.N(45*time.Millisecond)) }
			o.HTTP = &http.Client{Transport: roundTrip(func(r *http.Request) (*http.Response, error) {
				pause()
				defer pause()
				return inner.RoundTrip(r)
			})}
		})
		var mu sync.Mutex
		var done []string
		failed := 0
		var all sync.WaitGroup
		for w := range writers {
			all.Go(func() {
				for i := range edits {
					name := fmt.Sprintf("w%d-%d", w, i)
					err := addRecord(t, c, name)
					mu.Lock()
					if err == nil {
						done = append(done, name)
					} else {
						failed++
					}
					mu.Unlock()
				}
			})
		}
		stop := make(chan struct{})
		var blind sync.WaitGroup
		blind.Go(func() {
			for i := 0; ; i++ {
				select {
				case <-stop:
					return
				case <-time.After(5*time.Second + rand.N(10*time.Second)):
				}
				text := withRecord(t, s.get(), fmt.Sprintf("blind-%d", i))
				time.Sleep(500*time.Millisecond + rand.N(time.Second))
				s.set(text)
			}
		})
		all.Wait()
		close(stop)
		blind.Wait()
		var stored map[string]any
		if err := json.Unmarshal([]byte(s.get()), &stored); err != nil {
			t.Fatal(err)
		}
		for _, name := range done {
			if _, there := stored[name]; !there {
				t.Errorf("%s is lost although its edit did not fail", name)
			}
		}
		t.Logf("%d edits, %d stored, %d failed", writers*edits, len(done), failed)
		if len(done) < writers*edits*9/10 {
			t.Errorf("only %d of %d edits were stored", len(done), writers*edits)
		}
	})
}

// addRecord is an edit as the command line and the pages make it.
func addRecord(t *testing.T, c *clearml.Client, name string) error {
	t.Helper()
	for attempt := 1; ; attempt++ {
		doc, err := c.LoadService(t.Context(), "s1")
		if err != nil {
			return err
		}
		sections := doc.Configuration().Sections
		err = c.SaveSection(t.Context(), doc, serving.SectionEndpoints, withRecord(t, string(sections[serving.SectionEndpoints]), name))
		if !errors.Is(err, clearml.ErrConflict) || attempt == 20 {
			return err
		}
	}
}

func withRecord(t *testing.T, text, name string) string {
	t.Helper()
	records := map[string]any{}
	if err := json.Unmarshal([]byte(text), &records); err != nil {
		t.Error(err)
	}
	records[name] = map[string]any{"serving_url": name}
	after, err := json.Marshal(records)
	if err != nil {
		t.Error(err)
	}
	return string(after)
}
