package native

import (
	"bytes"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"os"
	"runtime"
	"runtime/debug"
	"sync"
)

// program tells apart builds of this program: another release, or another release of Go, may read, compute or write
// otherwise than the one that was compared with the libraries.
var program = sync.OnceValue(func() string { //nolint:gochecknoglobals // a constant
	sum := sha256.New()
	if err := hashProgram(sum); err != nil { // it is still known what it was made of
		info, _ := debug.ReadBuildInfo()
		return fmt.Sprintf("%s %v", runtime.Version(), info)
	}
	return fmt.Sprintf("%x", sum.Sum(nil))
})

func hashProgram(sum io.Writer) error {
	f, err := os.Open("/proc/self/exe") // also if the file has been replaced
	if err != nil {
		path, err := os.Executable()
		if err != nil {
			return err
		}
		if f, err = os.Open(path); err != nil {
			return err
		}
	}
	_, err = io.Copy(sum, f)
	return errors.Join(err, f.Close())
}

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
