package worker_test

import (
	"encoding/json"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"clearmlserving/worker"
)

// said is a record of the log.
type said struct {
	Level, Msg, Line string
	RequestID        string `json:"request_id"`
}

func (r *record) said(t *testing.T) (all []said) {
	t.Helper()
	for line := range strings.Lines(r.String()) {
		var s said
		if err := json.Unmarshal([]byte(line), &s); err != nil {
			t.Fatal(err)
		}
		if s.Msg == "worker output" {
			all = append(all, s)
		}
	}
	return all
}

func TestWhatUserCodeSaysKeepsItsLevelAndItsRequest(t *testing.T) {
	for name, change := range map[string]func(*worker.Spec){
		"sync":  nil,
		"batch": func(s *worker.Spec) { s.Batch.MaxRows = 1 },
		"async": func(s *worker.Spec) { s.Engine = "custom_async" },
	} {
		t.Run(name, func(t *testing.T) {
			log := &record{}
			w := newWorld(t, func(o *worker.Options) {
				o.Logger = slog.New(slog.NewJSONHandler(log, &slog.HandlerOptions{Level: slog.LevelDebug}))
			})
			w.log = log
			g := w.start(t, "logs", "logs.py", change)
			ask(t, g, `{"do":"speak"}`)
			w.log.waitFor(t, "in a thread")
			ask(t, g, `{"do":"configure"}`)
			ask(t, g, `{"do":"speak"}`)
			eventually(t, "all is said", func() bool { return strings.Count(w.log.String(), "RuntimeError: in a thread") == 2 })
			all := w.log.said(t)
			find := func(text string) said {
				t.Helper()
				for _, s := range all {
					if strings.Contains(s.Line, text) {
						return s
					}
				}
				t.Errorf("nothing says %q", text)
				return said{}
			}
			for text, level := range map[string]string{
				"printed at import": "INFO", "printed words": "INFO", "a line without end": "INFO", "a warning line": "WARN", "an error line": "ERROR",
				"UserWarning: a Python warning": "WARN", "lines": "INFO", "root says a debug line": "DEBUG", "root says an info line": "INFO",
				"root says an error line": "ERROR", "from another program": "INFO", "from the system": "INFO", "an error while it loads": "ERROR",
				"RuntimeError: in a thread": "ERROR",
			} {
				s := find(text)
				id := "r1"
				switch text {
				case "printed at import", "an error while it loads", "from another program", "from the system":
					id = ""
				case "RuntimeError: in a thread":
					id = s.RequestID // an async request's threads are not known to be its own
				}
				if s.Level != level || s.RequestID != id || strings.ContainsAny(s.Line, "\x1d\x1e\x1f") {
					t.Errorf("%q: %+v", text, s)
				}
			}
			if s := find("a failure"); s.Level != "ERROR" || !strings.Contains(s.Line, "\nTraceback") || !strings.HasSuffix(s.Line, "ValueError: invalid literal for int() with base 10: 'no number'") {
				t.Errorf("the traceback is not in its record: %+v", s)
			}
			file := filepath.Join(t.TempDir(), "said")
			ask(t, g, `{"do":"redirect","to":"`+file+`"}`)
			if text, err := os.ReadFile(file); err != nil || string(text) != "into a file\n" {
				t.Errorf("%q %v", text, err)
			}
		})
	}
}
