package storage

import (
	"context"
	"crypto/md5"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"time"
)

// sealed is the modification time of every blob. A blob that was modified or copied has another
// time and is verified again.
func sealed() time.Time { return time.Date(2000, 1, 1, 0, 0, 0, 0, time.UTC) }

func (c *Cache) blob(sha string) string { return c.path("blobs", sha[:2], sha) }

// hasBlob reports whether the content is here and complete. An unmodified blob is trusted, unless
// verify is set.
func (c *Cache) hasBlob(ctx context.Context, sha string, verify bool) bool {
	file := c.blob(sha)
	info, err := os.Lstat(file)
	if err != nil || !info.Mode().IsRegular() {
		return false
	}
	if !verify && info.ModTime().Equal(sealed()) {
		return true
	}
	sum, err := HashFile(ctx, file)
	if err != nil {
		return false
	}
	if sum != sha {
		c.o.Logger.Warn("cached file was changed and is fetched again", "sha256", sha)
		_ = os.Remove(file) // if it stays, publish replaces it
		return false
	}
	return os.Chtimes(file, sealed(), sealed()) == nil
}

// publish moves a complete download to the blobs.
func (c *Cache) publish(p *partial, sha string) error {
	file := c.blob(sha)
	if err := os.MkdirAll(filepath.Dir(file), 0o700); err != nil {
		return err
	}
	c.reached("blob seal")
	if err := p.file.Chmod(0o400); err != nil {
		return err
	}
	if err := os.Chtimes(p.path(), sealed(), sealed()); err != nil {
		return err
	}
	if err := p.file.Sync(); err != nil {
		return err
	}
	c.reached("blob rename")
	p.mu.Lock()
	defer p.mu.Unlock()
	if err := errors.Join(clearWay(file), os.Rename(p.path(), file)); err != nil {
		return err
	}
	p.gone = true
	c.reached("blob renamed")
	if p.note != "" {
		_ = os.Remove(p.note) // without its file it means nothing
	}
	return syncDir(filepath.Dir(file))
}

// named links the content under its user-visible name, in a separate folder: files that user code
// writes beside it, or finds there, affect no other file. verify compares the present file with the
// content.
func (c *Cache) named(ctx context.Context, sha, name string, verify bool) (string, error) {
	name = fileName(name)
	sum := md5.Sum([]byte(name))
	dir := c.path("named", sha, hex.EncodeToString(sum[:4]))
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return "", dirError(c.o.Dir, err)
	}
	link, blob := filepath.Join(dir, name), c.blob(sha)
	same := sameFile(link, blob)
	if same && verify {
		var err error
		if same, err = sameContent(ctx, blob, link); err != nil {
			return "", dirError(c.o.Dir, err)
		}
	}
	if same {
		return link, nil
	}
	temp, err := os.MkdirTemp(dir, ".linking-")
	if err != nil {
		return "", dirError(c.o.Dir, err)
	}
	defer os.RemoveAll(temp) //nolint:errcheck // a remaining link is removed with the folder
	fresh := filepath.Join(temp, "file")
	c.reached("named link")
	if err := os.Link(blob, fresh); err != nil {
		if errors.Is(err, os.ErrNotExist) {
			return "", errGone
		}
		// Some file systems have no links; a copy only uses more space.
		if err := copyFile(blob, fresh); err != nil {
			return "", dirError(c.o.Dir, err)
		}
	}
	c.reached("named rename")
	if err := errors.Join(clearWay(link), os.Rename(fresh, link)); err != nil {
		return "", dirError(c.o.Dir, err)
	}
	return link, nil
}

// sameFile reports whether two names are one file, or, without links, whether the copy is
// unmodified.
func sameFile(link, blob string) bool {
	a, err := os.Lstat(link)
	if err != nil {
		return false
	}
	b, err := os.Lstat(blob)
	if err != nil {
		return false
	}
	return os.SameFile(a, b) || (a.Size() == b.Size() && a.Mode().IsRegular() && a.ModTime().Equal(sealed()))
}

