//go:build linux

package e2e_test

import (
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
)

// fails starts the service, which must exit with 1, and returns its output.
func (s *system) fails(t *testing.T, r role) string {
	t.Helper()
	s.launch(t, r)
	if code := s.end(t, patience); code != 1 {
		t.Errorf("the service ended with %d, want 1", code)
	}
	s.noProcessLeft(t)
	return lastLines(s.log)
}

func TestAPortInUseIsNamedWithItsFlag(t *testing.T) {
	taken, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer taken.Close() //nolint:errcheck // nothing was sent
	s := install(t)
	address := taken.Addr().String()
	said := s.fails(t, role{args: []string{"up", "--serve-addr", address, "--api-addr", "127.0.0.1:0", "--files-addr", "127.0.0.1:0", "--grpc-addr", "127.0.0.1:0", "--admin-addr", "127.0.0.1:0"}})
	wantWords(t, "up", said, address, "in use", "--serve-addr")
	wantNoTrace(t, "up", said)
}

func TestADataFolderInUseIsNamed(t *testing.T) {
	s := up(t)
	second := install(t)
	second.data = s.data
	second.launch(t, role{})
	if code := second.end(t, patience); code != 1 {
		t.Errorf("a second up on the same folder ended with %d, want 1", code)
	}
	wantWords(t, "the second up", lastLines(second.log), s.data)
	if err := s.readRegistry(); err != nil {
		t.Errorf("the first one's addresses are lost: %v", err)
	}
}

func TestADataFolderThatCannotBeWrittenIsNamed(t *testing.T) {
	s := install(t)
	if err := os.Mkdir(s.data, 0o555); err != nil {
		t.Fatal(err)
	}
	r := role{}
	if os.Geteuid() == 0 { // root may write anywhere
		r.as = &syscall.Credential{Uid: 65534, Gid: 65534}
		for dir := s.dir; dir != os.TempDir() && dir != "/"; dir = filepath.Dir(dir) {
			if err := os.Chmod(dir, 0o755); err != nil {
				t.Fatal(err)
			}
		}
		if err := os.Chmod(filepath.Join(s.dir, "tmp"), 0o777); err != nil {
			t.Fatal(err)
		}
	}
	said := s.fails(t, r)
	wantWords(t, "up", said, s.data)
	wantNoTrace(t, "up", said)
}

// readOnly makes a folder, with all below it, one that cannot be written, until undo is called.
func readOnly(t *testing.T, dir string) (undo func()) {
	t.Helper()
	if os.Geteuid() != 0 {
		change := func(mode os.FileMode) {
			err := filepath.WalkDir(dir, func(path string, d os.DirEntry, err error) error {
				if err == nil && d.IsDir() {
					err = os.Chmod(path, mode)
				}
				return err
			})
			if err != nil {
				t.Error(err)
			}
		}
		change(0o555)
		undo = func() { change(0o755) }
		t.Cleanup(undo) // else the test's folder cannot be removed
		return undo
	}
	// Root may write anywhere, unless the disk is read-only.
	if err := syscall.Mount(dir, dir, "", syscall.MS_BIND, ""); err != nil {
		t.Skipf("root cannot be kept from writing: %v", err)
	}
	mounted := true
	undo = func() {
		if mounted {
			mounted = false
			if err := syscall.Unmount(dir, syscall.MNT_DETACH); err != nil {
				t.Error(err)
			}
		}
	}
	t.Cleanup(undo)
	if err := syscall.Mount("", dir, "", syscall.MS_BIND|syscall.MS_REMOUNT|syscall.MS_RDONLY, ""); err != nil {
		t.Skipf("a disk cannot be made read-only: %v", err)
	}
	return undo
}

