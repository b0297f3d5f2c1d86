//go:build !linux

package process

// gpuCommand is unknown on this system.
func gpuCommand([]string) []string { return nil }

// health is unknown on this system.
func health(string) Health { return Health{} }
