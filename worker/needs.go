package worker

import (
	"bufio"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"strings"
)

// importLine is a line of Python that imports something.
var importLine = regexp.MustCompile(`^\s*(?:import|from)\s`)

// scanLimit bounds how much code is read to see what it imports.
const scanLimit = 4 << 20

// preload lists what the zygote imports.
func (o *Options) preload() []string {
	if o.Preload != nil {
		return o.Preload
	}
	return o.Environment.preload()
}

// needs lists which of the zygote's packages an endpoint will import: the zygote
// has them before it forks, so that their memory is shared, and need not have the
// others yet. An endpoint of whose model nothing is known needs all of them.
func (s *Spec) needs(preload []string) []string {
	switch s.Engine {
	case "sklearn", "xgboost", "lightgbm":
		found := s.importsOf(preload)
		for _, name := range []string{"numpy", "joblib", s.Engine} {
			found[name] = true
		}
		return pick(preload, found)
	default:
		if s.ModelPath != "" {
			return preload // it may be a pickle of anything
		}
		return pick(preload, s.importsOf(preload))
	}
}

func pick(names []string, wanted map[string]bool) []string {
	picked := []string{} // Python reads it: null is no list
	for _, name := range names {
		if wanted[name] {
			picked = append(picked, name)
		}
	}
	return picked
}

// importsOf looks for names in the import lines of the user's code. What it cannot
// read will be told by the load.
func (s *Spec) importsOf(names []string) map[string]bool {
	found := map[string]bool{}
	left := int64(scanLimit)
	_ = filepath.WalkDir(s.CodePath, func(path string, entry fs.DirEntry, err error) error {
		if err != nil || entry.IsDir() || filepath.Ext(path) != ".py" {
			return nil
		}
		info, err := entry.Info()
		if err != nil || info.Size() > left {
			return nil
		}
		left -= info.Size()
		file, err := os.Open(path)
		if err != nil {
			return nil
		}
		defer file.Close() //nolint:errcheck // only read from
		for lines := bufio.NewScanner(file); lines.Scan(); {
			if !importLine.MatchString(lines.Text()) {
				continue
			}
			for _, name := range names {
				found[name] = found[name] || strings.Contains(lines.Text(), name)
			}
		}
		return nil
	})
	return found
}
