package native

import (
	"fmt"
	"math"
	"unsafe"
)

// The walk. A row's values become keys: integers that compare as the values do, one per column of the trees,
// with missing values as the least or the greatest key. Eight walks go on at once, so that the processor waits for
// memory once for all: those of eight rows in one tree, or of one row in eight trees. A step has no branch. A
// leaf's step leads to the leaf itself, until all have arrived.
//
// Keys are in groups of lanes, one group per column; the rows of a block are the lanes. Positions of nodes are checked
// when the trees are laid out, and the walk uses them without checks of bounds.

func (t *trees) run(r *run, out []float64) error {
	in := r.slots[t.In]
	if t.Finite != "" || t.NotNaN != "" {
		if err := t.refuse(in); err != nil {
			return err
		}
	}
	if !t.Sum32 {
		walkBlock(t, r, in, out, t.values, t.init)
	} else {
		sums := sized(&r.sums32, len(out))
		walkBlock(t, r, in, sums, t.values32, t.init32)
		for i, s := range sums {
			out[i] = float64(s)
		}
	}
	if t.Divide != 0 {
		for i := range out {
			out[i] /= t.Divide
		}
	}
	return nil
}

// refuse reports the first value that the library does not accept.
func (t *trees) refuse(in []float64) error {
	for i, x := range in {
		switch {
		case x-x == 0: // finite
			if t.Finite != "" && t.Float32 && math.Abs(x) > math.MaxFloat32 && math.IsInf(float64(float32(x)), 0) {
				return &InputError{Row: i / t.inputs, Column: i % t.inputs, Reason: fmt.Sprintf("%v is %s", x, t.Finite)}
			}
		case x != x:
			if t.NotNaN != "" {
				return &InputError{Row: i / t.inputs, Column: i % t.inputs, Reason: t.NotNaN}
			}
		case t.Finite != "":
			return &InputError{Row: i / t.inputs, Column: i % t.inputs, Reason: fmt.Sprintf("%v is %s", x, t.Finite)}
		}
	}
	return nil
}

// keyMemory is the memory for the keys of the rows that walk through a tree before the next tree's turn. A tree
// then stays in the processor's cache for all of them.
const keyMemory = 48 << 10

// walkBlock adds up the leaves of a block's rows.
func walkBlock[F float32 | float64](t *trees, r *run, in []float64, sums, values, init []F) {
	width, size := t.keyWidth*lanes, 8
	if t.narrow != nil {
		size = 4
	}
	for row := range r.rows {
		copy(sums[row*t.Outputs:(row+1)*t.Outputs], init)
	}
	for row := 0; row < r.rows; {
		groups := min((r.rows-row)/lanes, max(keyMemory/(width*size), 1))
		n := max(groups*lanes, 1)
		var keys unsafe.Pointer
		if t.narrow != nil {
			keys = unsafe.Pointer(&sized(&r.keys32, width*max(groups, 1))[0])
		} else {
			keys = unsafe.Pointer(&sized(&r.keys64, width*max(groups, 1))[0])
		}
		for i := range n {
			features, at := in[(row+i)*t.inputs:(row+i+1)*t.inputs], i/lanes*width+i%lanes
			if t.narrow != nil {
				t.fill32(r.keys32[at:], features)
			} else {
				t.fill64(r.keys64[at:], features)
			}
		}
		part := sums[row*t.Outputs : (row+n)*t.Outputs]
		if groups == 0 {
			sumTrees(t, keys, part, values)
		} else {
			sumRows(t, keys, uintptr(width*size), part, values)
		}
		row += n
	}
}

