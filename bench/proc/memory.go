package proc

import (
	"fmt"
	"os"
	"strconv"
	"strings"
)

// PSS is the memory of a process and all its descendants in bytes, with shared pages divided among
// their processes.
func PSS(pid int) (int64, error) {
	var sum int64
	for _, id := range Tree(pid) {
		text, err := os.ReadFile("/proc/" + strconv.Itoa(id) + "/smaps_rollup")
		if err != nil || len(text) == 0 {
			continue // it has ended
		}
		n, err := pssOf(string(text))
		if err != nil {
			return 0, fmt.Errorf("read the memory of process %d: %w", id, err)
		}
		sum += n
	}
	if sum == 0 {
		return 0, fmt.Errorf("read the memory of process %d: it has ended", pid)
	}
	return sum, nil
}

// pssOf reads the line "Pss:  1234 kB".
func pssOf(rollup string) (int64, error) {
	for line := range strings.Lines(rollup) {
		fields := strings.Fields(line)
		if len(fields) == 3 && fields[0] == "Pss:" && fields[2] == "kB" {
			n, err := strconv.ParseInt(fields[1], 10, 64)
			return n << 10, err
		}
	}
	return 0, fmt.Errorf("no line \"Pss: … kB\" in %.80q", rollup)
}
