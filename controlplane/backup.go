package controlplane

import (
	"archive/tar"
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"os"
	"path"
	"path/filepath"
	"strings"
	"time"

	"github.com/klauspost/compress/zstd"

	"clearmlserving/controlplane/store"
	"clearmlserving/controlplane/store/postgres"
	"clearmlserving/controlplane/store/sqlite"
)

// A backup is a tar archive, compressed by Zstandard, of
//
//	backup.json         its form, when and by which version it was made
//	records/000001.jsonl …  settings, documents, events: one JSON object a line, in order
//	credentials.json    the credentials that the installation began with
//	files/…             what the file server keeps in the data folder
//	contents.json       how much there is, to tell a whole backup from a cut one
//
// It is the same for every database, so that a backup of one can be restored into another.
const (
	backupForm    = 1
	backupHead    = "backup.json"
	backupRecords = "records/"
	backupFiles   = "files/"
	backupEnd     = "contents.json"
	// recordsAtOnce is about how many bytes of records one entry holds.
	recordsAtOnce = 4 << 20
)

// BackupOptions says what to back up and where to.
type BackupOptions struct {
	// DataDir is the folder of the installation, DatabaseURL its database if that is not
	// in the folder. A server may be running on them.
	DataDir, DatabaseURL string
	// Version is that of this program, noted in the backup.
	Version string
	// Progress is called now and then with what is done so far. Nil: no calls.
	Progress func(BackupContents)
	// Logger gets messages for operators; nil discards them.
	Logger *slog.Logger
}

func (o *BackupOptions) setDefaults() {
	if o.Progress == nil {
		o.Progress = func(BackupContents) {}
	}
	o.Logger = cmp.Or(o.Logger, slog.New(slog.DiscardHandler))
}

// BackupContents is how much a backup holds.
type BackupContents struct {
	Settings  int   `json:"settings"`
	Documents int   `json:"documents"`
	Events    int   `json:"events"`
	Files     int   `json:"files"`
	FileBytes int64 `json:"file_bytes"`
}

// count counts a record.
func (c *BackupContents) count(r store.Record) {
	switch {
	case r.Setting != nil:
		c.Settings++
	case r.Document != nil:
		c.Documents++
	case r.Event != nil:
		c.Events++
	}
}

// backupInfo is the head of a backup.
type backupInfo struct {
	Form    int    `json:"form"`
	Version string `json:"version"`
	Created string `json:"created"`
}

// Backup writes everything that an installation stores to a new file, readable by this user
// only because it contains secrets, reads it back to verify it, and only then gives it its
// name. It never replaces a file. What is written while it runs may be missing; what was
// written before is included.
func Backup(ctx context.Context, to string, opts BackupOptions) (done BackupContents, err error) {
	opts.setDefaults()
	defer func() {
		if err != nil {
			err = fmt.Errorf("back up %s to %s: %w", opts.DataDir, to, err)
		}
	}()
	if _, err := os.Lstat(to); !errors.Is(err, fs.ErrNotExist) {
		return done, errors.Join(err, fmt.Errorf("the file is there already: %w", fs.ErrExist))
	}
	db, err := openForExport(ctx, opts)
	if err != nil {
		return done, err
	}
	defer func() { err = errors.Join(err, db.Close()) }()
	part, err := os.OpenFile(to+".part", os.O_CREATE|os.O_EXCL|os.O_RDWR, 0o600)
	if err != nil {
		return done, fmt.Errorf("begin the backup (a .part file is what an interrupted backup leaves: remove it): %w", err)
	}
	defer func() { err = errors.Join(err, part.Close(), removed(part.Name())) }()
	if done, err = writeBackup(ctx, part, db, opts); err != nil {
		return done, err
	}
	if err := part.Sync(); err != nil {
		return done, err
	}
	if _, err := part.Seek(0, io.SeekStart); err != nil {
		return done, err
	}
	if read, err := checkBackup(ctx, part); err != nil || read != done {
		return done, errors.Join(err, fmt.Errorf("what was written cannot be read back: wrote %+v, read %+v", done, read))
	}
	err = os.Link(part.Name(), to) // refuses a file that was created meanwhile
	if err != nil && !errors.Is(err, fs.ErrExist) {
		err = os.Rename(part.Name(), to) // not every file system has links
	}
	return done, err
}

// removed removes a file that may not exist any more.
func removed(path string) error {
	if err := os.Remove(path); !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return nil
}

