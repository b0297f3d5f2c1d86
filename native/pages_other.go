//go:build !linux

package native

func hugePages[T any](n int) []T { return make([]T, n) }
