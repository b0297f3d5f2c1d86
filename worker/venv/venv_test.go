package venv_test

import (
	"archive/zip"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"clearmlserving/leaktest"
	"clearmlserving/process"
	"clearmlserving/worker/venv"
)

// makeIn, when set, has the test binary make the environment of a code folder and
// nothing else: a process that a test can kill.
const makeIn = "VENV_TEST_MAKE_IN"

func TestMain(m *testing.M) {
	if folder := os.Getenv(makeIn); folder != "" {
		work := os.Getenv("VENV_TEST_WORK")
		maker := venv.New(venv.Options{Dir: filepath.Join(work, "environments"), Env: os.Environ(), UV: filepath.Join(work, "no-uv")})
		_, err := maker.Own(context.Background(), venv.Interpreter{Path: filepath.Join(work, "python"), Version: "3.11.1"}, folder)
		fmt.Println(err)
		return
	}
	leaktest.Main(m)
}

// fakePython notes what it is asked for and makes environments whose python is
// itself; it refuses to install what is called broken, and never ends on a hang.
const fakePython = `#!/bin/sh
echo "$@" >>"$CALLS"
case "$*" in
*"pip install"*)
	if grep -q broken requirements.txt 2>/dev/null; then
		echo "ERROR: No matching distribution found for broken" >&2
		exit 1
	fi
	if grep -q hang requirements.txt 2>/dev/null; then exec sleep 1000; fi
	;;
*"-m venv"*)
	for last; do :; done
	if grep -q linger requirements.txt 2>/dev/null && [ ! -e "$CALLS.lingers" ]; then
		exec 3<&0
		(touch "$CALLS.lingers"; sleep 1.5; mkdir -p "$last"; echo late >"$last/late"; echo "orphan ends" >>"$CALLS") <&3 &
		wait
	fi
	mkdir -p "$last/bin"
	cp "$0" "$last/bin/python"
	;;
*"print(json"*) echo '["/base/site-packages"]' ;;
esac
`

type fake struct {
	*venv.Maker
	dir, calls string
	env        []string
	base       venv.Interpreter
}

// another is a second Maker of the same folder.
func (f fake) another() *venv.Maker {
	return venv.New(venv.Options{Dir: f.dir, Env: f.env, UV: filepath.Join(f.dir, "no-uv")})
}

func newFake(t *testing.T, stall time.Duration) fake {
	t.Helper()
	work := t.TempDir()
	f := fake{dir: filepath.Join(work, "environments"), calls: filepath.Join(work, "calls"), base: venv.Interpreter{Path: filepath.Join(work, "python"), Version: "3.11.1"}}
	if err := os.WriteFile(f.base.Path, []byte(fakePython), 0o755); err != nil {
		t.Fatal(err)
	}
	f.env = []string{"PATH=" + os.Getenv("PATH"), "CALLS=" + f.calls}
	f.Maker = venv.New(venv.Options{Dir: f.dir, Env: f.env, UV: filepath.Join(work, "no-uv"), Stall: stall})
	return f
}

// installs counts how often something was installed.
func (f fake) installs(t *testing.T) int {
	t.Helper()
	text, err := os.ReadFile(f.calls)
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		t.Fatal(err)
	}
	return strings.Count(string(text), "pip install")
}

