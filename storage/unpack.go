package storage

import (
	"archive/tar"
	"archive/zip"
	"bytes"
	"cmp"
	"compress/gzip"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"strings"

	"github.com/dustin/go-humanize"
)

// Limits bound the unpacked content of an archive.
type Limits struct {
	// Entries bounds files and folders. Default 100,000.
	Entries int
	// Bytes bounds the sum of all files. Default 128 GiB.
	Bytes int64
	// Ratio bounds the sum of all files as a multiple of the archive's own
	// length; it counts only above 64 MiB. Default 250.
	Ratio int64
	// Depth bounds the depth of folders. Default 64.
	Depth int
}

func (l Limits) withDefaults() Limits {
	return Limits{
		Entries: cmp.Or(l.Entries, 100_000), Bytes: cmp.Or(l.Bytes, 128<<30), Ratio: cmp.Or(l.Ratio, 250), Depth: cmp.Or(l.Depth, 64),
	}
}

// ratioFrom is the unpacked size below which no ratio is suspicious: a small
// file of zeros compresses a thousandfold.
const ratioFrom = 64 << 20

// ArchiveError describes a fault of an archive, and its entry.
type ArchiveError struct {
	Archive string
	Entry   string // "": the archive as a whole
	Problem string
}

func (e *ArchiveError) Error() string {
	if e.Entry == "" {
		return fmt.Sprintf("unpack %s: %s", e.Archive, e.Problem)
	}
	return fmt.Sprintf("unpack %s: entry %q: %s", e.Archive, e.Entry, e.Problem)
}

// Unpack unpacks a zip, tar or tar.gz file into a folder that does not exist yet, in one that does.
// The folder appears only when it is complete. Names that lead outside of it, links and special
// files are refused, and the partial content is removed. An *ArchiveError names the entry.
func Unpack(ctx context.Context, archive, folder string, limits Limits) error {
	if _, err := os.Lstat(folder); err == nil {
		return fmt.Errorf("unpack %s: %s: %w", archive, folder, fs.ErrExist)
	}
	temp, err := os.MkdirTemp(filepath.Dir(folder), unpackingPrefix)
	if err != nil {
		return dirError(filepath.Dir(folder), err)
	}
	defer os.RemoveAll(temp) //nolint:errcheck // renamed by then; else removed at the next start
	content := filepath.Join(temp, "content")
	if err := unpackInto(ctx, archive, content, limits); err != nil {
		return err
	}
	if err := os.Rename(content, folder); err != nil {
		return fmt.Errorf("unpack %s: %w", archive, err)
	}
	return syncDir(filepath.Dir(folder))
}

// unpackingPrefix begins the names of folders that are being unpacked.
const unpackingPrefix = ".unpacking-"

func unpackInto(ctx context.Context, archive, folder string, limits Limits) error {
	f, err := os.Open(archive)
	if err != nil {
		return fmt.Errorf("unpack: %w", err)
	}
	defer f.Close() //nolint:errcheck // only read from
	info, err := f.Stat()
	if err != nil {
		return fmt.Errorf("unpack: %w", err)
	}
	if err := os.Mkdir(folder, 0o755); err != nil {
		return dirError(filepath.Dir(folder), err)
	}
	root, err := os.OpenRoot(folder)
	if err != nil {
		return fmt.Errorf("unpack %s: %w", archive, err)
	}
	defer root.Close() //nolint:errcheck // only read from
	u := &unpacking{
		archive: archive, size: info.Size(), root: root, folder: folder,
		limits: limits.withDefaults(), folders: map[string]bool{".": true},
	}
	return u.run(ctx, f)
}

// unpacking is the state while an archive is unpacked.
type unpacking struct {
	archive string
	size    int64
	root    *os.Root
	folder  string
	limits  Limits
	entries int
	bytes   int64
	folders map[string]bool // created so far
}

