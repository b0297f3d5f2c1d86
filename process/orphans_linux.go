package process

import (
	"context"
	"os"
	"time"

	"golang.org/x/sys/unix"
)

// orphanLook is the time between two looks for dead orphans.
const orphanLook = 2 * time.Second

// ReapOrphans removes the entries of dead processes that others have started, until ctx ends. A process becomes a child of process 1 of
// its container when its parent dies; nobody else waits for it. Where this process is not number 1 it returns at once.
func ReapOrphans(ctx context.Context) {
	if os.Getpid() != 1 {
		return
	}
	reapOrphans(ctx, orphanLook)
}

func reapOrphans(ctx context.Context, every time.Duration) {
	look := time.NewTicker(every)
	defer look.Stop()
	self := os.Getpid()
	seen := map[int]bool{} // dead at the last look
	for {
		select {
		case <-ctx.Done():
			return
		case <-look.C:
		}
		dead := map[int]bool{}
		for pid, s := range All() {
			if s.Parent != self || !s.Dead {
				continue
			}
			// Two looks: a child of os/exec is waited for within moments by who started it.
			if _, ours := children.Load(pid); !ours && seen[pid] {
				_, _ = unix.Wait4(pid, nil, unix.WNOHANG, nil) // gone already is as good
				continue
			}
			dead[pid] = true
		}
		seen = dead
	}
}
