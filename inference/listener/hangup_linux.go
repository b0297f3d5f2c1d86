package listener

import "golang.org/x/sys/unix"

// hungUp tells whether the other side has closed its half of the connection,
// also while bytes of it are still unread: over TLS the last of these say
// goodbye, so that looking at the bytes would find the client alive.
func hungUp(fd int) bool {
	p := []unix.PollFd{{Fd: int32(fd), Events: unix.POLLRDHUP}}
	n, err := unix.Poll(p, 0)
	return err == nil && n > 0 && p[0].Revents&(unix.POLLRDHUP|unix.POLLHUP|unix.POLLERR) != 0
}
