package storage_test

import (
	"archive/tar"
	"archive/zip"
	"bytes"
	"compress/gzip"
	"context"
	"encoding/binary"
	"errors"
	"flag"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"clearmlserving/storage"
)

var update = flag.Bool("update", false, "write testdata/archives anew")

func readTestdata(tb testing.TB, name string) []byte {
	tb.Helper()
	data, err := os.ReadFile(filepath.Join("testdata", "archives", name))
	if err != nil {
		tb.Fatal(err)
	}
	return data
}

// damaged are the archives of testdata, named by their fault, with
// a part of the error; "" for valid archives.
var damaged = map[string]struct {
	make func() []byte
	says string
}{
	"good.zip": {func() []byte {
		return zipOf(zipFile("__init__.py", "from .inner import x\n"), zipFile("inner/x.py", "x = 1\n"), zipDir("empty/"))
	}, ""},
	"good.tar": {func() []byte {
		return tarOf(tarDir("./"), tarFile("./__init__.py", "a"), tarFile("./inner/x.py", "x = 1\n"))
	}, ""},
	"good.tar.gz": {func() []byte { return gz(tarOf(tarFile("__init__.py", "a"))) }, ""},
	"git-archive.tar": {func() []byte {
		return tarOf(tarEntry{h: tar.Header{Typeflag: tar.TypeXGlobalHeader, Name: "pax_global_header", PAXRecords: map[string]string{"comment": "x"}}}, tarFile("a", "a"))
	}, ""},
	"empty.zip":               {func() []byte { return zipOf() }, ""},
	"colon-inside.zip":        {func() []byte { return zipOf(zipFile("a b:c.txt", "colon inside")) }, ""},
	"parent.zip":              {func() []byte { return zipOf(zipFile("ok", "x"), zipFile("../evil", "x")) }, "leads out"},
	"parent-inside.zip":       {func() []byte { return zipOf(zipFile("a/../../evil", "x")) }, "leads out"},
	"parent-that-returns.zip": {func() []byte { return zipOf(zipFile("a/../b", "x")) }, "leads out"},
	"parent.tar":              {func() []byte { return tarOf(tarFile("../evil", "x")) }, "leads out"},
	"absolute.zip":            {func() []byte { return zipOf(zipFile("/etc/evil", "x")) }, "absolute"},
	"absolute.tar":            {func() []byte { return tarOf(tarFile("/etc/evil", "x")) }, "absolute"},
	"drive.zip":               {func() []byte { return zipOf(zipFile("C:evil", "x")) }, "drive letter"},
	"backslash.zip":           {func() []byte { return zipOf(zipFile(`..\evil`, "x")) }, "backslash"},
	"nul.zip":                 {func() []byte { return zipOf(zipFile("a\x00b", "x")) }, "NUL"},
	"newline.zip":             {func() []byte { return zipOf(zipFile("a\nb", "x")) }, "control character"},
	"not-utf8.zip":            {func() []byte { return zipOf(zipFile("a\xff", "x")) }, "not UTF-8"},
	"empty-name.zip":          {func() []byte { return zipOf(zipFile("", "x")) }, "name is empty"},
	"long-name.zip":           {func() []byte { return zipOf(zipFile(strings.Repeat("n", 300), "x")) }, "longer than 255"},
	"deep.zip":                {func() []byte { return zipOf(zipFile(strings.Repeat("d/", 100)+"x", "x")) }, "folders deep"},
	"twice.zip":               {func() []byte { return zipOf(zipFile("a", "x"), zipFile("a", "y")) }, "twice"},
	"file-and-folder.zip":     {func() []byte { return zipOf(zipFile("a", "x"), zipFile("a/b", "y")) }, "a file and a folder"},
	"folder-and-file.zip":     {func() []byte { return zipOf(zipFile("a/b", "y"), zipFile("a", "x")) }, "twice"},
	"symlink.zip":             {func() []byte { return zipOf(zipLink("a", "/etc/passwd")) }, "symbolic link"},
	"pipe.zip":                {func() []byte { return zipOf(zipEntry{name: "a", mode: fs.ModeNamedPipe | 0o644}) }, "neither"},
	"symlink.tar": {func() []byte {
		return tarOf(tarEntry{h: tar.Header{Typeflag: tar.TypeSymlink, Name: "a", Linkname: "/etc/passwd"}})
	}, "symbolic link"},
	// CVE-2026-27905: a link inside, its target outside, the next entry written through it.
	"through-a-link.tar": {func() []byte {
		return tarOf(tarEntry{h: tar.Header{Typeflag: tar.TypeSymlink, Name: "a", Linkname: ".."}}, tarFile("a/evil", "x"))
	}, "symbolic link"},
	"hard-link.tar": {func() []byte {
		return tarOf(tarEntry{h: tar.Header{Typeflag: tar.TypeLink, Name: "a", Linkname: "/etc/passwd"}})
	}, "hard link"},
	"device.tar": {func() []byte { return tarOf(tarEntry{h: tar.Header{Typeflag: tar.TypeChar, Name: "a", Devmajor: 1}}) }, "neither"},
	"setuid.tar": {func() []byte {
		return tarOf(tarEntry{h: tar.Header{Typeflag: tar.TypeReg, Name: "run", Mode: 0o6777, Size: 1}, data: "x"})
	}, ""},
	"truncated.zip":    {func() []byte { b := zipOf(zipFile("a", "x")); return b[:len(b)-10] }, "damaged"},
	"checksum.zip":     {func() []byte { return flip(zipOf(stored("a", "content")), "content") }, "damaged"},
	"truncated.tar":    {func() []byte { return tarOf(tarFile("a", strings.Repeat("x", 2000)))[:1500] }, "damaged"},
	"checksum.tar.gz":  {func() []byte { b := gz(tarOf(tarFile("a", "x"))); b[len(b)-6] ^= 1; return b }, "damaged"},
	"truncated.tar.gz": {func() []byte { b := gz(tarOf(tarFile("a", "x"))); return b[:len(b)-12] }, "damaged"},
	"gzip-of-text.gz":  {func() []byte { return gz([]byte(strings.Repeat("not a tar\n", 100))) }, "damaged"},
	"encrypted.zip":    {func() []byte { return zipOf(zipEntry{name: "a", data: "x", flags: 1}) }, "encrypted"},
	"method.zip":       {func() []byte { return method(zipOf(stored("a", "content")), 99) }, "cannot be read"},
	"no-archive.pkl":   {func() []byte { return []byte("\x80\x04\x95pickle") }, "not a zip"},
	"nothing.zip":      {func() []byte { return nil }, "not a zip"},
	"bomb.zip":         {func() []byte { return zipOf(zipFile("zeros", strings.Repeat("\x00", 80<<20))) }, "bomb"},
	"bomb.tar.gz":      {func() []byte { return gz(tarOf(tarFile("zeros", strings.Repeat("\x00", 80<<20)))) }, "bomb"},
}

