// Package layout has no code: its tests check the structure of the tree. They own the
// allowed imports between packages, the rule of one package comment each, and the forbidden
// names of folders and files.
package layout

import (
	"errors"
	"go/build"
	"go/parser"
	"go/token"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

const module = "clearmlserving"

// arrow allows the packages below from to import the packages below each of to.
// Other imports are forbidden; more than one arrow may match a package.
type arrow struct {
	from string
	to   []string
	why  string // printed for a violation
}

// A package matches "x" if it is x or below it, and "x!" only if it is x.
var arrows = []arrow{
	{"cmd/clearml-serving", []string{"canary", "clearml", "controlplane", "drift", "feedback", "hocon", "inference", "listen", "mar", "modelfile", "onnxruntime", "operations", "outbound", "places", "process", "requestlog", "serving", "sidecar", "statistics", "storage", "timeseries", "tracing", "worker"}, "cmd joins the parts: everything may be imported there, and nobody imports cmd"},
	{"inference!", []string{"inference/reconcile", "inference/router", "inference/engine!", "inference/openaiapi", "inference/v2", "serving", "tracing"}, "the core knows neither a protocol of clients, nor an engine, nor the control plane; only engines see workers and only reconcile sees storage"},
	{"inference/instance", []string{"inference!", "inference/reconcile", "inference/engine!", "clearml", "process", "serving"}, "the record of an instance follows what is served and reports it, and its machine, through the client"},
	{"inference/rollout", []string{"canary", "clearml", "inference/reconcile", "inference/router", "operations", "serving"}, "decisions about canaries are made from the counts of the router, and stored as every edit of a service is"},
	{"inference/v2", []string{"inference/engine!", "inference/engine/jsontensor"}, "the codec of the V2 protocol turns bytes into tensors and back, and knows nothing else"},
	{"inference/grpcfront", []string{"inference!", "inference/engine!", "inference/grpcfront", "inference/v2", "serving", "tracing"}, "a front asks the core and knows nothing behind it; its messages are in a package of their own"},
	{"inference/rest", []string{"inference!", "inference/listener", "inference/mcp", "inference/openaiapi", "inference/openapi", "inference/engine!", "inference/v2", "serving", "tracing"}, "a front asks the core and knows nothing behind it"},
	{"inference/mcp", []string{"inference!", "inference/engine!", "inference/openapi", "serving", "tracing"}, "tools ask the core like a front, and are described as in the document of the API"},
	{"inference/openaiapi", nil, "what fronts and engines know of the OpenAI API: bytes in, bytes out"},
	{"inference/openapi", []string{"inference/engine!", "serving"}, "the document is made of signatures and names: it asks nobody"},
	{"inference/listener", []string{"inference/engine!", "serving"}, "the listener turns HTTP into engine.Request and knows nothing behind it"},
	{"inference/router", []string{"canary", "inference/engine!", "serving"}, "the router picks a model and does no I/O"},
	{"inference/reconcile", []string{"inference/router", "inference/engine!", "clearml", "drift", "operations", "serving", "storage"}, "reconcile loads models through the engine contract and fetches files through storage, never by an engine of its own; it records revisions as every editor of a service does"},
	{"inference/engine!", []string{"serving", "tracing"}, "the engine contract is what all rooms share, so it imports nothing but the vocabulary"},
	{"inference/engine/", []string{"inference/engine!", "inference/engine/batch", "inference/engine/jsontensor", "batching", "process", "serving", "sidecar!", "tracing", "worker"}, "an engine knows the contract, workers and how processes die, not its neighbours or the client's HTTP"},
	{"inference/engine/graph", []string{"inference/v2"}, "the steps of a graph exchange tensors and JSON in the forms of the V2 codec"},
	{"inference/engine/native", []string{"native", "inference/engine/prepost", "inference/engine/python", "inference/engine/onnx"}, "models that Go computes; the tests compare it with the Python engine, and convert to those of the engine onnx"},
	{"inference/engine/onnx", []string{"inference/engine/prepost", "inference/engine/python", "inference/openaiapi", "onnxruntime", "wordpiece"}, "the engine computes with the runtime in this process, between preprocess and postprocess in workers"},
	{"inference/engine/openai", []string{"inference/engine/prepost", "inference/engine/python", "inference/engine/remote", "inference/openaiapi", "sidecar"}, "the engine speaks the OpenAI API with servers, also with children of its own, between preprocess and postprocess in workers"},
	{"inference/engine/prepost", []string{"inference/engine/python"}, "user code around a computation runs in the workers of the Python engine"},
	{"inference/engine/torchserve", []string{"mar", "inference/engine/prepost", "inference/engine/python", "inference/engine/remote"}, "TorchServe takes archives and bodies; code around them runs in the workers of the Python engine"},
	{"inference/engine/v2server", []string{"inference/engine/prepost", "inference/engine/python", "inference/engine/remote", "inference/grpcfront/pb", "inference/v2"}, "a server of the V2 protocol is asked in the words of its codec and its messages, between preprocess and postprocess in workers"},
	{"controlplane!", []string{"controlplane/api", "controlplane/files", "controlplane/intake", "controlplane/store", "controlplane/ui", "listen", "serving", "storage", "timeseries"}, "controlplane assembles its parts; it meets inference over HTTP only"},
	{"controlplane/api", []string{"controlplane/documents", "controlplane/intake", "controlplane/store!", "serving"}, "calls go through the store's contract, never to one database"},
	{"controlplane/documents", []string{"controlplane/store!"}, "documents are read and written the same way by every call, so they know none"},
	{"controlplane/files", []string{"controlplane/intake", "controlplane/store!", "storage"}, "the file server knows no tasks and no calls"},
	{"controlplane/store", []string{"controlplane/store", "serving"}, "the store is the bottom of the control plane"},
	{"controlplane/store/postgres/postgrestest", []string{"leaktest"}, "it ends a package's tests, and so looks for what they leave"},
	{"controlplane/intake", nil, "intake bounds bodies and knows nothing of what they are for"},
	{"controlplane/ui", []string{"clearml", "controlplane/intake", "docs", "drift", "operations", "serving", "timeseries!"}, "a page may do what the API lets its user do, so it speaks the API and never sees the store"},
	{"timeseries/", []string{"timeseries"}, "the storages of time series know the contract and each other, not what the series mean"},
	{"timeseries", nil, "the contract of time series is what pages, drift and canaries share: it needs nothing of ours"},
	{"feedback", []string{"serving"}, "feedback takes copies of requests and truths in the words of serving: it knows neither the data plane nor the control plane"},
	{"requestlog", []string{"serving"}, "the request log takes copies of requests in the words of serving, and puts files by an interface"},
	{"statistics", []string{"drift", "process", "serving", "statistics"}, "statistics takes samples and a status in the words of serving, and measures processes: it knows neither the data plane nor the control plane"},
	{"statistics/kafka", []string{"leaktest"}, "its tests look for leaked goroutines"},
	{"statistics/definitions", []string{"clearml"}, "the definitions of variables are on the control plane"},
	{"sidecar!", []string{"process"}, "the supervisor of a server knows processes, not what the server does"},
	{"sidecar/torchserve", []string{"process", "sidecar!"}, "how a server is run: its command line and its probe"},
	{"sidecar/triton", []string{"inference/engine!", "process", "serving", "sidecar!"}, "the models of an instance are in Triton's repository: it fulfils the contract of engines, and reconcile follows the configuration"},
	{"worker/host", []string{"worker"}, "the host puts pools and environments together for the engines"},
	{"worker/workertest", []string{"worker!"}, "it finds the interpreter for the tests of everything that starts workers"},
	{"worker", []string{"batching", "process", "serving"}, "workers are processes with a protocol: no HTTP, no control plane"},
	{"clearml", []string{"hocon", "outbound", "serving", "storage!", "storage/https"}, "the client knows the API's words and the domain's; files go to the file server through the adapter that reads them"},
	{"modelfile", []string{"serving"}, "modelfile reads files and knows the names of engines"},
	{"mar", []string{"serving", "storage!"}, "archives are unpacked as safely as all others"},
	{"places", []string{"clearml", "hocon", "outbound", "storage"}, "places translates clearml.conf into the options of the storages"},
	{"operations", []string{"clearml", "serving"}, "operations edit a service through the API, and print nothing"},
	{"storage", []string{"outbound", "storage"}, "places translates clearml.conf into storage.Options, so storage needs nothing of ours but connections"},
	{"drift!", nil, "drift computes with values and counts: it needs nothing of ours"},
	{"drift/table", []string{"drift!"}, "table reads files into references"},
	{"drift/watch", []string{"clearml", "drift!", "serving"}, "the watcher reads counters as time series, and services through the client"},
	{"canary", nil, "the decisions about canaries are pure: they need nothing of ours"},
	{"native", nil, "native computes models from flat files: it needs nothing of ours"},
	{"batching", []string{"serving"}, "batching decides by numbers alone: it needs only the vocabulary"},
	{"atomicfile", nil, "atomicfile is the floor: it needs nothing of ours"},
	{"recurring", nil, "recurring is the floor: it needs nothing of ours"},
	{"retry", nil, "retry is the floor: it needs nothing of ours"},
	{"tracing", nil, "tracing is the floor: it needs nothing of ours"},
	{"process", nil, "process is the floor: it needs nothing of ours"},
	{"wordpiece", nil, "the tokenizer knows texts and numbers: it needs nothing of ours"},
	{"onnxruntime", nil, "the binding knows C and tensors: it needs nothing of ours"},
	{"outbound", nil, "outbound is the floor: it needs nothing of ours"},
	{"listen", nil, "listen is the floor: it needs nothing of ours"},
	{"hocon", nil, "hocon reads a text: it needs nothing of ours"},
	{"serving", nil, "serving is the vocabulary: pure, it imports nothing of ours"},
	{"docs", nil, "docs carries the pages of the documentation: it needs nothing of ours"},
	{"monitoring", nil, "the dashboards are made of the names of metrics: monitoring needs nothing of ours"},
	{"bench", []string{"bench"}, "the benchmark drives the built binary from outside"},
	{"chaos", []string{"controlplane!", "inference/grpcfront/pb!"}, "the faults hit the built binary from outside; only a control plane with a wrong clock is put together there, and a stand-in for Triton, which speaks in its messages"},
	{"security", []string{"controlplane", "feedback", "inference", "serving", "statistics", "storage", "clearml", "listen", "worker"}, "the security suite attacks the parts from outside, all of them"},
	{"e2e", []string{"e2e", "timeseries!", "bench/load", "bench/proc", "inference/grpcfront/pb!"}, "the end-to-end tests drive the built binary from outside, with the messages of its open protocol, and measure it as the benchmark does"},
}

// fronts are the packages that answer clients in a protocol.
var fronts = []string{"inference/grpcfront", "inference/rest"}

// tools may be imported everywhere.
var tools = []string{"atomicfile", "recurring", "retry"}

// below reports whether a package (its path in the module) matches a pattern: "x"
// is x and all packages below it, "x!" only x, "x/" only packages below it.
func below(pkg, pattern string) bool {
	if exact, ok := strings.CutSuffix(pattern, "!"); ok {
		return pkg == exact
	}
	if strings.HasSuffix(pattern, "/") {
		return strings.HasPrefix(pkg, pattern)
	}
	return pkg == pattern || strings.HasPrefix(pkg, pattern+"/")
}

// suites are packages of tests of an interface: the tests of its implementations import them.
func suite(pkg string) bool { return strings.HasSuffix(pkg, "test") }

// allowed reports whether from may import to, or the reason why not.
func allowed(from, to string) (ok bool, why string) {
	if slices.Contains(tools, to) {
		return true, ""
	}
	for _, a := range arrows {
		if !below(from, a.from) {
			continue
		}
		why = a.why
		for _, pattern := range a.to {
			if below(to, pattern) {
				return true, ""
			}
		}
	}
	if why == "" {
		why = from + " has no arrow: add one to layout_test.go with its reason"
	}
	return false, why
}

// packages calls each with every folder of this module that has Go files.
func packages(t *testing.T, each func(dir string)) {
	t.Helper()
	err := filepath.WalkDir(".", func(path string, d fs.DirEntry, err error) error {
		if gone(err) {
			return nil
		}
		if err != nil || !d.IsDir() {
			return err
		}
		if path != "." && hidden(d.Name()) {
			return filepath.SkipDir
		}
		if files, err := filepath.Glob(filepath.Join(path, "*.go")); err != nil || len(files) > 0 {
			each(filepath.ToSlash(path))
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
}

// gone reports a file that a concurrent test of another package has created and removed.
func gone(err error) bool { return errors.Is(err, fs.ErrNotExist) }

// hidden are folders without source: made by tools, or fixtures.
func hidden(name string) bool {
	return strings.HasPrefix(name, ".") || name == "bin" || name == "testdata" || name == "node_modules"
}

func TestImportsFollowTheArrows(t *testing.T) {
	seen := 0
	packages(t, func(dir string) {
		pkg, err := build.ImportDir(dir, 0)
		if err != nil {
			if _, none := err.(*build.NoGoError); none { //nolint:errorlint // go/build documents the plain type
				return
			}
			t.Errorf("%s: %v", dir, err)
			return
		}
		seen++
		inTests := slices.Concat(pkg.TestImports, pkg.XTestImports)
		for _, path := range slices.Concat(pkg.Imports, inTests) {
			to, ours := strings.CutPrefix(path, module+"/")
			if !ours || to == dir {
				continue
			}
			if testOnly := !slices.Contains(pkg.Imports, path); testOnly && (suite(to) || below(dir, "cmd") || slices.Contains(fronts, dir) && to == "inference/reconcile") {
				continue // a suite is imported by the tests of what fulfils its interface; a front's tests configure an instance
			}
			if to == "inference/listener" && !slices.Contains(fronts, dir) {
				t.Errorf("%s must not import %s: only fronts know the clients' HTTP", dir, to)
			}
			if suite(dir) && below(to, filepath.ToSlash(filepath.Dir(dir))) {
				continue // a suite knows the interface that it tests
			}
			if ok, why := allowed(dir, to); !ok {
				t.Errorf("%s must not import %s: %s", dir, to, why)
			}
		}
	})
	if seen < 5 {
		t.Fatalf("looked at %d packages only: is the test run in the module's root?", seen)
	}
}

func TestEveryPackageHasOneComment(t *testing.T) {
	packages(t, func(dir string) {
		files, err := filepath.Glob(filepath.Join(dir, "*.go"))
		if err != nil {
			t.Fatal(err)
		}
		var commented []string
		for _, file := range files {
			if strings.HasSuffix(file, "_test.go") && dir != "." {
				continue
			}
			parsed, err := parser.ParseFile(token.NewFileSet(), file, nil, parser.ParseComments|parser.PackageClauseOnly)
			if err != nil {
				t.Errorf("%s: %v", file, err)
				continue
			}
			if parsed.Doc == nil {
				continue
			}
			commented = append(commented, file)
			if text := parsed.Doc.Text(); parsed.Name.Name != "main" && !strings.HasPrefix(text, "Package "+parsed.Name.Name+" ") {
				t.Errorf("%s: the package comment must begin with \"Package %s \"", file, parsed.Name.Name)
			}
		}
		if len(commented) != 1 && !(len(commented) == 0 && onlyTests(files)) {
			t.Errorf("%s: want the package comment in exactly one file, found it in %d %v", dir, len(commented), commented)
		}
	})
}

func onlyTests(files []string) bool {
	return !slices.ContainsFunc(files, func(file string) bool { return !strings.HasSuffix(file, "_test.go") })
}

// forbiddenNames do not describe the content.
var forbiddenNames = []string{"util", "utils", "common", "helper", "helpers", "misc", "base", "manager", "interfaces", "mocks", "types", "pkg", "internal"}

func TestNoNameThatSaysNothing(t *testing.T) {
	err := filepath.WalkDir(".", func(path string, d fs.DirEntry, err error) error {
		if gone(err) {
			return nil
		}
		if err != nil {
			return err
		}
		if path != "." && d.IsDir() && hidden(d.Name()) {
			return filepath.SkipDir
		}
		if !d.IsDir() && !slices.Contains([]string{".go", ".py", ".sh"}, filepath.Ext(path)) {
			return nil
		}
		name := strings.TrimSuffix(strings.TrimSuffix(d.Name(), filepath.Ext(path)), "_test")
		if slices.Contains(forbiddenNames, name) {
			t.Errorf("%s: %q says nothing about what is inside; name it after its subject, or move it to its one user", path, name)
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
}

func TestEveryDependencyIsExplained(t *testing.T) {
	mod, err := os.ReadFile("go.mod")
	if err != nil {
		t.Fatal(err)
	}
	explained, err := os.ReadFile("docs/dependencies.md")
	if err != nil {
		t.Fatal(err)
	}
	direct := 0
	for line := range strings.Lines(string(mod)) {
		fields := strings.Fields(strings.TrimPrefix(strings.TrimSpace(line), "require "))
		if len(fields) != 2 || !strings.HasPrefix(fields[1], "v") || !strings.Contains(fields[0], ".") {
			continue // indirect ones have a comment behind them
		}
		direct++
		if !strings.Contains(string(explained), "`"+fields[0]+"`") {
			t.Errorf("docs/dependencies.md says nothing about %s: what for, why this one, licence", fields[0])
		}
	}
	if direct == 0 {
		t.Fatal("no direct dependency found in go.mod: the test reads it wrongly")
	}
}
