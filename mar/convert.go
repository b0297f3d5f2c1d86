package mar

import (
	"context"
	"embed"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
)

//go:embed adapter/*.py adapter/library/ts/*.py adapter/library/ts/*/*.py
var adapter embed.FS

const library = "adapter/library"

// PythonPackage is TorchServe's own Python package, with the handlers that the adapter does not have.
const PythonPackage = "torchserve==0.12.0"

// ownHandlers are the handlers of TorchServe that the adapter has too, without the package; with the packages of
// Python that they need.
var ownHandlers = map[string][]string{
	"base_handler":     {"torch"},
	"vision_handler":   {"torch", "torchvision", "pillow"},
	"image_classifier": {"torch", "torchvision", "pillow"},
	"image_segmenter":  {"torch", "torchvision", "pillow"},
	"object_detector":  {"torch", "torchvision", "pillow"},
}

// packageHandlers are those that only the package has.
var packageHandlers = map[string][]string{
	"text_handler":    {"torch"},
	"text_classifier": {"torch"},
}

// foreign are settings of model-config.yaml that an endpoint cannot have.
var foreign = map[string]string{
	"parallelType":       "the model runs in several processes on several GPUs",
	"parallelLevel":      "the model runs in several processes on several GPUs",
	"torchrun":           "the model runs in several processes on several GPUs",
	"continuousBatching": "the handler decides about batches in a protocol of TorchServe",
	"sequenceBatching":   "requests of a sequence must reach the same worker",
	"stateful":           "requests of a sequence must reach the same worker",
	"asyncCommunication": "the handler answers in a protocol of TorchServe",
}

// Options of Convert.
type Options struct {
	// Own: the endpoint gets an environment of its own also if the archive has no requirements.
	Own bool
	// Instance: the endpoint has the instance's environment also if the archive has requirements.
	Instance bool
	// Requirements are further lines of requirements.txt.
	Requirements []string
	// Package: handlers come from TorchServe's Python package.
	Package bool
}

// Endpoint is what has become of an archive.
type Endpoint struct {
	// Code is the folder with the class Preprocess.
	Code string
	// Model is the file of the model, "" if the archive has none.
	Model string
	// Settings are those for the endpoint's auxiliary configuration, nil if there are none.
	Settings map[string]any
	// Packages are what the handler needs in the endpoint's Python environment, as pip names them.
	Packages []string
	// Notes are for the user: settings of the archive that are to be made elsewhere.
	Notes []string
}

// Convert makes an endpoint of an archive, in a new folder. Files of the archive are moved into it. An *Error says
// what cannot be converted, and what to do.
func (a *Archive) Convert(ctx context.Context, folder string, o Options) (*Endpoint, error) {
	m := a.Manifest.Model
	for _, name := range sorted(foreign) {
		if _, set := a.Config[name]; set {
			return nil, fault("%s has %s: %s, which an endpoint in Python cannot do. Serve the archive with --engine torchserve", m.ConfigFile, name, foreign[name])
		}
	}
	sources, err := a.sources()
	if err != nil {
		return nil, err
	}
	packages, missing, err := a.needs(sources)
	if err != nil {
		return nil, err
	}
	if len(missing) > 0 && !o.Package {
		return nil, fault("the handler needs %s of TorchServe's Python package, which is not replaced. Give --torchserve-package to install %s for the endpoint, as a library without the server",
			strings.Join(missing, ", "), PythonPackage)
	}
	if o.Package {
		packages = append([]string{PythonPackage, "captum", "pyyaml", "packaging"}, packages...)
	}
	e := &Endpoint{Code: filepath.Join(folder, "code"), Packages: packages, Settings: map[string]any{}}
	if err := a.write(ctx, e, o); err != nil {
		return nil, err
	}
	if err := a.environment(e, o); err != nil {
		return nil, err
	}
	e.batching(a.Config)
	if len(e.Settings) == 0 {
		e.Settings = nil
	}
	return e, nil
}

