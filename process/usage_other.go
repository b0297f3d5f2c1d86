//go:build !linux

package process

// Usage is unknown on this system.
func Usage() (TreeUsage, bool) { return TreeUsage{}, false }

// UsageOf is unknown on this system.
func UsageOf(...int) map[int]TreeUsage { return nil }
