package native

import "unsafe"

//go:noescape
func treesNarrow(nodes, keys unsafe.Pointer, roots *[lanes]uint32, depth int, leaves *[lanes]uint32)

//go:noescape
func rowsNarrow(nodes, keys unsafe.Pointer, root uintptr, depth int, leaves *[lanes]uint32)

//go:noescape
func treesWide(nodes, keys unsafe.Pointer, roots *[lanes]uint32, depth int, leaves *[lanes]uint32)

//go:noescape
func rowsWide(nodes, keys unsafe.Pointer, root uintptr, depth int, leaves *[lanes]uint32)

//go:noescape
func treesCategories(nodes, keys unsafe.Pointer, roots *[lanes]uint32, depth int, leaves *[lanes]uint32)

//go:noescape
func rowsCategories(nodes, keys unsafe.Pointer, root uintptr, depth int, leaves *[lanes]uint32)
