package native

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"net/http"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"time"

	"clearmlserving/atomicfile"
	"clearmlserving/inference/engine"
	flat "clearmlserving/native"
	"clearmlserving/native/extract"
	"clearmlserving/serving"
	"clearmlserving/worker"
	"clearmlserving/worker/host"
)

// The questions to runtime/oracle.py.
const (
	askFacts   = "application/x-clearml-serving-facts"
	askExtract = "application/x-clearml-serving-extract"
	askProof   = "application/x-clearml-serving-proof"
	jsonType   = "application/json"
)

// longestReason bounds the text about a refused model, which may show a row of many columns.
const longestReason = 2000

// keepUnused is how long an extract is kept that no instance has opened.
const keepUnused = 30 * 24 * time.Hour

// extracted is the result of an extraction and its proof, which is kept beside the model's file.
type extracted struct {
	Facts facts `json:"facts"`
	// Refused says why the model is not computed in Go, "" if it is.
	Refused string               `json:"refused,omitempty"`
	Report  serving.NativeReport `json:"report"`
	// Left are the forms of bodies that are left to Python.
	Left leftForms `json:"left"`
	// Tensors are the requests with tensors that are answered in Go.
	Tensors tensorForms `json:"tensors"`
	// Signature is what the worker tells of the model.
	Signature json.RawMessage `json:"signature,omitempty"`
	// Content is the hash of the model and how it is asked, for machines without Python.
	Content string `json:"content"`

	model string // path of the model's file
}

// facts are what the oracle tells about the model.
type facts struct {
	Releases map[string]string `json:"releases"`
	// Names are the columns of records, nil if the model takes none.
	Names []string `json:"names"`
	// Strict: an unknown category is an error.
	Strict     bool                         `json:"strict"`
	Categories map[string][]json.RawMessage `json:"categories"`
	// Narrow are the rows that LightGBM takes as float32.
	Narrow narrowing `json:"narrow"`
}

// proven returns a proven extract of the endpoint's model, kept or new.
func (e *Engine) proven(ctx context.Context, spec engine.Spec) (*extracted, error) {
	method, err := serving.Method(spec.Endpoint.EngineType, spec.Endpoint.AuxiliaryCfg)
	if err != nil {
		return nil, &engine.LoadError{Text: err.Error(), Err: err}
	}
	key, err := e.key(ctx, spec, method)
	if err != nil {
		made, errMade := e.made(spec, method)
		if made == nil || errMade != nil {
			return nil, errors.Join(err, errMade)
		}
		return made, nil
	}
	unlock, err := e.proofs.lock(ctx, key)
	if err != nil {
		return nil, err
	}
	defer unlock()
	kept := e.kept(e.o.Dir, key)
	if kept == nil && e.o.Made != "" {
		kept = e.kept(e.o.Made, key)
	}
	if kept == nil {
		if kept, err = e.prove(ctx, spec, method, key); err != nil {
			return nil, err
		}
	}
	if kept.Refused != "" {
		return nil, &unprovenError{reason: serving.Shorten(kept.Refused, longestReason), final: true, report: &kept.Report}
	}
	return kept, nil
}

// key names the extract: by the content of the model, everything that computes it in Python, and everything that computes it here.
func (e *Engine) key(ctx context.Context, spec engine.Spec, method string) (string, error) {
	environment, err := e.o.Host.Environment(ctx, false, "")
	if err != nil {
		return "", err
	}
	sum := sha256.New()
	fmt.Fprintf(sum, "%s %q %q %s %s %q\n", program(), spec.Endpoint.EngineType, method, runtime.GOOS, runtime.GOARCH, processor())
	fmt.Fprintf(sum, "%s %s\n", environment.Program(), environment.Version)
	for _, name := range slices.Sorted(maps.Keys(environment.Packages)) {
		fmt.Fprintf(sum, "%s %s\n", name, environment.Packages[name])
	}
	if err := eachFile(extract.Files, ".", func(name string, content []byte) error {
		fmt.Fprintf(sum, "%s %x\n", name, sha256.Sum256(content))
		return nil
	}); err != nil {
		return "", err
	}
	if err := hashModel(sum, spec.ModelPath); err != nil {
		return "", err
	}
	return hex.EncodeToString(sum.Sum(nil))[:32], nil
}

