//go:build linux

package browser_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/chromedp/cdproto/cdp"
	"github.com/chromedp/cdproto/emulation"
	"github.com/chromedp/cdproto/log"
	"github.com/chromedp/cdproto/page"
	"github.com/chromedp/cdproto/runtime"
	"github.com/chromedp/chromedp"
)

var root, binary, python, chromium string

func TestMain(m *testing.M) {
	if os.Getenv("CLEARML_SERVING_E2E_BROWSER") == "" {
		fmt.Println("e2e/browser: skipped; it needs the built binary, Python and Chromium: make e2e-browser")
		return
	}
	if err := prepare(); err != nil {
		fmt.Fprintln(os.Stderr, "e2e/browser:", err)
		os.Exit(1)
	}
	os.Exit(m.Run())
}

func prepare() (err error) {
	if root, err = filepath.Abs("../.."); err != nil {
		return err
	}
	binary, python = filepath.Join(root, "bin/clearml-serving"), filepath.Join(root, ".venv/bin/python")
	if given := os.Getenv("CLEARML_SERVING_E2E_BINARY"); given != "" {
		binary = given
	}
	for _, file := range []string{binary, python} {
		if _, err := os.Stat(file); err != nil {
			return fmt.Errorf("%w; run make e2e-browser", err)
		}
	}
	for _, name := range []string{"chromium", "chromium-browser", "google-chrome"} {
		if chromium, err = exec.LookPath(name); err == nil {
			return nil
		}
	}
	return errors.New("no Chromium found: apt-get install chromium")
}

// system is a running installation with data for every page.
type system struct {
	t            *testing.T
	dir          string
	env          []string
	service      string
	older, newer string // experiments
	models       []string
	api, serve   string
}

// newSystem starts everything on free ports and trains twice.
func newSystem(t *testing.T) *system {
	t.Helper()
	s := startSystem(t)
	// Outside of any repository, so that no page shows the path of this one.
	script := filepath.Join(s.dir, "experiments.py")
	text, err := os.ReadFile(filepath.Join(root, "e2e/browser/testdata/experiments.py"))
	if err == nil {
		err = os.WriteFile(script, text, 0o600)
	}
	if err != nil {
		t.Fatal(err)
	}
	s.run(s.dir, python, script, "forest of 20", "20", "2")
	s.run(s.dir, python, script, "forest of 60", "60", "3")
	s.furnish()
	return s
}

