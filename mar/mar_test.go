package mar

import (
	"archive/zip"
	"bytes"
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"clearmlserving/serving"
)

// archived writes an archive with these entries.
func archived(t *testing.T, entries map[string]string) string {
	t.Helper()
	file := filepath.Join(t.TempDir(), "m.mar")
	var b bytes.Buffer
	z := zip.NewWriter(&b)
	for _, name := range sorted(entries) {
		w, err := z.Create(name)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := w.Write([]byte(entries[name])); err != nil {
			t.Fatal(err)
		}
	}
	if err := z.Close(); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(file, b.Bytes(), 0o600); err != nil {
		t.Fatal(err)
	}
	return file
}

const handled = `{"createdOn": "01/01/2026", "runtime": "python", "archiverVersion": "0.12.0",
"model": {"modelName": "m", "serializedFile": "m.pt", "handler": "handler.py", "modelVersion": "1.0"}}`

func manifest(change func(model map[string]any)) string {
	var m map[string]any
	if err := json.Unmarshal([]byte(handled), &m); err != nil {
		panic(err)
	}
	change(m["model"].(map[string]any))
	text, err := json.Marshal(m)
	if err != nil {
		panic(err)
	}
	return string(text)
}

func convert(t *testing.T, entries map[string]string, o Options) (*Endpoint, error) {
	t.Helper()
	folder := t.TempDir()
	a, err := Open(t.Context(), archived(t, entries), filepath.Join(folder, "archive"))
	if err != nil {
		return nil, err
	}
	return a.Convert(t.Context(), folder, o)
}

func TestAnArchiveBecomesCodeAndAModel(t *testing.T) {
	e, err := convert(t, map[string]string{
		ManifestName: manifest(func(m map[string]any) {
			m["requirementsFile"], m["configFile"] = "requirements.txt", "model-config.yaml"
		}),
		"m.pt":               "weights",
		"handler.py":         "import torch\nfrom ts.torch_handler.base_handler import BaseHandler\nfrom PIL import Image\n",
		"index_to_name.json": `{"0": "cat"}`,
		"sub/extra.txt":      "kept",
		"requirements.txt":   "Torch==2.4.1\nsixx>=1 # comment",
		"model-config.yaml":  "batchSize: 8\nmaxBatchDelay: 20\nminWorkers: 2\nhandler:\n  profile: true\n",
	}, Options{Requirements: []string{"numpy<2"}})
	if err != nil {
		t.Fatal(err)
	}
	if text, err := os.ReadFile(e.Model); err != nil || string(text) != "weights" || filepath.Base(e.Model) != "m.pt" {
		t.Errorf("the model is %q (%v)", text, err)
	}
	for _, name := range []string{"__init__.py", "torchserve_archive.py", "library/ts/torch_handler/base_handler.py", "archive/handler.py", "archive/index_to_name.json", "archive/sub/extra.txt", "archive/MAR-INF/MANIFEST.json"} {
		if _, err := os.Stat(filepath.Join(e.Code, name)); err != nil {
			t.Error(err)
		}
	}
	if _, err := os.Stat(filepath.Join(e.Code, "archive", "m.pt")); err == nil {
		t.Error("the model is in the code too")
	}
	text, err := os.ReadFile(filepath.Join(e.Code, "requirements.txt"))
	if want := "Torch==2.4.1\nsixx>=1 # comment\nnumpy<2\npillow\n"; err != nil || string(text) != want {
		t.Errorf("requirements %q (%v), want %q", text, err, want)
	}
	settings, err := json.Marshal(e.Settings)
	if want := `{"dynamic_batching":{"max_queue_delay_microseconds":20000},"environment":"own","max_batch_size":8}`; err != nil || string(settings) != want {
		t.Errorf("settings %s, want %s", settings, want)
	}
	if len(e.Notes) != 1 || !strings.Contains(e.Notes[0], "2 to 2 workers") {
		t.Errorf("notes %q", e.Notes)
	}
	var made struct {
		Handler string         `json:"handler"`
		Config  map[string]any `json:"config"`
	}
	text, err = os.ReadFile(filepath.Join(e.Code, "torchserve_archive.json"))
	if err != nil || json.Unmarshal(text, &made) != nil || made.Handler != "handler.py" || made.Config["handler"] == nil {
		t.Errorf("settings of the adapter: %s", text)
	}
}

