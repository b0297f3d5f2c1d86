package files

import (
	"errors"
	"fmt"
	"path"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
)

// errUnsafePath is the answer to every name that could mean a place outside of the directory, in
// any encoding. It does not reveal what exists there.
var errUnsafePath = errors.New("the path is not allowed")

const (
	maxPart = 255  // the limit of common file systems for one name
	maxPath = 4096 // the limit of Linux for one path
	// maxDepth bounds the folders of a path, because each takes time while others wait for the
	// tree. The SDK's paths have the project, its task, and two or three more.
	maxDepth = 64
)

// nameError is a path that is harmless but cannot be stored; its text is for the client.
type nameError string

func (e nameError) Error() string { return string(e) }

// safePath converts the path of a request, percent-decoded exactly once, into the name of a file
// below the root. It is the only rule for paths: uploads, downloads, and deletes. Leading, trailing
// and double slashes are removed, as in a file system.
//
// Names are kept as sent: the SDK percent-quotes some before the upload, so "%23" in a name is
// three characters of that name. But a part that would become "." or ".." by another decoding, or
// by reading "\" as a slash, is refused: the SDK never makes such names, only attackers of a second
// decoder do.
func safePath(raw string) (string, error) {
	if len(raw) > maxPath {
		return "", nameError("the path is longer than 4096 bytes")
	}
	if strings.ContainsRune(raw, 0) {
		return "", errUnsafePath
	}
	parts := make([]string, 0, 8)
	for part := range strings.SplitSeq(raw, "/") {
		if part == "" {
			continue
		}
		if climbs(part) {
			return "", errUnsafePath
		}
		if len(part) > maxPart {
			return "", nameError("a name in the path is longer than 255 bytes: " + strings.ToValidUTF8(part[:40], "") + "…")
		}
		parts = append(parts, part)
	}
	if len(parts) == 0 {
		return "", nameError("the path is empty")
	}
	if len(parts) > maxDepth+1 {
		return "", nameError(fmt.Sprintf("the path has more than %d folders", maxDepth))
	}
	if parts[0] == incoming {
		return "", errUnsafePath
	}
	name := path.Join(parts...)
	if !filepath.IsLocal(filepath.FromSlash(name)) {
		return "", errUnsafePath
	}
	return name, nil
}

// climbs reports whether the part of a path is, or decodes in any number of steps to, a "." or ".."
// element.
func climbs(part string) bool {
	for {
		for element := range strings.FieldsFuncSeq(part, func(r rune) bool { return r == '/' || r == '\\' || r == 0 }) {
			// Some servers remove what follows a ";" and trailing spaces first.
			element, _, _ = strings.Cut(element, ";")
			if element = strings.TrimSpace(element); element == "." || element == ".." {
				return true
			}
		}
		if strings.Contains(part, "%00") {
			return true
		}
		decoded := decodeOnce(part)
		if decoded == part {
			return false
		}
		part = decoded
	}
}

var escape = regexp.MustCompile(`%[0-9A-Fa-f]{2}`)

// decodeOnce undoes one level of percent-encoding and keeps broken escapes.
func decodeOnce(s string) string {
	return escape.ReplaceAllStringFunc(s, func(code string) string {
		c, _ := strconv.ParseUint(code[1:], 16, 8) // the pattern has the digits
		return string([]byte{byte(c)})
	})
}
