package main

import (
	"context"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"strings"
	"time"
)

// watchInterval is how often files are looked at: the eye takes it for at once.
const watchInterval = 300 * time.Millisecond

// watch calls do once, and again at each change of the files and folders, with
// the name of one that changed, until ctx ends or do returns an error.
func watch(ctx context.Context, paths []string, do func(changed string) error) error {
	ticker := time.NewTicker(watchInterval)
	defer ticker.Stop()
	seen := look(paths)
	changed := ""
	for {
		if err := do(changed); err != nil {
			return err
		}
		for changed = ""; changed == ""; {
			select {
			case <-ticker.C:
			case <-ctx.Done():
				return ctx.Err()
			}
			now := look(paths)
			changed, seen = difference(seen, now), now
		}
	}
}

// marker is what changes when a file does.
type marker struct{ size, changed int64 }

// look notes every file at or below the paths.
func look(paths []string) map[string]marker {
	found := map[string]marker{}
	for _, path := range paths {
		_ = filepath.WalkDir(path, func(name string, d fs.DirEntry, err error) error {
			if err != nil {
				return nil //nolint:nilerr // it is gone, which is seen as a change
			}
			if d.IsDir() {
				if name != path && (d.Name() == "__pycache__" || strings.HasPrefix(d.Name(), ".")) {
					return filepath.SkipDir
				}
				return nil
			}
			if info, err := os.Stat(name); err == nil {
				found[name] = marker{info.Size(), info.ModTime().UnixNano()}
			}
			return nil
		})
	}
	return found
}

// difference names the first file that came, went or changed, "" for none.
func difference(before, now map[string]marker) string {
	all := maps.Clone(before)
	maps.Copy(all, now)
	for _, name := range keys(all) {
		if before[name] != now[name] {
			return name
		}
	}
	return ""
}

// watched lists what a trial is made of.
func (t *trial) watched() []string {
	var paths []string
	for _, path := range []string{t.flags.code, t.flags.model, t.flags.request, t.flags.expect} {
		if path != "" && path != "-" {
			paths = append(paths, path)
		}
	}
	for _, file := range t.stubs {
		paths = append(paths, file)
	}
	return paths
}
