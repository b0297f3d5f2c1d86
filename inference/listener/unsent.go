//go:build linux || darwin

package listener

import "golang.org/x/sys/unix"

// boundUnsent has the kernel take no more of what is written than it can send soon.
// Without this it takes megabytes at a time, and a slow reader's progress is seen once
// in a minute.
func boundUnsent(fd int) {
	_ = unix.SetsockoptInt(fd, unix.IPPROTO_TCP, unix.TCP_NOTSENT_LOWAT, 128<<10) // a Unix socket has no such option
}