type zipEntry struct {
	name, data string
	mode       fs.FileMode
	flags      uint16
	store      bool
}

func zipFile(name, data string) zipEntry { return zipEntry{name: name, data: data, mode: 0o644} }
func stored(name, data string) zipEntry {
	return zipEntry{name: name, data: data, mode: 0o644, store: true}
}
func zipDir(name string) zipEntry { return zipEntry{name: name, mode: fs.ModeDir | 0o755} }
func zipLink(name, to string) zipEntry {
	return zipEntry{name: name, data: to, mode: fs.ModeSymlink | 0o777}
}

func zipOf(entries ...zipEntry) []byte {
	var b bytes.Buffer
	w := zip.NewWriter(&b)
	for _, e := range entries {
		h := &zip.FileHeader{Name: e.name, Method: zip.Deflate, Flags: e.flags}
		if e.store {
			h.Method = zip.Store
		}
		h.SetMode(e.mode)
		f, err := w.CreateHeader(h)
		if err == nil && e.data != "" {
			_, err = f.Write([]byte(e.data))
		}
		if err != nil {
			panic(err)
		}
	}
	if err := w.Close(); err != nil {
		panic(err)
	}
	return b.Bytes()
}

type tarEntry struct {
	h    tar.Header
	data string
}

func tarFile(name, data string) tarEntry {
	return tarEntry{tar.Header{Typeflag: tar.TypeReg, Name: name, Mode: 0o644, Size: int64(len(data))}, data}
}

