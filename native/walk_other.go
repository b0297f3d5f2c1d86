//go:build !amd64

package native

import "unsafe"

func treesNarrow(nodes, keys unsafe.Pointer, roots *[lanes]uint32, depth int, leaves *[lanes]uint32) {
	walkTrees[narrowStep](nodes, keys, roots, depth, leaves)
}

func rowsNarrow(nodes, keys unsafe.Pointer, root uintptr, depth int, leaves *[lanes]uint32) {
	walkRows[narrowStep](nodes, keys, root, depth, leaves)
}

func treesWide(nodes, keys unsafe.Pointer, roots *[lanes]uint32, depth int, leaves *[lanes]uint32) {
	walkTrees[wideStep](nodes, keys, roots, depth, leaves)
}

func rowsWide(nodes, keys unsafe.Pointer, root uintptr, depth int, leaves *[lanes]uint32) {
	walkRows[wideStep](nodes, keys, root, depth, leaves)
}

func treesCategories(nodes, keys unsafe.Pointer, roots *[lanes]uint32, depth int, leaves *[lanes]uint32) {
	walkTrees[categoriesStep](nodes, keys, roots, depth, leaves)
}

func rowsCategories(nodes, keys unsafe.Pointer, root uintptr, depth int, leaves *[lanes]uint32) {
	walkRows[categoriesStep](nodes, keys, root, depth, leaves)
}
