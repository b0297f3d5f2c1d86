package embedded

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/prometheus/tsdb"
	"golang.org/x/sys/unix"
)

// damagedDir has what was set aside last, for people who want to examine it.
const damagedDir = "damaged"

// open opens the database. The database repairs its write-ahead log itself, up to the damage. What
// else is damaged is set aside, in steps: blocks, then the data of the last hours, then everything.
func (s *Store) open(ctx context.Context) (*tsdb.DB, error) {
	steps := []func() error{
		s.setBlocksAside,
		func() error { return s.keepAside("wal", "wbl", "chunks_head", "chunk_snapshot") },
		s.setAllAside,
	}
	for {
		db, err := s.tryOpen()
		if err == nil || ctx.Err() != nil || len(steps) == 0 || ofMachine(err) {
			return db, err
		}
		s.log.Warn("time series damaged", "err", err)
		for done := false; !done && len(steps) > 0; steps = steps[1:] { // the next step may do it
			aside := steps[0]()
			done, err = aside == nil, errors.Join(err, aside)
		}
	}
}

func (s *Store) tryOpen() (db *tsdb.DB, err error) {
	defer func() {
		if p := recover(); p != nil { // a decoder that does not expect what it finds
			err = fmt.Errorf("panic: %v", p)
		}
	}()
	if err := os.MkdirAll(s.o.Dir, 0o700); err != nil {
		return nil, fmt.Errorf("make the folder of the time series: %w", err)
	}
	if err := s.undoRepairs(); err != nil {
		return nil, fmt.Errorf("restore the log of the time series: %w", err)
	}
	log := slog.New(quiet{s.log.Handler()})
	if db, err = tsdb.Open(s.o.Dir, log, prometheus.NewRegistry(), s.tsdbOptions(), nil); err != nil {
		return nil, fmt.Errorf("open the time series in %s: %w", s.o.Dir, err)
	}
	return db, nil
}

// undoRepairs restores the parts of the log whose repair did not end, because the disk was full or the
// process was killed. The database would go on with what was copied until then.
func (s *Store) undoRepairs() error {
	const end = ".repair"
	found, err := filepath.Glob(filepath.Join(s.o.Dir, "w[ab]l", "*"+end))
	for _, path := range found {
		err = errors.Join(err, os.Rename(path, strings.TrimSuffix(path, end)))
	}
	return err
}

// leastFree is the room on the disk below which the database is not opened: reading its log writes chunks, and
// the database panics if it cannot.
const leastFree = 8 << 20

// mayOpen returns why the database cannot be opened now.
func (s *Store) mayOpen() error {
	var disk unix.Statfs_t
	if err := unix.Statfs(s.o.Dir, &disk); err != nil {
		return nil //nolint:nilerr // opening tells what is wrong with the folder
	}
	if free := int64(disk.Bavail * uint64(disk.Bsize)); free < leastFree { //nolint:gosec // types differ by system
		return fmt.Errorf("the disk of %s has only %d bytes left: %w", s.o.Dir, free, syscall.ENOSPC)
	}
	return nil
}

// room reports whether the disk can be written, and has room for a repair of the log, which copies its
// newest part.
func (s *Store) room() bool {
	need := int64(1 << 20)
	found, err := filepath.Glob(filepath.Join(s.o.Dir, "w[ab]l", "0*"))
	if err != nil {
		return false
	}
	for _, path := range found {
		if info, err := os.Stat(path); err == nil {
			need = max(need, 2*info.Size())
		}
	}
	var disk unix.Statfs_t
	if err := unix.Statfs(s.o.Dir, &disk); err != nil || int64(disk.Bavail*uint64(disk.Bsize)) < need { //nolint:gosec // types differ by system
		return false
	}
	f, err := os.CreateTemp(s.o.Dir, "writable-*.tmp")
	if err != nil {
		return false
	}
	return errors.Join(f.Close(), os.Remove(f.Name())) == nil
}

// ofMachine reports an error that says nothing about the files: they are opened later as they are.
func ofMachine(err error) bool {
	for _, cause := range []error{
		fs.ErrPermission, syscall.ENOSPC, syscall.EDQUOT, syscall.EROFS, syscall.EMFILE, syscall.ENFILE, syscall.ENOMEM, syscall.EAGAIN,
	} {
		if errors.Is(err, cause) {
			return true
		}
	}
	return false
}

