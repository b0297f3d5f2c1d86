package proc

import (
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"strconv"
	"strings"
)

// Owner returns the process below pid that has the server's end of an IPv4 connection, given the
// client's end; 0 while it is not accepted.
func Owner(pid int, client netip.AddrPort) (int, error) {
	table, err := os.ReadFile("/proc/net/tcp")
	if err != nil {
		return 0, fmt.Errorf("find the process of a connection: %w", err)
	}
	inode := inodeOf(string(table), client)
	if inode == "" {
		return 0, nil
	}
	want := "socket:[" + inode + "]"
	for _, id := range Tree(pid) {
		descriptors, _ := filepath.Glob("/proc/" + strconv.Itoa(id) + "/fd/*")
		for _, fd := range descriptors {
			if target, err := os.Readlink(fd); err == nil && target == want {
				return id, nil
			}
		}
	}
	return 0, nil
}

// inodeOf returns the socket whose other end is remote in the text of /proc/net/tcp; "" if there is
// none or it has not been accepted.
func inodeOf(table string, remote netip.AddrPort) string {
	b := remote.Addr().Unmap().As4()
	// The kernel prints the address as a number in the machine's byte order: little-endian here.
	want := fmt.Sprintf("%02X%02X%02X%02X:%04X", b[3], b[2], b[1], b[0], remote.Port())
	for line := range strings.Lines(table) {
		if fields := strings.Fields(line); len(fields) > 9 && fields[2] == want && fields[9] != "0" {
			return fields[9]
		}
	}
	return ""
}
