package rest_test

import (
	"encoding/json"
	"strings"
	"testing"
	"time"

	"clearmlserving/serving"
)

// limited sets a deadline for the endpoint "slow".
func limited(limits string) func(*options) {
	return func(o *options) {
		o.RequestTimeout = patience
		source, ok := o.Source.(fixedSource)
		if !ok {
			return
		}
		state := *source.state
		state.Sections = map[serving.Section]json.RawMessage{
			serving.SectionEndpoints: state.Sections[serving.SectionEndpoints],
			serving.SectionOptions:   json.RawMessage(limits),
		}
		o.Source = fixedSource{&state}
	}
}

func TestTheShortestTimeLimitOfARequestHolds(t *testing.T) {
	base := start(t, limited(`{"slow":{"limits":{"deadline":0.3}}}`), "slow", "echo")
	for _, tc := range []struct {
		name, path, header, want string
		status                   int
	}{
		{"the endpoint's", "slow", "", "its limit is 300ms", 504},
		{"the client's, which is shorter", "slow", "0.05", "its limit is 50ms", 504},
		{"the endpoint's, when the client asks for more", "slow", "5", "its limit is 300ms", 504},
		{"more than any", "slow", "1e300", "its limit is 300ms", 504},
		{"enough", "echo", "30", "echo|", 200},
		{"no number", "echo", "soon", `header X-Request-Timeout: \"soon\" is not a number of seconds`, 400},
		{"not a number", "echo", "NaN", "is not a number of seconds", 400},
		{"none", "echo", "0", "is not a number of seconds", 400},
		{"less than none", "echo", "-1", "is not a number of seconds", 400},
	} {
		t.Run(tc.name, func(t *testing.T) {
			var headers []string
			if tc.header != "" {
				headers = []string{"X-Request-Timeout", tc.header}
			}
			begun := time.Now()
			resp, body := post(t, base+"/serve/"+tc.path, "", headers...)
			if resp.StatusCode != tc.status || !strings.Contains(body, tc.want) {
				t.Errorf("%d %s, want %d %s", resp.StatusCode, body, tc.status, tc.want)
			}
			if took := time.Since(begun); took > time.Minute { // the limit of all requests
				t.Errorf("it took %s", took)
			}
		})
	}
}
