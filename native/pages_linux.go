package native

import (
	"unsafe"

	"golang.org/x/sys/unix"
)

// hugePages allocates n elements, in large pages of memory if they are many: a walk through large trees meets another
// page with nearly every step.
func hugePages[T any](n int) []T {
	const page, huge = 4 << 10, 2 << 20
	list := make([]T, n)
	size := uintptr(n) * unsafe.Sizeof(*new(T))
	if size < 2*huge {
		return list
	}
	begin := -uintptr(unsafe.Pointer(&list[0])) & (page - 1) // to the next page
	region := unsafe.Slice((*byte)(unsafe.Add(unsafe.Pointer(&list[0]), begin)), (size-begin)&^(page-1))
	_ = unix.Madvise(region, unix.MADV_HUGEPAGE) // only advice
	return list
}
