//go:build !linux

package process

// Usage is not known here.
func Usage() (TreeUsage, bool) { return TreeUsage{}, false }