// contentOf names a model and how it is asked, without what computes it in Python.
func contentOf(spec engine.Spec, method string) (string, error) {
	sum := sha256.New()
	fmt.Fprintf(sum, "%d %q %q %s\n", flat.Format, spec.Endpoint.EngineType, method, runtime.GOARCH)
	if err := hashModel(sum, spec.ModelPath); err != nil {
		return "", err
	}
	return hex.EncodeToString(sum.Sum(nil))[:32], nil
}

// made returns an extract of the model that was proven on another machine, nil if there is none.
func (e *Engine) made(spec engine.Spec, method string) (*extracted, error) {
	if e.o.Made == "" {
		return nil, nil //nolint:nilnil // documented
	}
	wanted, err := contentOf(spec, method)
	if err != nil {
		return nil, err
	}
	files, err := filepath.Glob(filepath.Join(e.o.Made, "*.json"))
	if err != nil {
		return nil, err
	}
	for _, file := range files {
		if x := e.kept(e.o.Made, strings.TrimSuffix(filepath.Base(file), ".json")); x != nil && x.Content == wanted {
			return x, nil
		}
	}
	return nil, nil //nolint:nilnil // documented
}

// hashModel hashes a model's file, or the files of its folder. A model that is missing is an error of the load in Python.
func hashModel(sum io.Writer, path string) error {
	return filepath.WalkDir(path, func(name string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return nil
		}
		f, err := os.Open(name)
		if err != nil {
			return nil
		}
		defer func() { _ = f.Close() }()
		rel, err := filepath.Rel(path, name)
		if err != nil {
			return err
		}
		if _, err := fmt.Fprintf(sum, "%q\n", rel); err != nil {
			return err
		}
		_, err = io.Copy(sum, f)
		return err
	})
}

func eachFile(files fs.FS, root string, each func(name string, content []byte) error) error {
	return fs.WalkDir(files, root, func(name string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		content, err := fs.ReadFile(files, name)
		if err != nil {
			return err
		}
		return each(name, content)
	})
}

// kept reads an extract of an earlier load, nil if there is none.
func (e *Engine) kept(dir, key string) *extracted {
	path := filepath.Join(dir, key+".json")
	b, err := os.ReadFile(path)
	if err != nil {
		return nil
	}
	x := &extracted{model: filepath.Join(dir, key+".model")}
	if err := json.Unmarshal(b, x); err != nil {
		return nil
	}
	now := time.Now()
	_ = os.Chtimes(path, now, now) // only for prune
	if x.Refused != "" {
		return x
	}
	if m, err := flat.Open(x.model); err != nil || m.Close() != nil {
		return nil // it is made again
	}
	_ = os.Chtimes(x.model, now, now)
	return x
}

// prune removes extracts that have not been used for long.
func (e *Engine) prune() {
	entries, err := os.ReadDir(e.o.Dir)
	if err != nil {
		return
	}
	for _, entry := range entries {
		if info, err := entry.Info(); err == nil && time.Since(info.ModTime()) > keepUnused {
			_ = os.Remove(filepath.Join(e.o.Dir, entry.Name())) // an open one stays readable
		}
	}
}

