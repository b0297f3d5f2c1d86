package security_test

import (
	"archive/tar"
	"archive/zip"
	"bytes"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"clearmlserving/storage"
)

// CVE-2026-27905 (BentoML), CVE-2007-4559 (tarfile) and zip slips: archives wrote outside of their
// folder by names with "..", or by a link and a file below it.
func TestCVE202627905_ArchivesWriteNothingOutside(t *testing.T) {
	type entry struct {
		name, link string
		kind       byte
		body       string
	}
	file := func(name string) entry { return entry{name: name, kind: tar.TypeReg, body: "marker"} }
	archives := map[string][]entry{
		"a link out and a file through it":     {{name: "out", kind: tar.TypeSymlink, link: "../outside"}, file("out/x")},
		"an absolute link":                     {{name: "out", kind: tar.TypeSymlink, link: "/tmp"}, file("out/marker-x")},
		"a link to a link":                     {{name: "a", kind: tar.TypeSymlink, link: "."}, {name: "a/b", kind: tar.TypeSymlink, link: "../.."}, file("b/x")},
		"a hard link to a file outside":        {{name: "h", kind: tar.TypeLink, link: "../victim"}, file("h")},
		"a hard link to passwd":                {{name: "h", kind: tar.TypeLink, link: "/etc/passwd"}},
		"a link that a file replaces":          {{name: "v", kind: tar.TypeSymlink, link: "../victim"}, file("v")},
		"a link alone":                         {{name: "out", kind: tar.TypeSymlink, link: "../victim"}},
		"a device":                             {{name: "dev", kind: tar.TypeChar}},
		"a fifo":                               {{name: "fifo", kind: tar.TypeFifo}},
		"a folder and a link of the same name": {{name: "d/", kind: tar.TypeDir}, {name: "d", kind: tar.TypeSymlink, link: ".."}, file("d/x")},
	}
	for _, climb := range climbs("outside/x") {
		if strings.Contains(climb, "..") || strings.HasPrefix(climb, "/") {
			archives["name "+climb] = []entry{file(climb)}
		}
	}
	for name, entries := range archives {
		for _, format := range []string{"tar", "zip"} {
			dir := t.TempDir()
			victim := filepath.Join(dir, "victim")
			if err := os.WriteFile(victim, []byte("untouched"), 0o600); err != nil {
				t.Fatal(err)
			}
			if err := os.Mkdir(filepath.Join(dir, "outside"), 0o700); err != nil {
				t.Fatal(err)
			}
			var packed bytes.Buffer
			if format == "tar" {
				z := tar.NewWriter(&packed)
				for _, e := range entries {
					if err := z.WriteHeader(&tar.Header{Name: e.name, Linkname: e.link, Typeflag: e.kind, Size: int64(len(e.body)), Mode: 0o4777, Format: tar.FormatPAX}); err != nil {
						continue // even this format cannot name it
					}
					_, _ = z.Write([]byte(e.body))
				}
				_ = z.Close()
			} else {
				z := zip.NewWriter(&packed)
				for _, e := range entries {
					h := &zip.FileHeader{Name: e.name}
					h.SetMode(0o644)
					body := e.body
					if e.kind == tar.TypeSymlink {
						h.SetMode(os.ModeSymlink | 0o777)
						body = e.link
					}
					if w, err := z.CreateHeader(h); err == nil {
						_, _ = w.Write([]byte(body))
					}
				}
				_ = z.Close()
			}
			archive := filepath.Join(dir, "archive")
			if err := os.WriteFile(archive, packed.Bytes(), 0o600); err != nil {
				t.Fatal(err)
			}
			folder := filepath.Join(dir, "folder")
			err := storage.Unpack(t.Context(), archive, folder, storage.Limits{})
			all := names(t, dir)
			for path := range all {
				inside := path == "folder" || strings.HasPrefix(path, "folder/")
				if !inside && path != "." && path != "victim" && path != "outside" && path != "archive" {
					t.Errorf("%s, %s: made %s (%v)", format, name, path, err)
				}
				if info, statErr := os.Lstat(filepath.Join(dir, path)); statErr != nil || (!info.Mode().IsRegular() && !info.IsDir()) || info.Mode()&os.ModeSetuid != 0 {
					t.Errorf("%s, %s: %s is %v", format, name, path, info.Mode())
				}
			}
			if text, readErr := os.ReadFile(victim); readErr != nil || string(text) != "untouched" {
				t.Errorf("%s, %s: the file beside the folder is %q, %v", format, name, text, readErr)
			}
		}
	}
}
