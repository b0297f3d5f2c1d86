package controlplane

import (
	"archive/tar"
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"strings"

	"github.com/klauspost/compress/zstd"

	"clearmlserving/controlplane/store"
)

// ErrNotEmpty says that the target of a restore has an installation.
var ErrNotEmpty = errors.New("there is an installation already")

// Restore creates an installation from a backup: in an empty data folder and, with a
// DatabaseURL, in an empty database. The whole backup is read before anything is written; if
// it is truncated or damaged, nothing is. If the restore fails, the folder is left empty.
func Restore(ctx context.Context, from string, opts BackupOptions) (done BackupContents, err error) {
	opts.setDefaults()
	defer func() {
		if err != nil {
			err = fmt.Errorf("restore %s into %s: %w", from, opts.DataDir, err)
		}
	}()
	f, err := os.Open(from)
	if err != nil {
		return BackupContents{}, err
	}
	defer func() { _ = f.Close() }() // nothing was written
	want, err := checkBackup(ctx, f)
	if err != nil {
		return BackupContents{}, err
	}
	for _, name := range []string{databaseFile, filesDir, credentialsFile} {
		if _, err := os.Lstat(filepath.Join(opts.DataDir, name)); !errors.Is(err, fs.ErrNotExist) {
			return BackupContents{}, errors.Join(err, fmt.Errorf("%w: %s is in the folder", ErrNotEmpty, name))
		}
	}
	if _, err := f.Seek(0, io.SeekStart); err != nil {
		return BackupContents{}, err
	}
	if err := os.MkdirAll(opts.DataDir, 0o700); err != nil {
		return BackupContents{}, err
	}
	done, err = fill(ctx, f, opts)
	if err == nil && done != want {
		err = fmt.Errorf("the file has changed meanwhile: restored %+v of %+v", done, want)
	}
	if errors.Is(err, store.ErrExists) {
		return done, fmt.Errorf("%w: %w", ErrNotEmpty, err)
	}
	return done, err
}

// fill restores into a temporary folder and moves its parts into their places at the end,
// so that the data folder never has an incomplete installation.
func fill(ctx context.Context, f io.Reader, opts BackupOptions) (done BackupContents, err error) {
	temp, err := os.MkdirTemp(opts.DataDir, ".restoring-")
	if err != nil {
		return done, err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(temp)) }()
	db, err := OpenStore(ctx, temp, opts.DatabaseURL, opts.Logger)
	if err != nil {
		return done, err
	}
	r, err := newBackupReader(f)
	if err != nil {
		return done, errors.Join(err, db.Close())
	}
	r.progress = opts.Progress
	r.dir = temp
	err = db.Import(ctx, func() (store.Record, error) {
		if err := ctx.Err(); err != nil {
			return store.Record{}, err
		}
		return r.next()
	})
	r.close()
	if err := errors.Join(err, db.Close()); err != nil {
		return r.done, err
	}
	for _, name := range []string{filesDir, credentialsFile, databaseFile} {
		if err := os.Rename(filepath.Join(temp, name), filepath.Join(opts.DataDir, name)); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return r.done, err
		}
	}
	return r.done, nil
}

// checkBackup reads a whole backup and returns its contents, or why it is not usable.
func checkBackup(ctx context.Context, f io.Reader) (BackupContents, error) {
	r, err := newBackupReader(f)
	if err != nil {
		return BackupContents{}, err
	}
	defer r.close()
	for {
		_, err := r.next()
		switch {
		case errors.Is(err, io.EOF):
			return r.done, nil
		case err != nil:
			return r.done, err
		case ctx.Err() != nil:
			return r.done, ctx.Err()
		}
	}
}

// backupReader returns the records of a backup, and writes its files into a folder.
type backupReader struct {
	tar      *tar.Reader
	unpacked *zstd.Decoder
	records  *json.Decoder // of the entry that is being read; nil between entries
	dir      string        // "": the files are not written
	progress func(BackupContents)
	done     BackupContents
	whole    bool // the last entry was read
}