// sumTrees adds up the leaves of the row in lane 0, eight trees at a time.
func sumTrees[F float32 | float64](t *trees, keys unsafe.Pointer, sums, values []F) {
	var leaves [lanes]uint32
	for first := 0; first < t.count; first += lanes {
		roots, depth := (*[lanes]uint32)(t.roots[first:]), int(t.depths[first/lanes])
		switch {
		case t.narrow != nil:
			treesNarrow(unsafe.Pointer(&t.narrow[0]), keys, roots, depth, &leaves)
		case t.cats == nil:
			treesWide(unsafe.Pointer(&t.wide[0]), keys, roots, depth, &leaves)
		default:
			treesCategories(unsafe.Pointer(&t.wide[0]), keys, roots, depth, &leaves)
		}
		arrived := leaves[:min(lanes, t.count-first)]
		switch {
		case t.group != nil:
			for i, leaf := range arrived {
				sums[t.group[first+i]] += values[leaf]
			}
		case t.Outputs == 1:
			sum := sums[0]
			for _, leaf := range arrived {
				sum += values[leaf]
			}
			sums[0] = sum
		default:
			for _, leaf := range arrived {
				for k, v := range values[int(leaf)*t.Outputs:][:len(sums)] {
					sums[k] += v
				}
			}
		}
	}
}

// sumRows adds up the leaves of groups of eight rows, one tree at a time. stride is the size of a group's keys.
func sumRows[F float32 | float64](t *trees, keys unsafe.Pointer, stride uintptr, sums, values []F) {
	var leaves [lanes]uint32
	outputs := t.Outputs
	for tree := range t.count {
		root, depth := uintptr(t.roots[tree]), int(t.depth[tree])
		for at, offset := 0, uintptr(0); at < len(sums); at, offset = at+lanes*outputs, offset+stride {
			group := unsafe.Add(keys, offset)
			switch {
			case t.narrow != nil:
				rowsNarrow(unsafe.Pointer(&t.narrow[0]), group, root, depth, &leaves)
			case t.cats == nil:
				rowsWide(unsafe.Pointer(&t.wide[0]), group, root, depth, &leaves)
			default:
				rowsCategories(unsafe.Pointer(&t.wide[0]), group, root, depth, &leaves)
			}
			part := sums[at : at+lanes*outputs]
			switch {
			case t.group != nil:
				part = part[t.group[tree]:]
				for i, leaf := range leaves {
					part[i*outputs] += values[leaf]
				}
			case outputs == 1:
				part := (*[lanes]F)(part)
				for i, leaf := range leaves {
					part[i] += values[leaf]
				}
			default:
				for i, leaf := range leaves {
					part := part[i*outputs:][:outputs]
					for k, v := range values[int(leaf)*outputs:][:len(part)] {
						part[k] += v
					}
				}
			}
		}
	}
}

// fill32 writes the keys of a row to its lane.
func (t *trees) fill32(keys []int32, row []float64) {
	keys[0] = math.MinInt32
	for i, c := range t.columns[1:] {
		x := float32(row[c.feature])
		key := key32(x)
		if x != x {
			switch c.mode {
			case nanLeft, zeroLeft:
				key = math.MinInt32
			case nanZero:
				key = 0
			default:
				key = math.MaxInt32
			}
		} else if key == 0 {
			switch c.mode {
			case zeroLeft:
				key = math.MinInt32
			case zeroRight:
				key = math.MaxInt32
			}
		}
		keys[(i+1)*lanes] = key
	}
}

func (t *trees) fill64(keys []int64, row []float64) {
	keys[0] = math.MinInt64
	for i, c := range t.columns[1:] {
		keys[(i+1)*lanes] = t.key(row[c.feature], c.mode)
	}
	for i := range t.cats {
		c := &t.cats[i]
		words := c.bits[t.category(row[c.feature], c.count)*c.words:][:c.words]
		for w, word := range words {
			keys[(c.first+w)*lanes] = word
		}
	}
}

func (t *trees) key(x float64, mode uint8) int64 {
	if t.Float32 {
		x = float64(float32(x))
	}
	if t.squash && math.Abs(x) <= t.Zero {
		x = 0
	}
	if x != x {
		switch mode {
		case nanLeft, zeroLeft:
			return math.MinInt64
		case nanZero:
			return 0
		}
		return math.MaxInt64
	}
	key := key64(x)
	if key == 0 {
		switch mode {
		case zeroLeft:
			return math.MinInt64
		case zeroRight:
			return math.MaxInt64
		}
	}
	return key
}

// category is the row of a value in the table of a feature with count categories.
func (t *trees) category(x float64, count int) int {
	if t.Float32 {
		x = float64(float32(x))
	}
	switch {
	case x != x:
		return count + 1
	case x < 0 && !(t.Fractions && x > -1), x >= float64(count):
		return count
	}
	return int(x)
}
