package worker_test

import (
	"fmt"
	"log/slog"
	"strings"
	"testing"

	"clearmlserving/recurring"
	"clearmlserving/worker"
)

func TestErrorsThatClientsRepeatAreLoggedOnceWithTheirTracebackThenCounted(t *testing.T) {
	log := &record{}
	summary := recurring.NewHandler(slog.NewTextHandler(log, nil))
	w := newWorld(t, func(o *worker.Options) { o.Logger = slog.New(summary) })
	g := w.start(t, "echo", "echo.py", func(s *worker.Spec) { s.Workers = 2 })
	for i := range 40 {
		r, err := g.Do(t.Context(), &worker.Request{ID: fmt.Sprint("r", i), Body: []byte(`{"do":"value","text":"no"}`)})
		if err != nil || r.Status != 422 {
			t.Fatalf("%+v %v", r, err)
		}
	}
	summary.Flush()
	text := log.String()
	if n := strings.Count(text, "Traceback"); n != 1 {
		t.Errorf("%d tracebacks:\n%s", n, text)
	}
	if !strings.Contains(text, "request r0: Exception") || !strings.Contains(text, "request r39: Exception") || !strings.Contains(text, "times=39") {
		t.Errorf("the log says\n%s", text)
	}
}
