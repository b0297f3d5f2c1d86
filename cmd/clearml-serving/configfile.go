package main

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"clearmlserving/hocon"
)

// configFile is our own configuration file, serving.conf: the options of
// options.go by name, in the syntax of clearml.conf.
type configFile struct {
	path   string // as named to people
	values map[string]any
	err    error // told once, by checkConfigFile
}

// fromFile looks a key up. A file that cannot be read has no values; that it
// cannot be read is told by checkConfigFile before a command begins.
func (a *app) fromFile(key string) (string, bool) {
	if a.files == nil {
		a.files = a.readConfigFile()
	}
	switch v := a.files.values[key].(type) {
	case nil, map[string]any, []any:
		return "", false
	case string:
		return v, true
	default:
		return fmt.Sprint(v), true
	}
}

// checkConfigFile refuses to go on with a configuration file that cannot be
// used: a setting that is silently ignored is worse than none.
func (a *app) checkConfigFile() error {
	a.fromFile("")
	if a.files.err != nil {
		return a.files.err
	}
	for key, value := range a.files.values {
		name := strings.ReplaceAll(key, "_", "-")
		if !slices.ContainsFunc(optionTable, func(o option) bool { return o.name == name && !o.noFile }) {
			return hint(fmt.Errorf("configuration file %s: unknown setting %s", a.files.path, pyText(key)), "Try: clearml-serving help environment   (lists the settings)")
		}
		switch value.(type) {
		case map[string]any, []any:
			return fmt.Errorf("configuration file %s: setting %s is not a single value", a.files.path, pyText(key))
		}
	}
	return nil
}

func (a *app) readConfigFile() *configFile {
	path := a.text("config")
	named := path != ""
	if !named {
		dir, err := a.dataDir()
		if err != nil {
			return &configFile{}
		}
		path = filepath.Join(dir, "serving.conf")
	}
	f := &configFile{path: path}
	text, err := os.ReadFile(path)
	switch {
	case errors.Is(err, fs.ErrNotExist) && !named:
	case err != nil:
		f.err = fmt.Errorf("read the configuration file: %w", err)
	default:
		f.values, f.err = parseHOCON(text, a.sys.env)
		if f.err != nil {
			f.err = fmt.Errorf("configuration file %s: %w", path, f.err)
		}
	}
	return f
}

// parseHOCON reads text in the syntax of clearml.conf into plain values.
func parseHOCON(text []byte, env func(string) (string, bool)) (map[string]any, error) {
	o, err := hocon.Parse(text, hocon.Options{Env: env})
	if err != nil {
		return nil, err
	}
	values, _ := o.ToAny().(map[string]any)
	return values, nil
}