func copyFile(from, to string) error {
	in, err := os.Open(from)
	if err != nil {
		return err
	}
	defer in.Close() //nolint:errcheck // only read from
	out, err := os.OpenFile(to, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o400)
	if err != nil {
		return err
	}
	_, err = io.Copy(out, in)
	if err = errors.Join(err, out.Sync(), out.Close()); err != nil {
		return err
	}
	return os.Chtimes(to, sealed(), sealed())
}

// unpacked is the folder of the unpacked archive, created once per content. Missing files, and with
// verify different ones, are unpacked again; other files in the folder stay.
func (c *Cache) unpacked(ctx context.Context, archive, sha, name string, verify bool) (string, error) {
	original := fileName(name)
	name = fileName(folderName(original))
	folder := c.path("unpacked", sha, name)
	_, err := c.flights.do(ctx, fmt.Sprintf("unpack\x00%s\x00%s\x00%t", sha, name, verify), nil, func(ctx context.Context, _ Progress) (fetched, error) {
		if info, err := os.Lstat(folder); err == nil && info.IsDir() {
			if !verify && complete(folder, listOf(folder)) {
				return fetched{}, nil
			}
			return fetched{}, c.repair(ctx, archive, folder)
		}
		if err := os.MkdirAll(filepath.Dir(folder), 0o700); err != nil {
			return fetched{}, dirError(c.o.Dir, err)
		}
		c.reached("unpack")
		err := Unpack(ctx, archive, folder, Limits{})
		if info, statErr := os.Lstat(folder); err != nil && statErr == nil && info.IsDir() {
			err = nil // another process was faster
		}
		if err != nil {
			return fetched{}, err
		}
		return fetched{}, writeList(folder, listOf(folder))
	})
	if fault, ok := errors.AsType[*ArchiveError](err); ok {
		// Errors name the file, not its hash.
		return "", &ArchiveError{Archive: original, Entry: fault.Entry, Problem: fault.Problem}
	}
	return folder, err
}

// folderName is the name of an archive without its ending.
func folderName(name string) string {
	for _, ending := range []string{".zip", ".tar.gz", ".tgz", ".tar"} {
		if stem := strings.TrimSuffix(strings.ToLower(name), ending); len(stem) < len(name) && stem != "" {
			return name[:len(stem)]
		}
	}
	return name
}

// errGone means that the content was pruned before it could be leased.
var errGone = errors.New("the content is gone")

// lease protects content from pruning, by any process, until the file is closed: a shared lock that
// the kernel releases when the process dies.
func (c *Cache) lease(sha string) (*os.File, error) {
	path := c.path("leases", sha)
	if err := clearWay(path); err != nil {
		return nil, dirError(c.o.Dir, err)
	}
	for range 10 {
		f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o600)
		if err != nil {
			return nil, dirError(c.o.Dir, err)
		}
		// A pruner holds the exclusive lock while it removes the content, and removes the lease
		// with it.
		lockFile(f, syscall.LOCK_SH)
		if isAt(f, path) {
			now := time.Now()
			_ = os.Chtimes(path, now, now) // only the order of pruning is affected
			return f, nil
		}
		_ = f.Close() // an empty, unused file
	}
	return nil, errGone
}

// lockFile takes a lock; false if another process holds a conflicting one. On file systems without
// locks it always succeeds.
func lockFile(f *os.File, how int) bool {
	for {
		err := syscall.Flock(int(f.Fd()), how)
		switch {
		case errors.Is(err, syscall.EINTR):
			continue
		case errors.Is(err, syscall.EWOULDBLOCK):
			return false
		}
		return true
	}
}

// isAt reports whether the open file still has this name.
func isAt(f *os.File, path string) bool {
	a, err := f.Stat()
	if err != nil {
		return false
	}
	b, err := os.Lstat(path)
	return err == nil && os.SameFile(a, b)
}
