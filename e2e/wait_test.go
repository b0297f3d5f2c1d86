//go:build linux

package e2e_test

import (
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// tripsOverFile is code that cannot load on a machine where the file exists.
func tripsOverFile(t *testing.T, s *system, file string) string {
	t.Helper()
	return writeCode(t, s, "trips.py", fmt.Sprintf(`import os


class Preprocess:
    def __init__(self):
        if os.path.exists(os.path.join(os.environ["HOME"], %q)):
            raise RuntimeError("this machine has no accelerator")

    def process(self, data, state, collect_custom_statistics_fn=None):
        return {"ok": True}
`, file))
}

func TestWaitIsOverAllInstancesAndNamesTheOneThatFails(t *testing.T) {
	plane := controlPlane(t)
	id, other := createdID(t, plane.must(t, "create", "--name", "waited for")), createdID(t, plane.must(t, "create", "--name", "another"))
	a, b := instance(t, plane, id), instance(t, plane, id)
	c, d := instance(t, plane, other), instance(t, plane, other)
	name := func(s *system) string { return s.urls["serve"][strings.LastIndexByte(s.urls["serve"], ':'):] } // ":port"
	recorded := func(id string, n int) {
		t.Helper()
		plane.eventually(t, patience, fmt.Sprintf("%d instances are known", n), func() error {
			list := plane.must(t, "--id", id, "--json", "model", "list", "--verbose")
			if got := strings.Count(list, `"serve_url"`); got != n {
				return fmt.Errorf("%d are:\n%s", got, list)
			}
			return nil
		})
	}
	recorded(id, 2)
	recorded(other, 2)
	add := func(id, endpoint, code string) result {
		t.Helper()
		return plane.cli(t, "--id", id, "model", "add", "--engine", "custom", "--endpoint", endpoint, "--preprocess", code, "--wait")
	}

	// After --wait the endpoint answers on each instance of the service, and on no other.
	own := writeCode(t, plane, "own.py", answersWith("own"))
	if r := add(id, "own", own); r.code != 0 || !strings.Contains(r.out, "All 2 running inference services serve the change") {
		t.Fatal(r)
	}
	for _, s := range []*system{a, b} {
		s.wants(t, "own", `{"x":1}`, `{"code":"own"}`)
	}
	for _, s := range []*system{c, d} {
		s.unknown(t, "own")
	}

	// One of two cannot load it.
	if err := os.WriteFile(filepath.Join(b.dir, "home", "broken"), nil, 0o644); err != nil {
		t.Fatal(err)
	}
	r := add(id, "trips", tripsOverFile(t, plane, "broken"))
	if r.code != 1 {
		t.Errorf("one of two instances fails, --wait ended with %v", r)
	}
	wantWords(t, "--wait", r.out, name(b)+": endpoint 'trips': load", "this machine has no accelerator", "of 2 instances serve it")
	if strings.Contains(r.out, name(a)+": endpoint") {
		t.Errorf("--wait blames the instance that serves it: %v", r)
	}
	listed := []string{`(?m)^/own +static +custom .*ready 2/2 `, `(?m)^/trips +static +custom .*ready 1/2 .*` + name(b) + `: failed, load: .*no accelerator`}
	plane.eventually(t, patience, "model list shows both", func() error { // the other may still load after --wait has seen the failure
		list := plane.must(t, "--id", id, "model", "list", "--verbose")
		for _, want := range listed {
			if !regexp.MustCompile(want).MatchString(list) {
				return fmt.Errorf("it lacks %s:\n%s", want, list)
			}
		}
		return nil
	})

	// --wait does not wait for an ended instance, and for a killed one only until it counts as dead.
	b.stop(t)
	if r := add(id, "trips", tripsOverFile(t, plane, "broken")); r.code != 0 {
		t.Errorf("the instance that failed is gone: %v", r)
	}
	d.kill(t)
	if r := add(other, "own", own); r.code != 0 || !strings.Contains(r.out, "The running inference service serves the change") {
		t.Errorf("one of two instances was killed: %v", r)
	}
	c.wants(t, "own", `{"x":1}`, `{"code":"own"}`)

	// Instances that do not answer in time are named.
	c.stop(t)
	if r := plane.cli(t, "--id", other, "model", "remove", "--endpoint", "own", "--wait"); r.code != 1 {
		t.Errorf("no instance serves the service, --wait ended with %v", r)
	}
}
