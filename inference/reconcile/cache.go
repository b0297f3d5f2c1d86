package reconcile

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"

	"clearmlserving/atomicfile"
)

// cacheFormat is increased when State changes incompatibly.
const cacheFormat = 1

type cacheFile struct {
	Format int    `json:"format"`
	State  *State `json:"state"`
}

// writeCache stores the last good state; the file is complete at all times.
func writeCache(file string, state *State) error {
	data, err := json.Marshal(cacheFile{Format: cacheFormat, State: state})
	if err != nil {
		return fmt.Errorf("encode state: %w", err)
	}
	if old, err := os.ReadFile(file); err == nil && string(old) == string(data) {
		return nil
	}
	if err := os.MkdirAll(filepath.Dir(file), 0o700); err != nil {
		return err
	}
	return atomicfile.Write(file, data, 0o600)
}

// SetAside renames an unusable file or folder to a name that ends in ".damaged", so that another
// can take its place.
func SetAside(file string) error {
	aside := file + ".damaged"
	if err := os.RemoveAll(aside); err != nil {
		return err
	}
	return os.Rename(file, aside)
}

// readCache returns the last good state.
func readCache(file string) (*State, error) {
	data, err := os.ReadFile(file)
	if err != nil {
		return nil, err
	}
	var c cacheFile
	if err := json.Unmarshal(data, &c); err != nil {
		return nil, fmt.Errorf("%s is damaged: %w", file, err)
	}
	if c.Format != cacheFormat || c.State == nil {
		return nil, fmt.Errorf("%s was written by another release (format %d, this one reads %d)", file, c.Format, cacheFormat)
	}
	return c.State, nil
}
