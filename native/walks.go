package native

import "unsafe"

// The six walks: of one row in eight trees or of eight rows in one tree, by the form of the nodes. They are written out,
// because a loop over the walks, or a function value for the step, would cost more than the step.

func treesNarrow(nodes, keys unsafe.Pointer, roots *[lanes]uint32, depth int, leaves *[lanes]uint32) {
	i0, i1, i2, i3, i4, i5, i6, i7 := uintptr(roots[0]), uintptr(roots[1]), uintptr(roots[2]), uintptr(roots[3]), uintptr(roots[4]), uintptr(roots[5]), uintptr(roots[6]), uintptr(roots[7])
	for ; depth > stepsPerCheck; depth -= stepsPerCheck {
		for range stepsPerCheck - 1 {
			i0 = stepNarrow(nodes, keys, i0)
			i1 = stepNarrow(nodes, keys, i1)
			i2 = stepNarrow(nodes, keys, i2)
			i3 = stepNarrow(nodes, keys, i3)
			i4 = stepNarrow(nodes, keys, i4)
			i5 = stepNarrow(nodes, keys, i5)
			i6 = stepNarrow(nodes, keys, i6)
			i7 = stepNarrow(nodes, keys, i7)
		}
		var moved, next uintptr
		next = stepNarrow(nodes, keys, i0)
		moved |= next ^ i0
		i0 = next
		next = stepNarrow(nodes, keys, i1)
		moved |= next ^ i1
		i1 = next
		next = stepNarrow(nodes, keys, i2)
		moved |= next ^ i2
		i2 = next
		next = stepNarrow(nodes, keys, i3)
		moved |= next ^ i3
		i3 = next
		next = stepNarrow(nodes, keys, i4)
		moved |= next ^ i4
		i4 = next
		next = stepNarrow(nodes, keys, i5)
		moved |= next ^ i5
		i5 = next
		next = stepNarrow(nodes, keys, i6)
		moved |= next ^ i6
		i6 = next
		next = stepNarrow(nodes, keys, i7)
		moved |= next ^ i7
		i7 = next
		if moved == 0 {
			depth = 0
			break
		}
	}
	for range depth {
		i0 = stepNarrow(nodes, keys, i0)
		i1 = stepNarrow(nodes, keys, i1)
		i2 = stepNarrow(nodes, keys, i2)
		i3 = stepNarrow(nodes, keys, i3)
		i4 = stepNarrow(nodes, keys, i4)
		i5 = stepNarrow(nodes, keys, i5)
		i6 = stepNarrow(nodes, keys, i6)
		i7 = stepNarrow(nodes, keys, i7)
	}
	leaves[0] = uint32((*narrowNode)(unsafe.Add(nodes, i0*8)).key)
	leaves[1] = uint32((*narrowNode)(unsafe.Add(nodes, i1*8)).key)
	leaves[2] = uint32((*narrowNode)(unsafe.Add(nodes, i2*8)).key)
	leaves[3] = uint32((*narrowNode)(unsafe.Add(nodes, i3*8)).key)
	leaves[4] = uint32((*narrowNode)(unsafe.Add(nodes, i4*8)).key)
	leaves[5] = uint32((*narrowNode)(unsafe.Add(nodes, i5*8)).key)
	leaves[6] = uint32((*narrowNode)(unsafe.Add(nodes, i6*8)).key)
	leaves[7] = uint32((*narrowNode)(unsafe.Add(nodes, i7*8)).key)
}