// An instance whose cache becomes read-only goes on with what it serves, names the folder for what it cannot fetch, and
// fetches that once the folder can be written. It does not start with such a cache.
func TestACacheThatCannotBeWrittenIsNamed(t *testing.T) {
	plane := controlPlane(t)
	id := createdID(t, plane.must(t, "create"))
	add := func(text string) {
		model := plane.register(t, id, text, "--name", text, "--project", "cache")
		plane.must(t, "--id", id, "model", "add", "--engine", "custom", "--endpoint", text, "--preprocess", code("reads_model.py"), "--model-id", model)
	}
	add("before")
	s := install(t)
	s.startInstance(t, plane, id)
	s.answers(t, "before", says("before"))
	cache := filepath.Join(s.data, "cache")
	undo := readOnly(t, cache)
	add("meanwhile")
	s.eventually(t, patience, "the folder is named", func() error {
		status, got := s.ask(t, "meanwhile", "{}")
		if _, state := s.get(t, s.urls["serve"]+"/status"); status != http.StatusServiceUnavailable || !strings.Contains(state, cache) {
			return fmt.Errorf("%d %s; status: %s", status, got, state)
		}
		return nil
	})
	wantWords(t, "the log", lastLines(s.log), cache, "another data folder")
	s.answers(t, "before", says("before"))
	undo()
	s.answers(t, "meanwhile", says("meanwhile"))
	s.stop(t)

	undo = readOnly(t, cache)
	said := s.fails(t, role{
		args: []string{"--id", id, "inference", "--serve-addr", "127.0.0.1:0", "--grpc-addr", "127.0.0.1:0", "--admin-addr", "127.0.0.1:0"}, env: plane.sdk,
	})
	wantWords(t, "inference", said, cache, "another data folder")
	wantNoTrace(t, "inference", said)
	undo()
	s.startInstance(t, plane, id)
	s.answers(t, "before", says("before"))
	s.stop(t)
}

// bareEnvironment is a Python environment without packages. site is code
// that its interpreter runs at every start.
func bareEnvironment(t *testing.T, s *system, site string) string {
	t.Helper()
	dir := filepath.Join(s.dir, "python")
	out, err := exec.Command(pythonSDK2, "-m", "venv", "--without-pip", dir).CombinedOutput()
	if err != nil {
		t.Fatalf("make an environment: %v\n%s", err, out)
	}
	packages, err := filepath.Glob(filepath.Join(dir, "lib/python3*/site-packages"))
	if err != nil || len(packages) != 1 {
		t.Fatalf("found %v (%v)", packages, err)
	}
	if site != "" {
		if err := os.WriteFile(filepath.Join(packages[0], "sitecustomize.py"), []byte(site), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	return filepath.Join(dir, "bin/python")
}

func TestAPythonThatCannotBeUsedIsNamedWithWhatToDo(t *testing.T) {
	const old = "import sys\nsys.version_info = (3, 7, 9, 'final', 0)\nsys.version = '3.7.9 (old)'\nimport platform\nplatform.python_version = lambda: '3.7.9'\n"
	tests := []struct {
		name   string
		python func(t *testing.T, s *system) string
		words  []string
	}{
		{"missing", func(*testing.T, *system) string { return "/nowhere/python3" }, []string{"/nowhere/python3"}},
		{"too old", func(t *testing.T, s *system) string { t.Helper(); return bareEnvironment(t, s, old) }, []string{"3.7", "3.9"}},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			s := install(t)
			python := test.python(t, s)
			s.launch(t, role{python: python})
			said := s.pythonComplaint(t, "custom", code("echo.py"))
			wantWords(t, "the service", said, test.words...)
			wantNoTrace(t, "the service", said)
			doctor := s.cliWith(t, []string{"CLEARML_SERVING_PYTHON=" + python}, "doctor")
			if doctor.code != 1 {
				t.Errorf("doctor ended with %d, want 1", doctor.code)
			}
			wantWords(t, "doctor", doctor.out, test.words...)
		})
	}
}