// blockName are the ULIDs by which blocks are named.
var blockName = regexp.MustCompile(`^[0-9A-HJKMNP-TV-Z]{26}$`)

// blocks lists the folders of blocks.
func (s *Store) blocks() (names []string, err error) {
	all, err := os.ReadDir(s.o.Dir)
	for _, entry := range all {
		if entry.IsDir() && blockName.MatchString(entry.Name()) {
			names = append(names, entry.Name())
		}
	}
	return names, err
}

// setBlocksAside sets those blocks aside that cannot be opened.
func (s *Store) setBlocksAside() error {
	bad, err := s.blocksWhere(func(_ *tsdb.Block, err error) bool { return err != nil })
	if err != nil {
		return err
	}
	return s.setAside(bad...)
}

// dropFuture sets those blocks aside that end in the future. Opening the database finds those that cannot be opened.
func (s *Store) dropFuture() error {
	latest := s.o.Now().Add(late + early).UnixMilli()
	bad, err := s.blocksWhere(func(b *tsdb.Block, err error) bool { return err == nil && b.Meta().MaxTime > latest })
	if err != nil {
		return err
	}
	return s.keepAside(bad...)
}

// blocksWhere lists the blocks that are so. err says why a block cannot be opened.
func (s *Store) blocksWhere(so func(b *tsdb.Block, err error) bool) (found []string, err error) {
	names, err := s.blocks()
	if err != nil {
		return nil, err
	}
	for _, name := range names {
		b, err := tsdb.OpenBlock(slog.New(slog.DiscardHandler), filepath.Join(s.o.Dir, name), nil, nil)
		if so(b, err) {
			found = append(found, name)
		}
		if err != nil {
			continue
		}
		if err := b.Close(); err != nil {
			return nil, err
		}
	}
	return found, nil
}

// setAside moves files of the folder to its folder damagedDir. What was there before is removed, so
// that it does not grow.
func (s *Store) setAside(names ...string) error {
	if err := os.RemoveAll(filepath.Join(s.o.Dir, damagedDir)); err != nil {
		return err
	}
	return s.keepAside(names...)
}

// keepAside is setAside, beside what is there.
func (s *Store) keepAside(names ...string) error {
	to := filepath.Join(s.o.Dir, damagedDir)
	for _, name := range names {
		from := filepath.Join(s.o.Dir, name)
		if _, err := os.Lstat(from); errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err := os.MkdirAll(to, 0o700); err != nil {
			return err
		}
		if err := os.Rename(from, filepath.Join(to, name)); err != nil {
			return err
		}
		s.log.Warn("time series set aside", "file", from, "kept_in", to)
	}
	return nil
}

// setAllAside renames the whole folder.
func (s *Store) setAllAside() error {
	to := s.o.Dir + "." + damagedDir
	if err := os.RemoveAll(to); err != nil {
		return err
	}
	if err := os.Rename(s.o.Dir, to); err != nil {
		return err
	}
	s.log.Warn("time series set aside", "file", s.o.Dir, "kept_as", to)
	return nil
}

// Usage describes what is stored.
type Usage struct {
	Dir    string    `json:"dir"`
	Bytes  int64     `json:"bytes"`
	Oldest time.Time `json:"oldest,omitzero"`
	Series int       `json:"series"` // of the last hours
	// Problem says why the time series cannot be used, "" if they can.
	Problem string `json:"problem,omitempty"`
}

// Usage looks at the folder of the data.
func (s *Store) Usage() Usage {
	u := Usage{Dir: s.o.Dir}
	_ = filepath.WalkDir(s.o.Dir, func(_ string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return nil //nolint:nilerr // files come and go
		}
		if info, err := d.Info(); err == nil {
			u.Bytes += info.Size()
		}
		return nil
	})
	db, release, err := s.opened()
	if err != nil {
		u.Problem = err.Error()
		return u
	}
	defer release()
	u.Series = int(db.Head().NumSeries()) //nolint:gosec // bounded by maxSeries
	if t, err := db.StartTime(); err == nil && u.Series > 0 {
		u.Oldest = time.UnixMilli(t)
	}
	return u
}
