package files

import (
	"errors"
	"io/fs"
	"net/url"
	"os"
	"path"
	"path/filepath"
	"strings"
)

// errUnsafePath is the answer to every name that could mean a place outside the
// directory, in whatever encoding. It says nothing about what exists there.
var errUnsafePath = errors.New("the path is not allowed")

const (
	maxPart = 255  // what the common file systems take for one name
	maxPath = 4096 // what Linux takes for one path
)

// nameError is a path that is harmless but can't be stored; its text is for the client.
type nameError string

func (e nameError) Error() string { return string(e) }

// safePath turns the path of a request, percent-decoded exactly once, into the name
// of a file below the root. It is the one rule for all paths: uploads, downloads, and
// deletes. Slashes at the ends and doubled ones are dropped, as a file system does.
//
// Names stay as they were sent: the SDK percent-quotes some before the upload, so
// "%23" in a name is three characters of that name. But a part that would turn into
// "." or ".." by decoding it again, or by reading "\" as a slash, is refused too:
// such names are never made by the SDK, only by those who look for a second decoder.
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
	if parts[0] == incoming {
		return "", errUnsafePath
	}
	name := path.Join(parts...)
	if !filepath.IsLocal(filepath.FromSlash(name)) {
		return "", errUnsafePath
	}
	return name, nil
}

// climbs reports whether the part of a path is, or decodes in any number of steps
// to, something that holds a "." or ".." element.
func climbs(part string) bool {
	for {
		for element := range strings.FieldsFuncSeq(part, func(r rune) bool { return r == '/' || r == '\\' || r == 0 }) {
			// Some servers cut what follows a ";" and trailing spaces before they look.
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

// decodeOnce undoes one level of percent-encoding and leaves broken escapes alone.
func decodeOnce(s string) string {
	if !strings.Contains(s, "%") {
		return s
	}
	if decoded, err := url.PathUnescape(s); err == nil {
		return decoded
	}
	var b strings.Builder
	for i := 0; i < len(s); i++ {
		if s[i] == '%' && i+2 < len(s) {
			if c, err := url.PathUnescape(s[i : i+3]); err == nil {
				b.WriteString(c)
				i += 2
				continue
			}
		}
		b.WriteByte(s[i])
	}
	return b.String()
}

// stored finds the name under which a file lies. Form encoding turns three characters
// of a part's name into escapes (a quote arrives as %22) which the URL of that file
// brings back decoded, so a name that is not there is tried that way too.
func (s *Server) stored(name string) string {
	sent := strings.NewReplacer(`"`, "%22", "\r", "%0D", "\n", "%0A").Replace(name)
	if sent == name {
		return name
	}
	if _, err := s.root.Lstat(name); err == nil {
		return name
	}
	return sent
}

// open opens the regular file with this name, which safePath has passed. Links and
// folders do not exist as far as a client can tell.
func (s *Server) open(name string) (*os.File, fs.FileInfo, error) {
	if err := s.refuseLinks(name); err != nil {
		return nil, nil, err
	}
	f, err := s.root.Open(name)
	if err != nil {
		return nil, nil, err
	}
	info, err := f.Stat()
	if err != nil {
		return nil, nil, errors.Join(err, f.Close())
	}
	if !info.Mode().IsRegular() {
		return nil, nil, errors.Join(fs.ErrNotExist, f.Close())
	}
	return f, info, nil
}

// refuseLinks fails when the name, or a folder on the way to it, is a link. os.Root
// keeps a link from leaving the directory; that none is followed at all keeps one
// from reaching another's file inside. A missing element is no link.
func (s *Server) refuseLinks(name string) error {
	for i := 0; i <= len(name); i++ {
		if i < len(name) && name[i] != '/' {
			continue
		}
		info, err := s.root.Lstat(name[:i])
		if errors.Is(err, fs.ErrNotExist) {
			return nil
		}
		if err != nil {
			return err
		}
		if info.Mode()&fs.ModeSymlink != 0 {
			return errUnsafePath
		}
	}
	return nil
}
