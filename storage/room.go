package storage

import (
	"errors"
	"fmt"
	"os"
	"syscall"

	"github.com/dustin/go-humanize"

	"clearmlserving/atomicfile"
)

// SpaceError means that a disk has no room for a file.
type SpaceError struct {
	Dir  string
	Need int64 // bytes still to be written, 0 if unknown
	Free int64 // bytes that this user may still write, -1 if unknown
	Err  error // nil: detected before writing
}

func (e *SpaceError) Error() string {
	const digits = 4 // so that two similar sizes differ
	text := "no room in " + e.Dir
	if e.Need > 0 {
		text += ": " + humanize.IBytesN(uint64(e.Need), digits) + " needed"
	}
	if e.Free >= 0 {
		text += ", " + humanize.IBytesN(uint64(e.Free), digits) + " free"
	}
	return text + "; make room there or choose another data folder"
}

func (e *SpaceError) Unwrap() error { return e.Err }

// DirError means that a folder cannot be used.
type DirError struct {
	Dir string
	Err error
}

func (e *DirError) Error() string {
	hint := ""
	if errors.Is(e.Err, os.ErrPermission) || errors.Is(e.Err, syscall.EROFS) {
		hint = "; let this user write there or choose another data folder"
	}
	return fmt.Sprintf("folder %s can't be written: %v%s", e.Dir, e.Err, hint)
}

func (e *DirError) Unwrap() error { return e.Err }

// isDirFault reports whether an error concerns the disk rather than one file.
func isDirFault(err error) bool {
	for _, fault := range []error{syscall.ENOSPC, syscall.EDQUOT, syscall.EROFS, syscall.EACCES, syscall.EPERM, syscall.EIO} {
		if errors.Is(err, fault) {
			return true
		}
	}
	return false
}

// dirError wraps an error of writing below dir in the type that callers distinguish.
// Errors of such a type are returned unchanged.
func dirError(dir string, err error) error {
	var space *SpaceError
	var folder *DirError
	var known *Error
	switch {
	case err == nil, errors.As(err, &space), errors.As(err, &folder), errors.As(err, &known), errors.Is(err, errGone):
		return err
	case errors.Is(err, syscall.ENOSPC), errors.Is(err, syscall.EDQUOT):
		return &SpaceError{Dir: dir, Free: freeBytes(dir), Err: err}
	default:
		return &DirError{Dir: dir, Err: err}
	}
}

// makeRoom removes unused files until need bytes fit on the disk. It does nothing if the
// need or the free space is unknown.
func (c *Cache) makeRoom(need int64) error {
	if need <= 0 {
		return nil
	}
	free := freeBytes(c.o.Dir)
	if free < 0 || free >= need {
		return nil
	}
	c.pruneBytes(need - free)
	if free = freeBytes(c.o.Dir); free < need {
		return &SpaceError{Dir: c.o.Dir, Need: need, Free: free}
	}
	return nil
}

// freeBytes is the number of bytes that this user may still write, -1 if unknown.
func freeBytes(dir string) int64 {
	var s syscall.Statfs_t
	if err := syscall.Statfs(dir, &s); err != nil {
		return -1
	}
	return int64(s.Bavail) * int64(s.Bsize) //nolint:unconvert // the types differ between systems
}

// checkWritable creates and removes a file.
func checkWritable(dir string) error {
	f, err := os.CreateTemp(dir, atomicfile.TempPrefix)
	if err != nil {
		return err
	}
	return errors.Join(f.Close(), os.Remove(f.Name()))
}
