package triton

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"clearmlserving/inference/engine"
)

// form is a form of model files that a backend of Triton loads.
type form struct {
	// backend is the value of the field of that name, or of platform.
	backend  string
	platform bool
	// file is the name of the model's file, or folder, in the folder of its version. "": that of the model.
	file string
	// folder: the file is a folder.
	folder bool
}

// word is the field of the configuration that names the backend.
func (f form) word() string {
	if f.platform {
		return "platform"
	}
	return "backend"
}

// The forms of models, with the names that their backends look for.
var (
	onnxForm       = form{backend: "onnxruntime_onnx", platform: true, file: "model.onnx"}
	savedModelForm = form{backend: "tensorflow_savedmodel", platform: true, file: "model.savedmodel", folder: true}
	graphDefForm   = form{backend: "tensorflow_graphdef", platform: true, file: "model.graphdef"}
	torchForm      = form{backend: "pytorch", file: "model.pt"}
	planForm       = form{backend: "tensorrt_plan", platform: true, file: "model.plan"}
	pythonForm     = form{backend: "python", file: "model.py"}
	openVINOForm   = form{backend: "openvino", file: "model.xml"}
	unknownForm    = form{file: "model.bin"} // the original's name
)

// byBackend are the forms of backends and platforms that an auxiliary configuration names.
var byBackend = map[string]form{ //nolint:gochecknoglobals // a constant table
	"onnxruntime": onnxForm, "onnxruntime_onnx": onnxForm, "tensorflow_savedmodel": savedModelForm, "tensorflow_graphdef": graphDefForm,
	"pytorch": torchForm, "pytorch_libtorch": torchForm, "tensorrt": planForm, "tensorrt_plan": planForm, "python": pythonForm, "openvino": openVINOForm,
}

// versionFolder is the only version of each model: the original's inference service asks for it by that number.
const versionFolder = "1"

// formOf finds the form of a model, which is a file or a folder: the one that its backend wants, if the endpoint names
// it, else what the file and the record of the model say.
func formOf(spec engine.Spec) (form, error) {
	info, err := os.Stat(spec.ModelPath)
	if err != nil {
		return form{}, err
	}
	backend, platform := chosen(spec.Endpoint.AuxiliaryCfg)
	for _, name := range []string{platform, backend} {
		if f, ok := byBackend[name]; ok {
			return f, nil
		}
	}
	if backend == "tensorflow" {
		return tensorFlowForm(info.IsDir()), nil
	}
	if backend != "" || platform != "" { // it wants its own names
		return form{}, nil
	}
	name, framework := strings.ToLower(filepath.Base(spec.ModelPath)), strings.ToLower(spec.Framework)
	says := func(words ...string) bool {
		return slices.ContainsFunc(words, func(w string) bool { return strings.Contains(framework, w) })
	}
	ends := func(endings ...string) bool {
		return slices.ContainsFunc(endings, func(e string) bool { return strings.HasSuffix(name, e) })
	}
	if info.IsDir() {
		return formOfFolder(spec.ModelPath, says)
	}
	switch {
	case ends(".onnx"):
		return onnxForm, nil
	case ends(".plan", ".engine"):
		return planForm, nil
	case ends(".h5", ".keras", ".hdf5"):
		return form{}, &engine.LoadError{Text: fmt.Sprintf("Triton cannot load %s, a file of Keras: save the model as a folder (model.export), or convert it to ONNX", filepath.Base(spec.ModelPath)), Final: true}
	case ends(".py"):
		return pythonForm, nil
	case says("torch", "caffe"):
		return torchForm, nil
	case says("onnx"):
		return onnxForm, nil
	case says("tensorflow", "keras"):
		return graphDefForm, nil
	case says("tensorrt"):
		return planForm, nil
	case ends(".pt", ".pth", ".ts"):
		return torchForm, nil
	case ends(".pb", ".graphdef"):
		return graphDefForm, nil
	}
	return unknownForm, nil
}

func tensorFlowForm(folder bool) form {
	if folder {
		return savedModelForm
	}
	return graphDefForm
}

