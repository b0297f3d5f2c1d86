package worker

import (
	"bytes"
	"crypto/sha256"
	"embed"
	"encoding/hex"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"sync"
)

// The Python side. Tests and tools of that folder stay out of the binary.
//
//go:embed runtime/*.py runtime/public/clearml_serving_worker/*.py
var runtimeFiles embed.FS

// extractRuntime puts the embedded Python files into dir/<hash of them> and
// returns that folder. It is atomic and may happen in many processes at once; a
// folder that is there is checked, so that a damaged one is replaced.
func extractRuntime(dir string) (string, error) {
	files, hash, err := embedded()
	if err != nil {
		return "", fmt.Errorf("read the embedded python files: %w", err)
	}
	target := filepath.Join(dir, hash)
	if intact(target, files) {
		return target, nil
	}
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return "", fmt.Errorf("make the folder for the python runtime: %w", err)
	}
	fresh, err := os.MkdirTemp(dir, ".runtime-*")
	if err != nil {
		return "", fmt.Errorf("make the folder for the python runtime: %w", err)
	}
	defer func() { _ = os.RemoveAll(fresh) }() // nothing is left there once it is renamed
	if err := os.Chmod(fresh, 0o755); err != nil {
		return "", fmt.Errorf("write the python runtime: %w", err)
	}
	for _, f := range files {
		name := filepath.Join(fresh, filepath.FromSlash(f.name))
		if err := os.MkdirAll(filepath.Dir(name), 0o755); err != nil {
			return "", fmt.Errorf("write the python runtime: %w", err)
		}
		if err := os.WriteFile(name, f.content, 0o644); err != nil {
			return "", fmt.Errorf("write the python runtime: %w", err)
		}
	}
	if err := os.Rename(fresh, target); err != nil {
		if intact(target, files) { // another process was faster
			return target, nil
		}
		if _, errStat := os.Lstat(target); errStat != nil {
			return "", fmt.Errorf("publish the python runtime: %w", err)
		}
		if err := os.RemoveAll(target); err != nil {
			return "", fmt.Errorf("remove the damaged python runtime: %w", err)
		}
		if err := os.Rename(fresh, target); err != nil && !intact(target, files) {
			return "", fmt.Errorf("publish the python runtime: %w", err)
		}
	}
	return target, nil
}

// embedded reads the Python files of this program, and the hash that names their folder.
var embedded = onceRuntime() //nolint:gochecknoglobals // what is embedded never changes

func onceRuntime() func() ([]runtimeFile, string, error) {
	type result struct {
		files []runtimeFile
		hash  string
	}
	read := sync.OnceValues(func() (result, error) {
		files, err := readRuntime()
		sum := sha256.New()
		for _, f := range files {
			fmt.Fprintf(sum, "%s %d\n", f.name, len(f.content))
			sum.Write(f.content)
		}
		return result{files, hex.EncodeToString(sum.Sum(nil))[:16]}, err
	})
	return func() ([]runtimeFile, string, error) {
		r, err := read()
		return r.files, r.hash, err
	}
}

// present reports whether all files are there with their sizes: a look that costs
// little, for each process that is started.
func present(dir string) bool {
	files, hash, err := embedded()
	if err != nil {
		return false
	}
	for _, f := range files {
		info, err := os.Stat(filepath.Join(dir, hash, filepath.FromSlash(f.name)))
		if err != nil || info.Size() != int64(len(f.content)) {
			return false
		}
	}
	return true
}

type runtimeFile struct {
	name    string
	content []byte
}

func readRuntime() ([]runtimeFile, error) {
	root, err := fs.Sub(runtimeFiles, "runtime")
	if err != nil {
		return nil, err
	}
	var files []runtimeFile
	err = fs.WalkDir(root, ".", func(name string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		content, err := fs.ReadFile(root, name)
		files = append(files, runtimeFile{name: name, content: content})
		return err
	})
	return files, err
}

func intact(dir string, files []runtimeFile) bool {
	for _, f := range files {
		b, err := os.ReadFile(filepath.Join(dir, filepath.FromSlash(f.name)))
		if err != nil || !bytes.Equal(b, f.content) {
			return false
		}
	}
	return true
}
