// Package atomicfile replaces files in one step: a reader sees the old content or the
// new content, also after a crash or a power failure.
package atomicfile

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
)

// TempPrefix begins the names of files that are being written. They are in the folder
// of the file that they replace. A crash may leave one behind.
const TempPrefix = ".writing-"

// Write replaces a file. The permissions are exact: neither the umask nor an existing
// file changes them. A link of that name is replaced, not followed.
func Write(path string, content []byte, perm fs.FileMode) error {
	return WriteWith(path, perm, func(f *os.File) error {
		_, err := f.Write(content)
		return err
	})
}

// WriteWith is Write for content that is produced while it is written. If write fails,
// the old file stays.
//
// The content is flushed to the disk before the rename. The folder is not: after a
// power failure the old file may be back, but never a truncated file.
func WriteWith(path string, perm fs.FileMode, write func(*os.File) error) error {
	temp, err := os.CreateTemp(filepath.Dir(path), TempPrefix)
	if err != nil {
		return err
	}
	err = write(temp)
	if err == nil && perm != 0o600 { // the mode of CreateTemp
		err = temp.Chmod(perm)
	}
	if err == nil {
		err = temp.Sync()
	}
	err = errors.Join(err, temp.Close())
	if err == nil {
		err = os.Rename(temp.Name(), path)
	}
	if err != nil {
		return errors.Join(err, os.Remove(temp.Name()))
	}
	return nil
}
