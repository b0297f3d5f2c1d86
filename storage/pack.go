package storage

import (
	"archive/zip"
	"compress/flate"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"strings"
	"time"
)

// Packed is a zip file made of a folder.
type Packed struct {
	Path   string
	SHA256 string // of the zip file, in hex
	Size   int64  // of the zip file
	Files  int
}

// Pack makes a zip file of all files below a folder, with names relative to it.
// The same files give the same bytes: names are sorted, times fixed, and of the
// modes only "can be run" is kept. Left out are what Python and git make by
// themselves: __pycache__, *.pyc, .git and .venv. Links to files inside the
// folder are packed as the files; others are refused, for the folder would mean
// something else on another machine. The zip file appears when it is whole; an
// existing one is replaced.
func Pack(ctx context.Context, folder, file string) (Packed, error) {
	root, err := os.OpenRoot(folder)
	if err != nil {
		return Packed{}, fmt.Errorf("pack %s: %w", folder, err)
	}
	defer root.Close() //nolint:errcheck // only read from
	target, err := filepath.Abs(file)
	if err != nil {
		return Packed{}, fmt.Errorf("pack %s: %w", folder, err)
	}
	temp, err := os.CreateTemp(filepath.Dir(target), tempPrefix)
	if err != nil {
		return Packed{}, dirError(filepath.Dir(target), err)
	}
	defer os.Remove(temp.Name()) //nolint:errcheck // gone already after the rename
	p := &packing{root: root, folder: folder, sum: sha256.New()}
	p.skip = relativeTo(folder, target, temp.Name())
	p.zip = zip.NewWriter(io.MultiWriter(temp, p.sum))
	p.zip.RegisterCompressor(zip.Deflate, func(w io.Writer) (io.WriteCloser, error) {
		return flate.NewWriter(w, flate.DefaultCompression)
	})
	err = p.run(ctx)
	err = errors.Join(err, p.zip.Close(), temp.Sync())
	info, statErr := temp.Stat()
	if err = errors.Join(err, statErr, temp.Close()); err != nil {
		return Packed{}, err
	}
	if err := os.Rename(temp.Name(), target); err != nil {
		return Packed{}, fmt.Errorf("pack %s: %w", folder, err)
	}
	return Packed{Path: target, SHA256: hex.EncodeToString(p.sum.Sum(nil)), Size: info.Size(), Files: p.files}, nil
}

// packing is one folder on its way into a zip file.
type packing struct {
	root   *os.Root
	folder string
	zip    *zip.Writer
	sum    interface {
		io.Writer
		Sum([]byte) []byte
	}
	skip  map[string]bool // the zip file itself, when it lies in the folder
	files int
}

func (p *packing) run(ctx context.Context) error {
	// WalkDir visits the names in lexical order.
	err := fs.WalkDir(p.root.FS(), ".", func(name string, d fs.DirEntry, err error) error {
		switch {
		case err != nil:
			return fmt.Errorf("pack %s: %w", p.folder, err)
		case ctx.Err() != nil:
			return context.Cause(ctx)
		case d.IsDir() && leftOut(d.Name()):
			return fs.SkipDir
		case d.IsDir() || strings.HasSuffix(name, ".pyc") || leftOut(d.Name()) || p.skip[name]:
			return nil
		}
		return p.add(name)
	})
	if err == nil && p.files == 0 {
		return fmt.Errorf("pack %s: the folder holds no files", p.folder)
	}
	return err
}

// leftOut tells whether a name is one of those that are not packed.
func leftOut(name string) bool {
	return name == "__pycache__" || name == ".git" || name == ".venv"
}

func (p *packing) add(name string) error {
	fault := func(err error) error { return fmt.Errorf("pack %s: file %q: %w", p.folder, name, err) }
	if _, problem := safeName(name); problem != "" {
		return fault(errors.New(problem + ", which can't be unpacked everywhere; rename it"))
	}
	info, err := p.root.Stat(name) // follows links, inside the folder only
	if err != nil {
		return fault(err)
	}
	if info.IsDir() {
		return fault(errors.New("it is a link to a folder; put a copy of the folder in its place"))
	}
	if !info.Mode().IsRegular() {
		return fault(errors.New("it is neither a file nor a folder"))
	}
	f, err := p.root.Open(name)
	if err != nil {
		return fault(err)
	}
	defer f.Close() //nolint:errcheck // only read from
	h := &zip.FileHeader{Name: path.Clean(name), Method: zip.Deflate, Modified: time.Date(1980, 1, 1, 0, 0, 0, 0, time.UTC)}
	h.SetMode(0o644)
	if info.Mode()&0o111 != 0 {
		h.SetMode(0o755)
	}
	w, err := p.zip.CreateHeader(h)
	if err != nil {
		return fault(err)
	}
	if _, err := io.Copy(w, f); err != nil {
		return fault(err)
	}
	p.files++
	return nil
}

// relativeTo gives those of the files that lie in the folder, named as fs.FS does.
func relativeTo(folder string, files ...string) map[string]bool {
	inside := map[string]bool{}
	abs, err := filepath.Abs(folder)
	if err != nil {
		return inside
	}
	for _, file := range files {
		if rel, err := filepath.Rel(abs, file); err == nil && filepath.IsLocal(rel) {
			inside[filepath.ToSlash(rel)] = true
		}
	}
	return inside
}
