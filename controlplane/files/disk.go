package files

import (
	"bufio"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"net/http"
	"os"
	"path"
	"strings"
	"sync"
	"syscall"
	"time"
)

// disk is a tree in a directory. It owns everything below it and is its only writer.
type disk struct {
	root *os.Root
	log  *slog.Logger

	// shape guards the set of folders: a folder that was just created by an upload must not be
	// pruned as empty before the file has been renamed into it.
	shape sync.Mutex
}

// incoming is the folder inside Dir for unfinished uploads and detached folders; it is on the same
// file system as the rest, so that a rename is enough.
const incoming = ".incoming"

// openDisk opens the directory and removes the remains of interrupted uploads.
func openDisk(dir string, log *slog.Logger) (*disk, error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, fmt.Errorf("make the folder of the file server: %w", err)
	}
	root, err := os.OpenRoot(dir)
	if err != nil {
		return nil, fmt.Errorf("open the folder of the file server: %w", err)
	}
	d := &disk{root: root, log: log}
	if err := d.clearIncoming(); err != nil {
		return nil, errors.Join(fmt.Errorf("prepare the folder of the file server %s: %w", dir, err), root.Close())
	}
	return d, nil
}

func (d *disk) close() error { return d.root.Close() }

func (d *disk) clearIncoming() error {
	if err := d.root.RemoveAll(incoming); err != nil {
		return err
	}
	return d.root.Mkdir(incoming, 0o700)
}

// find opens the file with this name for reading.
func (d *disk) find(_ context.Context, name string) (content, error) {
	f, info, err := d.open(d.stored(name))
	if err != nil {
		return content{}, asMissing(err)
	}
	// A stored file never changes in place: a new upload is a new file with a new time.
	tag := fmt.Sprintf(`"%x-%x"`, info.ModTime().UnixNano(), info.Size())
	return content{ReadSeekCloser: f, modified: info.ModTime(), tag: tag}, nil
}

// stored returns the name under which a file is stored. Form encoding escapes three characters of a
// part's name (a quote arrives as %22), and the URL of that file has them decoded, so a name that
// does not exist is also tried in that form.
func (d *disk) stored(name string) string {
	sent := asSent(name)
	if sent == name {
		return name
	}
	if _, err := d.root.Lstat(name); err == nil {
		return name
	}
	return sent
}

// asSent is the name in form encoding.
func asSent(name string) string {
	return strings.NewReplacer(`"`, "%22", "\r", "%0D", "\n", "%0A").Replace(name)
}

// open opens the regular file with this name, which safePath has accepted. For clients, links and
// folders do not exist.
func (d *disk) open(name string) (*os.File, fs.FileInfo, error) {
	if err := d.refuseLinks(name); err != nil {
		return nil, nil, err
	}
	f, err := d.root.Open(name)
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

// refuseLinks fails if the name, or a folder on its path, is a link. os.Root prevents links out of
// the directory; refusing all links also prevents links to other files inside. A missing element is
// not a link.
func (d *disk) refuseLinks(name string) error {
	for i := 0; i <= len(name); i++ {
		if i < len(name) && name[i] != '/' {
			continue
		}
		info, err := d.root.Lstat(name[:i])
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

// receive writes the bytes to a new file in the incoming folder and syncs it. On error the file is
// removed.
func (d *disk) receive(_ context.Context, name string, from io.Reader) (received, error) {
	temp := path.Join(incoming, rand.Text())
	f, err := d.root.OpenFile(temp, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return received{}, err
	}
	// Written in large pieces, because the multipart reader returns small ones.
	out := bufio.NewWriterSize(struct{ io.Writer }{f}, 256<<10)
	size, err := out.ReadFrom(from)
	if err == nil {
		err = out.Flush()
	}
	if err == nil {
		err = f.Sync()
	}
	err = errors.Join(err, f.Close())
	if err == nil {
		// The system's clock for files ticks every few milliseconds; the ETag needs a finer time.
		now := time.Now()
		err = d.root.Chtimes(temp, now, now)
	}
	if err != nil {
		err = errors.Join(err, d.root.Remove(temp))
		return received{}, err
	}
	return received{temp: temp, name: name, size: size}, nil
}

// place makes a received file visible under its name, replacing an existing one.
func (d *disk) place(_ context.Context, f received) error {
	if err := d.rename(f); err != nil {
		return err
	}
	// The new name, and those of new folders, must survive a power failure.
	for dir := path.Dir(f.name); ; dir = path.Dir(dir) {
		if err := d.syncDir(dir); err != nil || dir == "." {
			return err
		}
	}
}

func (d *disk) rename(f received) error {
	d.shape.Lock()
	defer d.shape.Unlock()
	if err := d.refuseLinks(f.name); err != nil {
		return asUploadError(err)
	}
	if err := d.root.MkdirAll(path.Dir(f.name), 0o700); err != nil {
		return err
	}
	if info, err := d.root.Lstat(f.name); err == nil && info.IsDir() {
		return refusal(http.StatusBadRequest, "the path is a folder")
	}
	return d.root.Rename(f.temp, f.name)
}

// syncDir syncs a folder. A folder that was pruned meanwhile needs no sync, and file systems that
// cannot sync folders return EINVAL or ENOTSUP.
func (d *disk) syncDir(dir string) error {
	folder, err := d.root.Open(dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	err = folder.Sync()
	if closeErr := folder.Close(); err == nil || errors.Is(err, syscall.EINVAL) || errors.Is(err, syscall.ENOTSUP) {
		err = closeErr
	}
	return err
}

// discard removes received files that were not placed.
func (d *disk) discard(files []received) {
	for _, f := range files {
		if err := d.root.Remove(f.temp); err != nil && !errors.Is(err, fs.ErrNotExist) {
			d.log.Error("interrupted upload not removed", "path", f.temp, "err", err)
		}
	}
}

// remove deletes a file, or a whole folder if that is allowed, and then the parent folders that
// have become empty.
func (d *disk) remove(_ context.Context, name string, folders bool) (string, error) {
	if !folders {
		name = d.stored(name)
	}
	trash, err := d.detach(name, folders)
	if err != nil {
		return "", asMissing(err)
	}
	if trash == "" {
		return name, nil
	}
	// The folder is no longer visible; clearing it may take long and holds no lock.
	return name, d.root.RemoveAll(trash)
}

// detach removes the name from the tree at once. For a folder it returns the folder's new location,
// for clearing.
func (d *disk) detach(name string, folders bool) (trash string, err error) {
	d.shape.Lock()
	defer d.shape.Unlock()
	if err := d.refuseLinks(name); err != nil {
		return "", err
	}
	info, err := d.root.Lstat(name)
	switch {
	case err != nil:
		return "", err
	case info.IsDir() && !folders:
		return "", fs.ErrNotExist
	case info.IsDir():
		trash = path.Join(incoming, rand.Text())
		err = d.root.Rename(name, trash)
	default:
		err = d.root.Remove(name)
	}
	if err != nil {
		return "", err
	}
	d.prune(path.Dir(name))
	return trash, nil
}

// prune removes the folder and its parents while they are empty.
func (d *disk) prune(dir string) {
	for ; dir != "."; dir = path.Dir(dir) {
		if err := d.root.Remove(dir); err != nil {
			return // not empty
		}
	}
}
