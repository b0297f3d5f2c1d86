package venv

import (
	"testing"

	"clearmlserving/process"
)

// What cannot be installed anywhere is told from what this machine cannot reach or hold.
func TestARequirementThatDoesNotExistIsToldFromANetworkThatIsAway(t *testing.T) {
	const install = "python -m pip install -r requirements.txt"
	for _, tc := range []struct {
		name  string
		err   Error
		final bool
	}{
		{"no such version", Error{Step: install, Death: process.Death{Code: 1, LastLines: []string{"ERROR: No matching distribution found for networkx==99"}}}, true},
		{"no such package, uv", Error{Step: "uv pip install -r requirements.txt", Death: process.Death{Code: 1, LastLines: []string{"  × No solution found when resolving dependencies:"}}}, true},
		{"no index", Error{Step: install, Death: process.Death{Code: 1, LastLines: []string{
			"WARNING: Retrying (Retry(total=0)) after connection broken by 'NewConnectionError(...)': /simple/x/", "ERROR: No matching distribution found for x",
		}}}, false},
		{"a slow index", Error{Step: install, Death: process.Death{Code: 2, LastLines: []string{"ReadTimeoutError: Read timed out."}}}, false},
		{"a full disk", Error{Step: install, Death: process.Death{Code: 1, LastLines: []string{"OSError: [Errno 28] No space left on device"}}}, false},
		{"killed", Error{Step: install, Death: process.Death{Code: -1}}, false},
		{"stalled", Error{Step: install, Death: process.Death{Code: 1, Reason: "said nothing for 10m0s"}}, false},
		{"no venv", Error{Step: "python -m venv x", Hint: noVenv, Death: process.Death{Code: 1}}, false},
	} {
		if got := tc.err.Final(); got != tc.final {
			t.Errorf("%s: final %t", tc.name, got)
		}
	}
}
