package main

import (
	"cmp"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"sync"

	"github.com/spf13/cobra"

	"clearmlserving/clearml"
	"clearmlserving/inference/engine/onnx"
	"clearmlserving/inference/engine/python"
	"clearmlserving/onnxruntime"
	"clearmlserving/process"
	"clearmlserving/serving"
	"clearmlserving/worker/venv"
)

// trialCommand is the child process in which the engine onnx tries a model.
func trialCommand(a *app) *cobra.Command {
	return &cobra.Command{
		Use:         trialName,
		Hidden:      true,
		Args:        cobra.ExactArgs(1),
		Annotations: map[string]string{markWords: "", markTolerant: ""},
		RunE: func(cmd *cobra.Command, args []string) error {
			if code := onnx.Trial(cmd.Context(), args[0], a.sys.stdout, a.sys.stderr); code != 0 {
				return errToldAlready
			}
			return nil
		},
	}
}

const trialName = "onnx-trial"

// onnxEngine computes ONNX models. Code around them runs in the workers of python.
func (a *app) onnxEngine(dataDir string, python *python.Engine, log *slog.Logger) (*onnx.Engine, error) {
	self, err := os.Executable()
	if err != nil {
		return nil, fmt.Errorf("find this program: %w", err)
	}
	all, _ := process.MemoryLimit() // 0 where it is not known: then nothing is bounded
	budget, err := a.setting("memory-budget").memory(all)
	if err != nil {
		return nil, err
	}
	var mu sync.Mutex // guards found
	var found string
	return onnx.New(onnx.Options{
		Python: python,
		Trial:  []string{self, trialName}, TrialEnv: a.passed([]string{"PATH", "LD_LIBRARY_PATH", "HOME", "CUDA_VISIBLE_DEVICES"}), Memory: budget, Logger: log,
		Find: func(ctx context.Context) (string, error) {
			mu.Lock()
			defer mu.Unlock()
			if found != "" && exists(found) {
				return found, nil
			}
			library, err := a.onnxRuntime(ctx, dataDir)
			if err != nil {
				return "", err
			}
			found = library
			log.Info("onnx runtime found", "library", library)
			return library, nil
		},
	}), nil
}

// onnxFolder is where doctor --install onnx puts the library.
func onnxFolder(dataDir string) string { return filepath.Join(dataDir, "onnxruntime") }

// systemLibraries are the folders of the system's libraries.
var systemLibraries = []string{"/usr/local/lib", "/usr/local/lib64", "/usr/lib/x86_64-linux-gnu", "/usr/lib/aarch64-linux-gnu", "/usr/lib64", "/usr/lib", "/opt/homebrew/lib"}

// onnxRuntime finds the shared library of ONNX Runtime: as configured alone, else that of the
// interpreter's package onnxruntime, else that in the data folder, else the system's.
func (a *app) onnxRuntime(ctx context.Context, dataDir string) (string, error) {
	if s := a.setting("onnxruntime-library"); s.value != "" {
		if info, err := os.Stat(s.value); err != nil || info.IsDir() {
			return "", s.refuse("there is no such file: give the path of libonnxruntime.so")
		}
		return filepath.Abs(s.value)
	}
	if !onnxruntime.Available {
		return "", onnxruntime.ErrStatic
	}
	var candidates []string
	if python, err := a.findPython(ctx, a.workerEnv(clearml.Config{})); err == nil && python.ONNXRuntime != "" {
		candidates = append(candidates, python.ONNXRuntime)
	}
	if err := context.Cause(ctx); err != nil {
		return "", err
	}
	for _, folder := range append([]string{onnxFolder(dataDir)}, systemLibraries...) {
		candidates = append(candidates, librariesIn(folder)...)
	}
	var old []string
	for _, candidate := range candidates {
		if version := libraryVersion(candidate); version == "" || onnxruntime.Supported(version) {
			return candidate, nil
		}
		old = append(old, candidate)
	}
	text := fmt.Sprintf("engine onnx needs ONNX Runtime (the shared library libonnxruntime, 1.%d or newer), which is not there", onnxruntime.OldestMinor)
	if old != nil {
		text += " (too old: " + strings.Join(old, ", ") + ")"
	}
	return "", errors.New(text + ": " + onnxHint)
}

