package storage

import (
	"net/url"
	"path"
	"path/filepath"
	"strings"
	"unicode"
	"unicode/utf8"
)

// safeName is the only rule for external names that become paths here: a relative, cleaned path
// with slashes, "." for the folder itself. Everything that any system could read as another place
// is refused, with the reason.
func safeName(name string) (safe, problem string) {
	switch {
	case name == "":
		return "", "its name is empty"
	case strings.ContainsRune(name, 0):
		return "", "its name contains a NUL byte"
	case !utf8.ValidString(name):
		return "", "its name is not UTF-8"
	case strings.ContainsRune(name, '\\'):
		return "", "its name contains a backslash"
	case strings.HasPrefix(name, "/"):
		return "", "its name is an absolute path"
	case len(name) >= 2 && name[1] == ':' && ('a' <= name[0]|0x20 && name[0]|0x20 <= 'z'):
		return "", "its name begins with a drive letter"
	case len(name) > 4096:
		return "", "its name is longer than 4096 bytes"
	case strings.ContainsFunc(name, unicode.IsControl):
		return "", "its name contains a control character"
	}
	for part := range strings.SplitSeq(name, "/") {
		if part == ".." {
			return "", "its name leads out of the folder"
		}
		if len(part) > 255 {
			return "", "a part of its name is longer than 255 bytes"
		}
	}
	safe = path.Clean(name)
	if !filepath.IsLocal(filepath.FromSlash(safe)) {
		return "", "its name leads out of the folder"
	}
	return safe, ""
}

// nameOf is the name of the file of a URL.
func nameOf(rawURL string) string {
	switch Scheme(rawURL) {
	case "s3", "gs", "azure": // keys are unquoted in these URLs
		return path.Base(rawURL)
	}
	if u, err := url.Parse(rawURL); err == nil {
		name := path.Base(u.Path) // decoded once, as the server decodes it
		if path.Ext(name) == "" { // # or ? in a name, which the SDK leaves unchanged
			if u.RawQuery != "" && !strings.Contains(u.RawQuery, "=") { // which may contain a signature
				name += "?" + u.RawQuery
			}
			if u.Fragment != "" {
				name += "#" + u.Fragment
			}
		}
		return name
	}
	return path.Base(strings.SplitN(rawURL, "?", 2)[0])
}

// fileName makes a harmless file name of any text. Extensions are kept, because engines depend on
// them.
func fileName(name string) string {
	name = strings.ToValidUTF8(name, "_")
	name = strings.Map(func(r rune) rune {
		if r == '/' || r == '\\' || unicode.IsControl(r) {
			return '_'
		}
		return r
	}, name)
	const longest = 200
	if len(name) > longest {
		ending := path.Ext(name)
		if len(ending) > 20 {
			ending = ""
		}
		name = strings.ToValidUTF8(name[:longest-len(ending)], "") + ending
	}
	if strings.Trim(name, ". ") == "" {
		return "file"
	}
	return name
}
