package images

import (
	"encoding/json"
	"errors"
	"math"
	"os"
	"path/filepath"
	"regexp"
	"runtime"
	"strings"
	"testing"
)

// What docker build and docker compose do: the programs are compiled in the build. They are those of make image-programs to the last bit,
// and so is the image. The modules and what the compiler has kept come from this machine.
func TestTheImageThatCompilesItsProgramsIsTheSame(t *testing.T) {
	told := regexp.MustCompile(`^clearml-serving (\S+) \(commit ([^,]+),`).FindStringSubmatch(must(t, program, "version"))
	if told == nil {
		t.Fatal("the program does not tell its version")
	}
	args := []string{
		"build", "--quiet", "--format", "docker", "--timestamp", "0", "--pull-never", "--network", "host", "--build-arg", "TARGETARCH=" + runtime.GOARCH,
		"--build-arg", "VERSION=" + told[1], "--build-arg", "COMMIT=" + told[2], "-f", "docker/Dockerfile", "--target", "statistics", "-t", "localhost/compiled:latest",
	}
	for name, target := range map[string]string{"GOMODCACHE": "/go/pkg/mod", "GOCACHE": "/root/.cache/go-build"} {
		args = append(args, "--volume", must(t, "go", "env", name)+":"+target)
	}
	must(t, "buildah", append(args, ".")...)
	if compiled, prebuilt := content(t, "localhost/compiled:latest"), content(t, "localhost/clearml-serving-statistics:latest"); compiled != prebuilt {
		t.Errorf("compiled %s, prebuilt %s", compiled, prebuilt)
	}
}

