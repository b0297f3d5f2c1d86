package files

import (
	"context"
	"crypto/rand"
	"io/fs"
	"path"
)

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
