package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"

	"clearmlserving/inference/engine/python"
	"clearmlserving/inference/engine/torchserve"
)

// torchServeFolder is where the role torchserve keeps its files, and the engine its archives.
func torchServeFolder(dataDir string) string { return filepath.Join(dataDir, "torchserve") }

// torchServeState is the file in which the role torchserve tells instances with the same data folder where its server
// is.
func torchServeState(dataDir string) string {
	return filepath.Join(torchServeFolder(dataDir), "server.json")
}

// torchServeEngine registers models with TorchServe.
func (a *app) torchServeEngine(dataDir string, workers *python.Engine, log *slog.Logger) (*torchserve.Engine, error) {
	maxBody, err := a.whole("max-body")
	if err != nil {
		return nil, err
	}
	return torchserve.New(torchserve.Options{
		Dir: torchServeFolder(dataDir), Python: workers, MaxAnswer: int64(maxBody) << 20, Keys: a.text("torchserve-keys"), Logger: log,
		Server: func() (s torchserve.Server, err error) {
			text, err := os.ReadFile(torchServeState(dataDir))
			switch {
			case errors.Is(err, fs.ErrNotExist):
				return s, errors.New("no TorchServe runs here: start one with clearml-serving torchserve and the same data folder, or give the address of another one in --aux-config")
			case err != nil:
				return s, fmt.Errorf("find the TorchServe of this machine: %w", err)
			}
			if err := json.Unmarshal(text, &s); err != nil {
				return s, fmt.Errorf("%s cannot be read: %w", torchServeState(dataDir), err)
			}
			return s, nil
		},
	}), nil
}