func TestTheInstancesEnvironmentIsUsedWithoutRequirements(t *testing.T) {
	entries := map[string]string{ManifestName: handled, "m.pt": "w", "handler.py": "import torch\n"}
	e, err := convert(t, entries, Options{})
	if err != nil || e.Settings != nil || !slices.Equal(e.Packages, []string{"torch"}) {
		t.Errorf("%+v, %v", e, err)
	}
	if _, err := os.Stat(filepath.Join(e.Code, "requirements.txt")); err == nil {
		t.Error("there are requirements")
	}
	e, err = convert(t, entries, Options{Own: true})
	if err != nil || e.Settings["environment"] != "own" {
		t.Errorf("%+v, %v", e, err)
	}
}

func TestWhatCannotBeConvertedIsTold(t *testing.T) {
	whole := func(change func(map[string]string)) map[string]string {
		entries := map[string]string{ManifestName: handled, "m.pt": "w", "handler.py": "import torch\n"}
		change(entries)
		return entries
	}
	for name, tc := range map[string]struct {
		entries map[string]string
		says    string
	}{
		"no archive":        {map[string]string{"m.pt": "w"}, "no model archive of TorchServe"},
		"a broken manifest": {whole(func(e map[string]string) { e[ManifestName] = "{" }), "cannot be read"},
		"no name":           {whole(func(e map[string]string) { e[ManifestName] = `{"model": {"handler": "x"}}` }), "names no model.modelName"},
		"another runtime":   {whole(func(e map[string]string) { e[ManifestName] = strings.Replace(handled, `"python"`, `"LSP"`, 1) }), "LSP is not Python"},
		"a missing model":   {map[string]string{ManifestName: handled, "handler.py": ""}, "no file m.pt"},
		"a way out": {whole(func(e map[string]string) {
			e[ManifestName] = manifest(func(m map[string]any) { m["serializedFile"] = "../../etc/passwd" })
		}), "leads out of the archive"},
		"a handler elsewhere": {whole(func(e map[string]string) {
			e[ManifestName] = manifest(func(m map[string]any) { m["handler"] = "/tmp/handler.py" })
		}), "leads out of the archive"},
		"an entry elsewhere": {whole(func(e map[string]string) { e["../evil.py"] = "x" }), "evil.py"},
		"an unknown handler": {whole(func(e map[string]string) {
			e[ManifestName] = manifest(func(m map[string]any) { m["handler"] = "video_classifier" })
		}), "neither a Python file of the archive nor one that TorchServe brings"},
		"a handler of the package": {whole(func(e map[string]string) {
			e[ManifestName] = manifest(func(m map[string]any) { m["handler"] = "text_classifier" })
		}), "--torchserve-package"},
		"a foreign module": {whole(func(e map[string]string) {
			e["handler.py"] = "from ts.handler_utils.distributed.pt_pippy import initialize_rpc_workers\n"
		}), "ts.handler_utils.distributed.pt_pippy"},
		"several processes": {whole(func(e map[string]string) {
			e[ManifestName] = manifest(func(m map[string]any) { m["configFile"] = "c.yaml" })
			e["c.yaml"] = "parallelType: pp"
		}), "parallelType"},
		"broken YAML": {whole(func(e map[string]string) {
			e[ManifestName] = manifest(func(m map[string]any) { m["configFile"] = "c.yaml" })
			e["c.yaml"] = ":\n  - {"
		}), "c.yaml cannot be read"},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := convert(t, tc.entries, Options{})
			if _, ours := errors.AsType[*Error](err); !ours || !strings.Contains(err.Error(), tc.says) {
				t.Errorf("%v, want an *Error with %q", err, tc.says)
			}
		})
	}
}

