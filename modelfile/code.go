package modelfile

import (
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
)

// codeFiles are the files in which a worker looks for the class Preprocess of a folder.
var codeFiles = []string{"__init__.py", "preprocess.py"}

// LookFolder finds a folder's model file, whose path is empty if there is none, and reports whether
// the folder has code with a class Preprocess.
func LookFolder(folder string) (model File, hasCode bool, err error) {
	entries, err := os.ReadDir(folder)
	if err != nil {
		return File{}, false, err
	}
	var models []File
	var names []string
	for _, entry := range entries {
		name, path := entry.Name(), filepath.Join(folder, entry.Name())
		if slices.Contains(codeFiles, name) {
			text, err := os.ReadFile(path)
			hasCode = hasCode || (err == nil && strings.Contains(string(text), "class Preprocess"))
		}
		if !entry.Type().IsRegular() || strings.HasPrefix(name, ".") || filepath.Ext(name) == ".py" {
			continue
		}
		if file, err := Look(path); err == nil {
			models, names = append(models, file), append(names, name)
		}
	}
	switch {
	case len(models) > 1:
		return File{}, hasCode, fmt.Errorf("folder %s holds %d models (%s): name one of them, and the code by --preprocess", folder, len(models), strings.Join(names, ", "))
	case len(models) == 1:
		return models[0], hasCode, nil
	case !hasCode:
		return File{}, false, fmt.Errorf("folder %s holds neither a model file nor code, as preprocess.py or __init__.py with a class Preprocess", folder)
	}
	return File{}, hasCode, nil
}

// CopyCode copies a folder without its model and hidden files, to pack it as code.
func CopyCode(folder, to string, model File) error {
	return filepath.WalkDir(folder, func(path string, entry fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		relative, err := filepath.Rel(folder, path)
		target := filepath.Join(to, relative)
		switch {
		case err != nil || path == model.Path:
			return err
		case entry.IsDir() && (entry.Name() == "__pycache__" || strings.HasPrefix(entry.Name(), ".") && path != folder):
			return filepath.SkipDir
		case entry.IsDir():
			return os.MkdirAll(target, 0o700)
		}
		data, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		return os.WriteFile(target, data, 0o600)
	})
}

// Predicts reports whether code predicts itself, which requires the custom engine.
func Predicts(code string) bool { return strings.Contains(codeText(code), "def process(") }

var (
	// itemKey is a key that code reads from a variable.
	itemKey = regexp.MustCompile(`\b(\w+)(?:\.get\(|\[)\s*(?:"([^"\\\n]+)"|'([^'\\\n]+)')`)
	// requestOf is the parameter of preprocess or process that is not self.
	requestOf = regexp.MustCompile(`\bdef\s+(preprocess|process)\(\s*self\s*,\s*(\w+)`)
)

// BodyKeys are the keys that code, a path, reads from the body of a request, in the order of the code.
func BodyKeys(code string) []string { return BodyKeysIn(codeText(code)) }

// BodyKeysIn is BodyKeys for the text of code. The body is the first parameter of preprocess, or of process if
// there is no preprocess, or has the usual name.
func BodyKeysIn(text string) []string {
	body := "body"
	for _, found := range requestOf.FindAllStringSubmatch(text, -1) {
		body = found[2]
		if found[1] == "preprocess" {
			break
		}
	}
	var keys []string
	for _, found := range itemKey.FindAllStringSubmatch(text, -1) {
		if key := found[2] + found[3]; found[1] == body && !slices.Contains(keys, key) {
			keys = append(keys, key)
		}
	}
	return keys
}

// codeText is the text of a file of code, or of a folder's files in which its class may be.
func codeText(code string) string {
	files := []string{code}
	for _, name := range codeFiles {
		files = append(files, filepath.Join(code, name))
	}
	var all strings.Builder
	for _, file := range files {
		if text, err := os.ReadFile(file); err == nil {
			all.Write(text)
		}
	}
	return all.String()
}
