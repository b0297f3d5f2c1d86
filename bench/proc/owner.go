package proc

import (
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"strconv"
	"strings"
)

// Owner tells which process below pid holds the server's end of a connection on
// IPv4, given the client's end; 0 while none has taken it.
func Owner(pid int, client netip.AddrPort) (int, error) {
	table, err := os.ReadFile("/proc/net/tcp")
	if err != nil {
		return 0, fmt.Errorf("find who took a connection: %w", err)
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

// inodeOf finds the socket whose other end is remote in the text of
// /proc/net/tcp; "" when there is none or it has not been accepted.
func inodeOf(table string, remote netip.AddrPort) string {
	b := remote.Addr().Unmap().As4()
	// The kernel prints the address as a number of the machine's order: little-endian here.
	want := fmt.Sprintf("%02X%02X%02X%02X:%04X", b[3], b[2], b[1], b[0], remote.Port())
	for line := range strings.Lines(table) {
		if fields := strings.Fields(line); len(fields) > 9 && fields[2] == want && fields[9] != "0" {
			return fields[9]
		}
	}
	return ""
}
