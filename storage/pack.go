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
	"slices"
	"strings"
	"syscall"
	"time"

	"clearmlserving/atomicfile"
)

// Packed is a zip file made from a folder.
type Packed struct {
	Path   string
	SHA256 string // of the zip file, in hex
	Size   int64  // of the zip file
	Files  int
	// LeftOut are omitted entries that a user may miss.
	LeftOut []LeftOut
}

// LeftOut is an entry of a folder that was not packed.
type LeftOut struct {
	Name   string // relative to the folder
	Why    string
	Broken bool // a broken link
}

// Pack makes a zip file of all files below a folder, with names relative to it. The same files
// result in the same bytes: names are sorted, times are fixed, and of the modes only the executable
// bit is kept. Generated files of Python and git are omitted without a report: __pycache__, *.pyc,
// .git and virtual environments. Links are followed, also out of the folder: their targets are
// packed. Broken links, links to a parent folder, and anything that is neither file nor folder are
// omitted and listed. The limits are those of Unpack. The zip file appears when it is complete; an
// existing one is replaced.
func Pack(ctx context.Context, folder, file string) (Packed, error) {
	target, err := filepath.Abs(file)
	if err != nil {
		return Packed{}, fmt.Errorf("pack %s: %w", folder, err)
	}
	p := &packing{Packed: Packed{Path: target}, folder: folder, limits: Limits{}.withDefaults()}
	var failed error
	err = atomicfile.WriteWith(target, 0o600, func(temp *os.File) error {
		failed = p.write(ctx, temp)
		return failed
	})
	if failed != nil {
		return Packed{}, failed
	}
	if err != nil {
		return Packed{}, dirError(filepath.Dir(target), err)
	}
	return p.Packed, nil
}

// write packs the folder into a file that then gets its final name.
func (p *packing) write(ctx context.Context, temp *os.File) error {
	for _, own := range []string{temp.Name(), p.Path} {
		if info, err := os.Stat(own); err == nil {
			p.own = append(p.own, info)
		}
	}
	sum := sha256.New()
	p.zip = zip.NewWriter(io.MultiWriter(temp, sum))
	p.zip.RegisterCompressor(zip.Deflate, func(w io.Writer) (io.WriteCloser, error) {
		return flate.NewWriter(w, flate.DefaultCompression)
	})
	if err := errors.Join(p.run(ctx), p.zip.Close()); err != nil {
		return err
	}
	info, err := temp.Stat()
	if err != nil {
		return err
	}
	p.SHA256, p.Size = hex.EncodeToString(sum.Sum(nil)), info.Size()
	return nil
}

// packing is the state while a folder is packed.
type packing struct {
	Packed
	folder  string
	zip     *zip.Writer
	own     []os.FileInfo // the zip file itself, if a name of the folder leads to it
	limits  Limits
	entries int
	bytes   int64
}

func (p *packing) run(ctx context.Context) error {
	info, err := os.Stat(p.folder)
	if err == nil && !info.IsDir() {
		err = errors.New("it is not a folder")
	}
	if err != nil {
		return fmt.Errorf("pack %s: %w", p.folder, err)
	}
	if err := p.walk(ctx, "", []os.FileInfo{info}); err != nil {
		return err
	}
	if p.Files == 0 {
		return fmt.Errorf("pack %s: the folder has no files", p.folder)
	}
	return nil
}

// walk packs the entries of a folder in the order of their names. above are that folder and its
// parents, with links resolved.
func (p *packing) walk(ctx context.Context, name string, above []os.FileInfo) error {
	entries, err := os.ReadDir(filepath.Join(p.folder, filepath.FromSlash(name)))
	if err != nil {
		return fmt.Errorf("pack %s: %w", p.folder, err)
	}
	for _, entry := range entries {
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		if isLeftOut(entry.Name()) {
			continue
		}
		if err := p.entry(ctx, path.Join(name, entry.Name()), entry, above); err != nil {
			return err
		}
	}
	return nil
}

func (p *packing) entry(ctx context.Context, name string, entry fs.DirEntry, above []os.FileInfo) error {
	fault := func(err error) error { return fmt.Errorf("pack %s: file %q: %w", p.folder, name, err) }
	if p.entries++; p.entries > p.limits.Entries {
		return fault(fmt.Errorf("more than %d files and folders; links to folders are followed, so one may include much more than intended", p.limits.Entries))
	}
	full := filepath.Join(p.folder, filepath.FromSlash(name))
	info, err := os.Stat(full) // the target of a link
	link := entry.Type()&fs.ModeSymlink != 0
	switch {
	case err != nil && link && (errors.Is(err, fs.ErrNotExist) || errors.Is(err, syscall.ELOOP)):
		p.leave(name, "a link to nothing", true)
		return nil
	case err != nil:
		return fault(err)
	case info.IsDir():
		if slices.ContainsFunc(above, func(a os.FileInfo) bool { return os.SameFile(a, info) }) {
			p.leave(name, "a link to a parent folder", false)
			return nil
		}
		if len(above) > p.limits.Depth {
			return fault(fmt.Errorf("it is more than %d folders deep", p.limits.Depth))
		}
		if _, err := os.Stat(filepath.Join(full, "pyvenv.cfg")); err == nil {
			return nil // a virtual environment
		}
		return p.walk(ctx, name, append(slices.Clip(above), info))
	case !info.Mode().IsRegular():
		p.leave(name, "neither a file nor a folder", false)
		return nil
	case slices.ContainsFunc(p.own, func(o os.FileInfo) bool { return os.SameFile(o, info) }):
		return nil
	}
	if err := p.add(name, full, info); err != nil {
		return fault(err)
	}
	return nil
}

func (p *packing) leave(name, why string, broken bool) {
	p.LeftOut = append(p.LeftOut, LeftOut{Name: name, Why: why, Broken: broken})
}

// isLeftOut reports whether files of this name are not packed.
func isLeftOut(name string) bool {
	return name == "__pycache__" || name == ".git" || name == ".venv" || strings.HasSuffix(name, ".pyc")
}

func (p *packing) add(name, full string, info os.FileInfo) error {
	if _, problem := safeName(name); problem != "" {
		return errors.New(problem + ", which cannot be unpacked everywhere; rename it")
	}
	f, err := os.Open(full)
	if err != nil {
		return err
	}
	defer f.Close() //nolint:errcheck // only read from
	h := &zip.FileHeader{Name: name, Method: zip.Deflate, Modified: time.Date(1980, 1, 1, 0, 0, 0, 0, time.UTC)}
	h.SetMode(0o644)
	if info.Mode()&0o111 != 0 {
		h.SetMode(0o755)
	}
	w, err := p.zip.CreateHeader(h)
	if err != nil {
		return err
	}
	n, err := io.Copy(w, io.LimitReader(f, p.limits.Bytes-p.bytes+1))
	if err != nil {
		return err
	}
	if p.bytes += n; p.bytes > p.limits.Bytes {
		return fmt.Errorf("the files are larger than %d GiB together; links are followed, so one may include much more than intended", p.limits.Bytes>>30)
	}
	p.Files++
	return nil
}
