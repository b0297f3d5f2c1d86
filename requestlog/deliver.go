package requestlog

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net/url"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"clearmlserving/retry"
	"clearmlserving/serving"
)

const (
	deliverTimeout = 5 * time.Minute // of one file
	firstRetry     = time.Second
	lastRetry      = 5 * time.Minute
)

// deliver puts finished files at their destination until ctx ends.
func (l *Log) deliver(ctx context.Context) {
	for failures := 0; ; {
		err := l.deliverAll(ctx)
		if ctx.Err() != nil {
			return
		}
		if err == nil {
			failures = 0
			select {
			case <-l.ready:
			case <-ctx.Done():
				return
			}
			continue
		}
		failures++
		l.fails(err)
		wait(ctx, retry.Jittered(retry.Doubled(failures, firstRetry, lastRetry)))
	}
}

// deliverAll converts full spool files and delivers finished files, oldest first.
func (l *Log) deliverAll(ctx context.Context) error {
	full, err := filepath.Glob(filepath.Join(l.folder(), "*"+fullEnd))
	for _, path := range full {
		if ctx.Err() != nil { // an end of the instance does not wait for all of them
			return errors.Join(err, ctx.Err())
		}
		err = errors.Join(err, l.convert(path))
	}
	found, err2 := filepath.Glob(filepath.Join(l.folder(), "*"+parquetEnd))
	err = errors.Join(err, err2)
	slices.SortFunc(found, func(a, b string) int { return cmp.Compare(fileName(a).time, fileName(b).time) })
	for _, path := range found {
		if failed := l.deliverOne(ctx, path); failed != nil && !errors.Is(failed, fs.ErrNotExist) { // it was pruned
			return errors.Join(err, fmt.Errorf("deliver a file of the request log: %w", failed))
		}
	}
	if err == nil {
		l.works()
	}
	return err
}

// convert makes a Parquet file of a full spool file.
func (l *Log) convert(path string) error {
	base := strings.TrimSuffix(filepath.Base(path), fullEnd)
	i := max(strings.LastIndexByte(base, '.'), 0)
	part := filepath.Join(l.folder(), base+partEnd)
	first, rows, err := writeParquet(path, part)
	switch {
	case err != nil:
		_ = os.Remove(part) // it takes room
	case rows == 0: // the last write of a killed process was cut
		return os.Remove(path)
	default:
		name := fmt.Sprintf("%s.%s.%s.%d%s", base[:i], first.UTC().Format("20060102T150405Z"), strings.TrimPrefix(base[i:], "."), rows, parquetEnd)
		err = errors.Join(os.Rename(part, filepath.Join(l.folder(), name)), os.Remove(path))
	}
	if err != nil {
		return fmt.Errorf("write the Parquet file of %s: %w", path, err)
	}
	return nil
}

func (l *Log) deliverOne(ctx context.Context, path string) error {
	ctx, cancel := context.WithTimeout(ctx, deliverTimeout)
	defer cancel()
	if l.o.Local != "" { // the files in it are readable for all
		if err := os.MkdirAll(l.o.Local, 0o700); err != nil {
			return err
		}
	}
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	defer f.Close() //nolint:errcheck // it is only read
	info, err := f.Stat()
	if err != nil {
		return err
	}
	if err := l.o.Place.Put(ctx, strings.TrimRight(l.o.Destination, "/")+"/"+fileName(path).place(), f, info.Size()); err != nil {
		return err
	}
	return os.Remove(path)
}

// name is what the name of a finished file tells.
type name struct {
	endpoint string // escaped
	time     string
	random   string
	rows     uint64
}

// fileName reads the name of a finished file. Endpoints may have dots.
func fileName(path string) name {
	parts := strings.Split(strings.TrimSuffix(filepath.Base(path), parquetEnd), ".")
	n := len(parts)
	if n < 4 {
		return name{}
	}
	rows, err := strconv.ParseUint(parts[n-1], 10, 64)
	if err != nil {
		return name{}
	}
	return name{strings.Join(parts[:n-3], "."), parts[n-3], parts[n-2], rows}
}

// place is the path below the destination: a folder for each endpoint and day.
func (n name) place() string {
	day := n.time
	if len(day) >= 8 {
		day = day[:4] + "-" + day[4:6] + "-" + day[6:8]
	}
	folder := odd.ReplaceAllString(string(n.url()), "_")
	return fmt.Sprintf("%s/date=%s/%s-%s-%d%s", folder, day, n.time, strings.ToLower(n.random), n.rows, parquetEnd)
}

// odd are characters that some storage or reader does not take in a path as they are.
var odd = regexp.MustCompile(`[^A-Za-z0-9._-]`)

func (n name) url() serving.EndpointURL {
	u, err := url.PathUnescape(n.endpoint)
	if err != nil {
		return serving.EndpointURL(n.endpoint)
	}
	return serving.EndpointURL(u)
}

// prune removes the oldest files on this machine beyond MaxBytes: delivered ones first, then those
// that could not be delivered, whose rows are counted.
func (l *Log) prune() {
	type file struct {
		path string
		info fs.FileInfo
	}
	var delivered, waiting []file
	total := int64(0)
	add := func(to *[]file, path string, info fs.FileInfo) {
		*to = append(*to, file{path, info})
		total += info.Size()
	}
	if l.lock == nil {
		return
	}
	if l.o.Local != "" {
		_ = filepath.WalkDir(l.o.Local, func(path string, d fs.DirEntry, err error) error {
			if err != nil {
				return nil //nolint:nilerr // what cannot be read is not counted
			}
			if d.IsDir() && path == l.o.Dir {
				return filepath.SkipDir
			}
			if d.Type().IsRegular() && strings.HasSuffix(path, parquetEnd) && strings.HasPrefix(filepath.Base(filepath.Dir(path)), "date=") {
				if info, err := d.Info(); err == nil {
					add(&delivered, path, info)
				}
			}
			return nil
		})
	}
	found, _ := filepath.Glob(filepath.Join(l.folder(), "*.*"))
	for _, path := range found {
		if info, err := os.Stat(path); err == nil {
			if strings.HasSuffix(path, parquetEnd) {
				add(&waiting, path, info)
			} else {
				total += info.Size() // a spool file
			}
		}
	}
	defer func() { l.full = total > l.o.MaxBytes }()
	for _, files := range [][]file{delivered, waiting} {
		slices.SortFunc(files, func(a, b file) int { return a.info.ModTime().Compare(b.info.ModTime()) })
		for _, f := range files {
			if total <= l.o.MaxBytes {
				return
			}
			if os.Remove(f.path) == nil {
				total -= f.info.Size()
				if filepath.Dir(f.path) == l.folder() {
					n := fileName(f.path)
					l.count(n.url(), resultRemoved, n.rows)
				}
			}
		}
	}
}

// waitingBytes is the size of the files that have not been delivered.
func (l *Log) waitingBytes() (total int64) {
	found, _ := filepath.Glob(filepath.Join(l.o.Dir, "*", "*.*"))
	for _, path := range found {
		if info, err := os.Stat(path); err == nil {
			total += info.Size()
		}
	}
	return total
}
