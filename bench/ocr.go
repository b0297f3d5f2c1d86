package main

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"clearmlserving/bench/load"
)

const (
	ocrCase    = "ocr"
	ocrTensors = "ocr_v2"
	ocrFor     = 5 * time.Second
)

// ocrPython has NumPy, Pillow and ONNX Runtime: it prepares the example, runs its code for ours, and is the loop.
func (b *bench) ocrPython() string {
	return filepath.Join(b.root, ".venv-examples-onnx/bin/python")
}

// measureOCR compares a graph of three models and a step of code with the same code and models in a loop of one process.
func measureOCR(ctx context.Context, b *bench, g group, n *notes) error {
	example, models := filepath.Join(b.dir, "ocr"), filepath.Join(b.dir, "ocr/models")
	if err := os.CopyFS(example, os.DirFS(filepath.Join(b.root, "examples/onnx-ocr"))); err != nil && !errors.Is(err, os.ErrExist) {
		return err
	}
	if _, err := output(ctx, b.dir, nil, b.ocrPython(), filepath.Join(example, "prepare.py"), models,
		"--package", filepath.Join(b.root, ".cache/onnx/packages/rapidocr_onnxruntime")); err != nil {
		return fmt.Errorf("prepare the example (make venv-examples-onnx onnx-models): %w", err)
	}
	image, err := os.ReadFile(filepath.Join(models, "invoice.png"))
	if err != nil {
		return err
	}
	encodedImage := base64.StdEncoding.EncodeToString(image)
	bodies := map[string][]byte{
		ocrCase: encoded(map[string]string{"image": encodedImage}),
		// The images between the steps are arrays, not lists.
		ocrTensors: encoded(map[string]any{"inputs": []any{map[string]any{
			"name": "image", "datatype": "BYTES", "shape": []int{1}, "parameters": map[string]string{"content_type": "base64"}, "data": []string{encodedImage},
		}}}),
	}
	if err := b.deployOCR(ctx, example, models); err != nil {
		return err
	}
	for round := range b.plan.rounds {
		ours, first, err := b.readText(ctx, g, round, bodies)
		if err != nil {
			return err
		}
		var text string
		loop, err := b.quietest(ctx, loopCase, func() (m measured, err error) {
			printed, err := output(ctx, b.dir, []string{oneThread}, b.ocrPython(), filepath.Join(b.root, "bench/rivals/onnxruntime/ocr.py"), example, models, fmt.Sprint(ocrFor.Seconds()))
			if err != nil {
				return m, err
			}
			_, err = fmt.Sscan(string(printed), &m.PerSecond, &text)
			return m, err
		})
		if err != nil {
			return err
		}
		if text != first {
			return fmt.Errorf("ours reads %q, the loop %q", first, text)
		}
		say("round %d  %s: %.1f/s", round+1, loopCase, loop.PerSecond)
		for name, results := range ours {
			for _, connections := range ocrConnections {
				m := results[connections]
				n.add(key{name, g.workers, connections}, loopCase, "requests/s", m.PerSecond, loop.PerSecond, m.doubtful())
			}
		}
	}
	return nil
}

var ocrConnections = []int{1, 16}

// deployOCR is the deployment of the example's read-me.
func (b *bench) deployOCR(ctx context.Context, example, models string) error {
	id, err := b.create(ctx, "bench ocr")
	if err != nil {
		return err
	}
	for _, name := range []string{"detect", "turn", "read"} {
		if _, err := b.cli(ctx, "--id", id, "model", "upload", "--name", "ocr "+name, "--project", "bench", "--path", filepath.Join(models, name+".onnx")); err != nil {
			return err
		}
		if _, err := b.cli(ctx, "--id", id, "model", "add", "--engine", "onnx", "--endpoint", "ocr_"+name, "--preprocess", filepath.Join(example, name), "--name", "ocr "+name, "--project", "bench"); err != nil {
			return err
		}
	}
	if _, err := b.cli(ctx, "--id", id, "model", "add", "--engine", "custom", "--endpoint", "ocr_crop", "--preprocess", filepath.Join(example, "crop")); err != nil {
		return err
	}
	_, err = b.cli(ctx, "--id", id, "model", "graph", "--endpoint", ocrCase, "--file", filepath.Join(example, "graph.yaml"))
	b.services[ocrCase] = id
	return err
}

// readText measures ours, for each body. It returns the first text of the answer, too.
func (b *bench) readText(ctx context.Context, g group, round int, bodies map[string][]byte) (_ map[string]map[int]measured, first string, err error) {
	s, err := startOurs(ctx, b, deployment{names: []string{ocrCase}, workers: g.workers, env: []string{"CLEARML_SERVING_PYTHON=" + b.ocrPython()}})
	if err != nil {
		return nil, "", err
	}
	defer func() { err = errors.Join(err, s.stop()) }()
	results := map[string]map[int]measured{}
	for _, name := range []string{ocrCase, ocrTensors} {
		o := load.Options{URL: s.url + "/serve/" + ocrCase, Body: bodies[name], Duration: ocrFor}
		if name == ocrTensors {
			o.URL = s.url + "/v2/models/" + ocrCase + "/infer"
		}
		answer, err := s.answerOf(ctx, o.URL, "", o.Body)
		if err != nil {
			return nil, "", err
		}
		text, err := firstText(answer)
		if err != nil {
			return nil, "", err
		}
		if first != "" && text != first {
			return nil, "", fmt.Errorf("the text is %q with JSON, %q with tensors", first, text)
		}
		first, results[name] = text, map[int]measured{}
		for _, connections := range ocrConnections {
			o.Connections = connections
			if results[name][connections], err = b.quietest(ctx, name, func() (measured, error) { return b.once(ctx, s, o) }); err != nil {
				return nil, "", err
			}
			tell(round, sides[0], name, connections, results[name][connections])
		}
	}
	return results, first, nil
}

// firstText is the first text that was read, in an answer of either form.
func firstText(answer []byte) (string, error) {
	var a struct {
		Texts   []string
		Outputs []struct {
			Name string
			Data []json.RawMessage
		}
	}
	if err := json.Unmarshal(answer, &a); err != nil {
		return "", err
	}
	for _, o := range a.Outputs {
		if o.Name == "texts" && len(o.Data) > 0 {
			var text string
			err := json.Unmarshal(o.Data[0], &text)
			return text, err
		}
	}
	if len(a.Texts) == 0 {
		return "", fmt.Errorf("our answer has no texts: %.300s", answer)
	}
	return a.Texts[0], nil
}
