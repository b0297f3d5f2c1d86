package storage

import (
	"cmp"
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
	// Dir is the folder of the cache; it is created if missing. Several processes may share it.
	Dir string
	// Adapters are the storages of files.
	Adapters Adapters
	// Rewrites are applied to the URLs of items; the first match is used.
	Rewrites []Rewrite
	// Connections bounds the concurrent parts of one large file. Default 4.
	Connections int
	// Stall is the time without a byte after which a download counts as interrupted. The whole
	// duration is not limited. Default 1 minute.
	Stall time.Duration
	// Backoff configures retries after transient failures.
	Backoff Backoff
	// Logger logs downloads and stale files. nil discards.
	Logger *slog.Logger
}

// Item is a file to fetch to this machine.
type Item struct {
	URL string
	// SHA256 in hex is the expected content, "" if unknown. A known content that is here already
	// is used without a request.
	SHA256 string
	// Name is the local name of the file, "" for the last part of the URL.
	Name string
	// Unpack means that the file is an archive to unpack as a folder.
	Unpack bool
	// Verify compares the content of existing files, even if they look unmodified. Use it after a
	// file could not be read.
	Verify bool
}

// Cache stores downloaded files, each content once, under
//
//	blobs/<aa>/<sha256>   the content, never changed once it has its name
//	urls/<md5>.json       the last content of a URL, and its state at the source
//	named/<sha256>/       links to the content under user-visible names
//	unpacked/<sha256>/    archives as folders
//	partial/              running downloads; they are resumed after a restart
//	leases/<sha256>       locked while the content is used; its time is the last use
//
// Each file that has its final name is complete, even if the process is killed at any
// moment. A Cache runs no goroutines and needs no closing.
type Cache struct {
	o       CacheOptions
	slots   chan struct{} // one per running download
	flights flights[fetched]

	// reached is called before each step that changes the folder; tests examine the folder after a
	// kill at that moment.
	reached func(step string)
}

// downloadsAtOnce bounds concurrent downloads.
const downloadsAtOnce = 4

// NewCache prepares the folder. An error names the folder and the problem.
func NewCache(o CacheOptions) (*Cache, error) {
	if o.Dir == "" {
		return nil, errors.New("open cache: no folder given")
	}
	dir, err := filepath.Abs(o.Dir)
	if err != nil {
		return nil, fmt.Errorf("open cache %s: %w", o.Dir, err)
	}
	o.Dir = dir
	o.Connections = cmp.Or(o.Connections, 4)
	o.Stall = cmp.Or(o.Stall, time.Minute)
	o.Backoff = o.Backoff.withDefaults()
	o.Logger = cmp.Or(o.Logger, slog.New(slog.DiscardHandler))
	c := &Cache{o: o, slots: make(chan struct{}, downloadsAtOnce), reached: func(string) {}}
	if err := c.makeFolders(); err != nil {
		return nil, err
	}
	if err := checkWritable(c.path("partial")); err != nil {
		return nil, dirError(o.Dir, err)
	}
	c.sweep(time.Now())
	return c, nil
}

// makeFolders creates missing folders of the cache: a user may have removed them to free space. A
// file in the place of a folder is renamed.
func (c *Cache) makeFolders() error {
	for _, folder := range []string{"blobs", "urls", "named", "unpacked", "partial", "leases"} {
		path := c.path(folder)
		err := os.MkdirAll(path, 0o700)
		if info, statErr := os.Lstat(path); err != nil && statErr == nil && !info.IsDir() {
			c.o.Logger.Warn("file in the place of a cache folder set aside", "path", path)
			err = errors.Join(os.Rename(path, path+".damaged"), os.MkdirAll(path, 0o700))
		}
		if err != nil {
			return dirError(c.o.Dir, err)
		}
	}
	return nil
}

// Fetch downloads a file, or finds it in the cache. It may be called from many goroutines;
// concurrent calls for the same content share one download. progress may be nil. The caller
// releases the Handle.
//
// Errors: ErrNotExist, ErrDenied, *UnsupportedError, *MismatchError, *ArchiveError, *SpaceError,
// *DirError; IsTransient reports whether a retry may succeed.
func (c *Cache) Fetch(ctx context.Context, item Item, progress Progress) (*Handle, error) {
	item.URL = Rewritten(c.o.Rewrites, item.URL)
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
	// Between the end of a download and the lease another process may prune the content; it is
	// then downloaded again.
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
	// Path is the file under its own name, or the folder of the unpacked archive. Files must not
	// be written to.
	Path string
	// SHA256 is the content of the fetched file, in hex.
	SHA256 string
	// Size is the length of the fetched file.
	Size int64
	// FromCache means that nothing was downloaded.
	FromCache bool
	// Stale means that the storage could not be asked whether the file has changed; Why is the
	// reason.
	Stale bool
	Why   error

	lease *os.File
}

// Release allows the cache to remove the file. Further calls do nothing.
func (h *Handle) Release() {
	if h != nil {
		_ = h.lease.Close() // nil, or closed already: an error without effect
	}
}

// fetched is the result of one download, or of finding that none is needed.
type fetched struct {
	sha256    string
	fromCache bool
	stale     error
}

// hold takes a lease on the content and links it for the user.
func (c *Cache) hold(ctx context.Context, item Item, got fetched) (*Handle, error) {
	l, err := c.lease(got.sha256)
	if err != nil {
		return nil, err
	}
	h, err := c.place(ctx, item, got, l)
	if err != nil {
		_ = l.Close() // an empty, unused file
		return nil, err
	}
	return h, nil
}

func (c *Cache) place(ctx context.Context, item Item, got fetched, l *os.File) (*Handle, error) {
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
	name := cmp.Or(item.Name, nameOf(item.URL))
	if item.Unpack {
		h.Path, err = c.unpacked(ctx, blob, got.sha256, name, item.Verify)
	} else {
		h.Path, err = c.named(ctx, got.sha256, name, item.Verify)
	}
	return h, err
}

// useInPlace returns a local file, which is never copied; its content is only hashed, and again
// only after a change.
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
		known.SHA256, err = HashFile(ctx, path)
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
	return h, nil
}

func (c *Cache) path(elements ...string) string {
	return filepath.Join(append([]string{c.o.Dir}, elements...)...)
}
