package python

import (
	"syscall"
	"testing"
	"time"

	"clearmlserving/process"
	"clearmlserving/worker"
)

// A revision is refused for errors that happen on every machine, not for those of this machine.
func TestTheEndpointsFaultIsToldFromTheMachines(t *testing.T) {
	now := time.Now()
	for _, tc := range []struct {
		name  string
		err   worker.LoadError
		final bool
	}{
		{"an exception", worker.LoadError{Text: "ValueError: no", Cause: "ValueError: no", Traceback: "…"}, true},
		{"a model that its framework refuses", worker.LoadError{Text: "model.pkl cannot be loaded"}, true},
		{"too little memory, said by Python", worker.LoadError{Text: "MemoryError", Cause: "MemoryError"}, false},
		{"an exit", worker.LoadError{Text: "died", Death: process.Death{Code: 3, At: now}}, true},
		{"a crash", worker.LoadError{Text: "died", Death: process.Death{Code: -1, Signal: syscall.SIGSEGV, At: now}}, true},
		{"killed for memory", worker.LoadError{Text: "died", Death: process.Death{Code: -1, Signal: syscall.SIGKILL, OOM: true, At: now}}, false},
		{"killed by somebody", worker.LoadError{Text: "died", Death: process.Death{Code: -1, Signal: syscall.SIGKILL, At: now}}, false},
		{"killed by the service", worker.LoadError{Text: "died", Death: process.Death{Code: -1, Signal: syscall.SIGTERM, Asked: true, At: now}}, false},
	} {
		if got := final(&tc.err); got != tc.final {
			t.Errorf("%s: final %t", tc.name, got)
		}
	}
}