// startSystem starts everything on free ports.
func startSystem(t *testing.T) *system {
	t.Helper()
	s := &system{t: t, dir: t.TempDir()}
	data := filepath.Join(s.dir, "data")
	up := exec.Command(binary, "up", "--data-dir", data, "--serve-addr", "127.0.0.1:0", "--api-addr", "127.0.0.1:0", "--files-addr", "127.0.0.1:0", "--grpc-addr", "127.0.0.1:0", "--admin-addr", "127.0.0.1:0")
	up.Env = append(os.Environ(), "CLEARML_SERVING_PYTHON="+python)
	logFile, err := os.Create(filepath.Join(s.dir, "up.log"))
	if err != nil {
		t.Fatal(err)
	}
	up.Stdout, up.Stderr = logFile, logFile
	up.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	if err := up.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = up.Process.Signal(syscall.SIGTERM) // it may have ended
		_ = up.Wait()                          // the exit code of a stop by signal is not checked
		_ = logFile.Close()
		if t.Failed() {
			text, _ := os.ReadFile(logFile.Name())
			t.Logf("log of up:\n%s", text)
		}
	})
	until(t, "the server is up", time.Minute, func() bool {
		text, err := os.ReadFile(filepath.Join(data, "endpoints.json"))
		var addresses map[string]string
		if err != nil || json.Unmarshal(text, &addresses) != nil {
			return false
		}
		s.serve = addresses["serve"]
		return addresses["api"] != "" && s.serve != ""
	})
	// The SDK's search for a repository can hang when it forks.
	conf := filepath.Join(s.dir, "sdk.conf")
	if err := os.WriteFile(conf, []byte("sdk { development { vcs_repo_detect_async: false } }\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	var variables map[string]string
	s.decode(s.run(s.dir, binary, "--json", "env", "--data-dir", data), &variables)
	s.env = append(os.Environ(), "CLEARML_CONFIG_FILE="+conf)
	for name, value := range variables {
		s.env = append(s.env, name+"="+value)
	}
	s.api = variables["CLEARML_API_HOST"]
	return s
}

// furnish creates a service with two versions, a canary over them, a monitoring rule, and a
// logged metric.
func (s *system) furnish() {
	s.t.Helper()
	var created struct{ ID string }
	s.decode(s.run(s.dir, binary, "--json", "create", "--name", "wine"), &created)
	s.service = created.ID
	list := s.run(s.dir, python, "-c", `
from clearml import Model, Task
print(*[m.id for m in sorted(Model.query_models(project_name="wine"), key=lambda m: m._get_model_data().created)])
print(*[Task.get_task(project_name="wine", task_name=n).id for n in ("forest of 20", "forest of 60")])`)
	lines := strings.Split(strings.TrimSpace(list), "\n")
	tasks := strings.Fields(lines[len(lines)-1])
	s.models = strings.Fields(lines[len(lines)-2])
	s.older, s.newer = tasks[0], tasks[1]
	code := filepath.Join(root, "e2e/browser/testdata/preprocess.py")
	for i, model := range s.models {
		s.run(s.dir, binary, "--id", s.service, "model", "add", "--engine", "sklearn", "--endpoint", "wine", "--version", fmt.Sprint(i+1), "--model-id", model, "--preprocess", code, "--wait")
	}
	s.run(s.dir, binary, "--id", s.service, "model", "canary", "--endpoint", "wine_canary", "--weights", "0.1", "0.9", "--input-endpoints", "wine/2", "wine/1", "--wait")
	s.run(s.dir, binary, "--id", s.service, "model", "auto-update", "--engine", "sklearn", "--endpoint", "wine_auto", "--preprocess", code, "--name", "wine forest", "--project", "wine", "--max-versions", "2")
	s.run(s.dir, binary, "--id", s.service, "metrics", "add", "--endpoint", "wine/2", "--variable-scalar", "alcohol=11,12,13,14")
}

func (s *system) decode(text string, into any) {
	s.t.Helper()
	if err := json.Unmarshal([]byte(text), into); err != nil {
		s.t.Fatalf("%v in %s", err, text)
	}
}

func (s *system) run(dir string, name string, args ...string) string {
	s.t.Helper()
	ctx, cancel := context.WithTimeout(s.t.Context(), 5*time.Minute)
	defer cancel()
	cmd := exec.CommandContext(ctx, name, args...)
	cmd.Dir, cmd.Env = dir, s.env
	var stderr strings.Builder
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		s.t.Fatalf("%s %v: %v\n%s\n%s", name, args, err, out, stderr.String())
	}
	return string(out)
}

func until(t *testing.T, what string, limit time.Duration, done func() bool) {
	t.Helper()
	for deadline := time.Now().Add(limit); !done(); time.Sleep(50 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("%s: not within %s", what, limit)
		}
	}
}

// person is a user at a browser window.
type person struct {
	t   *testing.T
	s   *system
	ctx context.Context //nolint:containedctx // chromedp keeps the window in it

	mu       sync.Mutex // guards problems
	problems []string   // reported by the browser: errors of scripts, violations of the content policy
}