// write makes the folder with the code.
func (a *Archive) write(ctx context.Context, e *Endpoint, o Options) error {
	m := a.Manifest.Model
	err := fs.WalkDir(adapter, "adapter", func(name string, entry fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if o.Package && name == library {
			return fs.SkipDir
		}
		target := filepath.Join(e.Code, filepath.FromSlash(strings.TrimPrefix(strings.TrimPrefix(name, "adapter"), "/")))
		if entry.IsDir() {
			return os.MkdirAll(target, 0o755)
		}
		text, err := adapter.ReadFile(name)
		if err != nil {
			return err
		}
		return os.WriteFile(target, text, 0o644)
	})
	if err != nil {
		return err
	}
	if m.SerializedFile != "" {
		if path.Dir(m.SerializedFile) != "." {
			return fault("%s: model.serializedFile: %q is in a folder", ManifestName, m.SerializedFile)
		}
		e.Model = filepath.Join(filepath.Dir(e.Code), "model", m.SerializedFile)
		if err := os.MkdirAll(filepath.Dir(e.Model), 0o755); err != nil {
			return err
		}
		if err := os.Rename(filepath.Join(a.Folder, m.SerializedFile), e.Model); err != nil {
			return err
		}
	}
	if err := os.Rename(a.Folder, filepath.Join(e.Code, "archive")); err != nil {
		return err
	}
	a.Folder = filepath.Join(e.Code, "archive")
	handler := m.Handler
	if file := handlerPath(handler); !strings.HasSuffix(file, ".py") && a.has(file+".py") {
		handler = strings.Replace(handler, file, file+".py", 1)
	}
	streams, err := a.streams()
	if err != nil {
		return err
	}
	settings, err := json.MarshalIndent(map[string]any{
		"handler": handler, "model_name": m.Name, "serialized_file": m.SerializedFile, "manifest": a.raw,
		"config": a.Config, "package": o.Package, "streams": streams,
	}, "", "  ")
	if err != nil { // a key of YAML that JSON does not have
		return fault("%s has a value that is no JSON: %v", m.ConfigFile, err)
	}
	return errors.Join(context.Cause(ctx), os.WriteFile(filepath.Join(e.Code, "torchserve_archive.json"), settings, 0o644))
}

// environment decides about the endpoint's Python environment.
func (a *Archive) environment(e *Endpoint, o Options) error {
	name := a.Manifest.Model.Requirements
	own := (name != "" || o.Own || len(o.Requirements) > 0 || o.Package) && !o.Instance
	var given []byte
	if name != "" {
		var err error
		if given, err = a.read(name); err != nil {
			return err
		}
	}
	if !own {
		if name != "" {
			e.Notes = append(e.Notes, "the instance's Python needs the packages of "+name+", which is kept in the endpoint's code")
		}
		return nil
	}
	text := strings.TrimRight(string(given), "\n")
	lines := append(strings.Split(text, "\n"), o.Requirements...)
	text = strings.TrimLeft(text+"\n", "\n")
	for _, line := range o.Requirements {
		text += line + "\n"
	}
	for _, p := range e.Packages {
		if !slices.ContainsFunc(lines, func(line string) bool { return sameDistribution(line, p) }) {
			text += p + "\n"
		}
	}
	e.Settings["environment"] = "own"
	return os.WriteFile(filepath.Join(e.Code, "requirements.txt"), []byte(text), 0o644)
}

var distribution = regexp.MustCompile(`^\s*([A-Za-z0-9][A-Za-z0-9._-]*)`)

// sameDistribution reports whether two lines of requirements name the same package.
func sameDistribution(a, b string) bool {
	name := func(line string) string {
		found := distribution.FindStringSubmatch(line)
		if found == nil {
			return ""
		}
		return strings.ToLower(strings.NewReplacer("_", "-", ".", "-").Replace(found[1]))
	}
	return name(a) != "" && name(a) == name(b)
}

// batching carries over what model-config.yaml says about batches and workers.
func (e *Endpoint) batching(config map[string]any) {
	if size, ok := config["batchSize"].(int); ok && size > 1 {
		e.Settings["max_batch_size"] = size
		if delay, ok := config["maxBatchDelay"].(int); ok && delay > 0 {
			e.Settings["dynamic_batching"] = map[string]any{"max_queue_delay_microseconds": delay * 1000}
		}
	}
	least, _ := config["minWorkers"].(int)
	most, _ := config["maxWorkers"].(int)
	if least > 1 || most > 1 {
		e.Notes = append(e.Notes, fmt.Sprintf("the archive asks for %d to %d workers: set them with model limits", max(least, 1), max(most, least)))
	}
	if seconds, ok := config["responseTimeout"].(int); ok {
		e.Notes = append(e.Notes, fmt.Sprintf("the archive limits requests to %d s: set that with model limits", seconds))
	}
}

var (
	importsFrom = regexp.MustCompile(`(?m)^[ \t]*from[ \t]+(ts(?:\.\w+)*)[ \t]+import[ \t]+\(?([^)#\n]*(?:\n[^)#]*\))?)`)
	importsOf   = regexp.MustCompile(`(?m)^[ \t]*import[ \t]+(ts(?:\.\w+)*)\b`)
	imports     = regexp.MustCompile(`(?m)^[ \t]*(?:from|import)[ \t]+(\w+)`)
	word        = regexp.MustCompile(`\w+`)
)

