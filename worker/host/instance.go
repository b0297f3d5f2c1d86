package host

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"

	"clearmlserving/atomicfile"
)

// instanceFile tells workers the id of the instance's task on the control plane, of
// which user code finds Task.current_task(). The task is opened while endpoints load,
// so workers read the file when their code asks. It is named by our process id; those
// of processes that were killed are removed by the next one.
type instanceFile struct{ path string }

const instancePrefix = "instance-"

func newInstanceFile(dir string) instanceFile {
	return instanceFile{filepath.Join(dir, fmt.Sprintf("%s%d-%d", instancePrefix, os.Getpid(), time.Now().UnixNano()))}
}

// write makes the id known.
func (f instanceFile) write(taskID string) error {
	if err := os.MkdirAll(filepath.Dir(f.path), 0o755); err != nil {
		return fmt.Errorf("tell workers the instance's task: %w", err)
	}
	if err := atomicfile.Write(f.path, []byte(taskID), 0o644); err != nil { // workers of another account read it; an id is no secret
		return fmt.Errorf("tell workers the instance's task: %w", err)
	}
	return nil
}

// remove removes the file, and those of processes that are gone.
func (f instanceFile) remove() {
	_ = os.Remove(f.path) // there may have been no task
	left, err := filepath.Glob(filepath.Join(filepath.Dir(f.path), instancePrefix+"*"))
	if err != nil {
		return
	}
	for _, path := range left {
		pid, _, _ := strings.Cut(strings.TrimPrefix(filepath.Base(path), instancePrefix), "-")
		if n, err := strconv.Atoi(pid); err == nil && errors.Is(syscall.Kill(n, 0), syscall.ESRCH) {
			_ = os.Remove(path) // another process may have been faster
		}
	}
}

// SetInstanceTask tells user code the id of the instance's task.
func (h *Host) SetInstanceTask(taskID string) {
	if err := h.instance.write(taskID); err != nil {
		h.pools.log.Warn("instance task not written", "err", err)
	}
}
