package native

import (
	"bytes"
	"crypto/sha256"
	"fmt"
	"os"
)

// processor tells apart machines on which libraries may compute otherwise: by the processor's features, by which the C
// library and NumPy choose their functions, and by the system's release. It is "" where they are unknown.
func processor() string {
	sum := sha256.New()
	for name, prefixes := range map[string][]string{"/proc/cpuinfo": {"flags", "Features"}} {
		b, err := os.ReadFile(name)
		if err != nil {
			continue
		}
		for line := range bytes.Lines(b) {
			found := false
			for _, prefix := range prefixes {
				found = found || bytes.HasPrefix(line, []byte(prefix))
			}
			if found {
				sum.Write(line)
				break // all cores are the same
			}
		}
	}
	if b, err := os.ReadFile("/etc/os-release"); err == nil {
		sum.Write(b)
	}
	return fmt.Sprintf("%x", sum.Sum(nil)[:8])
}