func rowsNarrow(nodes, keys unsafe.Pointer, root uintptr, depth int, leaves *[lanes]uint32) {
	i0, i1, i2, i3, i4, i5, i6, i7 := root, root, root, root, root, root, root, root
	for ; depth > stepsPerCheck; depth -= stepsPerCheck {
		for range stepsPerCheck - 1 {
			i0 = stepNarrow(nodes, keys, i0)
			i1 = stepNarrow(nodes, unsafe.Add(keys, 4), i1)
			i2 = stepNarrow(nodes, unsafe.Add(keys, 8), i2)
			i3 = stepNarrow(nodes, unsafe.Add(keys, 12), i3)
			i4 = stepNarrow(nodes, unsafe.Add(keys, 16), i4)
			i5 = stepNarrow(nodes, unsafe.Add(keys, 20), i5)
			i6 = stepNarrow(nodes, unsafe.Add(keys, 24), i6)
			i7 = stepNarrow(nodes, unsafe.Add(keys, 28), i7)
		}
		var moved, next uintptr
		next = stepNarrow(nodes, keys, i0)
		moved |= next ^ i0
		i0 = next
		next = stepNarrow(nodes, unsafe.Add(keys, 4), i1)
		moved |= next ^ i1
		i1 = next
		next = stepNarrow(nodes, unsafe.Add(keys, 8), i2)
		moved |= next ^ i2
		i2 = next
		next = stepNarrow(nodes, unsafe.Add(keys, 12), i3)
		moved |= next ^ i3
		i3 = next
		next = stepNarrow(nodes, unsafe.Add(keys, 16), i4)
		moved |= next ^ i4
		i4 = next
		next = stepNarrow(nodes, unsafe.Add(keys, 20), i5)
		moved |= next ^ i5
		i5 = next
		next = stepNarrow(nodes, unsafe.Add(keys, 24), i6)
		moved |= next ^ i6
		i6 = next
		next = stepNarrow(nodes, unsafe.Add(keys, 28), i7)
		moved |= next ^ i7
		i7 = next
		if moved == 0 {
			depth = 0
			break
		}
	}
	for range depth {
		i0 = stepNarrow(nodes, keys, i0)
		i1 = stepNarrow(nodes, unsafe.Add(keys, 4), i1)
		i2 = stepNarrow(nodes, unsafe.Add(keys, 8), i2)
		i3 = stepNarrow(nodes, unsafe.Add(keys, 12), i3)
		i4 = stepNarrow(nodes, unsafe.Add(keys, 16), i4)
		i5 = stepNarrow(nodes, unsafe.Add(keys, 20), i5)
		i6 = stepNarrow(nodes, unsafe.Add(keys, 24), i6)
		i7 = stepNarrow(nodes, unsafe.Add(keys, 28), i7)
	}
	leaves[0] = uint32((*narrowNode)(unsafe.Add(nodes, i0*8)).key)
	leaves[1] = uint32((*narrowNode)(unsafe.Add(nodes, i1*8)).key)
	leaves[2] = uint32((*narrowNode)(unsafe.Add(nodes, i2*8)).key)
	leaves[3] = uint32((*narrowNode)(unsafe.Add(nodes, i3*8)).key)
	leaves[4] = uint32((*narrowNode)(unsafe.Add(nodes, i4*8)).key)
	leaves[5] = uint32((*narrowNode)(unsafe.Add(nodes, i5*8)).key)
	leaves[6] = uint32((*narrowNode)(unsafe.Add(nodes, i6*8)).key)
	leaves[7] = uint32((*narrowNode)(unsafe.Add(nodes, i7*8)).key)
}

