//go:build !linux

package process

// StatOf knows nothing on this system: no process is limited, or inspected for being stopped.
func StatOf(int) (Stat, bool) { return Stat{}, false }

// All knows no process on this system.
func All() Table { return nil }

// CommandLine knows no command line on this system.
func CommandLine(int) string { return "" }
