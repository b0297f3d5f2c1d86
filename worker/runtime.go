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

// The Python side. Tests and tools of that folder are not embedded.
//
//go:embed runtime/*.py runtime/public/clearml_serving_worker/*.py
var runtimeFiles embed.FS

// pythonFiles are the embedded Python files.
type pythonFiles struct {
	content map[string][]byte // by slash-separated path
	hash    string            // names their folder
}

// embedded reads the Python files of this program.
var embedded = sync.OnceValues(func() (pythonFiles, error) { //nolint:gochecknoglobals // what is embedded never changes
	files, sum := pythonFiles{content: map[string][]byte{}}, sha256.New()
	root, err := fs.Sub(runtimeFiles, "runtime")
	if err != nil {
		return files, err
	}
	err = fs.WalkDir(root, ".", func(name string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		content, err := fs.ReadFile(root, name)
		files.content[name] = content
		fmt.Fprintf(sum, "%s %d\n", name, len(content))
		sum.Write(content)
		return err
	})
	files.hash = hex.EncodeToString(sum.Sum(nil))[:16]
	return files, err
})

// extractRuntime puts the embedded Python files into dir/<hash of them> and
// returns that folder. It is atomic and may happen in many processes at once; a
// folder that is there is checked, so that a damaged one is replaced.
func extractRuntime(dir string) (string, error) {
	files, err := embedded()
	if err != nil {
		return "", fmt.Errorf("read the embedded python files: %w", err)
	}
	target := filepath.Join(dir, files.hash)
	if files.intact(target) {
		return target, nil
	}
	if err := files.write(dir, target); err != nil && !files.intact(target) { // another process may have been faster
		return "", fmt.Errorf("write the python runtime: %w", err)
	}
	return target, nil
}

// write writes the files to a temporary folder in dir and renames it to target.
func (f pythonFiles) write(dir, target string) error {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	fresh, err := os.MkdirTemp(dir, ".runtime-*")
	if err != nil {
		return err
	}
	defer func() { _ = os.RemoveAll(fresh) }() // nothing is left there once it is renamed
	if err := os.Chmod(fresh, 0o755); err != nil {
		return err
	}
	for name, content := range f.content {
		path := filepath.Join(fresh, filepath.FromSlash(name))
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			return err
		}
		if err := os.WriteFile(path, content, 0o644); err != nil {
			return err
		}
	}
	if os.Rename(fresh, target) == nil || f.intact(target) {
		return nil
	}
	if err := os.RemoveAll(target); err != nil { // a damaged one
		return err
	}
	return os.Rename(fresh, target)
}

// intact reports whether dir has all files with their content.
func (f pythonFiles) intact(dir string) bool {
	return f.all(dir, func(path string, content []byte) bool {
		b, err := os.ReadFile(path)
		return err == nil && bytes.Equal(b, content)
	})
}

// present reports whether all files are in dir with their sizes. It costs little, and is
// asked before each start of a process.
func (f pythonFiles) present(dir string) bool {
	return f.all(dir, func(path string, content []byte) bool {
		info, err := os.Stat(path)
		return err == nil && info.Size() == int64(len(content))
	})
}

func (f pythonFiles) all(dir string, good func(path string, content []byte) bool) bool {
	for name, content := range f.content {
		if !good(filepath.Join(dir, filepath.FromSlash(name)), content) {
			return false
		}
	}
	return true
}
