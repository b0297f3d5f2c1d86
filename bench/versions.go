package main

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"runtime"
	"strings"
)

// packages are the packages whose versions are reported, by environment.
var packages = map[string][]string{
	"bench":          {"scikit-learn", "numpy", "xgboost-cpu"},
	"bench-original": {"clearml-serving", "clearml"},
	"bench-fastapi":  {"fastapi", "uvicorn"},
	"bench-mosec":    {"mosec"},
	"bench-mlserver": {"mlserver"},
	"bench-litserve": {"litserve"},
	"bench-bentoml":  {"bentoml"},
	"bench-coglet":   {"coglet"},
	"bench-triton":   {"nvidia-pytriton", "onnxruntime"},
	"torchserve":     {"torchserve"},
	"openai":         {"xllamacpp"},
}

// readVersions reads the versions of all servers.
func (b *bench) readVersions(ctx context.Context) (map[string]string, error) {
	ours, err := output(ctx, b.root, nil, b.binary, "version", "--json")
	if err != nil {
		return nil, err
	}
	var told struct{ Version, Commit string }
	if err := json.Unmarshal(ours[max(bytes.IndexByte(ours, '{'), 0):], &told); err != nil {
		return nil, fmt.Errorf("read clearml-serving version: %w", err)
	}
	all := map[string]string{"ours": strings.TrimSpace(told.Version + " " + told.Commit)}
	const script = `import json, platform, sys
from importlib.metadata import PackageNotFoundError, version
told = {"python": platform.python_version()}
for name in sys.argv[1:]:
    try:
        told[name] = version(name)
    except PackageNotFoundError:
        pass
print(json.dumps(told))`
	for environment, names := range packages {
		python := filepath.Join(b.root, ".venv-"+environment, "bin/python")
		text, err := output(ctx, b.root, nil, python, append([]string{"-c", script}, names...)...)
		if err != nil {
			if os.IsNotExist(err) || environment == "bench" {
				return nil, err
			}
			say("no environment %s: %v", environment, err)
			continue
		}
		var read map[string]string
		if err := json.Unmarshal(text, &read); err != nil {
			return nil, fmt.Errorf("read the versions of the Python packages: %w", err)
		}
		if environment != "bench" { // TorchServe has the system's Python
			delete(read, "python")
		}
		maps.Copy(all, read)
	}
	return all, nil
}

// machine describes the class of this machine, without its name.
func machine() string {
	model := runtime.GOARCH
	if text, err := os.ReadFile("/proc/cpuinfo"); err == nil {
		for line := range strings.Lines(string(text)) {
			if name, value, found := strings.Cut(line, ":"); found && strings.TrimSpace(name) == "model name" {
				model = strings.TrimSpace(value)
				break
			}
		}
	}
	return fmt.Sprintf("%d cores of %s, %s", runtime.NumCPU(), model, runtime.GOOS)
}