// formOfFolder finds the form of a folder by what is in it, and else by the record of the model.
func formOfFolder(folder string, says func(words ...string) bool) (form, error) {
	has := func(pattern string) bool {
		found, _ := filepath.Glob(filepath.Join(folder, pattern)) // the patterns are valid
		return len(found) > 0
	}
	switch {
	case has("saved_model.pb") || has("saved_model.pbtxt") || has("model.savedmodel"):
		return savedModelForm, nil
	case has("model.py"):
		return pythonForm, nil
	case has("*.onnx"):
		return onnxForm, nil
	case has("*.xml") && has("*.bin"):
		return openVINOForm, nil
	case has("*.pt") || has("*.pth"):
		return torchForm, nil
	case has("*.plan"):
		return planForm, nil
	case says("onnx"):
		return onnxForm, nil
	case says("tensorflow", "keras"):
		return savedModelForm, nil
	case says("torch"):
		return torchForm, nil
	}
	return form{}, nil
}

// limits of a model's folder.
const (
	maxFiles = 100_000
	maxDepth = 64
)

// lay puts a model into a folder as Triton reads it: its configuration and its version.
func lay(spec engine.Spec, dir string) error {
	f, err := formOf(spec)
	if err != nil {
		return err
	}
	config, err := configuration(spec.Endpoint, f)
	if err != nil {
		return &engine.LoadError{Text: err.Error(), Final: true, Err: err}
	}
	version := filepath.Join(dir, versionFolder)
	if err := os.MkdirAll(version, 0o755); err != nil {
		return err
	}
	if err := os.WriteFile(filepath.Join(dir, "config.pbtxt"), []byte(config), 0o644); err != nil { //nolint:gosec // Triton may run as another user
		return err
	}
	info, err := os.Stat(spec.ModelPath)
	if err != nil {
		return err
	}
	switch {
	case !info.IsDir():
		return bring(spec.ModelPath, filepath.Join(version, orName(f.file, filepath.Base(spec.ModelPath))))
	case f.folder:
		from := spec.ModelPath
		if inner := filepath.Join(from, f.file); isFolder(inner) {
			from = inner
		}
		return bringFolder(from, filepath.Join(version, f.file))
	}
	if err := bringFolder(spec.ModelPath, version); err != nil {
		return err
	}
	return f.rename(version)
}

func orName(name, other string) string {
	if name == "" {
		return other
	}
	return name
}

func isFolder(path string) bool {
	info, err := os.Stat(path)
	return err == nil && info.IsDir()
}

// rename gives the only file of its kind in a folder the name that the backend looks for.
func (f form) rename(version string) error {
	if f.file == "" {
		return nil
	}
	wanted := filepath.Join(version, f.file)
	if _, err := os.Stat(wanted); err == nil {
		return nil
	}
	found, _ := filepath.Glob(filepath.Join(version, "*"+filepath.Ext(f.file)))
	if len(found) != 1 {
		return &engine.LoadError{Text: fmt.Sprintf("the model's folder has %d files *%s: Triton needs one, or one that is called %s", len(found), filepath.Ext(f.file), f.file), Final: true}
	}
	if f == openVINOForm { // the weights are found by the name of the model
		if weights := strings.TrimSuffix(found[0], ".xml") + ".bin"; exists(weights) {
			if err := os.Rename(weights, filepath.Join(version, "model.bin")); err != nil {
				return err
			}
		}
	}
	return os.Rename(found[0], wanted)
}

func exists(path string) bool {
	_, err := os.Stat(path)
	return err == nil
}

// bring puts a file in another place: a link to it, since files of the cache are never written to, else a copy.
func bring(from, to string) error {
	if err := os.Link(from, to); err == nil || errors.Is(err, fs.ErrExist) {
		return err
	}
	in, err := os.Open(from)
	if err != nil {
		return err
	}
	defer in.Close() //nolint:errcheck // only read from
	out, err := os.OpenFile(to, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o644)
	if err != nil {
		return err
	}
	_, err = io.Copy(out, in)
	return errors.Join(err, out.Close())
}

// bringFolder puts the content of a folder in another place.
func bringFolder(from, to string) error {
	files := 0
	return filepath.WalkDir(from, func(path string, entry fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		relative, err := filepath.Rel(from, path)
		if err != nil {
			return err
		}
		if files++; files > maxFiles || strings.Count(relative, string(filepath.Separator)) > maxDepth {
			return fmt.Errorf("the model's folder has more than %d files, or is nested deeper than %d", maxFiles, maxDepth)
		}
		target := filepath.Join(to, relative)
		switch {
		case entry.IsDir():
			return os.MkdirAll(target, 0o755)
		case entry.Type().IsRegular():
			return bring(path, target)
		}
		return fmt.Errorf("%s in the model's folder is neither a file nor a folder", relative)
	})
}