func TestAFolderIsNotCopiedIntoItself(t *testing.T) {
	folder := filepath.Join(t.TempDir(), "archive")
	if err := os.MkdirAll(filepath.Join(folder, filepath.Dir(ManifestName)), 0o755); err != nil {
		t.Fatal(err)
	}
	for name, text := range map[string]string{ManifestName: handled, "m.pt": "w", "handler.py": "import torch\n"} {
		if err := os.WriteFile(filepath.Join(folder, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	link := filepath.Join(t.TempDir(), "link")
	if err := os.Symlink(folder, link); err != nil {
		t.Fatal(err)
	}
	for _, to := range []string{filepath.Join(folder, "new"), filepath.Join(link, "new")} {
		_, err := Open(t.Context(), folder, to)
		if _, ours := errors.AsType[*Error](err); !ours || !strings.Contains(err.Error(), "give another place") {
			t.Errorf("%s: %v", to, err)
		}
	}
	if _, err := Open(t.Context(), folder, folder+"-new"); err != nil {
		t.Errorf("beside it: %v", err)
	}
}

func TestHandlersOfThePackageAreTakenFromIt(t *testing.T) {
	e, err := convert(t, map[string]string{ManifestName: manifest(func(m map[string]any) { m["handler"] = "text_classifier" }), "m.pt": "w"}, Options{Package: true})
	if err != nil {
		t.Fatal(err)
	}
	text, err := os.ReadFile(filepath.Join(e.Code, "requirements.txt"))
	if err != nil || !strings.Contains(string(text), PythonPackage+"\n") || !strings.Contains(string(text), "captum\n") {
		t.Errorf("requirements %q, %v", text, err)
	}
	if _, err := os.Stat(filepath.Join(e.Code, "library")); err == nil {
		t.Error("the package is hidden by ours")
	}
}

func TestEveryHandlerThatWeHaveIsThere(t *testing.T) {
	for name := range ownHandlers {
		if missing := uncovered("ts.torch_handler."+name, nil); missing != nil {
			t.Errorf("the adapter has no %v", missing)
		}
	}
	for module, names := range map[string][]string{"ts": nil, "ts.context": {"Context"}, "ts.torch_handler": {"base_handler"}, "ts.utils.util": {"PredictionException"}} {
		if missing := uncovered(module, names); missing != nil {
			t.Errorf("import of %s %v: no %v", module, names, missing)
		}
	}
}

func TestAPackedArchiveIsRead(t *testing.T) {
	model := filepath.Join(t.TempDir(), "w")
	if err := os.WriteFile(model, []byte("weights"), 0o600); err != nil {
		t.Fatal(err)
	}
	handler, tensors := TensorHandler(serving.Tensors{InputName: []string{"a", "b"}, InputType: []string{"float64"}, OutputName: []string{"y"}})
	if want := `{"inputs":[{"name":"a","type":"float64"},{"name":"b","type":"float32"}],"outputs":["y"]}`; string(tensors) != want {
		t.Errorf("tensors %s, want %s", tensors, want)
	}
	c := Contents{
		Manifest: Manifest{Runtime: "python", Model: Model{Name: "m", Version: "1.0", Handler: "handler.py", SerializedFile: "model.pt"}},
		Files:    map[string]string{"model.pt": model}, Texts: map[string][]byte{"handler.py": handler, "tensors.json": tensors},
	}
	var one, two bytes.Buffer
	if err := errors.Join(Pack(t.Context(), &one, c), Pack(t.Context(), &two, c)); err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(one.Bytes(), two.Bytes()) {
		t.Error("the same contents have different bytes")
	}
	file := filepath.Join(t.TempDir(), "m.mar")
	if err := os.WriteFile(file, one.Bytes(), 0o600); err != nil {
		t.Fatal(err)
	}
	if !Is(file) || Is(model) {
		t.Error("an archive is not told from other files")
	}
	folder := t.TempDir()
	a, err := Open(t.Context(), file, filepath.Join(folder, "a"))
	if err != nil || a.Manifest.Model != c.Manifest.Model {
		t.Fatalf("%+v, %v", a, err)
	}
	if _, err := a.Convert(t.Context(), folder, Options{}); err != nil {
		t.Error(err)
	}
	c.Files = map[string]string{"../out": model}
	if err := Pack(t.Context(), &one, c); err == nil {
		t.Error("a name outside of the archive is packed")
	}
}

func FuzzManifest(f *testing.F) {
	f.Add([]byte(handled))
	f.Add([]byte(`{"model":{"modelName":"m","handler":"a:b","serializedFile":"/x"}}`))
	f.Add([]byte(`[]`))
	f.Fuzz(func(t *testing.T, text []byte) {
		m, err := ParseManifest(text)
		if err != nil {
			return
		}
		for _, name := range []string{m.Model.SerializedFile, m.Model.ModelFile, m.Model.Requirements, m.Model.ConfigFile, handlerPath(m.Model.Handler)} {
			if name != "" && !filepath.IsLocal(name) {
				t.Errorf("%q leads out of the archive", name)
			}
		}
	})
}

func FuzzImports(f *testing.F) {
	f.Add("from ts.torch_handler.base_handler import BaseHandler\nimport ts.utils.util as u\nfrom ts import (\n context,\n x)\n")
	f.Fuzz(func(t *testing.T, text string) {
		a := &Archive{Manifest: Manifest{Model: Model{Handler: "handler.py"}}}
		if _, _, err := a.needs(map[string]string{"handler.py": text}); err != nil {
			t.Error(err)
		}
	})
}