func treesWide(nodes, keys unsafe.Pointer, roots *[lanes]uint32, depth int, leaves *[lanes]uint32) {
	i0, i1, i2, i3, i4, i5, i6, i7 := uintptr(roots[0]), uintptr(roots[1]), uintptr(roots[2]), uintptr(roots[3]), uintptr(roots[4]), uintptr(roots[5]), uintptr(roots[6]), uintptr(roots[7])
	for ; depth > stepsPerCheck; depth -= stepsPerCheck {
		for range stepsPerCheck - 1 {
			i0 = stepWide(nodes, keys, i0)
			i1 = stepWide(nodes, keys, i1)
			i2 = stepWide(nodes, keys, i2)
			i3 = stepWide(nodes, keys, i3)
			i4 = stepWide(nodes, keys, i4)
			i5 = stepWide(nodes, keys, i5)
			i6 = stepWide(nodes, keys, i6)
			i7 = stepWide(nodes, keys, i7)
		}
		var moved, next uintptr
		next = stepWide(nodes, keys, i0)
		moved |= next ^ i0
		i0 = next
		next = stepWide(nodes, keys, i1)
		moved |= next ^ i1
		i1 = next
		next = stepWide(nodes, keys, i2)
		moved |= next ^ i2
		i2 = next
		next = stepWide(nodes, keys, i3)
		moved |= next ^ i3
		i3 = next
		next = stepWide(nodes, keys, i4)
		moved |= next ^ i4
		i4 = next
		next = stepWide(nodes, keys, i5)
		moved |= next ^ i5
		i5 = next
		next = stepWide(nodes, keys, i6)
		moved |= next ^ i6
		i6 = next
		next = stepWide(nodes, keys, i7)
		moved |= next ^ i7
		i7 = next
		if moved == 0 {
			depth = 0
			break
		}
	}
	for range depth {
		i0 = stepWide(nodes, keys, i0)
		i1 = stepWide(nodes, keys, i1)
		i2 = stepWide(nodes, keys, i2)
		i3 = stepWide(nodes, keys, i3)
		i4 = stepWide(nodes, keys, i4)
		i5 = stepWide(nodes, keys, i5)
		i6 = stepWide(nodes, keys, i6)
		i7 = stepWide(nodes, keys, i7)
	}
	leaves[0] = uint32((*wideNode)(unsafe.Add(nodes, i0*16)).key)
	leaves[1] = uint32((*wideNode)(unsafe.Add(nodes, i1*16)).key)
	leaves[2] = uint32((*wideNode)(unsafe.Add(nodes, i2*16)).key)
	leaves[3] = uint32((*wideNode)(unsafe.Add(nodes, i3*16)).key)
	leaves[4] = uint32((*wideNode)(unsafe.Add(nodes, i4*16)).key)
	leaves[5] = uint32((*wideNode)(unsafe.Add(nodes, i5*16)).key)
	leaves[6] = uint32((*wideNode)(unsafe.Add(nodes, i6*16)).key)
	leaves[7] = uint32((*wideNode)(unsafe.Add(nodes, i7*16)).key)
}

func rowsWide(nodes, keys unsafe.Pointer, root uintptr, depth int, leaves *[lanes]uint32) {
	i0, i1, i2, i3, i4, i5, i6, i7 := root, root, root, root, root, root, root, root
	for ; depth > stepsPerCheck; depth -= stepsPerCheck {
		for range stepsPerCheck - 1 {
			i0 = stepWide(nodes, keys, i0)
			i1 = stepWide(nodes, unsafe.Add(keys, 8), i1)
			i2 = stepWide(nodes, unsafe.Add(keys, 16), i2)
			i3 = stepWide(nodes, unsafe.Add(keys, 24), i3)
			i4 = stepWide(nodes, unsafe.Add(keys, 32), i4)
			i5 = stepWide(nodes, unsafe.Add(keys, 40), i5)
			i6 = stepWide(nodes, unsafe.Add(keys, 48), i6)
			i7 = stepWide(nodes, unsafe.Add(keys, 56), i7)
		}
		var moved, next uintptr
		next = stepWide(nodes, keys, i0)
		moved |= next ^ i0
		i0 = next
		next = stepWide(nodes, unsafe.Add(keys, 8), i1)
		moved |= next ^ i1
		i1 = next
		next = stepWide(nodes, unsafe.Add(keys, 16), i2)
		moved |= next ^ i2
		i2 = next
		next = stepWide(nodes, unsafe.Add(keys, 24), i3)
		moved |= next ^ i3
		i3 = next
		next = stepWide(nodes, unsafe.Add(keys, 32), i4)
		moved |= next ^ i4
		i4 = next
		next = stepWide(nodes, unsafe.Add(keys, 40), i5)
		moved |= next ^ i5
		i5 = next
		next = stepWide(nodes, unsafe.Add(keys, 48), i6)
		moved |= next ^ i6
		i6 = next
		next = stepWide(nodes, unsafe.Add(keys, 56), i7)
		moved |= next ^ i7
		i7 = next
		if moved == 0 {
			depth = 0
			break
		}
	}
	for range depth {
		i0 = stepWide(nodes, keys, i0)
		i1 = stepWide(nodes, unsafe.Add(keys, 8), i1)
		i2 = stepWide(nodes, unsafe.Add(keys, 16), i2)
		i3 = stepWide(nodes, unsafe.Add(keys, 24), i3)
		i4 = stepWide(nodes, unsafe.Add(keys, 32), i4)
		i5 = stepWide(nodes, unsafe.Add(keys, 40), i5)
		i6 = stepWide(nodes, unsafe.Add(keys, 48), i6)
		i7 = stepWide(nodes, unsafe.Add(keys, 56), i7)
	}
	leaves[0] = uint32((*wideNode)(unsafe.Add(nodes, i0*16)).key)
	leaves[1] = uint32((*wideNode)(unsafe.Add(nodes, i1*16)).key)
	leaves[2] = uint32((*wideNode)(unsafe.Add(nodes, i2*16)).key)
	leaves[3] = uint32((*wideNode)(unsafe.Add(nodes, i3*16)).key)
	leaves[4] = uint32((*wideNode)(unsafe.Add(nodes, i4*16)).key)
	leaves[5] = uint32((*wideNode)(unsafe.Add(nodes, i5*16)).key)
	leaves[6] = uint32((*wideNode)(unsafe.Add(nodes, i6*16)).key)
	leaves[7] = uint32((*wideNode)(unsafe.Add(nodes, i7*16)).key)
}