// prove has the model extracted, compares it with its library, and keeps the result. A model that cannot be loaded in
// Python is that load's error.
func (e *Engine) prove(ctx context.Context, spec engine.Spec, method, key string) (*extracted, error) {
	begun := time.Now()
	within, cancel := context.WithTimeoutCause(ctx, e.o.proofTime, fmt.Errorf("the extraction took longer than %s", e.o.proofTime))
	defer cancel()
	x, err := e.ask(within, spec, method, key)
	if err != nil {
		return nil, err
	}
	// The process may have loaded another model than that of the key, which would be kept under its name.
	if now, err := e.key(ctx, spec, method); err != nil || now != key {
		_ = os.Remove(x.model) // nothing opens it
		return nil, troubled(ctx, errors.Join(errors.New("the model has changed meanwhile"), err))
	}
	x.Report.Proven = time.Now().UTC().Truncate(time.Second)
	e.o.Logger.Info("model compared with its library", "endpoint", spec.URL, "model", x.Report.Model, "refused", x.Refused, "took", time.Since(begun))
	if x.Content, err = contentOf(spec, method); err != nil {
		return nil, err
	}
	b, err := json.Marshal(x)
	if err != nil {
		return nil, err
	}
	if err := atomicfile.Write(filepath.Join(e.o.Dir, key+".json"), b, 0o600); err != nil {
		return nil, &unprovenError{reason: fmt.Sprintf("its extract cannot be kept: %v", err)}
	}
	e.prune()
	return x, nil
}

// ask starts the oracle, which loads the model, and asks it.
func (e *Engine) ask(ctx context.Context, spec engine.Spec, method, key string) (*extracted, error) {
	if err := os.MkdirAll(e.o.Dir, 0o700); err != nil {
		return nil, &unprovenError{reason: fmt.Sprintf("its extract cannot be kept: %v", err)}
	}
	code, err := e.writeCode()
	if err != nil {
		return nil, &unprovenError{reason: fmt.Sprintf("the code of the extraction cannot be written: %v", err)}
	}
	o, err := e.startOracle(ctx, spec, method, code)
	if err != nil {
		if _, ofModel := errors.AsType[*worker.LoadError](err); ofModel {
			// The endpoint's own load fails as well, and says it in its words.
			if m, err := e.o.Python.Load(ctx, spec); err != nil {
				return nil, err
			} else if err := m.Close(ctx); err != nil {
				return nil, err
			}
		}
		return nil, troubled(ctx, err)
	}
	defer func() {
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), closeTime)
		defer cancel()
		_ = o.group.Close(ctx) // what it had to cut off is not needed
	}()
	if e.o.started != nil {
		e.o.started(o.group)
	}
	var recorded []serving.Exchange
	if spec.Recorded != nil && spec.CodePath == "" { // preprocess makes the rows of other bodies
		recorded = spec.Recorded()
	}
	x, err := o.tell(ctx, filepath.Join(e.o.Dir, key), cmpMethod(method), recorded)
	if err != nil {
		return nil, troubled(ctx, err)
	}
	return x, nil
}

// closeTime bounds the end of the oracle.
const closeTime = 10 * time.Second

// troubled is the error of an extraction that could not be finished. It may succeed another time.
func troubled(ctx context.Context, err error) error {
	if unproven, ok := errors.AsType[*unprovenError](err); ok {
		return unproven
	}
	if cause := context.Cause(ctx); cause != nil {
		err = cause
	}
	return &unprovenError{reason: fmt.Sprintf("its extraction did not end well: %v", err)}
}

func cmpMethod(method string) string {
	if method == "" {
		return "predict"
	}
	return method
}

// writeCode writes the Python files of the extraction to a folder that is named by their content.
func (e *Engine) writeCode() (string, error) {
	sum := sha256.New()
	content := map[string][]byte{}
	if err := eachFile(extract.Files, "python", func(name string, b []byte) error {
		content[strings.TrimPrefix(name, "python/")] = b
		fmt.Fprintf(sum, "%s %d %x\n", name, len(b), sha256.Sum256(b))
		return nil
	}); err != nil {
		return "", err
	}
	dir := filepath.Join(e.o.RuntimeDir, "extract-"+hex.EncodeToString(sum.Sum(nil))[:16])
	for name, b := range content {
		path := filepath.Join(dir, filepath.FromSlash(name))
		if there, err := os.ReadFile(path); err == nil && bytes.Equal(there, b) {
			continue
		}
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			return "", err
		}
		if err := atomicfile.Write(path, b, 0o644); err != nil {
			return "", err
		}
	}
	return dir, nil
}

// oracle is the Python process that has loaded the model.
type oracle struct {
	group *host.Group
}

