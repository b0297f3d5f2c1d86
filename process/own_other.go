//go:build unix && !linux

package process

import (
	"os/exec"
	"syscall"
)

// groupOfItsOwn has no parent-death signal on this system.
func groupOfItsOwn(syscall.Signal) *syscall.SysProcAttr { return &syscall.SysProcAttr{Setpgid: true} }

// reap waits for the end of the child and kills the rest of its group.
func (c *Child) reap(cmd *exec.Cmd) {
	_ = cmd.Wait() // the state has the result
	c.mu.Lock()
	defer c.mu.Unlock()
	c.reaped = true
	_ = syscall.Kill(-c.pid, syscall.SIGKILL) // the id stays in use while the group has members
}