const onnxHint = "run clearml-serving doctor --install onnx, or install the package onnxruntime for the interpreter of --python, or name the library: --onnxruntime-library"

// librariesIn are ONNX Runtime's libraries in a folder, the newest first.
func librariesIn(folder string) []string {
	var found []string
	for _, pattern := range []string{"libonnxruntime.so*", "libonnxruntime*.dylib"} {
		matches, _ := filepath.Glob(filepath.Join(folder, pattern)) // the patterns are valid
		for _, match := range matches {
			if full, err := filepath.EvalSymlinks(match); err == nil && !slices.Contains(found, full) {
				found = append(found, full)
			}
		}
	}
	slices.SortFunc(found, func(x, y string) int { return cmp.Compare(y, x) })
	return found
}

// libraryVersion is the release in the name of a library, "" if it has none.
func libraryVersion(path string) string {
	name := strings.TrimSuffix(filepath.Base(path), ".dylib")
	_, version, _ := strings.Cut(strings.TrimPrefix(name, "libonnxruntime"), ".")
	version = strings.TrimPrefix(version, "so.")
	if !strings.Contains(version, ".") {
		return ""
	}
	return version
}

// onnxRelease is the release that doctor --install onnx fetches: the file of the package index for this
// system, and the library in it.
const onnxRelease = "1.32.0"

type onnxFile struct {
	wheel         venv.Wheel
	library, hash string
}

func onnxFiles() map[string]onnxFile {
	file := func(pip, uv, wheel, library, hash string) onnxFile {
		return onnxFile{venv.Wheel{Package: "onnxruntime", Version: onnxRelease, SHA256: wheel, Python: "3.13", PipPlatform: pip, UVPlatform: uv}, library, hash}
	}
	return map[string]onnxFile{
		"linux/amd64": file("manylinux_2_28_x86_64", "x86_64-manylinux_2_28", "02ea12a28c069ea8510093d95a7f6ff8126bfd9fc5c0d3381c03b80fb2b424ba",
			"libonnxruntime.so."+onnxRelease, "6c1585d1bbf45b0712ea4a21b705c5fcb4ba04ff2e30f1fbf81a49faf658638f"),
		"linux/arm64": file("manylinux_2_28_aarch64", "aarch64-manylinux_2_28", "54d02baff2df38777b4c3cc7af326406fe8b8a48f54720f4c446d2d327920a79",
			"libonnxruntime.so."+onnxRelease, "49852228a93995158b2a813d4df487d47a1b76b0eaa894507ef49e91b6d7954a"),
		"darwin/arm64": file("macosx_14_0_arm64", "aarch64-apple-darwin", "27bf5dad46355a8a435c9c4e1556464d99ca834ea44e0f452909712068b8821b",
			"libonnxruntime."+onnxRelease+".dylib", "fa585fabbea65b823b9a8f7e27d46aee3989d1be7e36b528203d3a1fd613aae7"),
	}
}

// fetchONNX fetches ONNX Runtime into the data folder with the installer of the interpreter, from
// the package index that it is configured for. It returns the library's path.
func (a *app) fetchONNX(ctx context.Context, dataDir string, log *slog.Logger) (string, error) {
	system := runtime.GOOS + "/" + runtime.GOARCH
	file, known := onnxFiles()[system]
	switch {
	case !onnxruntime.Available:
		return "", onnxruntime.ErrStatic
	case !known:
		return "", fmt.Errorf("no package of ONNX Runtime for %s is known: install the library yourself, and name it with --onnxruntime-library", system)
	}
	python, err := a.findPython(ctx, a.workerEnv(clearml.Config{}))
	if err != nil {
		return "", fmt.Errorf("ONNX Runtime is fetched by pip: %w", err)
	}
	folder := onnxFolder(dataDir)
	if err := os.MkdirAll(folder, 0o755); err != nil {
		return "", err
	}
	temp, err := os.MkdirTemp(folder, ".fetch-")
	if err != nil {
		return "", err
	}
	defer os.RemoveAll(temp) //nolint:errcheck // a leftover is no library
	base := venv.Interpreter{Path: firstOf(python.Executable, python.Python), Version: python.Version}
	if err := a.environments(dataDir, madeFolders{}, log).Fetch(ctx, base, file.wheel, temp); err != nil {
		return "", err
	}
	from := filepath.Join(temp, "onnxruntime", "capi", file.library)
	if err := checkHash(from, file.hash); err != nil {
		return "", err
	}
	to := filepath.Join(folder, file.library)
	return to, os.Rename(from, to)
}

