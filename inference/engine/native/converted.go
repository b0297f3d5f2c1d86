package native

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math"
	"math/rand/v2"
	"net/http"
	"os"
	"path/filepath"
	"sync/atomic"
	"time"

	"clearmlserving/atomicfile"
	"clearmlserving/inference/engine"
	"clearmlserving/inference/engine/jsontensor"
	flat "clearmlserving/native"
	"clearmlserving/serving"
)

// More questions to runtime/oracle.py.
const (
	askONNX   = "application/x-clearml-serving-onnx"
	askRanges = "application/x-clearml-serving-ranges"
)

// byONNX is who computes a converted model.
const byONNX = "ONNX Runtime"

// convertedTolerance is what counts as equal in the answers of a converted model: equal labels, and numbers that differ by
// no more, relative to numbers above 1.
const convertedTolerance = 1e-6

// conversion is the result of a conversion and its comparison, which is kept beside the model's file.
type conversion struct {
	Refused   string               `json:"refused,omitempty"`
	Report    serving.NativeReport `json:"report"`
	Signature json.RawMessage      `json:"signature,omitempty"`

	file string
}

// convert serves a model that Go does not compute with ONNX Runtime, if a package of the interpreter converts it and the
// answers agree. The error is an *unprovenError.
func (e *Engine) convert(ctx context.Context, spec engine.Spec, how serving.Acceleration) (engine.Model, error) {
	if e.o.ONNX == nil {
		return nil, &unprovenError{reason: "there is no ONNX Runtime here", final: true}
	}
	library, err := e.o.ONNXRuntime(ctx)
	if err != nil {
		return nil, &unprovenError{reason: err.Error()}
	}
	method, err := serving.Method(spec.Endpoint.EngineType, spec.Endpoint.AuxiliaryCfg)
	if err != nil {
		return nil, &engine.LoadError{Text: err.Error(), Err: err}
	}
	key, err := e.key(ctx, spec, method)
	if err != nil {
		return nil, err
	}
	info, err := os.Stat(library)
	if err != nil {
		return nil, &unprovenError{reason: err.Error()}
	}
	key = fmt.Sprintf("%x", sha256.Sum256(fmt.Appendf(nil, "%s %q %d %d", key, library, info.Size(), info.ModTime().UnixNano())))[:32]
	unlock, err := e.proofs.lock(ctx, key)
	if err != nil {
		return nil, err
	}
	defer unlock()
	kept := keptConversion(e.o.Dir, key)
	if kept == nil && e.o.Made != "" {
		kept = keptConversion(e.o.Made, key)
	}
	if kept == nil {
		if kept, err = e.proveConversion(ctx, spec, method, key); err != nil {
			return nil, err
		}
	}
	if kept.Refused != "" {
		return nil, &unprovenError{reason: serving.Shorten(kept.Refused, longestReason), final: true, report: &kept.Report}
	}
	m, err := e.o.ONNX.Load(ctx, onnxSpec(spec, kept.file))
	if err != nil {
		return nil, troubled(ctx, err)
	}
	settings, _ := engine.SignatureOf(spec.Endpoint.Tensors) // as in Python
	told, _ := engine.ParseSignature(kept.Signature)
	c := &converted{onnx: m, report: kept.Report, signature: told.With(settings), python: newFallback(e.o.Python, spec)}
	c.report.Setting, c.report.On = how, true
	return c, nil
}

// onnxSpec is an endpoint's converted model as one of the engine onnx.
func onnxSpec(spec engine.Spec, file string) engine.Spec {
	return engine.Spec{URL: spec.URL, ModelPath: file, Limits: spec.Limits, Endpoint: serving.Endpoint{EngineType: serving.EngineONNX, ServingURL: spec.Endpoint.ServingURL}}
}

// keptConversion is one of an earlier load, nil if there is none.
func keptConversion(dir, key string) *conversion {
	path := filepath.Join(dir, key+".json")
	b, err := os.ReadFile(path)
	if err != nil {
		return nil
	}
	c := &conversion{file: filepath.Join(dir, key+".onnx")}
	if err := json.Unmarshal(b, c); err != nil {
		return nil
	}
	if _, err := os.Stat(c.file); err != nil && c.Refused == "" {
		return nil // it is made again
	}
	now := time.Now()
	_ = errors.Join(os.Chtimes(path, now, now), os.Chtimes(c.file, now, now)) // only for prune
	return c
}