func openForExport(ctx context.Context, opts BackupOptions) (store.Store, error) {
	if opts.DatabaseURL != "" {
		return opened(postgres.Open(ctx, postgres.Options{URL: opts.DatabaseURL, Logger: opts.Logger}))
	}
	return opened(sqlite.OpenBeside(ctx, filepath.Join(opts.DataDir, databaseFile)))
}

// backupWriter writes the entries of a backup.
type backupWriter struct {
	*tar.Writer
	opts    BackupOptions
	done    BackupContents
	pending bytes.Buffer // records not yet in an entry
	entries int          // of records
}

func writeBackup(ctx context.Context, to io.Writer, db store.Store, opts BackupOptions) (BackupContents, error) {
	packed, err := zstd.NewWriter(to)
	if err != nil {
		return BackupContents{}, err
	}
	w := &backupWriter{Writer: tar.NewWriter(packed), opts: opts}
	for _, step := range []func() error{
		func() error {
			return w.writeJSON(backupHead, backupInfo{Form: backupForm, Version: opts.Version, Created: store.FormatTime(time.Now())})
		},
		func() error {
			return db.Export(ctx, func(r store.Record) error { return errors.Join(ctx.Err(), w.add(r)) })
		},
		w.flush,
		w.addCredentials,
		func() error { return w.addFiles(ctx) }, // after the database: a file that a document of the backup names exists then
		func() error { return w.writeJSON(backupEnd, w.done) },
	} {
		if err == nil {
			err = step()
		}
	}
	return w.done, errors.Join(err, w.Close(), packed.Close())
}

func (w *backupWriter) writeJSON(name string, v any) error {
	text, err := json.MarshalIndent(v, "", "  ")
	if err != nil {
		return err
	}
	return w.entry(name, append(text, '\n'))
}

func (w *backupWriter) entry(name string, content []byte) error {
	if err := w.WriteHeader(&tar.Header{Name: name, Mode: 0o600, Size: int64(len(content)), ModTime: time.Now()}); err != nil {
		return err
	}
	_, err := w.Write(content)
	return err
}

// add appends a record to the current entry.
func (w *backupWriter) add(r store.Record) error {
	w.done.count(r)
	enc := json.NewEncoder(&w.pending)
	enc.SetEscapeHTML(false)
	if err := enc.Encode(r); err != nil {
		return err
	}
	if w.pending.Len() < recordsAtOnce {
		return nil
	}
	return w.flush()
}

func (w *backupWriter) flush() error {
	if w.pending.Len() == 0 {
		return nil
	}
	w.entries++
	err := w.entry(fmt.Sprintf("%s%06d.jsonl", backupRecords, w.entries), w.pending.Bytes())
	w.pending.Reset()
	w.opts.Progress(w.done)
	return err
}

func (w *backupWriter) addCredentials() error {
	text, err := os.ReadFile(filepath.Join(w.opts.DataDir, credentialsFile))
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	return w.entry(credentialsFile, text)
}

// addFiles adds the complete files. One that is deleted meanwhile is left out.
func (w *backupWriter) addFiles(ctx context.Context) error {
	root, err := os.OpenRoot(filepath.Join(w.opts.DataDir, filesDir))
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	defer func() { _ = root.Close() }() // nothing was written
	return fs.WalkDir(root.FS(), ".", func(name string, entry fs.DirEntry, err error) error {
		switch {
		case errors.Is(err, fs.ErrNotExist):
			return nil
		case err != nil:
			return err
		case entry.IsDir() && strings.HasPrefix(name, ".") && name != ".":
			return fs.SkipDir // unfinished uploads
		case !entry.Type().IsRegular():
			return nil
		}
		return errors.Join(ctx.Err(), w.addFile(root, name))
	})
}

func (w *backupWriter) addFile(root *os.Root, name string) error {
	f, err := root.Open(name)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	defer func() { _ = f.Close() }() // nothing was written
	info, err := f.Stat()
	if err != nil {
		return err
	}
	if err := w.WriteHeader(&tar.Header{Name: path.Join(backupFiles, name), Mode: 0o600, Size: info.Size(), ModTime: info.ModTime()}); err != nil {
		return err
	}
	if _, err := io.CopyN(w, f, info.Size()); err != nil {
		return fmt.Errorf("copy %s: %w", name, err)
	}
	w.done.Files++
	w.done.FileBytes += info.Size()
	w.opts.Progress(w.done)
	return nil
}