func folder(t *testing.T, files map[string]string) string {
	t.Helper()
	dir := t.TempDir()
	for name, text := range files {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

func (f fake) own(t *testing.T, text string) venv.Environment {
	t.Helper()
	e, err := f.Own(t.Context(), f.base, folder(t, map[string]string{"requirements.txt": text}))
	if err != nil {
		t.Fatal(err)
	}
	return e
}

func TestAnEnvironmentIsMadeOnceForWhatItIsMadeFrom(t *testing.T) {
	f := newFake(t, 0)
	first := f.own(t, "a==1\n")
	if again := f.own(t, "a==1\n"); again != first || f.installs(t) != 1 {
		t.Errorf("the same requirements made %v after %v, %d installs", again, first, f.installs(t))
	}
	if other := f.own(t, "a==2\n"); other == first {
		t.Error("other requirements are the same environment")
	}
	f.base.Version = "3.12.0"
	if other := f.own(t, "a==1\n"); other == first {
		t.Error("another interpreter is the same environment")
	}
	if layer, err := f.Layer(t.Context(), f.base, []string{"a==1"}); err != nil || layer == first {
		t.Errorf("a layer: %v, %v", layer, err)
	}
}

func TestTwoWhoAskAtTheSameTimeGetOne(t *testing.T) {
	f := newFake(t, 0)
	code := folder(t, map[string]string{"requirements.txt": "a"})
	var all sync.WaitGroup
	for range 4 {
		all.Go(func() {
			if _, err := f.Own(t.Context(), f.base, code); err != nil {
				t.Error(err)
			}
		})
	}
	all.Wait()
	if n := f.installs(t); n != 1 {
		t.Errorf("installed %d times", n)
	}
}

func TestAFailureTellsTheInstallersLastWordsAndLeavesNothing(t *testing.T) {
	f := newFake(t, 0)
	code := folder(t, map[string]string{"requirements.txt": "broken"})
	_, err := f.Own(t.Context(), f.base, code)
	failed, ok := errors.AsType[*venv.Error](err)
	if !ok || failed.Death.Code != 1 || !strings.Contains(err.Error(), "No matching distribution found for broken") || !strings.Contains(err.Error(), "pip install") {
		t.Fatalf("err = %v", err)
	}
	if left, _ := filepath.Glob(filepath.Join(f.dir, "*", "*")); len(left) > 0 {
		t.Errorf("left behind: %v", left)
	}
	if err := os.WriteFile(filepath.Join(code, "requirements.txt"), []byte("sound"), 0o644); err != nil {
		t.Fatal(err)
	}
	if _, err := f.Own(t.Context(), f.base, code); err != nil {
		t.Errorf("after the repair: %v", err)
	}
}

func TestWhatWasInterruptedIsMadeAgain(t *testing.T) {
	f := newFake(t, 0)
	code := folder(t, map[string]string{"requirements.txt": "hang"})
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() {
		_, err := f.Own(ctx, f.base, code)
		ended <- err
	}()
	for f.installs(t) == 0 {
		time.Sleep(5 * time.Millisecond) // another's child: there is no event to wait for
	}
	cancel()
	if err := <-ended; !errors.Is(err, context.Canceled) {
		t.Fatalf("err = %v", err)
	}
	first := f.own(t, "a")
	if err := os.Remove(filepath.Join(first.Dir, ".made.json")); err != nil { // as after a crash
		t.Fatal(err)
	}
	before := f.installs(t)
	if again := f.own(t, "a"); again != first || f.installs(t) != before+1 {
		t.Errorf("an environment without its stamp was taken")
	}
}

func TestAnInstallerThatSaysNothingIsEnded(t *testing.T) {
	f := newFake(t, 300*time.Millisecond)
	_, err := f.Own(t.Context(), f.base, folder(t, map[string]string{"requirements.txt": "hang"}))
	if failed, ok := errors.AsType[*venv.Error](err); !ok || !strings.Contains(failed.Error(), "said nothing for") {
		t.Errorf("err = %v", err)
	}
}

func TestPipTriesWhatUVCannotDo(t *testing.T) {
	f := newFake(t, 0)
	uv := filepath.Join(t.TempDir(), "uv")
	if err := os.WriteFile(uv, []byte("#!/bin/sh\ntest \"$1\" = --version && exit 0\necho 'no route to the index' >&2\nexit 2\n"), 0o755); err != nil {
		t.Fatal(err)
	}
	f.Maker = venv.New(venv.Options{Dir: f.dir, Env: []string{"PATH=" + os.Getenv("PATH"), "CALLS=" + f.calls}, UV: uv})
	f.own(t, "a")
	if n := f.installs(t); n != 1 {
		t.Errorf("pip installed %d times", n)
	}
	// If there is no venv either, the first reason is reported.
	f.base.Path = filepath.Join(t.TempDir(), "python")
	if err := os.WriteFile(f.base.Path, []byte("#!/bin/sh\necho 'no module named ensurepip' >&2\nexit 1\n"), 0o755); err != nil {
		t.Fatal(err)
	}
	_, err := f.Own(t.Context(), f.base, folder(t, map[string]string{"requirements.txt": "a"}))
	if err == nil || !strings.Contains(err.Error(), "no route to the index") {
		t.Errorf("err = %v", err)
	}
}

func TestAFolderWithoutRequirementsIsTold(t *testing.T) {
	f := newFake(t, 0)
	if _, err := f.Own(t.Context(), f.base, t.TempDir()); !errors.Is(err, venv.ErrNoRequirements) {
		t.Errorf("err = %v", err)
	}
}

// wheel writes a package of one module that holds VALUE.
func wheel(t *testing.T, dir, name, value string) string {
	t.Helper()
	file := name + "-1.0-py3-none-any.whl"
	f, err := os.Create(filepath.Join(dir, file))
	if err != nil {
		t.Fatal(err)
	}
	z := zip.NewWriter(f)
	info := name + "-1.0.dist-info/"
	for _, part := range [][2]string{
		{name + ".py", "VALUE = " + value + "\n"},
		{info + "METADATA", "Metadata-Version: 2.1\nName: " + name + "\nVersion: 1.0\n"},
		{info + "WHEEL", "Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n"},
		{info + "RECORD", fmt.Sprintf("%[1]s.py,,\n%[2]sMETADATA,,\n%[2]sWHEEL,,\n%[2]sRECORD,,\n", name, info)},
	} {
		w, err := z.Create(part[0])
		if err != nil {
			t.Fatal(err)
		}
		if _, err := w.Write([]byte(part[1])); err != nil {
			t.Fatal(err)
		}
	}
	if err := errors.Join(z.Close(), f.Close()); err != nil {
		t.Fatal(err)
	}
	return file
}

// says runs code and returns what it prints.
func says(t *testing.T, python, code string) string {
	t.Helper()
	var mu sync.Mutex
	var out strings.Builder
	child, err := process.Start(t.Context(), process.Spec{Path: python, Args: []string{"-c", code}, Env: []string{"PATH=" + os.Getenv("PATH")}, LogLine: func(_ process.Stream, line []byte) {
		mu.Lock()
		defer mu.Unlock()
		out.Write(line)
	}})
	if err != nil {
		t.Fatal(err)
	}
	<-child.Done()
	return out.String()
}

// realPython is an interpreter that can make environments by itself.
func realPython(t *testing.T) venv.Interpreter {
	t.Helper()
	path := os.Getenv("CLEARML_SERVING_TEST_PYTHON")
	if path == "" {
		path = "python3"
	}
	child, err := process.Start(t.Context(), process.Spec{Path: path, Args: []string{"-c", "import ensurepip"}, Env: []string{"PATH=" + os.Getenv("PATH")}})
	if err != nil {
		t.Skipf("no Python: %v", err)
	}
	if d := child.Death(); d.Code != 0 {
		t.Skipf("%s cannot make environments: %s", path, d.Detail())
	}
	return venv.Interpreter{Path: says(t, path, "import sys; print(sys.executable)"), Version: "3"}
}

func TestRealInstallers(t *testing.T) {
	base := realPython(t)
	uv, err := filepath.Abs("../../bin/tools/uv/bin/uv")
	if err != nil {
		t.Fatal(err)
	}
	for name, program := range map[string]string{"venv and pip": "no-such-uv", "uv": uv} {
		t.Run(name, func(t *testing.T) {
			if _, err := os.Stat(program); name == "uv" && err != nil {
				t.Skip("no uv in bin/tools: make python-env")
			}
			env := []string{"PATH=" + os.Getenv("PATH"), "HOME=" + t.TempDir(), "PIP_NO_INDEX=1"}
			m := venv.New(venv.Options{Dir: t.TempDir(), Env: env, UV: program})
			code := t.TempDir()
			for _, module := range []string{"json.py", "tempfile.py", "runpy.py"} { // the installers must not import them
				if err := os.WriteFile(filepath.Join(code, module), []byte("raise SystemExit('of the code')\n"), 0o644); err != nil {
					t.Fatal(err)
				}
			}
			file := wheel(t, code, "tiny", "41")
			if err := os.WriteFile(filepath.Join(code, "requirements.txt"), []byte("# local\n./"+file+"\n"), 0o644); err != nil {
				t.Fatal(err)
			}
			own, err := m.Own(t.Context(), base, code)
			if err != nil {
				t.Fatal(err)
			}
			if got := says(t, own.Python, "import tiny; print(tiny.VALUE)"); got != "41" {
				t.Errorf("the environment says %q", got)
			}
			more := filepath.Join(code, wheel(t, code, "more", "7"))
			layer, err := m.Layer(t.Context(), venv.Interpreter{Path: own.Python, Version: "3"}, []string{more})
			if err != nil {
				t.Fatal(err)
			}
			if got := says(t, layer.Python, "import tiny, more; print(tiny.VALUE + more.VALUE)"); got != "48" {
				t.Errorf("the layer says %q", got)
			}
			if got := says(t, own.Python, "import more"); !strings.Contains(got, "ModuleNotFoundError") {
				t.Errorf("the layer changed what lies below: %q", got)
			}
			if name != "uv" {
				return // pip is slow
			}
			wheel(t, code, "tiny", "42")
			changed, err := m.Own(t.Context(), base, code)
			if err != nil {
				t.Fatal(err)
			}
			if got := says(t, changed.Python, "import tiny; print(tiny.VALUE)"); got != "42" || changed == own {
				t.Errorf("after a change of the wheel it says %q", got)
			}
			if err := os.WriteFile(filepath.Join(code, "requirements.txt"), []byte("no-such-package-at-all"), 0o644); err != nil {
				t.Fatal(err)
			}
			_, err = m.Own(t.Context(), base, code)
			if failed, ok := errors.AsType[*venv.Error](err); !ok || !strings.Contains(failed.Error(), "no-such-package-at-all") {
				t.Errorf("err = %v", err)
			}
		})
	}
}

func TestWhatAKilledProcessBeganDoesNotWriteBesideTheNextOne(t *testing.T) {
	f := newFake(t, 0)
	code := folder(t, map[string]string{"requirements.txt": "linger"})
	killed, err := process.Start(t.Context(), process.Spec{
		Path: os.Args[0], Env: append(f.env, makeIn+"="+code, "VENV_TEST_WORK="+filepath.Dir(f.dir)),
	})
	if err != nil {
		t.Fatal(err)
	}
	for deadline := time.Now().Add(time.Minute); ; time.Sleep(time.Millisecond) {
		if _, err := os.Stat(f.calls + ".lingers"); err == nil {
			break
		}
		if time.Now().After(deadline) {
			t.Fatal("it never began")
		}
	}
	if err := killed.Kill(); err != nil {
		t.Fatal(err)
	}
	<-killed.Done()
	e, err := f.Own(t.Context(), f.base, code)
	if err != nil {
		t.Fatal(err)
	}
	f.Close()
	if _, err := os.Stat(filepath.Join(e.Dir, "late")); err == nil {
		t.Error("the environment holds what a killed process's child wrote")
	}
	text, err := os.ReadFile(f.calls)
	if err != nil {
		t.Fatal(err)
	}
	first, rest, ended := strings.Cut(string(text), "orphan ends")
	if !ended || strings.Count(first, "-m venv") != 1 || strings.Count(rest, "-m venv") != 1 {
		t.Errorf("calls:\n%s", text)
	}
}