// openBrowser opens a window and logs it in.
func openBrowser(t *testing.T, s *system) *person {
	t.Helper()
	flags := append([]chromedp.ExecAllocatorOption{
		chromedp.ExecPath(chromium), chromedp.UserDataDir(t.TempDir()), chromedp.WindowSize(1280, 900),
	}, chromedp.NoSandbox, chromedp.Headless, chromedp.DisableGPU, chromedp.NoFirstRun, chromedp.NoDefaultBrowserCheck)
	for _, flag := range []string{"disable-quic", "disable-background-networking", "disable-component-update", "disable-sync", "hide-scrollbars"} {
		flags = append(flags, chromedp.Flag(flag, true))
	}
	allocated, cancel := chromedp.NewExecAllocator(t.Context(), flags...)
	t.Cleanup(cancel)
	window, cancel := chromedp.NewContext(allocated)
	t.Cleanup(cancel)
	limited, cancel := context.WithTimeout(window, 15*time.Minute)
	t.Cleanup(cancel)
	p := &person{t: t, s: s, ctx: limited}
	err := chromedp.Listen(window, func(event any) {
		switch event := event.(type) {
		case *runtime.EventExceptionThrown:
			p.note("script error: " + event.ExceptionDetails.Text)
		case *log.EventEntryAdded:
			if event.Entry.Level == log.EntryLevelError && event.Entry.Source != log.EntrySourceNetwork {
				p.note("browser: " + event.Entry.Text)
			}
		case *page.EventJavascriptDialogOpening:
			go func() { _ = chromedp.Do(window, agree()) }() // ends with the window
		}
	})
	if err != nil {
		t.Fatal(err)
	}
	p.do(chromedp.Func(func(ctx context.Context, target *chromedp.Target) error {
		_, err := cdp.Call(ctx, target, log.Enable, cdp.Empty{})
		return err
	}))
	var link struct{ URL string }
	s.decode(s.run(s.dir, binary, "--json", "ui"), &link)
	p.do(chromedp.Navigate(link.URL), chromedp.WaitVisible(chromedp.CSS("main h1")))
	return p
}

// present reports whether the page contains such an element.
func (p *person) present(selector string) bool {
	p.t.Helper()
	return value[bool](p, `document.querySelector(`+quoted(selector)+`) !== null`)
}

func (p *person) note(problem string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.problems = append(p.problems, problem)
}

// step is one action of a user.
type step = chromedp.Action[chromedp.Void]

// holds waits until an expression is true in the page.
func holds(expression string) step {
	return chromedp.Func(func(ctx context.Context, target *chromedp.Target) error {
		for {
			// During a navigation there is no page in which to evaluate.
			if is, err := chromedp.Evaluate[bool]("Boolean("+expression+")")(ctx, target); err == nil && is {
				return nil
			}
			select {
			case <-ctx.Done():
				return fmt.Errorf("%s: %w", expression, ctx.Err())
			case <-time.After(50 * time.Millisecond):
			}
		}
	})
}

// value returns the value of an expression in the page.
func value[T any](p *person, expression string) T {
	p.t.Helper()
	limited, cancel := context.WithTimeout(p.ctx, time.Minute)
	defer cancel()
	v, err := chromedp.Run(limited, chromedp.Evaluate[T](expression, chromedp.EvalAwaitPromise))
	if err != nil {
		p.t.Fatalf("%s: %v\n%s", expression, err, p.whereabouts())
	}
	return v
}

// whereabouts returns the address and the text of the page, for messages.
func (p *person) whereabouts() string {
	limited, cancel := context.WithTimeout(p.ctx, 5*time.Second)
	defer cancel()
	text, err := chromedp.Run(limited, chromedp.Evaluate[string](`location.href + "\n" + document.body.innerText.slice(0, 3000)`))
	if err != nil {
		return err.Error()
	}
	return text
}

// content fails the test if the browser has reported problems.
func (p *person) content() {
	p.t.Helper()
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, problem := range p.problems {
		p.t.Error(problem)
	}
	p.problems = nil
}