func tarDir(name string) tarEntry {
	return tarEntry{h: tar.Header{Typeflag: tar.TypeDir, Name: name, Mode: 0o755}}
}

func tarOf(entries ...tarEntry) []byte {
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	for _, e := range entries {
		err := w.WriteHeader(&e.h)
		if err == nil {
			_, err = w.Write([]byte(e.data))
		}
		if err != nil {
			panic(err)
		}
	}
	if err := w.Close(); err != nil {
		panic(err)
	}
	return b.Bytes()
}

func gz(data []byte) []byte {
	var b bytes.Buffer
	w := gzip.NewWriter(&b)
	if _, err := w.Write(data); err != nil {
		panic(err)
	}
	if err := w.Close(); err != nil {
		panic(err)
	}
	return b.Bytes()
}

// flip damages the first byte of a text in an archive.
func flip(b []byte, text string) []byte {
	b[bytes.Index(b, []byte(text))] ^= 1
	return b
}

// method changes the compression method of the only entry of a zip file.
func method(b []byte, m uint16) []byte {
	binary.LittleEndian.PutUint16(b[8:], m)
	binary.LittleEndian.PutUint16(b[bytes.Index(b, []byte("PK\x01\x02"))+10:], m)
	return b
}

func TestArchivesAreUnpackedOrRefusedWithTheEntry(t *testing.T) {
	for name, c := range damaged {
		t.Run(name, func(t *testing.T) {
			path := filepath.Join("testdata", "archives", name)
			if *update {
				if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
					t.Fatal(err)
				}
				if err := os.WriteFile(path, c.make(), 0o644); err != nil {
					t.Fatal(err)
				}
			}
			above := t.TempDir()
			folder := filepath.Join(above, "a", "folder")
			if err := os.Mkdir(filepath.Dir(folder), 0o755); err != nil {
				t.Fatal(err)
			}
			err := storage.Unpack(t.Context(), path, folder, storage.Limits{})
			if c.says == "" {
				if err != nil {
					t.Fatal(err)
				}
				sane(t, folder)
				return
			}
			var fault *storage.ArchiveError
			if !errors.As(err, &fault) || !strings.Contains(err.Error(), c.says) || fault.Archive != name {
				t.Errorf("error %v, want one that says %q", err, c.says)
			}
			if left, _ := filepath.Glob(filepath.Join(above, "a", "*")); len(left) > 0 {
				t.Errorf("left over: %v", left)
			}
			if out, _ := os.ReadDir(above); len(out) != 1 {
				t.Errorf("written outside: %v", out)
			}
		})
	}
}

// sane checks that a folder contains only files and folders, with harmless modes.
func sane(t *testing.T, folder string) {
	t.Helper()
	err := filepath.WalkDir(folder, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		info, err := d.Info()
		if err == nil && !info.IsDir() && (!info.Mode().IsRegular() || info.Mode()&(fs.ModeSetuid|fs.ModeSetgid|fs.ModeSticky|0o022) != 0) {
			t.Errorf("%s has mode %s", path, info.Mode())
		}
		return err
	})
	if err != nil {
		t.Error(err)
	}
}

