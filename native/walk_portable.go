package native

import "unsafe"

// The walks in Go, for processors that have no code of their own here; tests compare them with those that have.

// step is a form of nodes: its size, that of a key, and a step from a node to its child. next is the offset of the
// left child, 0 for a leaf.
type step interface {
	node() uintptr
	key() uintptr
	step(keys, at unsafe.Pointer) (next uintptr, to unsafe.Pointer)
}

type (
	narrowStep     struct{}
	wideStep       struct{}
	categoriesStep struct{}
)

func (narrowStep) node() uintptr     { return unsafe.Sizeof(narrowNode{}) }
func (narrowStep) key() uintptr      { return 4 }
func (wideStep) node() uintptr       { return unsafe.Sizeof(wideNode{}) }
func (wideStep) key() uintptr        { return 8 }
func (categoriesStep) node() uintptr { return unsafe.Sizeof(wideNode{}) }
func (categoriesStep) key() uintptr  { return 8 }

func (narrowStep) step(keys, at unsafe.Pointer) (next uintptr, to unsafe.Pointer) {
	node := (*narrowNode)(at)
	right := uintptr(0)
	if *(*int32)(unsafe.Add(keys, uintptr(node.col)*4)) > node.key {
		right = 1
	}
	next = uintptr(node.next)
	return next, unsafe.Add(at, (next+right)*8)
}

func (wideStep) step(keys, at unsafe.Pointer) (next uintptr, to unsafe.Pointer) {
	node := (*wideNode)(at)
	right := uintptr(0)
	if *(*int64)(unsafe.Add(keys, uintptr(node.col)*8)) > node.key {
		right = 1
	}
	next = uintptr(node.next)
	return next, unsafe.Add(at, (next+2*right)*8)
}

func (categoriesStep) step(keys, at unsafe.Pointer) (next uintptr, to unsafe.Pointer) {
	node := (*wideNode)(at)
	right := uintptr(0)
	if *(*int64)(unsafe.Add(keys, uintptr(node.col)*8))<<(node.next&63) > node.key {
		right = 1
	}
	next = uintptr(node.next >> shiftBits)
	return next, unsafe.Add(at, (next+2*right)*8)
}

func walkTrees[S step](nodes, keys unsafe.Pointer, roots *[lanes]uint32, depth int, leaves *[lanes]uint32) {
	var s S
	var at [lanes]unsafe.Pointer
	for lane, root := range roots {
		at[lane] = unsafe.Add(nodes, uintptr(root)*s.node())
	}
	walk[S](keys, 0, depth, &at, leaves)
}

func walkRows[S step](nodes, keys unsafe.Pointer, root uintptr, depth int, leaves *[lanes]uint32) {
	var s S
	var at [lanes]unsafe.Pointer
	for lane := range at {
		at[lane] = unsafe.Add(nodes, root*s.node())
	}
	walk[S](keys, s.key(), depth, &at, leaves)
}

func walk[S step](keys unsafe.Pointer, lane uintptr, depth int, at *[lanes]unsafe.Pointer, leaves *[lanes]uint32) {
	var s S
	for range depth {
		moved := uintptr(0)
		for i := range at {
			next, to := s.step(unsafe.Add(keys, uintptr(i)*lane), at[i])
			moved |= next
			at[i] = to
		}
		if moved == 0 {
			break
		}
	}
	for i, node := range at {
		leaves[i] = *(*uint32)(node) // the low half of a wide key
	}
}
