//go:build unix && !linux

package process

import (
	"os/exec"
	"syscall"
)

// groupOfItsOwn cannot tell the child of our death here.
func groupOfItsOwn(syscall.Signal) *syscall.SysProcAttr { return &syscall.SysProcAttr{Setpgid: true} }

// reap waits for the end of the child and takes the rest of its group with it.
func (c *Child) reap(cmd *exec.Cmd) {
	_ = cmd.Wait() // the state says it all
	c.mu.Lock()
	defer c.mu.Unlock()
	c.reaped = true
	_ = syscall.Kill(-c.pid, syscall.SIGKILL) // the id stays taken as long as the group has members
}