func TestLimitsOfArchives(t *testing.T) {
	many := zipOf(zipFile("a", "1"), zipFile("b", "2"), zipFile("c", "3"))
	for name, c := range map[string]struct {
		limits storage.Limits
		says   string
	}{
		"entries": {storage.Limits{Entries: 2}, "more than 2 entries"},
		"bytes":   {storage.Limits{Bytes: 2}, "more than 2 B"},
		"enough":  {storage.Limits{Entries: 3, Bytes: 3, Depth: 1}, ""},
	} {
		t.Run(name, func(t *testing.T) {
			archive := filepath.Join(t.TempDir(), "a.zip")
			if err := os.WriteFile(archive, many, 0o600); err != nil {
				t.Fatal(err)
			}
			err := storage.Unpack(t.Context(), archive, filepath.Join(t.TempDir(), "out"), c.limits)
			if (err == nil) != (c.says == "") || (err != nil && !strings.Contains(err.Error(), c.says)) {
				t.Errorf("error %v, want %q", err, c.says)
			}
		})
	}
}

func TestUnpackingNeverMixesWithWhatIsThere(t *testing.T) {
	there := t.TempDir()
	if err := storage.Unpack(t.Context(), "testdata/archives/good.zip", there, storage.Limits{}); !errors.Is(err, fs.ErrExist) {
		t.Errorf("error %v, want that the folder exists", err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	out := filepath.Join(t.TempDir(), "out")
	if err := storage.Unpack(ctx, "testdata/archives/good.zip", out, storage.Limits{}); !errors.Is(err, context.Canceled) {
		t.Errorf("error %v, want the end of the context", err)
	}
	if _, err := os.Stat(out); err == nil {
		t.Error("half an archive was unpacked")
	}
}

func TestPackedFolderUnpacksToTheSameFiles(t *testing.T) {
	folder := t.TempDir()
	files := map[string]string{"__init__.py": "from .inner import x\n", "inner/x.py": "x = 1\n", ".hidden": "kept", "run.sh": "#!/bin/sh\n", "ä b.txt": "é"}
	leftOut := []string{"__pycache__/a.cpython-311.pyc", "inner/__pycache__/x", "old.pyc", ".git/config", ".venv/bin/python"}
	for name, text := range files {
		write(t, filepath.Join(folder, name), text)
	}
	for _, name := range leftOut {
		write(t, filepath.Join(folder, name), "left out")
	}
	if err := os.Chmod(filepath.Join(folder, "run.sh"), 0o777); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink("inner/x.py", filepath.Join(folder, "linked.py")); err != nil {
		t.Fatal(err)
	}
	files["linked.py"] = files["inner/x.py"]
	out := t.TempDir()
	first, err := storage.Pack(t.Context(), folder, filepath.Join(out, "1.zip"))
	if err != nil {
		t.Fatal(err)
	}
	for name := range files {
		if name == "linked.py" {
			continue
		}
		if err := os.Chtimes(filepath.Join(folder, name), time.Unix(1e9, 0), time.Unix(1e9, 0)); err != nil {
			t.Fatal(err)
		}
	}
	second, err := storage.Pack(t.Context(), folder, filepath.Join(folder, "2.zip")) // into the folder itself
	if err != nil {
		t.Fatal(err)
	}
	if first.SHA256 != second.SHA256 || first.Files != len(files) || first.Size != second.Size {
		t.Errorf("packed %+v, then %+v", first, second)
	}
	data, err := os.ReadFile(first.Path)
	if err != nil || sum(data) != first.SHA256 || int64(len(data)) != first.Size {
		t.Errorf("the file differs from %+v (%v)", first, err)
	}
	unpacked := filepath.Join(out, "unpacked")
	if err := storage.Unpack(t.Context(), first.Path, unpacked, storage.Limits{}); err != nil {
		t.Fatal(err)
	}
	got := map[string]string{}
	for name := range files {
		text, err := os.ReadFile(filepath.Join(unpacked, name))
		if err != nil {
			t.Error(err)
		}
		got[name] = string(text)
	}
	for name, text := range files {
		if got[name] != text {
			t.Errorf("%s holds %q, want %q", name, got[name], text)
		}
	}
	for _, name := range leftOut {
		if _, err := os.Stat(filepath.Join(unpacked, name)); err == nil {
			t.Errorf("%s was packed", name)
		}
	}
	if info, err := os.Stat(filepath.Join(unpacked, "run.sh")); err != nil || info.Mode()&0o100 == 0 {
		t.Errorf("run.sh is not executable (%v)", err)
	}
}

// Links are packed as their targets, as in the SDK, wherever those are.
func TestLinksArePackedAsWhatTheyLeadTo(t *testing.T) {
	top := t.TempDir()
	folder := filepath.Join(top, "snapshots", "abc")
	for name, text := range map[string]string{
		"snapshots/abc/real.txt": "real", "snapshots/abc/sub/inner.txt": "inner", "blobs/ab12": "{}", "elsewhere/data.bin": "data", "elsewhere/deep/x": "x",
		"snapshots/abc/venv/pyvenv.cfg": "home = /usr", "snapshots/abc/venv/bin/tool": "tool",
	} {
		write(t, filepath.Join(top, name), text)
	}
	for name, to := range map[string]string{
		"config.json":         "../../blobs/ab12",
		"absolute.bin":        filepath.Join(top, "elsewhere", "data.bin"),
		"chained":             "config.json",
		"data":                "../../elsewhere",
		"twice":               "../../elsewhere",
		"sub/up":              "..",
		"self":                ".",
		"broken":              "../../blobs/gone",
		"round":               "round",
		"venv/bin/python":     "/usr/bin/python3",
		"../../elsewhere/top": "../snapshots/abc",
	} {
		if err := os.Symlink(to, filepath.Join(folder, name)); err != nil {
			t.Fatal(err)
		}
	}
	if err := syscall.Mkfifo(filepath.Join(folder, "pipe"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink("pipe", filepath.Join(folder, "to-pipe")); err != nil {
		t.Fatal(err)
	}
	out := t.TempDir()
	packed, err := storage.Pack(t.Context(), folder, filepath.Join(out, "a.zip"))
	if err != nil {
		t.Fatal(err)
	}
	unpacked := filepath.Join(out, "unpacked")
	if err := storage.Unpack(t.Context(), packed.Path, unpacked, storage.Limits{}); err != nil {
		t.Fatal(err)
	}
	got := map[string]string{}
	if err := filepath.WalkDir(unpacked, func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		text, err := os.ReadFile(path)
		name, _ := filepath.Rel(unpacked, path)
		got[name] = string(text)
		return err
	}); err != nil {
		t.Fatal(err)
	}
	want := map[string]string{
		"real.txt": "real", "sub/inner.txt": "inner", "config.json": "{}", "absolute.bin": "data", "chained": "{}",
		"data/data.bin": "data", "data/deep/x": "x", "twice/data.bin": "data", "twice/deep/x": "x",
	}
	if !maps.Equal(got, want) {
		t.Errorf("unpacked %q, want %q", got, want)
	}
	const above, nothing, special = "a link to a parent folder", "a link to nothing", "neither a file nor a folder"
	left := []storage.LeftOut{
		{Name: "broken", Why: nothing, Broken: true},
		{Name: "data/top", Why: above},
		{Name: "pipe", Why: special},
		{Name: "round", Why: nothing, Broken: true},
		{Name: "self", Why: above},
		{Name: "sub/up", Why: above},
		{Name: "to-pipe", Why: special},
		{Name: "twice/top", Why: above},
	}
	if !slices.Equal(packed.LeftOut, left) {
		t.Errorf("left out %+v, want %+v", packed.LeftOut, left)
	}
}

func TestFoldersThatCanNotBePackedAreNamed(t *testing.T) {
	for name, c := range map[string]struct {
		make func(folder string) error
		says string
	}{
		"empty":              {func(string) error { return nil }, "has no files"},
		"only a broken link": {func(f string) error { return os.Symlink("gone", filepath.Join(f, "a")) }, "has no files"},
		"too many by links": {func(f string) error {
			// Each folder has two links to the next: 2^20 paths to the last.
			var err error
			here, next := f, "../d1"
			for i := range 20 {
				err = errors.Join(err, os.MkdirAll(here, 0o755), os.Symlink(next, filepath.Join(here, "l1")), os.Symlink(next, filepath.Join(here, "l2")))
				here, next = filepath.Join(filepath.Dir(f), fmt.Sprintf("d%d", i+1)), fmt.Sprintf("../d%d", i+2)
			}
			return errors.Join(err, os.Mkdir(filepath.Join(filepath.Dir(f), "d20"), 0o755))
		}, "links to folders are followed"},
		"name with break": {func(f string) error { return os.WriteFile(filepath.Join(f, "a\nb"), nil, 0o600) }, "control character"},
		"missing":         {os.RemoveAll, "no such file"},
	} {
		t.Run(name, func(t *testing.T) {
			folder, out := filepath.Join(t.TempDir(), "code"), t.TempDir()
			if err := os.Mkdir(folder, 0o755); err != nil {
				t.Fatal(err)
			}
			if err := c.make(folder); err != nil {
				t.Fatal(err)
			}
			_, err := storage.Pack(t.Context(), folder, filepath.Join(out, "a.zip"))
			if err == nil || !strings.Contains(err.Error(), c.says) || !strings.Contains(err.Error(), folder) {
				t.Errorf("error %v, want one with %q", err, c.says)
			}
			if left, _ := os.ReadDir(out); len(left) > 0 {
				t.Errorf("left over: %v", left)
			}
		})
	}
}

func write(t *testing.T, path, text string) {
	t.Helper()
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
}

// FuzzUnpack checks that no archive creates files outside of the folder, links in it, or more
// content than the limits allow.
func FuzzUnpack(f *testing.F) {
	seeds, err := filepath.Glob("testdata/archives/*")
	if err != nil || len(seeds) == 0 {
		f.Fatalf("no seeds: %v", err)
	}
	for _, seed := range seeds {
		if info, err := os.Stat(seed); err == nil && info.Size() < 1<<14 {
			f.Add(readTestdata(f, filepath.Base(seed)))
		}
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		above := t.TempDir()
		archive := filepath.Join(above, "archive")
		if err := os.WriteFile(archive, data, 0o600); err != nil {
			t.Fatal(err)
		}
		folder := filepath.Join(above, "folder")
		err := storage.Unpack(t.Context(), archive, folder, storage.Limits{Entries: 50, Bytes: 1 << 20, Depth: 8})
		entries, readErr := os.ReadDir(above)
		if readErr != nil {
			t.Fatal(readErr)
		}
		want := 1
		if err == nil {
			want = 2
			sane(t, folder)
		} else {
			if _, ok := errors.AsType[*storage.ArchiveError](err); !ok {
				t.Errorf("error of another kind: %v", err)
			}
		}
		if len(entries) != want {
			t.Errorf("beside the folder: %v", entries)
		}
	})
}

func FuzzNames(f *testing.F) {
	for _, s := range []string{"a/b", "../a", "/a", `a\b`, "C:a", "a/../b", "./a//b/", "..%2f", "a\x00", "..", ".", "", "\u2024\u2024/a"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, name string) {
		if safe, problem := storage.SafeName(name); problem == "" && (!filepath.IsLocal(safe) || filepath.Clean(safe) != safe || strings.ContainsAny(safe, "\x00\\")) {
			t.Errorf("%q became the unsafe %q", name, safe)
		}
		if one := storage.FileName(name); one == "" || one == "." || one == ".." || strings.ContainsAny(one, "/\\\x00\n") || len(one) > 210 {
			t.Errorf("%q became the unsafe file name %q", name, one)
		}
	})
}
