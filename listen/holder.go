package listen

import (
	"io/fs"
	"strconv"
	"strings"
)

// holder returns the process that listens on a port, by /proc. It is only for a message, so every
// error means "unknown": 0.
func holder(proc fs.FS, port uint16) (pid int, command string) {
	sockets := map[string]bool{}
	for _, table := range []string{"net/tcp", "net/tcp6"} {
		if data, err := fs.ReadFile(proc, table); err == nil {
			listening(data, port, sockets)
		}
	}
	if len(sockets) == 0 {
		return 0, ""
	}
	entries, err := fs.ReadDir(proc, ".")
	if err != nil {
		return 0, ""
	}
	for _, entry := range entries {
		pid, err := strconv.Atoi(entry.Name())
		if err != nil || pid <= 0 || !holds(proc, entry.Name(), sockets) {
			continue
		}
		// Only the short name: a command line may contain secrets.
		name, err := fs.ReadFile(proc, entry.Name()+"/comm")
		if err != nil {
			return pid, "unknown"
		}
		return pid, strings.TrimSpace(string(name))
	}
	return 0, ""
}

// listening adds the inodes of sockets that listen on the port, from a table as /proc/net/tcp
// (proc(5)): field 1 is address:port in hex, 3 the state, 9 the inode.
func listening(table []byte, port uint16, inodes map[string]bool) {
	const stateListen = "0A"
	for line := range strings.Lines(string(table)) {
		fields := strings.Fields(line)
		if len(fields) < 10 || fields[3] != stateListen {
			continue
		}
		_, hex, _ := strings.Cut(fields[1], ":")
		if p, err := strconv.ParseUint(hex, 16, 16); err == nil && uint16(p) == port {
			inodes[fields[9]] = true
		}
	}
}

// holds reports whether a process has one of the sockets open.
func holds(proc fs.FS, pid string, inodes map[string]bool) bool {
	descriptors, err := fs.ReadDir(proc, pid+"/fd")
	if err != nil {
		return false // a process of another user
	}
	for _, d := range descriptors {
		target, err := fs.ReadLink(proc, pid+"/fd/"+d.Name())
		if err != nil {
			continue
		}
		inode, isSocket := strings.CutPrefix(target, "socket:[")
		if isSocket && inodes[strings.TrimSuffix(inode, "]")] {
			return true
		}
	}
	return false
}
