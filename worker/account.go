package worker

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
)

// Account is a user of the machine that workers run as: user code can then read the files
// of endpoints, but neither the service's secrets nor its memory. The processes switch to it
// before any user code runs.
type Account struct {
	UID, GID int
	// DataDir is the folder in which the account gets access to the files of its endpoints.
	// Files elsewhere must be readable for it already.
	DataDir string
}

// confinement is the part of the spec that limits the worker.
func (o *Options) confinement() map[string]any {
	rules := map[string]any{"open_files": o.OpenFiles}
	if o.Account != nil {
		rules["uid"], rules["gid"] = o.Account.UID, o.Account.GID
	}
	return rules
}

// admit lets the account's group read a file or folder below DataDir, and pass
// through the folders on the way there without listing them.
func (a *Account) admit(path string) error {
	if a == nil || path == "" {
		return nil
	}
	rel, err := filepath.Rel(a.DataDir, path)
	if err != nil || !filepath.IsLocal(rel) {
		return nil //nolint:nilerr // it is elsewhere
	}
	root, err := os.OpenRoot(a.DataDir) // links cannot lead out of it
	if err != nil {
		return fmt.Errorf("let workers read %s: %w", path, err)
	}
	err = a.open(root, filepath.ToSlash(rel))
	return errors.Join(err, root.Close())
}

func (a *Account) open(root *os.Root, rel string) error {
	way := "."
	for part := range strings.SplitSeq(rel, "/") {
		if err := a.grant(root, way, 0o010); err != nil {
			return err
		}
		way = filepath.ToSlash(filepath.Join(way, part))
	}
	return fs.WalkDir(root.FS(), way, func(name string, d fs.DirEntry, err error) error {
		switch {
		case err != nil:
			return err
		case d.IsDir():
			return a.grant(root, name, 0o050)
		case d.Type().IsRegular():
			return a.grant(root, name, 0o040)
		}
		return nil
	})
}

// grant gives the account's group some bits of a file's mode.
func (a *Account) grant(root *os.Root, name string, bits fs.FileMode) error {
	info, err := root.Lstat(name)
	if err != nil {
		return err
	}
	if err := root.Lchown(name, -1, a.GID); err != nil {
		return err
	}
	if info.Mode().Perm()&bits == bits {
		return nil
	}
	return root.Chmod(name, info.Mode().Perm()|bits)
}