var errNoBackup = errors.New("this is no backup that this program can read")

func newBackupReader(f io.Reader) (*backupReader, error) {
	unpacked, err := zstd.NewReader(bufio.NewReaderSize(f, 1<<20))
	if err != nil {
		return nil, err
	}
	r := &backupReader{tar: tar.NewReader(unpacked), unpacked: unpacked, progress: func(BackupContents) {}}
	if err := r.readHead(); err != nil {
		r.close()
		return nil, err
	}
	return r, nil
}

func (r *backupReader) close() { r.unpacked.Close() }

func (r *backupReader) readHead() error {
	head, err := r.tar.Next()
	if err != nil || head.Name != backupHead {
		return errors.Join(errNoBackup, err)
	}
	var info backupInfo
	if err := json.NewDecoder(r.tar).Decode(&info); err != nil || info.Form < 1 {
		return errors.Join(errNoBackup, err)
	}
	if info.Form > backupForm {
		return fmt.Errorf("the backup was made by the newer version %s: restore it with that one", info.Version)
	}
	return nil
}

// next returns the next record, or io.EOF after the end of a complete backup.
func (r *backupReader) next() (store.Record, error) {
	for {
		if r.records != nil {
			var record store.Record
			err := r.records.Decode(&record)
			if err == nil && record == (store.Record{}) {
				err = errors.New("a record holds nothing")
			}
			if err == nil {
				r.done.count(record)
				return record, nil
			}
			if !errors.Is(err, io.EOF) {
				return record, fmt.Errorf("the backup is damaged: %w", err)
			}
			r.records = nil
			r.progress(r.done)
		}
		head, err := r.tar.Next()
		if errors.Is(err, io.EOF) && r.whole {
			// The checksum follows the end of the archive.
			if _, err := io.Copy(io.Discard, r.unpacked); err != nil {
				return store.Record{}, fmt.Errorf("the backup is damaged: %w", err)
			}
			return store.Record{}, io.EOF
		}
		if err != nil {
			return store.Record{}, fmt.Errorf("the backup is truncated or damaged: %w", err)
		}
		if err := r.enter(head); err != nil {
			return store.Record{}, err
		}
	}
}

// enter begins an entry.
func (r *backupReader) enter(head *tar.Header) error {
	switch name := head.Name; {
	case strings.HasPrefix(name, backupRecords):
		r.records = json.NewDecoder(r.tar)
		r.records.UseNumber()
		return nil
	case name == backupEnd:
		var told BackupContents
		if err := json.NewDecoder(r.tar).Decode(&told); err != nil || told != r.done {
			return errors.Join(err, fmt.Errorf("the backup is damaged: it should hold %+v, and holds %+v", told, r.done))
		}
		r.whole = true
		return nil
	case name == credentialsFile:
		return r.place(credentialsFile)
	case strings.HasPrefix(name, backupFiles) && filepath.IsLocal(name) && path.Clean(name) == name:
		r.done.Files++
		r.done.FileBytes += head.Size
		r.progress(r.done)
		return r.place(filepath.Join(filesDir, filepath.FromSlash(strings.TrimPrefix(name, backupFiles))))
	}
	return nil // of a later version; entries that must not be ignored raise the form
}

// place writes the entry to a file of the folder. Only this process uses the folder, and the
// name is local to it.
func (r *backupReader) place(name string) error {
	if r.dir == "" {
		_, err := io.Copy(io.Discard, r.tar)
		return err
	}
	to := filepath.Join(r.dir, name)
	if err := os.MkdirAll(filepath.Dir(to), 0o700); err != nil {
		return err
	}
	f, err := os.OpenFile(to, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	_, err = io.Copy(f, r.tar)
	return errors.Join(err, f.Sync(), f.Close())
}
