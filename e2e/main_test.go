//go:build linux

package e2e_test

import (
	"fmt"
	"os"
	"path/filepath"
	"testing"
)

// The paths of the tests' tools, all made by make test-e2e.
var (
	root       string // of the checkout
	binary     string
	pythonSDK2 string
	pythonSDK1 string
)

func TestMain(m *testing.M) {
	if os.Getenv("CLEARML_SERVING_E2E") == "" {
		fmt.Println("e2e: skipped; they need the built binary and Python environments: make test-e2e")
		return
	}
	if err := prepare(); err != nil {
		fmt.Fprintln(os.Stderr, "e2e:", err)
		os.Exit(1)
	}
	os.Exit(m.Run())
}

func prepare() (err error) {
	if root, err = filepath.Abs(".."); err != nil {
		return err
	}
	binary = filepath.Join(root, "bin/clearml-serving")
	pythonSDK2 = filepath.Join(root, ".venv/bin/python")
	pythonSDK1 = filepath.Join(root, ".venv-sdk1/bin/python")
	for _, file := range []string{binary, pythonSDK2, pythonSDK1} {
		if _, err := os.Stat(file); err != nil {
			return fmt.Errorf("%w; run make test-e2e", err)
		}
	}
	return adoptOrphans()
}
