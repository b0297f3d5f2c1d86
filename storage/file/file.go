// Package file accesses files of this machine: file:///abs URLs and plain paths. It owns nothing;
// files are used in place and never copied.
package file

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"syscall"

	"clearmlserving/atomicfile"
	"clearmlserving/storage"
)

// Adapter is the file system of this machine. The zero value is ready.
type Adapter struct{}

var _ storage.Locator = Adapter{}

// LocalPath is the path of a URL. The URL's text is used unchanged if a file has that name, because
// the original writes such URLs without quoting; otherwise percent signs are decoded.
func (Adapter) LocalPath(rawURL string) (string, error) {
	path, err := literal(rawURL)
	if err != nil {
		return "", err
	}
	if _, isURL := cutScheme(rawURL); isURL && strings.Contains(path, "%") {
		decoded, err := url.PathUnescape(path)
		if _, statErr := os.Lstat(path); err == nil && errors.Is(statErr, fs.ErrNotExist) && !strings.ContainsRune(decoded, 0) {
			return filepath.Abs(decoded)
		}
	}
	return path, nil
}

// literal is the path in a URL, unchanged.
func literal(rawURL string) (string, error) {
	path, isURL := cutScheme(rawURL)
	if isURL {
		host, rest, _ := strings.Cut(path, "/")
		if host != "" && !strings.EqualFold(host, "localhost") {
			return "", fmt.Errorf("%s: the host %q is not this machine; a local file is written file:///path", rawURL, host)
		}
		path = "/" + rest
	}
	if strings.ContainsRune(path, 0) {
		return "", fmt.Errorf("%q: a path can't hold a NUL byte", rawURL)
	}
	if path == "" {
		return "", errors.New("the path of the file is empty")
	}
	return filepath.Abs(path)
}

// cutScheme returns the text after "file://", or the path of "file:/abs".
func cutScheme(rawURL string) (rest string, isURL bool) {
	const scheme = "file:"
	if len(rawURL) < len(scheme) || !strings.EqualFold(rawURL[:len(scheme)], scheme) {
		return rawURL, false
	}
	rest = rawURL[len(scheme):]
	if after, ok := strings.CutPrefix(rest, "//"); ok {
		return after, true
	}
	if strings.HasPrefix(rest, "/") {
		return rest, true
	}
	return rawURL, false
}

// Stat describes a file.
func (a Adapter) Stat(ctx context.Context, rawURL string) (storage.Object, error) {
	f, object, err := a.open(ctx, "stat", rawURL)
	if err != nil {
		return storage.Object{}, err
	}
	return object, f.Close()
}

// Open reads a part of a file.
func (a Adapter) Open(ctx context.Context, rawURL string, part storage.Part) (io.ReadCloser, storage.Object, error) {
	f, object, err := a.open(ctx, "open", rawURL)
	if err != nil {
		return nil, object, err
	}
	fail := func(err error) (io.ReadCloser, storage.Object, error) {
		return nil, object, errors.Join(&storage.Error{Op: "open", URL: rawURL, Err: err}, f.Close())
	}
	if part.Of.Validated() && !part.Of.Same(object) {
		return fail(storage.ErrChanged)
	}
	length := object.Size - part.Offset
	if part.Length > 0 {
		length = part.Length
	}
	if part.Offset < 0 || length < 0 || part.Offset > object.Size-length {
		return fail(fmt.Errorf("bytes %d-%d are asked of %d: %w", part.Offset, part.Offset+length, object.Size, storage.ErrChanged))
	}
	return &reader{file: f, url: rawURL, at: part.Offset, end: part.Offset + length}, object, nil
}

func (a Adapter) open(ctx context.Context, op, rawURL string) (*os.File, storage.Object, error) {
	if ctx.Err() != nil {
		return nil, storage.Object{}, context.Cause(ctx)
	}
	path, err := a.LocalPath(rawURL)
	if err != nil {
		return nil, storage.Object{}, &storage.Error{Op: op, URL: rawURL, Err: err}
	}
	fail := func(err error) (*os.File, storage.Object, error) {
		err = classify(err)
		if errors.Is(err, storage.ErrNotExist) {
			// Usually the SDK has registered the file on the training machine, without an
			// upload.
			err = fmt.Errorf("%w on this machine; files of training on another machine are uploaded with Task.init(output_uri=True)", err)
		}
		return nil, storage.Object{}, &storage.Error{Op: op, URL: rawURL, Err: err}
	}
	// Checked before it is opened: opening a pipe would wait for its writer.
	info, err := os.Stat(path)
	if err != nil {
		return fail(err)
	}
	if info.IsDir() {
		return fail(errors.New("it is a folder; a file or an archive is needed"))
	}
	if !info.Mode().IsRegular() {
		return fail(errors.New("it is not a regular file"))
	}
	f, err := os.Open(path)
	if err != nil {
		return fail(err)
	}
	if info, err = f.Stat(); err != nil {
		return nil, storage.Object{}, errors.Join(err, f.Close())
	}
	return f, object(info), nil
}

