//go:build linux || darwin

package listener

import "golang.org/x/sys/unix"

// boundUnsent bounds the unsent data in the kernel's socket buffer. Without it the kernel accepts
// megabytes at a time, and the progress of a slow reader is seen only once a minute.
func boundUnsent(fd int) {
	_ = unix.SetsockoptInt(fd, unix.IPPROTO_TCP, unix.TCP_NOTSENT_LOWAT, 128<<10) // a Unix socket has no such option
}
