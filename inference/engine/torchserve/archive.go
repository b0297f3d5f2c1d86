package torchserve

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"

	"clearmlserving/inference/engine"
	"clearmlserving/mar"
	"clearmlserving/serving"
)

// archive is what is registered for an endpoint. Its name depends on its content and on the settings of its
// batches, so that a new version of an endpoint never replaces the model that the old one asks. Instances that share the
// data folder share the model too: each holds a lock, and the last one ends it.
type archive struct {
	name string
	file string
	lock *os.File // shared
}

// pack makes the archive of an endpoint.
func (e *Engine) pack(ctx context.Context, spec engine.Spec, settings serving.TorchServe) (*archive, error) {
	if spec.ModelPath == "" {
		return nil, &engine.LoadError{Text: "engine torchserve needs a model: give one with --model-id, or --name and --project; or the model of one that is registered already", Final: true}
	}
	if err := os.MkdirAll(e.folder(), 0o755); err != nil {
		return nil, &engine.LoadError{Text: err.Error(), Err: err}
	}
	temp, err := os.CreateTemp(e.folder(), ".pack-")
	if err != nil {
		return nil, &engine.LoadError{Text: err.Error(), Err: err}
	}
	defer os.Remove(temp.Name()) //nolint:errcheck // renamed by then
	sum := sha256.New()
	err = e.write(ctx, io.MultiWriter(temp, sum), spec, settings)
	if err = errors.Join(err, temp.Chmod(0o644), temp.Close()); err != nil {
		_, bad := errors.AsType[*mar.Error](err)
		return nil, &engine.LoadError{Text: err.Error(), Final: bad, Err: err}
	}
	_, _ = fmt.Fprintln(sum, settings.BatchSize, settings.MaxBatchDelay, settings.ResponseTimeout) // never fails
	a := &archive{name: e.prefix() + plain(string(spec.URL)) + "-" + hex.EncodeToString(sum.Sum(nil))[:12]}
	a.file = filepath.Join(e.folder(), a.name+".mar")
	if a.lock, err = lock(e.lockOf(a.name), syscall.LOCK_SH); err != nil {
		return nil, &engine.LoadError{Text: err.Error(), Err: err}
	}
	if a.lock == nil {
		return nil, &engine.LoadError{Text: "the model of an older load is being removed from TorchServe"}
	}
	if err := os.Rename(temp.Name(), a.file); err != nil {
		unlock(a.lock)
		return nil, &engine.LoadError{Text: err.Error(), Err: err}
	}
	return a, nil
}

// prefix begins the names of the models of instances with this data folder.
func (e *Engine) prefix() string {
	host, _ := os.Hostname() // "" is a name too
	sum := sha256.Sum256([]byte(host + "\n" + e.o.Dir))
	return "cs" + hex.EncodeToString(sum[:4]) + "-"
}

var odd = regexp.MustCompile(`[^A-Za-z0-9.]+`)

func plain(text string) string {
	text = odd.ReplaceAllString(text, "_")
	return text[:min(len(text), 80)]
}

// write writes the archive: the model, if it is one, else one made of the model and the code.
func (e *Engine) write(ctx context.Context, w io.Writer, spec engine.Spec, settings serving.TorchServe) error {
	own, hasHandler := handlerIn(spec.CodePath)
	info, err := os.Stat(spec.ModelPath)
	if err != nil {
		return err
	}
	isArchive := mar.Is(spec.ModelPath)
	if info.IsDir() {
		_, err := os.Stat(filepath.Join(spec.ModelPath, filepath.FromSlash(mar.ManifestName)))
		isArchive = err == nil
	}
	if isArchive {
		if hasHandler || settings.Handler != "" {
			return &mar.Error{Text: "the model is an archive, which has its own handler: the code and --aux-config handler cannot replace it"}
		}
		return copyArchive(ctx, w, spec.ModelPath, info.IsDir())
	}
	model := spec.ModelPath
	if info.IsDir() {
		if model, err = onlyFile(model); err != nil {
			return err
		}
	}
	c := mar.Contents{
		Manifest: mar.Manifest{Runtime: "python", Archiver: "0.12.0", Model: mar.Model{Name: "model", Version: "1.0", SerializedFile: "model" + serializedExtension(model)}},
		Files:    map[string]string{}, Texts: map[string][]byte{},
	}
	m := &c.Manifest.Model
	c.Files[m.SerializedFile] = model
	switch {
	case hasHandler:
		for _, name := range []string{m.SerializedFile, mar.ManifestName} {
			if own[name] != "" {
				return &mar.Error{Text: fmt.Sprintf("the code has a file %s, as the endpoint's archive has one: give it another name", name)}
			}
		}
		maps.Copy(c.Files, own)
		m.Handler = "handler.py"
		for name, field := range map[string]*string{"model.py": &m.ModelFile, "requirements.txt": &m.Requirements, "model-config.yaml": &m.ConfigFile} {
			if own[name] != "" {
				*field = name
			}
		}
		if settings.Handler != "" {
			m.Handler = settings.Handler
		}
	case settings.Handler != "":
		m.Handler = settings.Handler
	default:
		m.Handler = "handler.py"
		c.Texts["handler.py"], c.Texts["tensors.json"] = mar.TensorHandler(spec.Endpoint.Tensors)
	}
	return mar.Pack(ctx, w, c)
}

// serializedExtension is that of a model: TorchServe's handlers know .pt and .onnx.
func serializedExtension(model string) string {
	if strings.EqualFold(filepath.Ext(model), ".onnx") {
		return ".onnx"
	}
	return ".pt"
}