func treesCategories(nodes, keys unsafe.Pointer, roots *[lanes]uint32, depth int, leaves *[lanes]uint32) {
	i0, i1, i2, i3, i4, i5, i6, i7 := uintptr(roots[0]), uintptr(roots[1]), uintptr(roots[2]), uintptr(roots[3]), uintptr(roots[4]), uintptr(roots[5]), uintptr(roots[6]), uintptr(roots[7])
	for ; depth > stepsPerCheck; depth -= stepsPerCheck {
		for range stepsPerCheck - 1 {
			i0 = stepCategories(nodes, keys, i0)
			i1 = stepCategories(nodes, keys, i1)
			i2 = stepCategories(nodes, keys, i2)
			i3 = stepCategories(nodes, keys, i3)
			i4 = stepCategories(nodes, keys, i4)
			i5 = stepCategories(nodes, keys, i5)
			i6 = stepCategories(nodes, keys, i6)
			i7 = stepCategories(nodes, keys, i7)
		}
		var moved, next uintptr
		next = stepCategories(nodes, keys, i0)
		moved |= next ^ i0
		i0 = next
		next = stepCategories(nodes, keys, i1)
		moved |= next ^ i1
		i1 = next
		next = stepCategories(nodes, keys, i2)
		moved |= next ^ i2
		i2 = next
		next = stepCategories(nodes, keys, i3)
		moved |= next ^ i3
		i3 = next
		next = stepCategories(nodes, keys, i4)
		moved |= next ^ i4
		i4 = next
		next = stepCategories(nodes, keys, i5)
		moved |= next ^ i5
		i5 = next
		next = stepCategories(nodes, keys, i6)
		moved |= next ^ i6
		i6 = next
		next = stepCategories(nodes, keys, i7)
		moved |= next ^ i7
		i7 = next
		if moved == 0 {
			depth = 0
			break
		}
	}
	for range depth {
		i0 = stepCategories(nodes, keys, i0)
		i1 = stepCategories(nodes, keys, i1)
		i2 = stepCategories(nodes, keys, i2)
		i3 = stepCategories(nodes, keys, i3)
		i4 = stepCategories(nodes, keys, i4)
		i5 = stepCategories(nodes, keys, i5)
		i6 = stepCategories(nodes, keys, i6)
		i7 = stepCategories(nodes, keys, i7)
	}
	leaves[0] = uint32((*wideNode)(unsafe.Add(nodes, i0*16)).key)
	leaves[1] = uint32((*wideNode)(unsafe.Add(nodes, i1*16)).key)
	leaves[2] = uint32((*wideNode)(unsafe.Add(nodes, i2*16)).key)
	leaves[3] = uint32((*wideNode)(unsafe.Add(nodes, i3*16)).key)
	leaves[4] = uint32((*wideNode)(unsafe.Add(nodes, i4*16)).key)
	leaves[5] = uint32((*wideNode)(unsafe.Add(nodes, i5*16)).key)
	leaves[6] = uint32((*wideNode)(unsafe.Add(nodes, i6*16)).key)
	leaves[7] = uint32((*wideNode)(unsafe.Add(nodes, i7*16)).key)
}