func object(info fs.FileInfo) storage.Object {
	var inode uint64
	if s, ok := info.Sys().(*syscall.Stat_t); ok {
		inode = s.Ino // a file that was renamed may have any time
	}
	return storage.Object{
		Size: info.Size(), Modified: info.ModTime(), Ranges: true,
		ETag: fmt.Sprintf(`"%x-%x-%x"`, info.Size(), info.ModTime().UnixNano(), inode),
	}
}

func classify(err error) error {
	switch {
	case errors.Is(err, fs.ErrNotExist), errors.Is(err, syscall.ENOTDIR):
		return storage.ErrNotExist
	case errors.Is(err, fs.ErrPermission):
		return fmt.Errorf("%w: %w", storage.ErrDenied, err)
	}
	return err
}

// reader returns the bytes of a part, and an error if the file ends before it.
type reader struct {
	file    *os.File
	url     string
	at, end int64
}

func (r *reader) Read(p []byte) (int, error) {
	if r.at >= r.end {
		return 0, io.EOF
	}
	n, err := r.file.ReadAt(p[:min(int64(len(p)), r.end-r.at)], r.at)
	r.at += int64(n)
	switch {
	case errors.Is(err, io.EOF) && r.at < r.end:
		return n, &storage.Error{Op: "read", URL: r.url, Transient: true, Err: fmt.Errorf("it ends at %d of %d bytes: %w", r.at, r.end, storage.ErrChanged)}
	case errors.Is(err, io.EOF):
		return n, nil
	}
	return n, err
}

func (r *reader) Close() error { return r.file.Close() }

// Put stores a file and creates missing folders.
func (a Adapter) Put(ctx context.Context, rawURL string, r io.Reader, size int64, progress storage.Progress) error {
	fail := func(err error) error { return &storage.Error{Op: "put", URL: rawURL, Err: classify(err)} }
	path, err := literal(rawURL) // for readers that do not decode URLs
	if err != nil {
		return fail(err)
	}
	if info, err := os.Stat(path); err == nil && info.IsDir() {
		return fail(errors.New("it is a folder"))
	}
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return fail(err)
	}
	err = atomicfile.WriteWith(path, 0o644, func(f *os.File) error { // the mode of a user's file, not of a secret
		n, err := io.Copy(f, &counting{ctx: ctx, r: r, total: size, progress: progress})
		if err == nil && size >= 0 && n != size {
			err = fmt.Errorf("%d bytes came of %d", n, size)
		}
		return err
	})
	if err != nil {
		return fail(err)
	}
	return nil
}

// counting reports progress and ends with the context of one Put.
type counting struct {
	ctx         context.Context //nolint:containedctx // lives as long as its call; io.Reader has no parameter for it
	r           io.Reader
	done, total int64
	progress    storage.Progress
}

func (c *counting) Read(p []byte) (int, error) {
	if c.ctx.Err() != nil {
		return 0, context.Cause(c.ctx)
	}
	n, err := c.r.Read(p)
	c.done += int64(n)
	if c.progress != nil && n > 0 {
		c.progress(c.done, c.total)
	}
	return n, err
}

// Delete removes a file.
func (a Adapter) Delete(_ context.Context, rawURL string) error {
	fail := func(err error) error { return &storage.Error{Op: "delete", URL: rawURL, Err: classify(err)} }
	path, err := a.LocalPath(rawURL)
	if err != nil {
		return fail(err)
	}
	info, err := os.Lstat(path)
	if err != nil {
		return fail(err)
	}
	if info.IsDir() {
		return fail(errors.New("it is a folder; folders are not deleted"))
	}
	if err := os.Remove(path); err != nil {
		return fail(err)
	}
	return nil
}