func (p *person) do(actions ...step) {
	p.t.Helper()
	limited, cancel := context.WithTimeout(p.ctx, time.Minute)
	defer cancel()
	if err := chromedp.Do(limited, actions...); err != nil {
		p.t.Fatalf("%v\n%s", err, p.whereabouts())
	}
}

// open goes to a page and waits for its heading.
func (p *person) open(path string) {
	p.t.Helper()
	p.do(chromedp.Navigate(p.s.api+path), chromedp.WaitVisible(chromedp.CSS("main h1")))
	p.content()
}

// sees waits until the page shows the words.
func (p *person) sees(words ...string) {
	p.t.Helper()
	for _, word := range words {
		limited, cancel := context.WithTimeout(p.ctx, 30*time.Second)
		err := chromedp.Do(limited, holds(`document.querySelector("main") && document.querySelector("main").innerText.includes(`+quoted(word)+`)`))
		cancel()
		if err != nil {
			p.t.Fatalf("the page does not show %q: %v\n%s", word, err, p.whereabouts())
		}
	}
	p.content()
}

func quoted(text string) string {
	out, err := json.Marshal(text)
	if err != nil {
		panic(err)
	}
	return string(out)
}

// press clicks a button, by its label, and waits for the next page.
func (p *person) press(within, words string) {
	p.t.Helper()
	p.do(chromedp.Click(`//main//`+within+`//*[self::button or self::a][normalize-space()="`+words+`"]`), chromedp.WaitReady(chromedp.CSS("main h1")))
}

// write replaces the text of a field.
func (p *person) write(field, text string) {
	p.t.Helper()
	// Typed text replaces the selection.
	p.do(chromedp.WaitVisible(chromedp.CSS(field)))
	value[bool](p, `(document.querySelector(`+quoted(field)+`).select(), true)`)
	p.do(chromedp.SendKeys(chromedp.CSS(field), text))
}

// picture takes a screenshot of the page for the documentation, if requested.
func (p *person) picture(name string, height int64, actions ...step) {
	p.t.Helper()
	if os.Getenv("CLEARML_SERVING_E2E_SCREENSHOTS") == "" {
		return
	}
	p.shot(name, append([]step{chromedp.EmulateViewport(1280, height)}, actions...)...)
}

func (p *person) phonePicture(name string) {
	p.t.Helper()
	if os.Getenv("CLEARML_SERVING_E2E_SCREENSHOTS") != "" {
		p.shot(name, chromedp.EmulateViewport(390, 844, chromedp.EmulateScale(1.5), chromedp.EmulateMobile))
	}
}

func (p *person) shot(name string, actions ...step) {
	p.t.Helper()
	p.do(append(actions, chromedp.Sleep(700*time.Millisecond))...) // for fonts and charts
	image, err := chromedp.Run(p.ctx, chromedp.CaptureScreenshot())
	if err != nil {
		p.t.Fatal(err)
	}
	if len(image) > 200_000 {
		p.t.Errorf("%s has %d bytes: too much for a page of the documentation", name, len(image))
	}
	if err := os.WriteFile(filepath.Join(root, "docs/images", name), image, 0o644); err != nil { //nolint:gosec // readable for everyone
		p.t.Fatal(err)
	}
	p.do(chromedp.EmulateViewport(1280, 900))
}

// agree confirms the dialog before an action that cannot be undone.
func agree() step {
	return chromedp.Func(func(ctx context.Context, target *chromedp.Target) error {
		_, err := cdp.Call(ctx, target, page.HandleJavaScriptDialog, page.HandleJavaScriptDialogParams{Accept: true})
		return err
	})
}

// prefers sets the theme of the user's system.
func prefers(scheme string) step {
	return chromedp.Func(func(ctx context.Context, target *chromedp.Target) error {
		_, err := cdp.Call(ctx, target, emulation.SetEmulatedMedia, emulation.SetEmulatedMediaParams{
			Features: []*emulation.MediaFeature{{Name: "prefers-color-scheme", Value: scheme}},
		})
		return err
	})
}
