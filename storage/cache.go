package storage

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"time"
)

// CacheOptions of a Cache.
type CacheOptions struct {
	// Dir is the folder that the cache owns; it is made when it is missing.
	// Several processes may share one.
	Dir string
	// Adapters are the places that files may come from.
	Adapters Adapters
	// Rewrites are applied to the URLs of items, the first that fits.
	Rewrites []Rewrite
	// MaxBytes bounds what is kept; the files that were not used for the longest
	// time go first, files in use never. 0: no bound.
	MaxBytes int64
	// Downloads bounds how many files are downloaded at once. Default 4.
	Downloads int
	// Connections bounds how many parts of one big file are read at once. Default 4.
	Connections int
	// Stall is how long a download may give no byte before it counts as cut.
	// There is no limit on its whole duration. Default 1 minute.
	Stall time.Duration
	// Backoff is how patiently transient failures are met.
	Backoff Backoff
	// Limits bound what an archive may unpack to.
	Limits Limits
	// Logger is told what was fetched and what was stale. nil discards.
	Logger *slog.Logger
}

// Item is a file to have on this machine.
type Item struct {
	URL string
	// SHA256 in hex is the content expected, "" when it is not known. A known
	// content that is here already is used without asking the place.
	SHA256 string
	// Name is the file's name here, "" for the last part of the URL.
	Name string
	// Unpack says that the file is an archive whose content is wanted as a folder.
	Unpack bool
	// Verify says that what is here is not trusted: its content is compared, however
	// untouched it looks. Use it when something failed to read the file.
	Verify bool
}

// Cache keeps files from other places, each content once, under
//
//	blobs/<aa>/<sha256>   the content, never changed once it has its name
//	urls/<md5>.json       which content a URL had, and the state to compare with
//	named/<sha256>/       links to the content under the names users know
//	unpacked/<sha256>/    archives as folders
//	partial/              downloads under way; they go on after a restart
//	leases/<sha256>       locked by those who use the content; its time is the last use
//
// Whatever moment the process is killed at, each file that has its final name
// is whole. A Cache runs no goroutine of its own and needs no closing.
type Cache struct {
	o       CacheOptions
	slots   chan struct{} // one for each download under way
	flights flights[fetched]

	// reached is called before each step that changes the folder; tests look at
	// what a kill at that moment would leave.
	reached func(step string)
}

// NewCache prepares the folder. An error names the folder and what is wrong with it.
func NewCache(o CacheOptions) (*Cache, error) {
	if o.Dir == "" {
		return nil, errors.New("open cache: no folder given")
	}
	dir, err := filepath.Abs(o.Dir)
	if err != nil {
		return nil, fmt.Errorf("open cache %s: %w", o.Dir, err)
	}
	o.Dir = dir
	if o.Downloads <= 0 {
		o.Downloads = 4
	}
	if o.Connections <= 0 {
		o.Connections = 4
	}
	if o.Stall <= 0 {
		o.Stall = time.Minute
	}
	o.Backoff = o.Backoff.withDefaults()
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	c := &Cache{o: o, slots: make(chan struct{}, o.Downloads), reached: func(string) {}}
	if err := c.makeFolders(); err != nil {
		return nil, err
	}
	if err := checkWritable(c.path("partial")); err != nil {
		return nil, dirError(o.Dir, err)
	}
	c.sweep(time.Now())
	return c, nil
}

// makeFolders makes what is missing of the cache's folder: someone may have removed
// it to free room. A file in the place of a folder is set aside.
func (c *Cache) makeFolders() error {
	for _, folder := range []string{"blobs", "urls", "named", "unpacked", "partial", "leases"} {
		path := c.path(folder)
		err := os.MkdirAll(path, 0o700)
		if info, statErr := os.Lstat(path); err != nil && statErr == nil && !info.IsDir() {
			c.o.Logger.Warn("cache folder is replaced: a file is in its place", "path", path)
			err = errors.Join(os.Rename(path, path+".damaged"), os.MkdirAll(path, 0o700))
		}
		if err != nil {
			return dirError(c.o.Dir, err)
		}
	}
	return nil
}