func rowsCategories(nodes, keys unsafe.Pointer, root uintptr, depth int, leaves *[lanes]uint32) {
	i0, i1, i2, i3, i4, i5, i6, i7 := root, root, root, root, root, root, root, root
	for ; depth > stepsPerCheck; depth -= stepsPerCheck {
		for range stepsPerCheck - 1 {
			i0 = stepCategories(nodes, keys, i0)
			i1 = stepCategories(nodes, unsafe.Add(keys, 8), i1)
			i2 = stepCategories(nodes, unsafe.Add(keys, 16), i2)
			i3 = stepCategories(nodes, unsafe.Add(keys, 24), i3)
			i4 = stepCategories(nodes, unsafe.Add(keys, 32), i4)
			i5 = stepCategories(nodes, unsafe.Add(keys, 40), i5)
			i6 = stepCategories(nodes, unsafe.Add(keys, 48), i6)
			i7 = stepCategories(nodes, unsafe.Add(keys, 56), i7)
		}
		var moved, next uintptr
		next = stepCategories(nodes, keys, i0)
		moved |= next ^ i0
		i0 = next
		next = stepCategories(nodes, unsafe.Add(keys, 8), i1)
		moved |= next ^ i1
		i1 = next
		next = stepCategories(nodes, unsafe.Add(keys, 16), i2)
		moved |= next ^ i2
		i2 = next
		next = stepCategories(nodes, unsafe.Add(keys, 24), i3)
		moved |= next ^ i3
		i3 = next
		next = stepCategories(nodes, unsafe.Add(keys, 32), i4)
		moved |= next ^ i4
		i4 = next
		next = stepCategories(nodes, unsafe.Add(keys, 40), i5)
		moved |= next ^ i5
		i5 = next
		next = stepCategories(nodes, unsafe.Add(keys, 48), i6)
		moved |= next ^ i6
		i6 = next
		next = stepCategories(nodes, unsafe.Add(keys, 56), i7)
		moved |= next ^ i7
		i7 = next
		if moved == 0 {
			depth = 0
			break
		}
	}
	for range depth {
		i0 = stepCategories(nodes, keys, i0)
		i1 = stepCategories(nodes, unsafe.Add(keys, 8), i1)
		i2 = stepCategories(nodes, unsafe.Add(keys, 16), i2)
		i3 = stepCategories(nodes, unsafe.Add(keys, 24), i3)
		i4 = stepCategories(nodes, unsafe.Add(keys, 32), i4)
		i5 = stepCategories(nodes, unsafe.Add(keys, 40), i5)
		i6 = stepCategories(nodes, unsafe.Add(keys, 48), i6)
		i7 = stepCategories(nodes, unsafe.Add(keys, 56), i7)
	}
	leaves[0] = uint32((*wideNode)(unsafe.Add(nodes, i0*16)).key)
	leaves[1] = uint32((*wideNode)(unsafe.Add(nodes, i1*16)).key)
	leaves[2] = uint32((*wideNode)(unsafe.Add(nodes, i2*16)).key)
	leaves[3] = uint32((*wideNode)(unsafe.Add(nodes, i3*16)).key)
	leaves[4] = uint32((*wideNode)(unsafe.Add(nodes, i4*16)).key)
	leaves[5] = uint32((*wideNode)(unsafe.Add(nodes, i5*16)).key)
	leaves[6] = uint32((*wideNode)(unsafe.Add(nodes, i6*16)).key)
	leaves[7] = uint32((*wideNode)(unsafe.Add(nodes, i7*16)).key)
}
