package storage

import (
	"context"
	"encoding/json"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
)

// listOf is the file with the list of an unpacked folder: it is beside the folder.
func listOf(folder string) string {
	return filepath.Join(filepath.Dir(folder), ".list-"+filepath.Base(folder)+".json")
}

// writeList lists the files of a folder that has just been unpacked, with their sizes.
func writeList(folder, list string) error {
	sizes := map[string]int64{}
	err := walkFiles(folder, func(name string, info fs.FileInfo) error {
		sizes[name] = info.Size()
		return nil
	})
	if err != nil {
		return fmt.Errorf("list %s: %w", folder, err)
	}
	text, err := json.Marshal(sizes)
	if err != nil {
		return fmt.Errorf("list %s: %w", folder, err)
	}
	return replaceFile(list, text)
}

// complete reports whether every listed file exists with its size. Without a list that is unknown,
// which counts as false.
func complete(folder, list string) bool {
	text, err := os.ReadFile(list)
	if err != nil {
		return false
	}
	var sizes map[string]int64
	if json.Unmarshal(text, &sizes) != nil || sizes == nil {
		return false
	}
	for name, size := range sizes {
		info, err := os.Lstat(filepath.Join(folder, filepath.FromSlash(name)))
		if err != nil || !info.Mode().IsRegular() || info.Size() < size {
			return false
		}
	}
	return true
}

// repair unpacks the archive beside the folder and replaces each file that is missing or different.
// The folder itself stays, because it is the working directory of workers.
func (c *Cache) repair(ctx context.Context, archive, folder string) error {
	temp, err := os.MkdirTemp(filepath.Dir(folder), unpackingPrefix)
	if err != nil {
		return dirError(c.o.Dir, err)
	}
	defer os.RemoveAll(temp) //nolint:errcheck // else removed at the next start
	content := filepath.Join(temp, "content")
	if err := unpackInto(ctx, archive, content, Limits{}); err != nil {
		return err
	}
	list := filepath.Join(temp, "list")
	if err := writeList(content, list); err != nil {
		return err
	}
	repaired := 0
	err = walkFiles(content, func(name string, _ fs.FileInfo) error {
		fresh, target := filepath.Join(content, name), filepath.Join(folder, name)
		if same, err := sameContent(ctx, fresh, target); same || err != nil {
			return err
		}
		repaired++
		return replaceWith(fresh, target, folder)
	})
	if err != nil {
		return dirError(c.o.Dir, err)
	}
	if repaired > 0 {
		c.o.Logger.Warn("missing or changed files unpacked again", "folder", folder, "files", repaired)
	}
	if err := os.Rename(list, listOf(folder)); err != nil {
		return dirError(c.o.Dir, err)
	}
	return nil
}

// replaceWith moves a file to its place in a folder and replaces a file or folder there.
func replaceWith(fresh, target, folder string) error {
	for dir := filepath.Dir(target); len(dir) > len(folder); dir = filepath.Dir(dir) {
		if info, err := os.Lstat(dir); err == nil && !info.IsDir() {
			if err := os.Remove(dir); err != nil {
				return err
			}
		}
	}
	if err := os.MkdirAll(filepath.Dir(target), 0o755); err != nil {
		return err
	}
	if info, err := os.Lstat(target); err == nil && info.IsDir() {
		if err := os.RemoveAll(target); err != nil {
			return err
		}
	}
	return os.Rename(fresh, target)
}

// walkFiles calls do for each regular file below a folder, with its relative name.
func walkFiles(folder string, do func(name string, info fs.FileInfo) error) error {
	return filepath.WalkDir(folder, func(path string, d fs.DirEntry, err error) error {
		if err != nil || !d.Type().IsRegular() {
			return err
		}
		name, err := filepath.Rel(folder, path)
		if err != nil {
			return err
		}
		info, err := d.Info()
		if err != nil {
			return err
		}
		return do(filepath.ToSlash(name), info)
	})
}

// sameContent reports whether b is a regular file with the content of a.
func sameContent(ctx context.Context, a, b string) (bool, error) {
	infoA, err := os.Lstat(a)
	if err != nil {
		return false, err
	}
	infoB, err := os.Lstat(b)
	if err != nil || !infoB.Mode().IsRegular() || infoA.Size() != infoB.Size() {
		return false, nil //nolint:nilerr // missing or unreadable: not the same
	}
	sumA, err := HashFile(ctx, a)
	if err != nil {
		return false, err
	}
	sumB, err := HashFile(ctx, b)
	if ctx.Err() != nil {
		return false, context.Cause(ctx)
	}
	return err == nil && sumA == sumB, nil
}

// clearWay removes a folder in the place of a file.
func clearWay(path string) error {
	if info, err := os.Lstat(path); err != nil || !info.IsDir() {
		return nil //nolint:nilerr // nothing is in the way
	}
	return os.RemoveAll(path)
}