// Fetch brings a file here, or finds it here. It may be called from many
// goroutines; those who want the same content wait for one download. progress
// may be nil. The caller releases the Handle.
//
// Errors: ErrNotExist, ErrDenied, *UnsupportedError, *MismatchError,
// *ArchiveError, *SpaceError, *DirError; IsTransient tells whether it is worth
// trying again.
func (c *Cache) Fetch(ctx context.Context, item Item, progress Progress) (*Handle, error) {
	item.URL = apply(c.o.Rewrites, item.URL)
	adapter, err := c.o.Adapters.For(item.URL)
	if err != nil {
		return nil, err
	}
	if err := checkSHA256(item.SHA256); err != nil {
		return nil, fmt.Errorf("fetch %s: %w", Redact(item.URL), err)
	}
	if err := c.makeFolders(); err != nil {
		return nil, err
	}
	if local, ok := adapter.(Locator); ok {
		return c.useInPlace(ctx, local, item)
	}
	// Between the end of a download and the lease another process may prune the
	// content; it is then brought again.
	for range 3 {
		got, err := c.flights.do(ctx, fmt.Sprintf("%s\x00%s\x00%t", item.URL, item.SHA256, item.Verify), progress,
			func(ctx context.Context, report Progress) (fetched, error) {
				return c.bring(ctx, adapter, item, report)
			})
		if err != nil {
			return nil, err
		}
		h, err := c.hold(ctx, item, got)
		if !errors.Is(err, errGone) {
			return h, err
		}
	}
	return nil, fmt.Errorf("fetch %s: the cache %s is emptied faster than it is filled; give it more room", Redact(item.URL), c.o.Dir)
}

// Handle keeps a file in place while it is used.
type Handle struct {
	// Path is the file under its own name, or the folder it was unpacked to.
	// Files must not be written to.
	Path string
	// SHA256 is the content of the file as it was fetched, in hex.
	SHA256 string
	// Size is the length of the file as it was fetched.
	Size int64
	// FromCache says that nothing was downloaded.
	FromCache bool
	// Stale says that the place could not be asked whether the file has changed;
	// Why is the reason.
	Stale bool
	Why   error

	lease *lease
}

// Release lets the cache remove the file when it needs the room. Further calls
// do nothing.
func (h *Handle) Release() {
	if h != nil {
		h.lease.release()
	}
}

// fetched is what one download, or the finding that none is needed, has given.
type fetched struct {
	sha256    string
	fromCache bool
	stale     error
}

// hold takes a lease on the content and puts it where the user will see it.
func (c *Cache) hold(ctx context.Context, item Item, got fetched) (*Handle, error) {
	l, err := c.lease(got.sha256)
	if err != nil {
		return nil, err
	}
	h, err := c.place(ctx, item, got, l)
	if err != nil {
		l.release()
		return nil, err
	}
	if !got.fromCache {
		c.prune(c.o.MaxBytes)
	}
	return h, nil
}

func (c *Cache) place(ctx context.Context, item Item, got fetched, l *lease) (*Handle, error) {
	blob := c.blob(got.sha256)
	info, err := os.Lstat(blob)
	if errors.Is(err, os.ErrNotExist) {
		return nil, errGone
	}
	if err != nil {
		return nil, dirError(c.o.Dir, err)
	}
	h := &Handle{
		SHA256: got.sha256, Size: info.Size(), FromCache: got.fromCache,
		Stale: got.stale != nil, Why: got.stale, lease: l,
	}
	name := item.Name
	if name == "" {
		name = nameOf(item.URL)
	}
	if item.Unpack {
		h.Path, err = c.unpacked(ctx, blob, got.sha256, name, item.Verify)
	} else {
		h.Path, err = c.named(got.sha256, name, item.Verify)
	}
	return h, err
}

// useInPlace gives a file of this machine, which is never copied; only its
// content is looked at, and again only after it has changed.
func (c *Cache) useInPlace(ctx context.Context, place Locator, item Item) (*Handle, error) {
	path, err := place.LocalPath(item.URL)
	if err != nil {
		return nil, err
	}
	object, err := place.Stat(ctx, item.URL)
	if err != nil {
		return nil, err
	}
	known, ok := c.readIndex(item.URL)
	if !ok || item.Verify || !known.current(object) {
		known.SHA256, err = hashFile(ctx, path)
		if err != nil {
			return nil, fmt.Errorf("read %s: %w", path, err)
		}
		if err := c.writeIndex(item.URL, object, known.SHA256); err != nil {
			return nil, err
		}
	}
	if item.SHA256 != "" && item.SHA256 != known.SHA256 {
		return nil, &MismatchError{URL: item.URL, Want: item.SHA256, Got: known.SHA256}
	}
	h := &Handle{Path: path, SHA256: known.SHA256, Size: object.Size, FromCache: true}
	if !item.Unpack {
		return h, nil
	}
	if h.lease, err = c.lease(known.SHA256); err != nil {
		return nil, err
	}
	if h.Path, err = c.unpacked(ctx, path, known.SHA256, filepath.Base(path), item.Verify); err != nil {
		h.Release()
		return nil, err
	}
	c.prune(c.o.MaxBytes)
	return h, nil
}

func (c *Cache) path(elements ...string) string {
	return filepath.Join(append([]string{c.o.Dir}, elements...)...)
}
