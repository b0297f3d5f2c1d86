package worker

import (
	"bufio"
	"io"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
)

// importLine is a line of Python that imports something.
var importLine = regexp.MustCompile(`^\s*(?:import|from)\s`)

var word = regexp.MustCompile(`[A-Za-z_]\w*`)

const (
	scanLimit = 4 << 20   // bytes of code that are searched for imports
	headSize  = 256 << 10 // bytes of a model that are searched
)

// preload lists what the zygote imports.
func (o *Options) preload() []string {
	if o.Preload != nil {
		return o.Preload
	}
	return o.Environment.preload()
}

// needs lists what the zygote must have imported before it forks a worker of an endpoint,
// so that its memory is shared: packages, or modules of one. The zygote imports the rest
// later. An endpoint whose model is of an unknown kind needs all.
func (s *Spec) needs(preload []string) []string {
	switch s.Engine {
	case "sklearn", "xgboost", "lightgbm":
		found := s.importsOf(preload)
		for _, name := range []string{"numpy", "joblib", s.Engine} {
			found[name] = true
		}
		picked := pick(preload, found)
		if s.Engine == "sklearn" {
			picked = s.modulesOf("sklearn", picked)
		}
		return picked
	default:
		if s.ModelPath != "" {
			return preload // it may be a pickle of any package
		}
		found := s.importsOf(preload)
		found["asyncio"] = found["asyncio"] || s.Engine == "custom_async"
		return pick(preload, found)
	}
}

// modulesOf replaces a package by those of its modules that model and code name, because
// the start waits for the import of a large package.
func (s *Spec) modulesOf(name string, picked []string) []string {
	at := slices.Index(picked, name)
	if at < 0 {
		return picked
	}
	found := map[string]bool{}
	dotted := regexp.MustCompile(`\b` + name + `\.[a-z_]\w*`)
	for _, module := range dotted.FindAll(headOf(s.ModelPath), -1) {
		found[string(module)] = true
	}
	if len(found) == 0 {
		return picked // it is compressed, or not a pickle
	}
	from := regexp.MustCompile(`\bfrom\s+` + name + `\s+import\b(.*)`)
	s.eachImport(func(line string) {
		for _, module := range dotted.FindAllString(line, -1) {
			found[module] = true
		}
		if names := from.FindStringSubmatch(line); names != nil {
			for _, one := range word.FindAllString(names[1], -1) {
				found[name+"."+one] = true // names that are not modules are ignored
			}
		}
	})
	return slices.Concat(picked[:at], slices.Sorted(maps.Keys(found)), picked[at+1:])
}

// headOf is the beginning of a file, where pickles name the modules of their objects.
func headOf(path string) []byte {
	f, err := os.Open(path)
	if err != nil {
		return nil // the load reports it
	}
	defer f.Close() //nolint:errcheck // only read from
	head := make([]byte, headSize)
	n, _ := io.ReadFull(f, head) // most are shorter
	return head[:n]
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

// importsOf looks for names in the import lines of the user's code.
func (s *Spec) importsOf(names []string) map[string]bool {
	found := map[string]bool{}
	s.eachImport(func(line string) {
		for _, name := range names {
			found[name] = found[name] || strings.Contains(line, name)
		}
	})
	return found
}

// eachImport calls see with each import line of the user's code. The load reports files
// that cannot be read.
func (s *Spec) eachImport(see func(line string)) {
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
			if importLine.MatchString(lines.Text()) {
				see(lines.Text())
			}
		}
		return nil
	})
}