func (e *Engine) startOracle(ctx context.Context, spec engine.Spec, method, code string) (*oracle, error) {
	fields, err := spec.Endpoint.Record()
	if err != nil {
		return nil, err
	}
	limits := serving.Limits{}
	if spec.Limits != nil {
		limits.Memory = spec.Limits.Memory
	}
	extra := map[string]any{"oracle": code}
	if method != "" {
		extra[serving.AuxMethod] = method
	}
	group, err := e.o.Host.Start(ctx, false, worker.Spec{
		Endpoint: string(spec.URL), Engine: spec.Endpoint.EngineType, ModelPath: spec.ModelPath, Restore: spec.Restore,
		Fields: fields, Extra: extra, Workers: 1, Limits: limits,
	})
	if err != nil {
		return nil, err
	}
	return &oracle{group: group}, nil
}

// ask asks one question; the answer is valid until the next one.
func (o *oracle) ask(ctx context.Context, contentType string, body []byte) (status int, answer []byte, err error) {
	resp, err := o.group.Do(ctx, &worker.Request{Body: body, ContentType: contentType})
	if err != nil {
		return 0, nil, err
	}
	if resp.Stream != nil {
		return 0, nil, errors.Join(errors.New("an answer in pieces"), resp.Stream.Close())
	}
	return resp.Status, resp.Body, nil
}

// save asks for a file.
func (o *oracle) save(ctx context.Context, contentType string, body []byte, path string) (err error) {
	resp, err := o.group.Do(ctx, &worker.Request{ContentType: contentType, Body: body})
	if err != nil {
		return err
	}
	if resp.Stream == nil {
		var told struct {
			Detail string `json:"detail"`
		}
		if err := json.Unmarshal(resp.Body, &told); err != nil {
			return fmt.Errorf("the oracle answered %d", resp.Status)
		}
		if resp.Status == http.StatusUnprocessableEntity {
			return &unprovenError{reason: told.Detail, final: true}
		}
		return errors.New(told.Detail)
	}
	defer func() { err = errors.Join(err, resp.Stream.Close()) }()
	f, err := os.CreateTemp(filepath.Dir(path), ".extract-*") // only its owner may read it, as the model itself
	if err != nil {
		return err
	}
	defer func() { _ = os.Remove(f.Name()) }() // it is renamed if all went well
	for {
		piece, err := resp.Stream.Next(ctx)
		if errors.Is(err, io.EOF) {
			break
		}
		if err == nil {
			_, err = f.Write(piece)
		}
		if err != nil {
			return errors.Join(err, f.Close())
		}
	}
	if err := errors.Join(f.Sync(), f.Close()); err != nil {
		return err
	}
	return os.Rename(f.Name(), path)
}

// tell has the model extracted and compared. The files are base.model and base.proof; the latter is removed.
func (o *oracle) tell(ctx context.Context, base, method string, recorded []serving.Exchange) (*extracted, error) {
	x := &extracted{model: base + ".model", Signature: o.group.Signature()}
	if err := o.save(ctx, askExtract, nil, x.model); err != nil {
		if unproven, ok := errors.AsType[*unprovenError](err); ok { // a kind of model that cannot be computed here
			x.Refused = unproven.reason
			return x, nil
		}
		return nil, err
	}
	proof := base + ".proof"
	defer func() { _ = os.Remove(proof) }()
	if err := o.save(ctx, askProof, nil, proof); err != nil {
		return nil, err
	}
	status, answer, err := o.ask(ctx, askFacts, nil)
	if err != nil || status != http.StatusOK {
		return nil, errors.Join(fmt.Errorf("facts of the model: status %d", status), err)
	}
	if err := json.Unmarshal(answer, &x.Facts); err != nil {
		return nil, fmt.Errorf("facts of the model: %w", err)
	}
	m, err := flat.Open(x.model)
	if err != nil {
		return nil, err
	}
	defer func() { _ = m.Close() }() // it is only unmapped
	if err := x.compare(ctx, o, m, proof, method, recorded); err != nil {
		return nil, err
	}
	if x.Refused != "" {
		_ = os.Remove(x.model) // nothing opens it
	}
	return x, nil
}
