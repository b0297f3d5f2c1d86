package process

import (
	"context"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// Process 1 of a container becomes the parent of processes whose parent has died. This process takes that part.
func TestDeadOrphansAreRemovedAndChildrenAreNot(t *testing.T) {
	if err := unix.Prctl(unix.PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0); err != nil {
		t.Skip(err)
	}
	defer func() { _ = unix.Prctl(unix.PR_SET_CHILD_SUBREAPER, 0, 0, 0, 0) }()
	// The shell ends at once; what it has started becomes ours, and ends later.
	out, err := exec.CommandContext(t.Context(), "sh", "-c", "sleep 0.2 >/dev/null 2>&1 & echo $!").Output()
	if err != nil {
		t.Fatal(err)
	}
	orphan, err := strconv.Atoi(strings.TrimSpace(string(out)))
	if err != nil {
		t.Fatal(err)
	}
	// A child of Start that has ended is not the reaper's, though nobody has waited for it yet.
	ours := exec.CommandContext(t.Context(), "true")
	if err := ours.Start(); err != nil {
		t.Fatal(err)
	}
	children.Store(ours.Process.Pid, nil)
	defer children.Delete(ours.Process.Pid)

	ctx, cancel := context.WithCancel(t.Context())
	var running sync.WaitGroup
	running.Go(func() { reapOrphans(ctx, 10*time.Millisecond) })
	for {
		if _, there := StatOf(orphan); !there {
			break
		}
		time.Sleep(5 * time.Millisecond)
	}
	cancel()
	running.Wait()
	if err := ours.Wait(); err != nil {
		t.Errorf("the status of a child was taken by the reaper: %v", err)
	}
}

func TestOnlyProcessOneReapsOrphans(t *testing.T) {
	if os.Getpid() == 1 {
		t.Skip("it is process 1")
	}
	ReapOrphans(t.Context()) // returns
}