// proveConversion has the model converted, compares it with its library, and keeps the result.
func (e *Engine) proveConversion(ctx context.Context, spec engine.Spec, method, key string) (*conversion, error) {
	within, cancel := context.WithTimeoutCause(ctx, e.o.proofTime, fmt.Errorf("the conversion took longer than %s", e.o.proofTime))
	defer cancel()
	code, err := e.writeCode()
	if err != nil {
		return nil, &unprovenError{reason: fmt.Sprintf("the code of the conversion cannot be written: %v", err)}
	}
	o, err := e.startOracle(within, spec, method, code)
	if err != nil {
		return nil, troubled(ctx, err)
	}
	defer func() {
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), closeTime)
		defer cancel()
		_ = o.group.Close(ctx) // what it had to cut off is not needed
	}()
	c := &conversion{Signature: o.group.Signature(), file: filepath.Join(e.o.Dir, key+".onnx")}
	for _, form := range []string{"double", "single"} {
		if err = e.tryConversion(within, o, spec, method, form, c); err == nil || within.Err() != nil {
			break
		}
	}
	if err != nil {
		unproven, ok := errors.AsType[*unprovenError](err)
		if !ok || !unproven.final {
			return nil, troubled(ctx, err)
		}
		c.Refused = unproven.reason
		_ = os.Remove(c.file) // nothing opens it
	}
	c.Report.By, c.Report.Tolerance, c.Report.Proven = byONNX, convertedTolerance, time.Now().UTC().Truncate(time.Second)
	c.Report.Python = []string{"records, tensors, and rows with anything but numbers"}
	e.o.Logger.Info("converted model compared with its library", "endpoint", spec.URL, "model", c.Report.Model, "refused", c.Refused)
	b, err := json.Marshal(c)
	if err != nil {
		return nil, err
	}
	if err := atomicfile.Write(filepath.Join(e.o.Dir, key+".json"), b, 0o600); err != nil {
		return nil, &unprovenError{reason: fmt.Sprintf("it cannot be kept: %v", err)}
	}
	return c, nil
}

// tryConversion converts the model to one of float64 or float32, and compares its answers.
func (e *Engine) tryConversion(ctx context.Context, o *oracle, spec engine.Spec, method, form string, c *conversion) error {
	if err := o.save(ctx, askONNX, []byte(form), c.file); err != nil {
		return err
	}
	status, answer, err := o.ask(ctx, askRanges, nil)
	if err != nil || status != http.StatusOK {
		return errors.Join(fmt.Errorf("ranges of the model: status %d", status), err)
	}
	var told struct {
		Ranges   [][2]float64      `json:"ranges"`
		Model    string            `json:"model"`
		Releases map[string]string `json:"releases"`
	}
	if err := json.Unmarshal(answer, &told); err != nil {
		return fmt.Errorf("ranges of the model: %w", err)
	}
	c.Report = serving.NativeReport{Model: told.Model, Method: cmpMethod(method), Releases: told.Releases}
	m, err := e.o.ONNX.Load(ctx, onnxSpec(spec, c.file))
	if err != nil {
		failed, ok := errors.AsType[*engine.LoadError](err)
		return &unprovenError{reason: err.Error(), final: ok && failed.Final}
	}
	defer func() { _ = m.Close(context.WithoutCancel(ctx)) }() // it has no process
	for _, kind := range convertedRows(told.Ranges) {
		check := serving.NativeCheck{Rows: kind.Name, Method: c.Report.Method}
		for _, rows := range []int{1, batchRows} {
			for at := 0; at+rows <= kind.Count && at < bodiesAlone*rows; at += rows {
				body := rowsBody(kind.Values[at*len(told.Ranges):(at+rows)*len(told.Ranges)], rows)
				if err := compareConverted(ctx, o, m, body, rows, &check); err != nil {
					c.Report.Checks = append(c.Report.Checks, check)
					return err
				}
			}
		}
		c.Report.Checks = append(c.Report.Checks, check)
	}
	return c.recorded(ctx, o, m, spec)
}

// recorded compares the answers to recorded requests.
func (c *conversion) recorded(ctx context.Context, o *oracle, m engine.Model, spec engine.Spec) error {
	if spec.Recorded == nil {
		return nil
	}
	check := serving.NativeCheck{Rows: recordedRows, Method: c.Report.Method}
	for _, x := range spec.Recorded() {
		if !isJSON(x.ContentType, x.Body) || !onlyNumbers(x.Body) {
			continue
		}
		if err := compareConverted(ctx, o, m, x.Body, 1, &check); err != nil {
			return &unprovenError{reason: fmt.Sprintf("it differs from the endpoint's Python for the recorded request of %s", x.Time.UTC().Format(time.RFC3339)), final: true}
		}
	}
	if check.Count > 0 {
		c.Report.Checks = append(c.Report.Checks, check)
	}
	return nil
}

