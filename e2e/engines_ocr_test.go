//go:build linux

package e2e_test

import (
	"encoding/base64"
	"encoding/json"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// The commands of the read-me, in their order, and what they print. make examples-engines prepares it.
func TestEnginesExampleReadsTheTextInAnImage(t *testing.T) {
	python, packages := os.Getenv("CLEARML_SERVING_TEST_OCR"), packagesONNX(t)
	if python == "" {
		t.Skip("CLEARML_SERVING_TEST_OCR does not name a Python: make examples-engines")
	}
	s := install(t)
	s.start(t, role{python: python})
	t.Cleanup(func() { s.stop(t) })

	// A checkout where the example may write.
	work := filepath.Join(s.dir, "work")
	if err := os.CopyFS(filepath.Join(work, "examples", "onnx-ocr"), os.DirFS(filepath.Join(root, "examples", "onnx-ocr"))); err != nil {
		t.Fatal(err)
	}
	tools := filepath.Join(s.dir, "tools")
	if err := os.Mkdir(tools, 0o755); err != nil {
		t.Fatal(err)
	}
	for name, to := range map[string]string{"python3": python, "clearml-serving": binary} {
		script := "#!/bin/sh\nexec '" + to + "' \"$@\"\n"
		if err := os.WriteFile(filepath.Join(tools, name), []byte(script), 0o755); err != nil { //nolint:gosec // it is run
			t.Fatal(err)
		}
	}
	id := ""
	run := func(line string) string {
		t.Helper()
		line = strings.NewReplacer("<service_id>", id, "http://127.0.0.1:8080", s.urls["serve"]).Replace(line)
		r := s.command(t, append([]string{"CLEARML_SERVING_HOME=" + s.data, "PATH=" + tools + ":" + os.Getenv("PATH")}, s.sdk...), "/bin/bash", "-c", "cd "+work+" && "+line)
		if r.code != 0 {
			t.Fatalf("%s\n%+v", line, r)
		}
		return r.out
	}
	readme, err := os.ReadFile(filepath.Join(root, "examples", "onnx-ocr", "readme.md"))
	if err != nil {
		t.Fatal(err)
	}
	read := ""
	for _, line := range readmeLines(string(readme)) {
		switch {
		case strings.HasPrefix(line, "pip3 "), strings.HasPrefix(line, "clearml-serving up"), strings.HasPrefix(line, "eval "), strings.HasPrefix(line, "clearml-serving doctor"):
		case strings.HasPrefix(line, "clearml-serving create"):
			id = createdID(t, run(line))
		case strings.Contains(line, " model add ") || strings.Contains(line, " model graph "):
			run(line + " --wait")
		case strings.Contains(line, "prepare.py"):
			run(line + " --package " + filepath.Join(packages, "rapidocr_onnxruntime"))
		default:
			out := run(line)
			if strings.Contains(line, "ask.py") {
				read = out
			}
			if strings.HasPrefix(line, "curl ") && (!strings.Contains(out, `"name":"texts"`) || !strings.Contains(out, `"data":["Invoice","No. 2026-1130","upside down","Total 149.90"]`)) {
				t.Errorf("%s\nprints %.2000s", line, out)
			}
		}
	}
	_, want, _ := strings.Cut(string(readme), "```text\n")
	want, _, _ = strings.Cut(want, "```")
	if read != want {
		t.Errorf("the text that is read is\n%swant\n%s", read, want)
	}

	// An image without text: the graph ends after its first step.
	body, err := json.Marshal(map[string]string{"image": base64.StdEncoding.EncodeToString(blankPNG(t, run))})
	if err != nil {
		t.Fatal(err)
	}
	if status, answer := s.ask(t, "ocr", string(body)); status != http.StatusOK || answer != `{"boxes":[]}` {
		t.Errorf("an image without text: %d %s", status, answer)
	}
	// What is wrong with a request is told with the step.
	if status, answer := s.ask(t, "ocr", `{"image":"bm8gaW1hZ2U="}`); status < 400 || !strings.Contains(answer, "step 'detect' of node 'root' (endpoint 'ocr_detect'): ") {
		t.Errorf("no image: %d %s", status, answer)
	}
	if status, answer := s.ask(t, "ocr", `{}`); status < 400 || !strings.Contains(answer, "step 'detect'") {
		t.Errorf("no image: %d %s", status, answer)
	}
	list := run("clearml-serving --id <service_id> model list --verbose")
	for _, line := range []string{"GRAPH /ocr", "/ocr_turn", "data {crops: $response.crops, widths: $response.widths}"} {
		if !strings.Contains(list, line) {
			t.Errorf("model list lacks %q:\n%s", line, list)
		}
	}
}

// readmeLines are the lines of the blocks of commands in a read-me.
func readmeLines(readme string) []string {
	var lines []string
	fence := "" // of the block, "" outside
	for line := range strings.Lines(readme) {
		line = strings.TrimSpace(line)
		switch {
		case strings.HasPrefix(line, "```") && fence == "":
			fence = line
		case strings.HasPrefix(line, "```"):
			fence = ""
		case fence == "```":
			lines = append(lines, line)
		}
	}
	return lines
}

// blankPNG is an image without anything.
func blankPNG(t *testing.T, run func(string) string) []byte {
	t.Helper()
	text := run(`python3 -c 'import base64, io; from PIL import Image; b = io.BytesIO(); Image.new("RGB", (320, 64), "white").save(b, "PNG"); print(base64.b64encode(b.getvalue()).decode())'`)
	data, err := base64.StdEncoding.DecodeString(strings.TrimSpace(text))
	if err != nil {
		t.Fatal(err)
	}
	return data
}