// installONNX is a value of doctor --install.
const installONNX = "onnx"

// doctorInstalls fetches ONNX Runtime. A library that is there is enough.
func (a *app) doctorInstalls(ctx context.Context) error {
	dir, err := a.dataDir()
	if err != nil {
		return err
	}
	library, err := a.onnxRuntime(ctx, dir)
	fetched := err != nil
	if fetched {
		a.print.line("Fetching ONNX Runtime %s", onnxRelease)
		if library, err = a.fetchONNX(ctx, dir, a.logger(slog.LevelWarn)); err != nil {
			return err
		}
	}
	if _, err := onnxruntime.Open(library, onnxruntime.Options{}); err != nil {
		return hint(err, "%s", "Try: another library with --onnxruntime-library")
	}
	a.print.line("ONNX Runtime: %s", library)
	return a.print.result(object{{"library", library}, {"fetched", fetched}})
}

// runLibrary is the ONNX Runtime that is there for a plan, "" if there is none or none is needed. It is
// asked before the data folder is a temporary one.
func (a *app) runLibrary(ctx context.Context, p *runPlan) (string, error) {
	if p.engine != serving.EngineONNX {
		return "", nil
	}
	dir, err := a.dataDir()
	if err != nil {
		return "", err
	}
	library, err := a.onnxRuntime(ctx, dir)
	if err != nil && (a.text("onnxruntime-library") != "" || !onnxruntime.Available) {
		return "", err
	}
	return library, nil
}

// fetchForRun fetches ONNX Runtime into the data folder.
func (a *app) fetchForRun(ctx context.Context) (string, error) {
	dir, err := a.dataDir()
	if err != nil {
		return "", err
	}
	a.print.line("Fetching ONNX Runtime %s", onnxRelease)
	return a.fetchONNX(ctx, dir, a.logger(slog.LevelWarn))
}

// checkHash compares the content of a file with its hash.
func checkHash(path, want string) error {
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	defer f.Close() //nolint:errcheck // only read from
	sum := sha256.New()
	if _, err := io.Copy(sum, f); err != nil {
		return err
	}
	if got := hex.EncodeToString(sum.Sum(nil)); got != want {
		return fmt.Errorf("%s has the hash %s instead of %s: it is not what ONNX Runtime has published", filepath.Base(path), got, want)
	}
	return nil
}

// checkONNX tells whether ONNX models can be served.
func (a *app) checkONNX(ctx context.Context) []finding {
	dir, err := a.dataDir()
	if err != nil {
		return nil // told by the check of the folder
	}
	library, err := a.onnxRuntime(ctx, dir)
	if err != nil {
		return []finding{{"engine", stateWarn, "onnx cannot run: there is no ONNX Runtime", "Only if you need it: " + firstLine(err.Error())}}
	}
	opened, err := onnxruntime.Open(library, onnxruntime.Options{})
	if err != nil {
		return []finding{{"engine", stateWarn, "onnx cannot run: " + err.Error(), "Only if you need it: " + onnxHint}}
	}
	providers, err := opened.Providers()
	if err != nil {
		return []finding{{"engine", stateWarn, "onnx: " + err.Error(), ""}}
	}
	return []finding{{"engine", stateOK, fmt.Sprintf("onnx: ONNX Runtime %s at %s with %s", opened.Version(), opened.Path(), strings.Join(providers, ", ")), ""}}
}
