//go:build linux

package e2e_test

import (
	"fmt"
	"net/http"
	"os"
	"regexp"
	"strings"
	"testing"
)

// Requests to an endpoint that cannot be loaded are counted as requests and errors. Repeated
// invalid requests of a client are visible without filling the log.
func TestAnOutageLooksLikeOne(t *testing.T) {
	t.Parallel() // mostly waits
	s := up(t)
	s.must(t, "create", "--name", "outage")
	s.must(t, "model", "add", "--engine", "custom", "--endpoint", "raising", "--preprocess", code("raises_in_process.py"), "--wait")
	if r := s.cli(t, "model", "add", "--engine", "custom", "--endpoint", "broken", "--preprocess", code("syntax_error.py"), "--wait"); r.code != 1 {
		t.Fatalf("%v", r)
	}
	for range 3 {
		status, body := s.ask(t, "broken", `{}`)
		if status != http.StatusServiceUnavailable {
			t.Errorf("%d %s", status, body)
		}
		wantWords(t, "the answer", body, "syntax_error.py:2")
	}
	for range 200 {
		if status, body := s.ask(t, "raising", `{"kind": "value"}`); status != http.StatusUnprocessableEntity {
			t.Fatalf("%d %s", status, body)
		}
	}
	if status, body := s.ask(t, "raising", `{`); status != http.StatusUnprocessableEntity {
		t.Errorf("%d %s", status, body)
	}
	if status, body := s.get(t, s.urls["serve"]+"/readyz"); status != http.StatusOK {
		t.Errorf("the instance serves what it can, and /readyz answers %d %s", status, body)
	}
	if status, body := s.get(t, s.urls["serve"]+"/readyz?endpoint=broken"); status != http.StatusServiceUnavailable {
		t.Errorf("/readyz of the endpoint answers %d %s", status, body)
	} else {
		wantWords(t, "/readyz of the endpoint", body, "syntax_error.py:2")
	}

	heading := regexp.MustCompile(`STATE +REQUESTS +ERRORS +CLIENT ERRORS +BAD REQUESTS +MEAN`)
	broken := regexp.MustCompile(`/broken +static +custom +failed +3 +3 +0 +0 +0.00 ms +load: .*syntax_error.py:2`)
	raising := regexp.MustCompile(`/raising +static +custom +ready +201 +0 +200 +1 `)
	for _, list := range [][]string{{"model", "list", "--verbose", "--serve-url", s.urls["serve"]}, {"model", "list", "--verbose"}} {
		s.eventually(t, patience, "the counts are reported", func() error {
			text := s.must(t, list...)
			if !heading.MatchString(text) || !broken.MatchString(text) || !raising.MatchString(text) {
				return fmt.Errorf("%v says %s", list, text)
			}
			if told := strings.Contains(text, "\nReported "); told == (len(list) > 3) {
				return fmt.Errorf("%v: the age of the report is told: %t", list, told)
			}
			return nil
		})
	}
	text, err := os.ReadFile(s.log)
	if err != nil {
		t.Fatal(err)
	}
	if n := strings.Count(string(text), "x0 must not be negative"); n < 1 || n > 12 { // the first has it three times
		t.Errorf("the log names the client's mistake %d times:\n%s", n, text)
	}
}