// copyArchive writes an archive as it is.
func copyArchive(ctx context.Context, w io.Writer, path string, folder bool) error {
	if !folder {
		f, err := os.Open(path)
		if err != nil {
			return err
		}
		_, err = io.Copy(w, f)
		return errors.Join(err, f.Close())
	}
	files, err := filesOf(path)
	if err != nil {
		return err
	}
	text, err := os.ReadFile(files[mar.ManifestName])
	if err != nil {
		return err
	}
	manifest, err := mar.ParseManifest(text)
	if err != nil {
		return err
	}
	delete(files, mar.ManifestName)
	return mar.Pack(ctx, w, mar.Contents{Manifest: manifest, Files: files})
}

func onlyFile(folder string) (string, error) {
	files, err := filesOf(folder)
	if err != nil {
		return "", err
	}
	if len(files) != 1 {
		return "", &mar.Error{Text: fmt.Sprintf("the model is a folder with %d files, and no model archive: give an archive, or one file of TorchScript", len(files))}
	}
	for _, file := range files {
		return file, nil
	}
	return "", nil
}

// filesOf are the files below a folder by their names relative to it.
func filesOf(folder string) (map[string]string, error) {
	files := map[string]string{}
	err := filepath.WalkDir(folder, func(path string, entry fs.DirEntry, err error) error {
		if err != nil || entry.IsDir() {
			return err
		}
		name, err := filepath.Rel(folder, path)
		files[filepath.ToSlash(name)] = path
		return err
	})
	return files, err
}

var preprocessClass = regexp.MustCompile(`(?m)^\s*class\s+Preprocess\b|\bimport\b.*\bPreprocess\b|^\s*Preprocess\s*=`)

// mostCode bounds what is read of code to see what it is.
const mostCode = 1 << 20

func defines(file string) bool {
	f, err := os.Open(file)
	if err != nil {
		return false
	}
	defer f.Close() //nolint:errcheck // only read from
	text, err := io.ReadAll(io.LimitReader(f, mostCode))
	return err == nil && preprocessClass.Match(bytes.ReplaceAll(text, []byte("\r\n"), []byte("\n")))
}

// hasPreprocess reports whether code has a class Preprocess, which runs in our workers.
func hasPreprocess(code string) bool {
	if code == "" {
		return false
	}
	if info, err := os.Stat(code); err != nil || !info.IsDir() {
		return err == nil && defines(code)
	}
	_, handler := handlerIn(code)
	for _, name := range []string{"__init__.py", "preprocess.py"} {
		if _, err := os.Stat(filepath.Join(code, name)); err == nil {
			return !handler || defines(filepath.Join(code, name))
		}
	}
	return !handler // the error of its load says what is missing
}

// handlerIn are the files of code for TorchServe: a file without a class Preprocess, or a folder with handler.py.
func handlerIn(code string) (files map[string]string, ok bool) {
	if code == "" {
		return nil, false
	}
	info, err := os.Stat(code)
	if err != nil {
		return nil, false
	}
	if !info.IsDir() {
		if defines(code) {
			return nil, false
		}
		return map[string]string{"handler.py": code}, true
	}
	if files, err = filesOf(code); err != nil || files["handler.py"] == "" {
		return nil, false
	}
	for _, name := range []string{"__init__.py", "preprocess.py"} {
		if files[name] != "" && defines(files[name]) {
			delete(files, name)
		}
	}
	return files, true
}

func (e *Engine) lockOf(name string) string { return filepath.Join(e.folder(), name+".lock") }

// lock locks a file of that name. It returns nil if the lock is held otherwise.
func lock(path string, mode int) (*os.File, error) {
	for {
		f, err := os.OpenFile(path, os.O_CREATE|os.O_RDWR, 0o644)
		if err != nil {
			return nil, err
		}
		err = syscall.Flock(int(f.Fd()), mode|syscall.LOCK_NB)
		switch {
		case errors.Is(err, syscall.EINTR):
			_ = f.Close()
			continue
		case errors.Is(err, syscall.EWOULDBLOCK):
			return nil, f.Close()
		case err != nil:
			return nil, errors.Join(fmt.Errorf("lock %s: %w", path, err), f.Close())
		}
		mine, err := f.Stat()
		now, err2 := os.Stat(path)
		if err == nil && err2 == nil && os.SameFile(mine, now) {
			return f, nil
		}
		_ = f.Close() // it was removed meanwhile
	}
}

func unlock(f *os.File) {
	_ = syscall.Flock(int(f.Fd()), syscall.LOCK_UN)
	_ = f.Close()
}

// end removes the archive if nobody else uses it. remove ends its models.
func (a *archive) end(remove func()) {
	if a.lock == nil {
		return
	}
	if syscall.Flock(int(a.lock.Fd()), syscall.LOCK_EX|syscall.LOCK_NB) == nil {
		remove()
		_ = os.Remove(a.file)
		_ = os.Remove(a.lock.Name())
	}
	unlock(a.lock)
	a.lock = nil
}

// sweep ends models of instances that have died without doing so.
func (e *Engine) sweep(ctx context.Context, s *server) {
	names, err := s.registered(ctx)
	if err != nil {
		return // the registration says why
	}
	for _, name := range names {
		if !strings.HasPrefix(name, e.prefix()) || filepath.Base(name) != name { // it becomes a path below
			continue
		}
		held, err := lock(e.lockOf(name), syscall.LOCK_EX)
		if err != nil || held == nil {
			continue
		}
		if err := s.unregister(ctx, name); err != nil {
			e.o.Logger.Warn("model of an instance that has ended stays in torchserve", "model", name, "err", err)
		} else {
			e.o.Logger.Info("model of an instance that has ended removed from torchserve", "model", name)
			_ = os.Remove(filepath.Join(e.folder(), name+".mar"))
			_ = os.Remove(held.Name())
		}
		unlock(held)
	}
}
