//go:build !linux

package process

// Usage is unknown on this system.
func Usage() (TreeUsage, bool) { return TreeUsage{}, false }
