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
		return "", fmt.Errorf("%q: a path cannot contain a NUL byte", rawURL)
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
func (a Adapter) Stat(ctx context.Context, rawURL string) (_ storage.Object, err error) {
	defer storage.Wrap(ctx, "stat", rawURL, &err)
	f, object, err := a.open(ctx, rawURL)
	if err != nil {
		return storage.Object{}, err
	}
	return object, f.Close()
}

// Open reads a part of a file.
func (a Adapter) Open(ctx context.Context, rawURL string, part storage.Part) (_ io.ReadCloser, _ storage.Object, err error) {
	defer storage.Wrap(ctx, "open", rawURL, &err)
	f, object, err := a.open(ctx, rawURL)
	if err != nil {
		return nil, object, err
	}
	length := object.Size - part.Offset
	if part.Length > 0 {
		length = part.Length
	}
	switch {
	case part.Of.Validated() && !part.Of.Same(object):
		err = storage.ErrChanged
	case part.Offset < 0 || length < 0 || part.Offset > object.Size-length:
		err = fmt.Errorf("bytes %d-%d were requested of %d: %w", part.Offset, part.Offset+length, object.Size, storage.ErrChanged)
	}
	if err != nil {
		return nil, object, errors.Join(err, f.Close())
	}
	content := struct {
		io.Reader
		io.Closer
	}{io.NewSectionReader(f, part.Offset, length), f}
	return storage.Body(ctx, rawURL, content, length), object, nil
}

func (a Adapter) open(ctx context.Context, rawURL string) (*os.File, storage.Object, error) {
	if ctx.Err() != nil {
		return nil, storage.Object{}, context.Cause(ctx)
	}
	path, err := a.LocalPath(rawURL)
	if err != nil {
		return nil, storage.Object{}, err
	}
	f, info, err := openRegular(path)
	if err = classify(err); errors.Is(err, storage.ErrNotExist) {
		// Usually the SDK has registered the file on the training machine, without an upload.
		err = fmt.Errorf("%w on this machine; files of training on another machine are uploaded with Task.init(output_uri=True)", err)
	}
	if err != nil {
		return nil, storage.Object{}, err
	}
	return f, object(info), nil
}

func openRegular(path string) (*os.File, fs.FileInfo, error) {
	// Checked before it is opened: opening a pipe would wait for its writer.
	info, err := os.Stat(path)
	switch {
	case err != nil:
		return nil, nil, err
	case info.IsDir():
		return nil, nil, errors.New("it is a folder; a file or an archive is needed")
	case !info.Mode().IsRegular():
		return nil, nil, errors.New("it is not a regular file")
	}
	f, err := os.Open(path)
	if err != nil {
		return nil, nil, err
	}
	if info, err = f.Stat(); err != nil {
		return nil, nil, errors.Join(err, f.Close())
	}
	return f, info, nil
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

// Put stores a file and creates missing folders.
func (a Adapter) Put(ctx context.Context, rawURL string, r io.Reader, size int64, progress storage.Progress) (err error) {
	defer storage.Wrap(ctx, "put", rawURL, &err)
	path, err := literal(rawURL) // for readers that do not decode URLs
	if err != nil {
		return err
	}
	if info, err := os.Stat(path); err == nil && info.IsDir() {
		return errors.New("it is a folder")
	}
	source, err := storage.NewSource(ctx, r, size, 0, progress)
	if err != nil {
		return err
	}
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return classify(err)
	}
	return classify(atomicfile.WriteWith(path, 0o644, func(f *os.File) error { // the mode of a user's file, not of a secret
		_, err := io.Copy(f, source)
		return err
	}))
}

// Delete removes a file.
func (a Adapter) Delete(ctx context.Context, rawURL string) (err error) {
	defer storage.Wrap(ctx, "delete", rawURL, &err)
	path, err := a.LocalPath(rawURL)
	if err != nil {
		return err
	}
	info, err := os.Lstat(path)
	if err != nil {
		return classify(err)
	}
	if info.IsDir() {
		return errors.New("it is a folder; folders are not deleted")
	}
	return classify(os.Remove(path))
}
