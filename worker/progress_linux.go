package worker

import (
	"fmt"
	"os"
	"strings"
)

// progressOf changes as long as a process does something: uses the processor,
// moves bytes, or wakes up from time to time. A process that hangs does not.
func progressOf(pid int) string {
	stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return "gone"
	}
	var sign strings.Builder
	if _, rest, ok := strings.Cut(string(stat), ") "); ok {
		// From field 3 on; the times of user and system are 14 and 15.
		if fields := strings.Fields(rest); len(fields) > 13 {
			sign.WriteString(fields[11] + " " + fields[12])
		}
	}
	if io, err := os.ReadFile(fmt.Sprintf("/proc/%d/io", pid)); err == nil {
		sign.Write(io)
	}
	if status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid)); err == nil {
		for line := range strings.Lines(string(status)) {
			if strings.Contains(line, "ctxt_switches") || strings.HasPrefix(line, "VmRSS") {
				sign.WriteString(line)
			}
		}
	}
	return sign.String()
}