// run detects the kind of archive by its first bytes, because names are less reliable.
func (u *unpacking) run(ctx context.Context, f *os.File) error {
	head := make([]byte, 512)
	n, err := io.ReadFull(f, head)
	if err != nil && !errors.Is(err, io.ErrUnexpectedEOF) && !errors.Is(err, io.EOF) {
		return fmt.Errorf("unpack %s: %w", u.archive, err)
	}
	if _, err := f.Seek(0, io.SeekStart); err != nil {
		return fmt.Errorf("unpack %s: %w", u.archive, err)
	}
	head = head[:n]
	switch {
	case bytes.HasPrefix(head, []byte("PK\x03\x04")), bytes.HasPrefix(head, []byte("PK\x05\x06")):
		return u.zip(ctx, f)
	case bytes.HasPrefix(head, []byte("\x1f\x8b")):
		z, err := gzip.NewReader(f)
		if err != nil {
			return u.fault("", "its gzip header is damaged: "+err.Error())
		}
		return u.tar(ctx, z)
	case len(head) >= 262 && string(head[257:262]) == "ustar":
		return u.tar(ctx, f)
	default:
		return u.fault("", "it is not a zip, tar or tar.gz file")
	}
}

func (u *unpacking) zip(ctx context.Context, f *os.File) error {
	z, err := zip.NewReader(f, u.size)
	if err != nil && !errors.Is(err, zip.ErrInsecurePath) { // names are checked below, with a better message
		return u.fault("", "it is damaged: "+err.Error())
	}
	for _, entry := range z.File {
		name, err := u.admit(entry.Name)
		if err != nil {
			return err
		}
		// A folder is recognised by the slash as well as by the mode: Windows sets no mode.
		mode := entry.Mode()
		switch {
		case mode.IsDir() || strings.HasSuffix(entry.Name, "/"):
			err = u.mkdir(entry.Name, name)
		case !mode.IsRegular():
			err = u.fault(entry.Name, special(mode))
		default:
			err = u.zipFile(ctx, entry, name)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

func (u *unpacking) zipFile(ctx context.Context, entry *zip.File, name string) error {
	if entry.Flags&1 != 0 {
		return u.fault(entry.Name, "it is encrypted")
	}
	r, err := entry.Open()
	if err != nil {
		return u.fault(entry.Name, "it cannot be read: "+err.Error())
	}
	defer r.Close()
	return u.file(ctx, entry.Name, name, entry.Mode(), r)
}

func (u *unpacking) tar(ctx context.Context, r io.Reader) error {
	r = &bounded{u: u, r: r}
	archive := tar.NewReader(r)
	for {
		h, err := archive.Next()
		if errors.Is(err, io.EOF) {
			// After the last entry there is the checksum of a gzip.
			return u.copy(ctx, "", io.Discard, r)
		}
		if err != nil && !errors.Is(err, tar.ErrInsecurePath) {
			if known, ok := errors.AsType[*ArchiveError](err); ok {
				return known
			}
			return u.fault("", "it is damaged: "+err.Error())
		}
		if h.Typeflag == tar.TypeXGlobalHeader {
			continue // a comment: git archive writes the commit into one
		}
		name, err := u.admit(h.Name)
		if err != nil {
			return err
		}
		mode := h.FileInfo().Mode()
		switch h.Typeflag {
		case tar.TypeDir:
			err = u.mkdir(h.Name, name)
		case tar.TypeReg:
			err = u.file(ctx, h.Name, name, mode, archive)
		case tar.TypeLink:
			err = u.fault(h.Name, "it is a hard link; links are not unpacked")
		default:
			err = u.fault(h.Name, special(mode))
		}
		if err != nil {
			return err
		}
	}
}

func special(mode fs.FileMode) string {
	if mode&fs.ModeSymlink != 0 {
		return "it is a symbolic link; links are not unpacked"
	}
	return "it is neither a file nor a folder"
}

// admit counts the entry and turns its name into a safe one.
func (u *unpacking) admit(entry string) (string, error) {
	if u.entries++; u.entries > u.limits.Entries {
		return "", u.fault("", fmt.Sprintf("it has more than %d entries", u.limits.Entries))
	}
	name, problem := safeName(entry)
	if problem != "" {
		return "", u.fault(entry, problem)
	}
	if depth := strings.Count(name, "/"); depth > u.limits.Depth {
		return "", u.fault(entry, fmt.Sprintf("it is %d folders deep, the limit is %d", depth, u.limits.Depth))
	}
	return name, nil
}

// mkdir creates a folder and its parents, each once.
func (u *unpacking) mkdir(entry, name string) error {
	if u.folders[name] {
		return nil
	}
	if err := u.mkdir(entry, path.Dir(name)); err != nil {
		return err
	}
	if err := u.root.Mkdir(name, 0o755); err != nil {
		if errors.Is(err, fs.ErrExist) {
			return u.fault(entry, fmt.Sprintf("%q is a file and a folder at once", name))
		}
		return u.failed(entry, err)
	}
	u.folders[name] = true
	return nil
}

// file writes one file. Of its mode only the executable bit is kept.
func (u *unpacking) file(ctx context.Context, entry, name string, mode fs.FileMode, r io.Reader) error {
	if name == "." {
		return u.fault(entry, "its name is empty")
	}
	if err := u.mkdir(entry, path.Dir(name)); err != nil {
		return err
	}
	perm := fs.FileMode(0o644)
	if mode&0o111 != 0 {
		perm = 0o755
	}
	f, err := u.root.OpenFile(name, os.O_WRONLY|os.O_CREATE|os.O_EXCL, perm)
	if err != nil {
		if errors.Is(err, fs.ErrExist) {
			return u.fault(entry, "the archive contains this name twice")
		}
		return u.failed(entry, err)
	}
	err = u.copy(ctx, entry, f, r)
	if err == nil {
		err = f.Sync() // the content must be on the disk before the folder is renamed
	}
	if closeErr := f.Close(); err == nil {
		err = closeErr
	}
	if err != nil {
		return u.failed(entry, err)
	}
	return nil
}

func (u *unpacking) copy(ctx context.Context, entry string, w io.Writer, r io.Reader) error {
	buf := make([]byte, 128<<10)
	for {
		if err := ctx.Err(); err != nil {
			return err
		}
		n, readErr := r.Read(buf)
		if err := u.count(entry, int64(n)); err != nil {
			return err
		}
		if _, err := w.Write(buf[:n]); err != nil {
			return err
		}
		if errors.Is(readErr, io.EOF) {
			return nil
		}
		if readErr != nil {
			if known, ok := errors.AsType[*ArchiveError](readErr); ok {
				return known
			}
			return u.fault(entry, "it is damaged: "+readErr.Error())
		}
	}
}

// count adds unpacked bytes and fails above the limits. It counts actual bytes, because
// the sizes in headers may be wrong.
func (u *unpacking) count(entry string, n int64) error {
	u.bytes += n
	if u.bytes > u.limits.Bytes {
		return u.fault(entry, fmt.Sprintf("the archive unpacks to more than %s", humanize.IBytes(uint64(u.limits.Bytes))))
	}
	if u.bytes > ratioFrom && u.bytes/u.limits.Ratio > u.size {
		return u.fault(entry, fmt.Sprintf("the archive of %s unpacks to more than %d times its size; it looks like a bomb",
			humanize.IBytes(uint64(u.size)), u.limits.Ratio))
	}
	return nil
}

// bounded also limits the inflated bytes between the entries of a compressed tar, where
// headers of any length are skipped.
type bounded struct {
	u    *unpacking
	r    io.Reader
	read int64
}

func (b *bounded) Read(p []byte) (int, error) {
	n, err := b.r.Read(p)
	b.read += int64(n)
	// Twice the limit leaves room for headers and padding.
	if b.read/2 > b.u.limits.Bytes || (b.read/2 > ratioFrom && b.read/2/b.u.limits.Ratio > b.u.size) {
		return n, b.u.fault("", "it inflates far beyond its size; it looks like a bomb")
	}
	return n, err
}

func (u *unpacking) fault(entry, problem string) error {
	return &ArchiveError{Archive: filepath.Base(u.archive), Entry: entry, Problem: problem}
}

// failed is an error of this machine, not of the archive.
func (u *unpacking) failed(entry string, err error) error {
	var known *ArchiveError
	if errors.As(err, &known) || errors.Is(err, context.Canceled) || errors.Is(err, context.DeadlineExceeded) {
		return err
	}
	if isDirFault(err) {
		return dirError(u.folder, err)
	}
	return fmt.Errorf("unpack %s: entry %q: %w", filepath.Base(u.archive), entry, err)
}
