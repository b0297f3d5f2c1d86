package process

import (
	"errors"
	"os/exec"
	"syscall"

	"golang.org/x/sys/unix"
)

func groupOfItsOwn(whenWeDie syscall.Signal) *syscall.SysProcAttr {
	return &syscall.SysProcAttr{Setpgid: true, Pdeathsig: whenWeDie}
}

// reap waits for the end of the child and kills the rest of its group.
func (c *Child) reap(cmd *exec.Cmd) {
	for {
		err := unix.Waitid(unix.P_PID, c.pid, nil, unix.WEXITED|unix.WNOWAIT, nil)
		if !errors.Is(err, unix.EINTR) {
			break
		}
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	// While the leader is a zombie its group id cannot be reused, so this signal reaches only its
	// remaining children.
	_ = syscall.Kill(-c.pid, syscall.SIGKILL)
	_ = cmd.Wait() // the state has the result
	c.reaped = true
}