// Packages that are baked in are found without a network.
func TestPackagesAreBakedIn(t *testing.T) {
	dir := t.TempDir()
	code, requirements := filepath.Join(dir, "worded.py"), filepath.Join(dir, "requirements.txt")
	text := "import humanize\n\n\nclass Preprocess:\n    def process(self, data, state, collect_custom_statistics_fn=None):\n        return {\"words\": humanize.intword(data[\"x\"])}\n"
	for path, content := range map[string]string{code: text, requirements: "humanize==4.9.0\n"} {
		if err := os.WriteFile(path, []byte(content), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	t.Run("build --requirements", func(t *testing.T) {
		// The versions are chosen by the image itself, for its own Python.
		context := filepath.Join(dir, "image")
		must(t, "podman", "run", "--rm", "--network", "host", "--pull", "never", "--user", "0:0", "-v", dir+":/in", "-e", "SSL_CERT_FILE=/etc/ssl/certs/ca-certificates.crt",
			"localhost/clearml-serving-inference:latest", "build", "/in/worded.py", "--requirements", "/in/requirements.txt", "--output", "/in/image", "--base", "localhost/clearml-serving-inference:latest")
		must(t, "buildah", "build", "--quiet", "--format", "docker", "--pull-never", "--network", "host", "-t", "localhost/worded:latest", context)
		c := start(t, "localhost/worded:latest", append(data(), "--network", "none")...)
		c.ready()
		if status, answer := c.ask("POST", "http://127.0.0.1:8080/serve/worded", `{"x": 1200000}`); status != 200 || answer != `{"words":"1.2 million"}` {
			t.Errorf("%d %s", status, answer)
		}
	})
	t.Run("EXTRA_PYTHON_PACKAGES", func(t *testing.T) {
		must(t, "buildah", "build", "--quiet", "--format", "docker", "--timestamp", "0", "--layers", "--pull-never", "--network", "host", "--build-arg", "PROGRAMS=prebuilt", "--build-arg", "TARGETARCH="+runtime.GOARCH,
			"--build-arg", "EXTRA_PYTHON_PACKAGES=humanize==4.9.0 tomli==2.0.1", "-f", "docker/Dockerfile", "--target", "packages", "-t", "localhost/extra:latest", ".")
		if out := must(t, "podman", "run", "--rm", "--network", "none", "--pull", "never", "--entrypoint", "/opt/python/bin/python", "localhost/extra:latest", "-c", "import humanize, tomli, sklearn; print(humanize.intword(1200000))"); out != "1.2 million" {
			t.Error(out)
		}
	})
}

// python is the interpreter of the tests.
func python(t *testing.T) string {
	t.Helper()
	found, err := filepath.Abs("../../.venv/bin/python")
	if path := os.Getenv("CLEARML_SERVING_TEST_PYTHON"); path != "" {
		found = path
	}
	if err != nil {
		t.Fatal(err)
	}
	return found
}

// models are made in a container, with the libraries that the image has. What they predict is printed.
const models = `
import json, sys, joblib, lightgbm, numpy, xgboost
from sklearn.datasets import load_iris
from sklearn.ensemble import RandomForestClassifier
x, y = load_iris(return_X_y=True)
ask = numpy.array([[5.1, 3.5, 1.4, 0.2], [6.3, 3.3, 6.0, 2.5]])
forest = RandomForestClassifier(n_estimators=10, random_state=1, n_jobs=1).fit(x, y)
joblib.dump(forest, "/tmp/forest.pkl")
booster = xgboost.train({"objective": "reg:squarederror"}, xgboost.DMatrix(x, y), 5)
booster.save_model("/tmp/booster.json")
light = lightgbm.train({"objective": "regression", "verbose": -1}, lightgbm.Dataset(x, y), 5)
light.save_model("/tmp/light.txt")
print(json.dumps({"forest": forest.predict(ask).tolist(), "booster": booster.predict(xgboost.DMatrix(ask)).tolist(), "light": light.predict(ask).tolist()}))
`

func TestEverythingInOneContainer(t *testing.T) {
	c := start(t, "localhost/clearml-serving-up:latest", append(data(), "--network", "none")...)
	until(t, "the server answers", func() bool {
		status, _ := c.ask("GET", "http://127.0.0.1:8008/livez", "")
		return status == 200
	})
	in := func(words ...string) string {
		t.Helper()
		return must(t, "podman", append([]string{"exec", c.name}, words...)...)
	}
	var wants map[string][]float64
	if err := json.Unmarshal([]byte(in("/opt/python/bin/python", "-c", models)), &wants); err != nil {
		t.Fatal(err)
	}
	id := regexp.MustCompile("id=([0-9a-f]{32})").FindStringSubmatch(in("clearml-serving", "create", "--name", "flowers"))
	if id == nil {
		t.Fatal("no service was made")
	}
	for name, how := range map[string][2]string{"forest": {"sklearn", "/tmp/forest.pkl"}, "booster": {"xgboost", "/tmp/booster.json"}, "light": {"lightgbm", "/tmp/light.txt"}} {
		in("clearml-serving", "--id", id[1], "model", "upload", "--name", name, "--project", "flowers", "--path", how[1])
		in("clearml-serving", "--id", id[1], "model", "add", "--engine", how[0], "--endpoint", name, "--name", name, "--project", "flowers", "--wait")
	}
	for name, want := range wants {
		status, answer := c.ask("POST", "http://127.0.0.1:8080/serve/"+name, `[[5.1, 3.5, 1.4, 0.2], [6.3, 3.3, 6.0, 2.5]]`)
		var got []float64
		if err := json.Unmarshal([]byte(answer), &got); err != nil || status != 200 || !near(got, want) {
			t.Errorf("%s: %d %s, want %v", name, status, answer, want)
		}
	}
	must(t, "podman", "healthcheck", "run", c.name)
	if status, _ := c.ask("GET", "http://127.0.0.1:8008/", "", "Accept: text/html"); status != 200 && status != 302 && status != 303 {
		t.Errorf("the web pages answer %d", status)
	}
	ends(t, c)
}

func near(got, want []float64) bool {
	for i := range want {
		if len(got) != len(want) || math.Abs(got[i]-want[i]) > 1e-6 {
			return false
		}
	}
	return len(got) == len(want)
}

// The image with Python has ONNX Runtime: a mounted folder with a model is served as it is.
func TestAMountedONNXModelIsServed(t *testing.T) {
	dir := t.TempDir()
	model, err := os.ReadFile("../../onnxruntime/testdata/logistic.onnx")
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, "logistic.onnx"), model, 0o644); err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	text, err := os.ReadFile("../../onnxruntime/testdata/answers.json")
	if err != nil {
		t.Fatal(err)
	}
	var known map[string]json.RawMessage
	var want struct {
		X             json.RawMessage
		Labels        []float64
		Probabilities [][]float64
	}
	if err := errors.Join(json.Unmarshal(text, &known), json.Unmarshal(known["logistic"], &want)); err != nil {
		t.Fatal(err)
	}
	c := start(t, "localhost/clearml-serving-inference:latest", append(data(), "--network", "none", "-v", dir+":/models:ro", "--", "inference", "--folder", "/models", "--endpoint", "iris")...)
	c.ready()
	status, answer := c.ask("POST", "http://127.0.0.1:8080/serve/iris", string(want.X))
	var got struct {
		Label         []float64
		Probabilities [][]float64
	}
	if err := json.Unmarshal([]byte(answer), &got); err != nil || status != 200 || !near(got.Label, want.Labels) || len(got.Probabilities) != len(want.Probabilities) || len(want.Labels) == 0 {
		t.Fatalf("%d %s (%v), want %+v", status, answer, err, want)
	}
	for i, row := range want.Probabilities {
		if !near(got.Probabilities[i], row) {
			t.Errorf("row %d: %v, want %v", i, got.Probabilities[i], row)
		}
	}
	if _, status := c.ask("GET", "http://127.0.0.1:8080/status", ""); !strings.Contains(status, `"onnx"`) {
		t.Errorf("it is not computed by ONNX Runtime: %s", status)
	}
}
