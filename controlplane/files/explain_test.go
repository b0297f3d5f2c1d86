package files

import (
	"io/fs"
	"net/http"
	"strings"
	"syscall"
	"testing"
)

func TestTroubleOfTheDiskIsSaidClearly(t *testing.T) {
	for _, c := range []struct {
		err     error
		status  int
		says    string
		trouble bool
	}{
		{&fs.PathError{Op: "write", Path: "/data/.incoming/X", Err: syscall.ENOSPC}, 500, "disk of the file server is full", true},
		{&fs.PathError{Op: "write", Path: "/data/x", Err: syscall.EDQUOT}, 500, "full", true},
		{&fs.PathError{Op: "open", Path: "/data/x", Err: syscall.EROFS}, 500, "cannot be written", true},
		{&fs.PathError{Op: "open", Path: "/data/x", Err: syscall.EACCES}, 500, "cannot be written", true},
		{&fs.PathError{Op: "mkdir", Path: "a", Err: syscall.ENOTDIR}, 400, "stored as a file", false},
		{&fs.PathError{Op: "read", Path: "/data/x", Err: syscall.EIO}, 500, "its log says why", true},
		{&http.MaxBytesError{Limit: 3}, 500, "its log", true},
	} {
		status, msg, trouble := explain(c.err)
		if status != c.status || !strings.Contains(msg, c.says) || trouble != c.trouble {
			t.Errorf("explain(%v) = %d %q %v; want %d %q %v", c.err, status, msg, trouble, c.status, c.says, c.trouble)
		}
		if strings.Contains(msg, "/data") {
			t.Errorf("explain(%v) reveals a path of this machine: %q", c.err, msg)
		}
	}
}
