package native

import (
	"math/rand/v2"
	"testing"
	"unsafe"
)

// TestTheWalksOfThisProcessorAgreeWithThoseInGo compares them on random trees and keys.
func TestTheWalksOfThisProcessorAgreeWithThoseInGo(t *testing.T) {
	random := rand.New(rand.NewPCG(1, 2))
	const columns = 7
	for range 2000 {
		size := 2*random.IntN(60) + 1 // nodes of a tree
		narrow, wide, categories := make([]narrowNode, size), make([]wideNode, size), make([]wideNode, size)
		depth, depths := 0, make([]int, size)
		for at, open := 0, 1; at < size; at++ {
			// The nodes from at up to open wait for their form.
			col := (1 + random.IntN(columns-1)) * lanes
			if open < size && (at == open-1 || random.IntN(3) > 0) {
				next, key, shift := open-at, random.IntN(200)-100, random.IntN(64)
				narrow[at] = narrowNode{key: int32(key), col: uint16(col), next: uint16(next)}
				wide[at] = wideNode{key: int64(key) << 40, col: uint32(col), next: uint32(2 * next)}
				categories[at] = wideNode{key: int64(key) << 40, col: uint32(col), next: uint32(2 * next << shiftBits)}
				if shift > 40 {
					categories[at].key, categories[at].next = -1, categories[at].next|uint32(shift)
				}
				depths[open], depths[open+1] = depths[at]+1, depths[at]+1
				open += 2
			} else {
				narrow[at], wide[at], categories[at] = narrowNode{key: int32(at)}, wideNode{key: int64(at)}, wideNode{key: int64(at)}
			}
			depth = max(depth, depths[at])
		}
		keys32, keys64 := make([]int32, columns*lanes), make([]int64, columns*lanes)
		for i := range keys32 {
			key := random.IntN(200) - 100
			if i < lanes {
				keys32[i], keys64[i] = -1<<31, -1<<63
			} else {
				keys32[i], keys64[i] = int32(key), int64(key)<<40
			}
		}
		k32, k64 := unsafe.Pointer(&keys32[0]), unsafe.Pointer(&keys64[0])
		roots := &[lanes]uint32{}
		var got, want [lanes]uint32
		compare := func(name string) {
			if got != want {
				t.Fatalf("%s: %v, and in Go %v", name, got, want)
			}
		}
		n, w, c := unsafe.Pointer(&narrow[0]), unsafe.Pointer(&wide[0]), unsafe.Pointer(&categories[0])
		treesNarrow(n, k32, roots, depth, &got)
		walkTrees[narrowStep](n, k32, roots, depth, &want)
		compare("treesNarrow")
		rowsNarrow(n, k32, 0, depth, &got)
		walkRows[narrowStep](n, k32, 0, depth, &want)
		compare("rowsNarrow")
		treesWide(w, k64, roots, depth, &got)
		walkTrees[wideStep](w, k64, roots, depth, &want)
		compare("treesWide")
		rowsWide(w, k64, 0, depth, &got)
		walkRows[wideStep](w, k64, 0, depth, &want)
		compare("rowsWide")
		treesCategories(c, k64, roots, depth, &got)
		walkTrees[categoriesStep](c, k64, roots, depth, &want)
		compare("treesCategories")
		rowsCategories(c, k64, 0, depth, &got)
		walkRows[categoriesStep](c, k64, 0, depth, &want)
		compare("rowsCategories")
	}
}
