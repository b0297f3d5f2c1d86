package venv

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
)

// RequirementsFile is the name of the file with the packages of an environment.
const RequirementsFile = "requirements.txt"

// ErrNoRequirements says that a folder has no requirements.txt.
var ErrNoRequirements = errors.New("has no " + RequirementsFile)

// maxRequirements bounds the files that one requirements.txt may include.
const maxRequirements = 100

// requirements reads the folder's requirements.txt and every file of the folder that it names:
// further requirements, constraints or a wheel. A change of any of them requires a new environment.
func requirements(folder string) (string, error) {
	root, err := os.OpenRoot(folder)
	if err != nil {
		return "", fmt.Errorf("code folder: %w", err)
	}
	defer root.Close() //nolint:errcheck // only read from
	var all strings.Builder
	seen := map[string]bool{}
	queue := []string{RequirementsFile}
	for len(queue) > 0 {
		name := queue[0]
		queue = queue[1:]
		if seen[name] {
			continue
		}
		seen[name] = true
		if len(seen) > maxRequirements {
			return "", fmt.Errorf("%s names more than %d files", RequirementsFile, maxRequirements)
		}
		text, err := root.ReadFile(name)
		if errors.Is(err, fs.ErrNotExist) && name == RequirementsFile {
			return "", fmt.Errorf("the code folder %w", ErrNoRequirements)
		}
		if err != nil {
			continue // not a file of the folder: the installer reports it if it is needed
		}
		sum := sha256.Sum256(text)
		fmt.Fprintf(&all, "%s %x\n", name, sum)
		if strings.EqualFold(filepath.Ext(name), ".whl") {
			continue
		}
		for _, other := range named(string(text)) {
			queue = append(queue, filepath.Join(filepath.Dir(name), other))
		}
	}
	return all.String(), nil
}

// named lists the words of a requirements file that may be names of files.
func named(text string) []string {
	var names []string
	for line := range strings.Lines(text) {
		line, _, _ = strings.Cut(line, " #")
		if strings.HasPrefix(strings.TrimSpace(line), "#") {
			continue
		}
		for _, word := range strings.FieldsFunc(line, func(r rune) bool { return r == ' ' || r == '\t' || r == '=' || r == '\r' || r == '\n' || r == '@' }) {
			word = strings.TrimPrefix(strings.Trim(word, `"'`), "file:")
			word = strings.TrimPrefix(strings.TrimPrefix(word, "-r"), "-c") // "-rmore.txt"
			if strings.ContainsAny(word, "./") && !strings.Contains(word, "://") && filepath.IsLocal(word) {
				names = append(names, word)
			}
		}
	}
	return names
}

// key is the name of an environment, derived from its inputs.
func key(parts ...string) string {
	h := sha256.New()
	for _, part := range parts {
		fmt.Fprintf(h, "%d:%s;", len(part), part) // lengths separate the parts
	}
	return hex.EncodeToString(h.Sum(nil))[:24]
}