// packageOf are the names for pip of packages that TorchServe's environment has.
var packageOf = map[string]string{
	"torch": "torch", "torchvision": "torchvision", "torchaudio": "torchaudio", "torchtext": "torchtext", "transformers": "transformers",
	"PIL": "pillow", "numpy": "numpy", "yaml": "pyyaml", "requests": "requests", "packaging": "packaging", "onnxruntime": "onnxruntime",
}

// sources are the Python files of the archive.
func (a *Archive) sources() (texts map[string]string, err error) {
	texts = map[string]string{}
	total := 0
	err = filepath.WalkDir(a.Folder, func(name string, entry fs.DirEntry, err error) error {
		if err != nil || entry.IsDir() || filepath.Ext(name) != ".py" {
			return err
		}
		relative, err := filepath.Rel(a.Folder, name)
		if err != nil {
			return err
		}
		text, err := a.read(filepath.ToSlash(relative))
		if total += len(text); total > 32*mostText {
			return fault("the archive has more than %d MiB of Python code", 32*mostText>>20)
		}
		texts[filepath.ToSlash(relative)] = string(text)
		return err
	})
	return texts, err
}

// needs are the packages that the handler imports, and the modules of TorchServe that the adapter does not have.
func (a *Archive) needs(sources map[string]string) (packages, missing []string, err error) {
	stem := strings.TrimSuffix(handlerPath(a.Manifest.Model.Handler), ".py")
	if _, inArchive := sources[stem+".py"]; !inArchive {
		own, ours := ownHandlers[stem]
		theirs, known := packageHandlers[stem]
		switch {
		case ours:
			packages = append(packages, own...)
		case known:
			packages, missing = append(packages, theirs...), append(missing, "the handler "+stem)
		default:
			return nil, nil, fault("the handler %s is neither a Python file of the archive nor one that TorchServe brings (%s)", a.Manifest.Model.Handler,
				strings.Join(slices.Sorted(maps.Keys(merged(ownHandlers, packageHandlers))), ", "))
		}
	}
	for _, name := range sorted(sources) {
		text := sources[name]
		for _, found := range importsFrom.FindAllStringSubmatch(text, -1) {
			missing = append(missing, uncovered(found[1], word.FindAllString(found[2], -1))...)
			packages = append(packages, ownHandlers[strings.TrimPrefix(found[1], "ts.torch_handler.")]...)
		}
		for _, found := range importsOf.FindAllStringSubmatch(text, -1) {
			missing = append(missing, uncovered(found[1], nil)...)
		}
		for _, found := range imports.FindAllStringSubmatch(text, -1) {
			if p := packageOf[found[1]]; p != "" {
				packages = append(packages, p)
			}
		}
	}
	slices.Sort(packages)
	slices.Sort(missing)
	return slices.Compact(packages), slices.Compact(missing), nil
}

// aliases are modules that the adapter has under another name.
var aliases = map[string]bool{"ts.utils": true, "ts.utils.util": true, "ts.handler_utils.utils": true}

// uncovered are the modules that an import names and the adapter does not have.
func uncovered(module string, names []string) []string {
	if aliases[module] {
		return nil
	}
	file := path.Join(library, strings.ReplaceAll(module, ".", "/"))
	if _, err := fs.Stat(adapter, file+".py"); err == nil {
		return nil
	}
	if _, err := fs.Stat(adapter, path.Join(file, "__init__.py")); err != nil {
		return []string{module}
	}
	var missing []string
	for _, name := range names { // modules of a package
		if aliases[module+"."+name] {
			continue
		}
		if _, err := fs.Stat(adapter, path.Join(file, name+".py")); err != nil {
			if _, err := fs.Stat(adapter, path.Join(file, name)); err != nil && name != "as" {
				missing = append(missing, module+"."+name)
			}
		}
	}
	return missing
}

// streams reports whether the handler may answer in pieces.
func (a *Archive) streams() (bool, error) {
	sources, err := a.sources()
	for _, text := range sources {
		if strings.Contains(text, "send_intermediate_predict_response") {
			return true, nil
		}
	}
	return false, err
}

func sorted[V any](m map[string]V) []string { return slices.Sorted(maps.Keys(m)) }

func merged(a, b map[string][]string) map[string][]string {
	both := maps.Clone(a)
	maps.Copy(both, b)
	return both
}
