//go:build linux

package e2e_test

import (
	"archive/zip"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// offline keeps installers off the network, with the uv that make has installed.
func offline() []string {
	return []string{"PIP_NO_INDEX=1", "UV_OFFLINE=1", "PATH=" + filepath.Join(root, "bin/tools/uv/bin") + ":" + os.Getenv("PATH")}
}

// wheel writes a package of one module with the constant VALUE.
func wheel(t *testing.T, dir, name string, value int) string {
	t.Helper()
	path := filepath.Join(dir, name+"-1.0-py3-none-any.whl")
	f, err := os.Create(path)
	if err != nil {
		t.Fatal(err)
	}
	z := zip.NewWriter(f)
	info := name + "-1.0.dist-info/"
	for file, text := range map[string]string{
		name + ".py":      fmt.Sprintf("VALUE = %d\n", value),
		info + "METADATA": "Metadata-Version: 2.1\nName: " + name + "\nVersion: 1.0\n",
		info + "WHEEL":    "Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
		info + "RECORD":   fmt.Sprintf("%[1]s.py,,\n%[2]sMETADATA,,\n%[2]sWHEEL,,\n%[2]sRECORD,,\n", name, info),
	} {
		w, err := z.Create(file)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := w.Write([]byte(text)); err != nil {
			t.Fatal(err)
		}
	}
	if err := errors.Join(z.Close(), f.Close()); err != nil {
		t.Fatal(err)
	}
	return path
}

// packageCode writes a folder of code that answers a package's VALUE.
func packageCode(t *testing.T, s *system, folder, name, requirements string) string {
	t.Helper()
	writeCode(t, s, folder+"/__init__.py", fmt.Sprintf(
		"import %[1]s\n\n\nclass Preprocess:\n    def process(self, data, state, collect_custom_statistics_fn=None):\n        return {%[1]q: %[1]s.VALUE}\n", name))
	if requirements == "" {
		return filepath.Join(s.dir, "work", folder)
	}
	return filepath.Dir(writeCode(t, s, folder+"/requirements.txt", requirements))
}

func TestAModelBringsItsOwnCode(t *testing.T) {
	s := up(t)
	id := createdID(t, s.must(t, "create"))
	s.must(t, "--id", id, "model", "auto-update", "--engine", "custom", "--endpoint", "code", "--project", "with code",
		"--max-versions", "9", "--preprocess", writeCode(t, s, "rule.py", answersWith("the rule's")))
	s.register(t, id, "plain", "--name", "plain", "--project", "with code")
	s.answers(t, "code/1", `{"code":"the rule's"}`)
	s.register(t, id, "file", "--name", "file", "--project", "with code", "--preprocess", writeCode(t, s, "own.py", answersWith("its own")))
	s.answers(t, "code/2", `{"code":"its own"}`)
	folder := filepath.Dir(writeCode(t, s, "folder/__init__.py", "from .answer import Preprocess  # noqa: F401\n"))
	writeCode(t, s, "folder/answer.py", answersWith("a folder's"))
	s.register(t, id, "folder", "--name", "folder", "--project", "with code", "--preprocess", folder)
	s.answers(t, "code/3", `{"code":"a folder's"}`)

	// New code of the rule applies to models without code.
	s.must(t, "--id", id, "model", "auto-update", "--engine", "custom", "--endpoint", "code", "--project", "with code",
		"--max-versions", "9", "--preprocess", writeCode(t, s, "rule.py", answersWith("newer")))
	s.answers(t, "code/1", `{"code":"newer"}`)
	s.answers(t, "code/2", `{"code":"its own"}`)

	// A rule without code serves models with code.
	s.must(t, "--id", id, "model", "auto-update", "--engine", "custom", "--endpoint", "bare", "--project", "with code", "--name", "file")
	s.answers(t, "bare/1", `{"code":"its own"}`)
}

func TestAnEndpointRunsInAnEnvironmentOfItsOwn(t *testing.T) {
	s := install(t)
	extra := wheel(t, s.dir, "extra_package", 7)
	env := append(offline(), "CLEARML_EXTRA_PYTHON_PACKAGES="+extra)
	s.start(t, role{env: env})
	t.Cleanup(func() { s.stop(t) })
	id := createdID(t, s.must(t, "create"))
	add := func(endpoint, folder string, flags ...string) result {
		t.Helper()
		return s.cli(t, append([]string{"--id", id, "model", "add", "--engine", "custom", "--endpoint", endpoint, "--preprocess", folder, "--wait", "--wait-timeout", "5m"}, flags...)...)
	}
	shared := packageCode(t, s, "shared", "extra_package", "")
	if r := add("shared", shared); r.code != 0 {
		t.Fatalf("extra packages: %v", r)
	}
	s.wants(t, "shared", `{}`, `{"extra_package":7}`)

	own := packageCode(t, s, "own", "tiny", "./tiny-1.0-py3-none-any.whl\n")
	wheel(t, own, "tiny", 41)
	if r := add("own", own, "--aux-config", "environment=own"); r.code != 0 {
		t.Fatalf("own environment: %v", r)
	}
	s.wants(t, "own", `{}`, `{"tiny":41}`)
	if r := add("not_own", own); r.code != 1 || !strings.Contains(r.out, "No module named 'tiny'") {
		t.Errorf("the shared environment has packages of an endpoint's environment: %v", r)
	}
	s.must(t, "--id", id, "model", "remove", "--endpoint", "not_own")

	// A changed package needs a new environment; no request waits for it.
	c := s.clients(2, "own", `{}`, func(answer string) error {
		if answer != `{"tiny":41}` && answer != `{"tiny":42}` {
			return errors.New(answer)
		}
		return nil
	})
	wheel(t, own, "tiny", 42)
	if r := add("own", own, "--aux-config", "environment=own"); r.code != 0 {
		t.Errorf("changed package: %v", r)
	}
	s.eventually(t, patience, "the new package answers", func() error {
		status, got := s.ask(t, "own", `{}`)
		return answerError(status, got, `{"tiny":42}`)
	})
	c.end(t)

	// A failed environment is reported, and the previous version stays in service.
	packageCode(t, s, "own", "tiny", "no-such-package-at-all\n")
	r := add("own", own, "--aux-config", "environment=own")
	if r.code != 1 {
		t.Errorf("an environment that cannot be created ended with %d", r.code)
	}
	wantWords(t, "model add --wait", r.out, "no-such-package-at-all", "own")
	s.wants(t, "own", `{}`, `{"tiny":42}`)

	// The next start uses the existing environments: nothing is installed again.
	s.stop(t)
	before, err := os.ReadFile(s.log)
	if err != nil {
		t.Fatal(err)
	}
	packageCode(t, s, "own", "tiny", "./tiny-1.0-py3-none-any.whl\n")
	s.start(t, role{env: env})
	if r := add("own", own, "--aux-config", "environment=own"); r.code != 0 {
		t.Errorf("after a restart: %v", r)
	}
	s.eventually(t, patience, "both answer after a restart", func() error {
		status, got := s.ask(t, "shared", `{}`)
		status2, got2 := s.ask(t, "own", `{}`)
		return errors.Join(answerError(status, got, `{"extra_package":7}`), answerError(status2, got2, `{"tiny":42}`))
	})
	after, err := os.ReadFile(s.log)
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(after[len(before):])) {
		if strings.Contains(line, "python environment created") {
			t.Errorf("created again at the next start: %s", line)
		}
	}
}