// convertedRows are rows of a model of which only the ranges of its columns are known.
func convertedRows(ranges [][2]float64) []flat.ProofRows {
	random := rand.New(rand.NewPCG(1, 2)) //nolint:gosec // the same rows each time
	const count = bodiesAlone * batchRows
	kinds := []flat.ProofRows{{Name: "random"}, {Name: "whole numbers"}, {Name: "at the edges"}, {Name: "beyond"}}
	for k := range kinds {
		kinds[k].Count = count
		for range count {
			for _, r := range ranges {
				low, width := r[0], r[1]-r[0]
				v := low + width*random.Float64()
				switch k {
				case 1:
					v = math.Round(v)
				case 2:
					v = []float64{r[0], r[1], 0, low + width/2}[random.IntN(4)]
				case 3:
					v = low - width + 3*width*random.Float64()
				}
				kinds[k].Values = append(kinds[k].Values, v)
			}
		}
	}
	return kinds
}

// rowsBody writes rows as JSON.
func rowsBody(values []float64, rows int) []byte {
	width := len(values) / rows
	b := []byte{'['}
	for row := range rows {
		if row > 0 {
			b = append(b, ',')
		}
		b = jsontensor.AppendFloats(b, values[row*width:(row+1)*width], width)
	}
	return append(b, ']')
}

// compareConverted asks both for the answer to a body.
func compareConverted(ctx context.Context, o *oracle, m engine.Model, body []byte, rows int, check *serving.NativeCheck) error {
	status, told, err := o.ask(ctx, jsonType, body)
	if err != nil {
		return err
	}
	told = bytes.Clone(told)
	resp, err := m.Infer(ctx, &engine.Request{Body: body, ContentType: jsonType})
	if err != nil {
		return err
	}
	if resp.Status != http.StatusOK {
		return nil // Python answers it, as always
	}
	check.Count += rows
	same := status == http.StatusOK && alike(told, resp.Body)
	if !bytes.Equal(told, resp.Body) {
		check.Bits += rows
	}
	if same {
		return nil
	}
	check.Differ += rows
	return &unprovenError{reason: fmt.Sprintf("it differs from the endpoint's Python: to %s Python answers %s, and %s %s", shortened(body), shortened(told), byONNX, shortened(resp.Body)), final: true}
}

// alike reports whether two JSON answers have the same form, the same texts, and numbers within the tolerance.
func alike(want, got []byte) bool {
	a, b := json.NewDecoder(bytes.NewReader(want)), json.NewDecoder(bytes.NewReader(got))
	for {
		x, err := a.Token()
		y, err2 := b.Token()
		if errors.Is(err, io.EOF) && errors.Is(err2, io.EOF) {
			return true
		}
		if err != nil || err2 != nil {
			return false
		}
		number, isNumber := x.(float64)
		if other, ok := y.(float64); isNumber && ok {
			if !(math.Abs(number-other) <= convertedTolerance*max(1, math.Abs(number))) {
				return false
			}
			continue
		}
		if x != y {
			return false
		}
	}
}

// converted is a model that ONNX Runtime computes.
type converted struct {
	onnx      engine.Model
	report    serving.NativeReport
	signature engine.Signature
	python    *fallback

	computed, inPython atomic.Uint64
}

// Infer implements engine.Model. All but rows of numbers is left to the endpoint's Python, and so is what is refused.
func (c *converted) Infer(ctx context.Context, req *engine.Request) (*engine.Response, error) {
	if req.Tensors == nil && isJSON(req.ContentType, req.Body) && onlyNumbers(req.Body) {
		asked := *req
		asked.Sampled = false // rows have no names
		resp, err := c.onnx.Infer(ctx, &asked)
		if err != nil || resp.Status == http.StatusOK {
			c.computed.Add(1)
			return resp, err
		}
	}
	c.inPython.Add(1)
	python, err := c.python.get(ctx)
	if err != nil {
		return nil, err
	}
	return python.Infer(ctx, req)
}

// onlyNumbers reports whether a JSON body has numbers, and nothing but lists of them.
func onlyNumbers(body []byte) bool {
	numbers := false
	for _, c := range body {
		switch c {
		case '[', ']', ',', '.', '+', '-', 'e', 'E', ' ', '\t', '\r', '\n':
		default:
			if c < '0' || c > '9' {
				return false
			}
			numbers = true
		}
	}
	return numbers
}

// Signature implements engine.Signed.
func (c *converted) Signature() engine.Signature { return c.signature }

// SetVariables implements engine.VariableSetter.
func (c *converted) SetVariables(names []string) error { return c.python.setVariables(names) }

// Status implements engine.Model.
func (c *converted) Status() serving.ModelReport {
	report, own := c.python.status(), c.onnx.Status()
	report.State, report.Reason = serving.StateReady, ""
	native := c.report
	native.Native, native.Fallback = c.computed.Load(), c.inPython.Load()
	report.Answered += native.Native
	report.Queued += own.Queued
	report.Native = &native
	return report
}

// Close implements engine.Model.
func (c *converted) Close(ctx context.Context) error {
	return errors.Join(c.python.close(ctx), c.onnx.Close(ctx))
}