func TestALackingPackageIsNamedWithTheCommandThatInstallsIt(t *testing.T) {
	s := install(t)
	s.start(t, role{python: bareEnvironment(t, s, "")})
	t.Cleanup(func() { s.stop(t) })
	service := createdID(t, s.must(t, "create"))
	file := filepath.Join(s.dir, "work", "model.pkl")
	if err := os.WriteFile(file, []byte("x"), 0o644); err != nil {
		t.Fatal(err)
	}
	s.must(t, "--id", service, "model", "upload", "--name", "lacking model", "--project", "lacking", "--path", file)
	r := s.cli(t, "model", "add", "--engine", "sklearn", "--endpoint", "lacking", "--name", "lacking model", "--project", "lacking", "--wait")
	if r.code != 1 {
		t.Errorf("model add --wait ended with %v, want 1", r)
	}
	wantWords(t, "model add --wait", r.out, "lacking", "scikit-learn", "pip install")
	s.must(t, "model", "add", "--engine", "custom", "--endpoint", "plain", "--preprocess", code("echo.py"), "--wait")
	s.wants(t, "plain", `{"x": 1}`, `{"echo":{"x":1}}`)
}

// pythonComplaint returns the service's message about its Python: from its start if it
// fails, else from an endpoint that cannot be loaded.
func (s *system) pythonComplaint(t *testing.T, engine, preprocess string) string {
	t.Helper()
	for end := time.Now().Add(patience); time.Now().Before(end); time.Sleep(tick) {
		select {
		case <-s.done:
			s.noProcessLeft(t)
			return lastLines(s.log)
		default:
		}
		if s.readRegistry() != nil {
			continue
		}
		if status, _ := s.get(t, s.urls["api"]+"/livez"); status != http.StatusOK {
			continue
		}
		t.Cleanup(func() { s.stop(t) })
		variables := map[string]string{}
		decode(t, s.must(t, "env", "--data-dir", s.data, "--format", "json"), &variables)
		for name, value := range variables {
			s.sdk = append(s.sdk, name+"="+value)
		}
		s.must(t, "create")
		r := s.cli(t, "model", "add", "--engine", engine, "--endpoint", "broken", "--preprocess", preprocess, "--wait")
		if r.code == 0 {
			t.Errorf("an endpoint was loaded without a usable Python: %v", r)
		}
		return r.out + lastLines(s.log)
	}
	t.Fatalf("the service neither started nor ended:\n%s", lastLines(s.log))
	return ""
}

func TestWrongCredentialsAreRefusedByNameAndWithAHint(t *testing.T) {
	s := up(t)
	s.must(t, "create")
	r := s.cliWith(t, []string{"CLEARML_API_ACCESS_KEY=NOBODY", "CLEARML_API_SECRET_KEY=wrong"}, "list")
	if r.code != 4 {
		t.Errorf("list with wrong credentials ended with %d, want 4", r.code)
	}
	wantWords(t, "list", r.out, "Error:", strings.TrimPrefix(s.urls["api"], "http://"), "Try: ")
	if strings.Contains(r.out+r.err, "wrong") {
		t.Errorf("the secret was printed:\n%v", r)
	}
	s.must(t, "list")
}

func TestAServerThatIsAwayIsNamed(t *testing.T) {
	s := install(t)
	const address = "127.0.0.1:1" // a reserved port
	r := s.cliWith(t, []string{"CLEARML_API_HOST=http://" + address, "CLEARML_API_ACCESS_KEY=A", "CLEARML_API_SECRET_KEY=B"}, "list")
	if r.code != 1 {
		t.Errorf("list without a server ended with %d, want 1", r.code)
	}
	wantWords(t, "list", r.out, address)
}

// Neither start nor stop waits for a Python that never becomes ready, and stop does not wait for
// idle connections.
func TestStartAndStopWaitForNobody(t *testing.T) {
	s := install(t)
	begun := time.Now()
	s.start(t, role{python: bareEnvironment(t, s, "import time\ntime.sleep(86400)\n")}) // its client keeps a connection
	started := time.Since(begun)
	s.eventually(t, patience, "a Python has been started", func() error {
		if len(s.pythons()) == 0 {
			return errors.New("not yet")
		}
		return nil
	})
	begun = time.Now()
	s.stop(t)
	t.Logf("started in %v, stopped in %v", started, time.Since(begun))
	if said := lastLines(s.log); strings.Contains(said, "were cut at stop") {
		t.Errorf("the stop waited for a connection until its limit:\n%s", said)
	}
}
