package native

import (
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"slices"
)

// treesJSON describes a stage of kind "trees": trees whose leaves are added up in their order.
//
// A node has a column of the slot, or -1 for a leaf. Left of a leaf is the position of its values. A row goes left
// if its value is at most the threshold ("less": if it is less), else right.
type treesJSON struct {
	In int `json:"in"`
	// Float32 rounds the values of the slot to float32 first.
	Float32 bool `json:"float32,omitempty"`
	// Less compares by < instead of <=.
	Less bool `json:"less,omitempty"`
	// Finite refuses infinite values, also those that become infinite by rounding. NotNaN refuses NaN.
	Finite string `json:"finite,omitempty"`
	NotNaN string `json:"not_nan,omitempty"`
	// Zero makes values of at most this magnitude 0 (LightGBM).
	Zero float64 `json:"zero,omitempty"`
	// Outputs is the width of the result. Leaves have one value, which is added to the output in Group of the tree;
	// or, without Group, one value per output.
	Outputs int   `json:"outputs"`
	Group   Array `json:"group"`
	// Init is what the sums begin with, by output. Sums are float64, or float32 (Sum32).
	Init  Array `json:"init"`
	Sum32 bool  `json:"sum32,omitempty"`
	// Divide divides the sums at the end, unless it is 0.
	Divide float64 `json:"divide,omitempty"`
	Roots  Array   `json:"roots"`
	// By node.
	Feature   Array `json:"feature"`   // i32
	Threshold Array `json:"threshold"` // f64; the number of the set of a categorical node
	Left      Array `json:"left"`      // i32
	Right     Array `json:"right"`     // i32
	Mode      Array `json:"mode"`      // u8
	Values    Array `json:"values"`    // f64, of the leaves
	// Sets are the beginnings of the sets in Words, and the end of the last; bit i%32 of word i/32 is for category i.
	Sets  Array `json:"sets"`  // u32
	Words Array `json:"words"` // u32
	// Fractions: a category between -1 and 0 is 0 (LightGBM); else it is unknown (XGBoost).
	Fractions bool `json:"fractions,omitempty"`
}

// The modes of a node. The low bits tell what happens to a missing value.
const (
	nanRight     = 0
	nanLeft      = 1
	nanZero      = 2 // NaN is 0
	zeroRight    = 3 // NaN and 0 go right
	zeroLeft     = 4
	missingBits  = 7
	categorical  = 8
	setGoesLeft  = 16 // categorical: a member of the set goes left, another right; else the other way round
	unknownLeft  = 32 // categorical: a value that is no category goes left
	categoryBits = categorical | setGoesLeft | unknownLeft
)

const (
	lanes        = 8 // walks at once
	outputLimit  = 1 << 16
	treeLimit    = 1 << 24
	narrowColumn = math.MaxUint16 / lanes
)

// column is what nodes compare: a feature with what happens to its missing values. Column 0 is less than all
// thresholds: leaves compare it with anything and stay.
type column struct {
	feature int32
	mode    uint8
}

// categories are the columns of a categorical feature: words of bits, one bit per node, set if the node sends the
// category left. The bit of a node is the sign of its column shifted by the node.
type categories struct {
	feature int32
	first   int // column
	words   int // columns
	count   int // categories with a row in bits; then follow unknown and missing
	bits    []int64
}

// narrowNode is a node for values of float32: 8 bytes.
type narrowNode struct {
	key  int32  // of the threshold, or of a leaf: the position of its values
	col  uint16 // column times lanes
	next uint16 // offset of the left child; the right one follows it. 0 for a leaf
}

// wideNode is a node for any value: 16 bytes.
type wideNode struct {
	key  int64
	col  uint32 // column times lanes
	next uint32 // twice the offset of the left child; if there are categories, times 64, plus the shift of the node
}

const shiftBits = 6

type trees struct {
	treesJSON

	inputs   int
	count    int // trees
	init     []float64
	init32   []float32
	group    []uint32
	values   []float64
	values32 []float32
	roots    []uint32 // positions in narrow or wide; of unused trees up to a multiple of lanes
	depth    []uint32 // by tree
	depths   []uint32 // by eight trees: the largest
	narrow   []narrowNode
	wide     []wideNode
	columns  []column
	cats     []categories
	keyWidth int // columns, with those of categories
	vector   int // values per leaf
	squash   bool
}

// nodes are the arrays of a stage, checked.
type nodes struct {
	feature, left, right []int32
	threshold            []float64
	mode                 []uint8
	sets, words          []uint32
}

func newTrees(b *builder, raw json.RawMessage) (stage, error) {
	t := &trees{}
	if err := json.Unmarshal(raw, &t.treesJSON); err != nil {
		return nil, err
	}
	var err error
	if t.inputs, err = b.in(t.In); err != nil {
		return nil, err
	}
	var n nodes
	var roots []uint32
	for _, e := range []error{
		load(b.file, "init", t.Init, &t.init), load(b.file, "group", t.Group, &t.group), load(b.file, "values", t.Values, &t.values),
		load(b.file, "roots", t.Roots, &roots), load(b.file, "feature", t.Feature, &n.feature), load(b.file, "threshold", t.Threshold, &n.threshold),
		load(b.file, "left", t.Left, &n.left), load(b.file, "right", t.Right, &n.right), load(b.file, "mode", t.Mode, &n.mode),
		load(b.file, "sets", t.Sets, &n.sets), load(b.file, "words", t.Words, &n.words),
	} {
		if e != nil {
			return nil, e
		}
	}
	count := len(n.feature)
	switch {
	case t.Outputs < 1 || t.Outputs > outputLimit || len(t.init) != t.Outputs:
		return nil, fmt.Errorf("%d outputs with %d initial values", t.Outputs, len(t.init))
	case len(n.threshold) != count || len(n.left) != count || len(n.right) != count || len(n.mode) != count:
		return nil, errors.New("the arrays of the nodes differ in length")
	case len(roots) > treeLimit:
		return nil, fmt.Errorf("%d trees", len(roots))
	case t.group != nil && len(t.group) != len(roots):
		return nil, fmt.Errorf("%d groups for %d trees", len(t.group), len(roots))
	case t.group == nil && len(roots) > 0 && len(t.values)%t.Outputs != 0:
		return nil, fmt.Errorf("%d values of leaves for %d outputs", len(t.values), t.Outputs)
	case math.IsNaN(t.Divide) || math.IsNaN(t.Zero):
		return nil, errors.New("a parameter is not a number")
	}
	for _, g := range t.group {
		if int(g) >= t.Outputs {
			return nil, fmt.Errorf("group %d of %d outputs", g, t.Outputs)
		}
	}
	if t.vector = 1; t.group == nil {
		t.vector = t.Outputs
	}
	t.squash = t.Zero > 0
	if err := t.lay(&n, roots); err != nil {
		return nil, err
	}
	if t.Outputs == 1 {
		t.group = nil
	}
	for len(t.roots)%lanes != 0 {
		t.roots = append(t.roots, t.roots[0])
	}
	for first := 0; first < t.count; first += lanes {
		t.depths = append(t.depths, slices.Max(t.depth[first:min(first+lanes, t.count)]))
	}
	if t.Sum32 {
		t.values32, t.init32 = to32(t.values), to32(t.init)
	}
	return t, nil
}

func to32(values []float64) []float32 {
	list := make([]float32, len(values))
	for i, v := range values {
		list[i] = float32(v)
	}
	return list
}

func load[T float64 | float32 | int64 | int32 | uint32 | uint16 | uint8](f *file, name string, a Array, into *[]T) (err error) {
	*into, err = elements[T](f, name, a)
	return err
}

// set returns the words of a categorical node.
func (n *nodes) set(node int32) ([]uint32, error) {
	number := n.threshold[node]
	if !(number >= 0) || number != math.Trunc(number) || number >= float64(len(n.sets)-1) {
		return nil, fmt.Errorf("node %d: there is no set %v", node, number)
	}
	begin, end := n.sets[int(number)], n.sets[int(number)+1]
	if begin > end || int(end) > len(n.words) {
		return nil, fmt.Errorf("node %d: its set lies outside of the words", node)
	}
	return n.words[begin:end], nil
}

// lay checks all nodes and lays them out for the walk: by tree, breadth first, the right child after the left one.
func (t *trees) lay(n *nodes, roots []uint32) error {
	order := make([]int32, 0, len(n.feature)) // nodes of the file in the new order
	next := make([]uint32, 0, len(n.feature)) // by new position: the new position of the left child
	seen := make([]bool, len(n.feature))
	visit := func(node int64) error {
		if node < 0 || node >= int64(len(seen)) {
			return fmt.Errorf("there is no node %d", node)
		}
		if seen[node] {
			return fmt.Errorf("node %d has two parents", node)
		}
		seen[node] = true
		order, next = append(order, int32(node)), append(next, 0)
		return nil
	}
	columns := map[column]int{}
	narrow := t.Float32
	t.columns = []column{{feature: -1}}
	t.count, t.roots, t.depth = len(roots), make([]uint32, len(roots)), make([]uint32, len(roots))
	for tree, root := range roots {
		at := len(order)
		t.roots[tree] = uint32(at)
		if err := visit(int64(root)); err != nil {
			return fmt.Errorf("tree %d: %w", tree, err)
		}
		level := len(order) // the end of the current level of the tree
		for ; at < len(order); at++ {
			if at == level {
				level = len(order)
				t.depth[tree]++
			}
			node := order[at]
			feature := n.feature[node]
			if feature < 0 {
				if leaf := n.left[node]; leaf < 0 || (int64(leaf)+1)*int64(t.vector) > int64(len(t.values)) {
					return fmt.Errorf("tree %d: leaf %d has no values", tree, node)
				}
				continue
			}
			if int(feature) >= t.inputs {
				return fmt.Errorf("tree %d: node %d compares column %d of %d", tree, node, feature, t.inputs)
			}
			mode := n.mode[node]
			if mode&^(missingBits|categoryBits) != 0 || mode&missingBits > zeroLeft {
				return fmt.Errorf("tree %d: node %d has mode %d", tree, node, mode)
			}
			if mode&categorical != 0 {
				if _, err := n.set(node); err != nil {
					return fmt.Errorf("tree %d: %w", tree, err)
				}
				narrow = false
			} else {
				if math.IsNaN(n.threshold[node]) {
					return fmt.Errorf("tree %d: the threshold of node %d is not a number", tree, node)
				}
				c := column{feature, mode & missingBits}
				if _, ok := columns[c]; !ok {
					columns[c] = len(t.columns)
					t.columns = append(t.columns, c)
				}
			}
			offset := len(order) - at
			next[at] = uint32(offset)
			if offset >= 1<<(31-shiftBits) {
				return fmt.Errorf("tree %d is too large", tree)
			}
			for _, child := range [2]int32{n.left[node], n.right[node]} {
				if err := visit(int64(child)); err != nil {
					return fmt.Errorf("tree %d: %w", tree, err)
				}
			}
		}
		begin := t.roots[tree]
		cluster(order[begin:], next[begin:])
	}
	t.sortColumns(columns)
	catNodes := map[int32][]int32{} // by feature: its categorical nodes
	for at, node := range order {
		if feature := n.feature[node]; feature >= 0 && n.mode[node]&categorical != 0 {
			catNodes[feature] = append(catNodes[feature], int32(at))
		}
		narrow = narrow && next[at] <= math.MaxUint16
	}
	bit, err := t.layCategories(n, order, catNodes)
	if err != nil {
		return err
	}
	if t.keyWidth > widthLimit {
		return fmt.Errorf("%d columns", t.keyWidth)
	}
	if narrow = narrow && t.keyWidth <= narrowColumn; narrow {
		t.narrow = hugePages[narrowNode](len(order))[:0]
	} else {
		t.wide = hugePages[wideNode](len(order))[:0]
	}
	for at, node := range order {
		t.put(n, columns, bit, narrow, at, node, next[at])
	}
	return nil
}

// A large tree has its upper levels together, and below them clusters of clusterPairs pairs of nodes, one after the other: a
// walk then meets fewer lines of memory and fewer pages than it makes steps.
const (
	largeTree    = 256 // nodes
	upperPairs   = 31
	clusterPairs = 4
)

// cluster changes the order of a large tree's nodes from breadth first to that of clusters. next are the offsets of the
// left children.
func cluster(order []int32, next []uint32) {
	size := len(order)
	if size < largeTree {
		return
	}
	olds, position := make([]uint32, 1, size), make([]uint32, size) // by new position, by old one
	parents, queue := []uint32{0}, []uint32(nil)                    // whose children have no position yet
	for most := upperPairs; len(parents) > 0; most = clusterPairs {
		last := len(parents) - 1
		queue, parents = append(queue[:0], parents[last]), parents[:last]
		at := 0
		for ; at < len(queue) && at < most; at++ {
			child := queue[at] + next[queue[at]]
			for _, c := range [2]uint32{child, child + 1} {
				position[c] = uint32(len(olds))
				if olds = append(olds, c); next[c] != 0 {
					queue = append(queue, c)
				}
			}
		}
		for i := len(queue) - 1; i >= at; i-- {
			parents = append(parents, queue[i])
		}
	}
	newOrder, newNext := make([]int32, size), make([]uint32, size)
	for at, old := range olds {
		newOrder[at] = order[old]
		if next[old] != 0 {
			if newNext[at] = position[old+next[old]] - uint32(at); newNext[at] > math.MaxUint16 && size <= 2*math.MaxUint16 {
				return // the former order needs smaller offsets
			}
		}
	}
	copy(order, newOrder)
	copy(next, newNext)
}

// sortColumns orders the columns by feature, so that a row is read in order.
func (t *trees) sortColumns(numbers map[column]int) {
	slices.SortFunc(t.columns, func(a, b column) int {
		if a.feature != b.feature {
			return int(a.feature) - int(b.feature)
		}
		return int(a.mode) - int(b.mode)
	})
	for i, c := range t.columns[1:] {
		numbers[c] = i + 1
	}
}

// layCategories makes the tables of the categorical features, and tells each categorical node its bit, as a number of
// a column times 64 plus a shift.
func (t *trees) layCategories(n *nodes, order []int32, catNodes map[int32][]int32) (map[int32]int, error) {
	bit := map[int32]int{}
	features := make([]int32, 0, len(catNodes))
	for feature := range catNodes {
		features = append(features, feature)
	}
	slices.Sort(features)
	first, room := len(t.columns), 1<<20+16*(len(n.words)+len(n.feature))
	for _, feature := range features {
		list := catNodes[feature]
		c := categories{feature: feature, first: first, words: (len(list) + 63) / 64}
		for _, at := range list {
			set, _ := n.set(order[at])
			c.count = max(c.count, len(set)*32)
		}
		// Sets may share words in the file, so that a small file could describe large tables.
		if room -= (c.count + 2) * c.words; room < 0 {
			return nil, fmt.Errorf("column %d: the sets of its nodes are too large for its file", feature)
		}
		c.bits = make([]int64, (c.count+2)*c.words)
		for i, at := range list {
			word, shift := i/64, i%64
			bit[at] = (first+word)<<shiftBits | shift
			set, _ := n.set(order[at])
			mode := n.mode[order[at]]
			mark := int64(uint64(1) << (63 - shift))
			for category := range c.count + 2 {
				var right bool
				switch category {
				case c.count:
					right = mode&unknownLeft == 0
				case c.count + 1:
					right = mode&missingBits != nanLeft
				default:
					member := category/32 < len(set) && set[category/32]>>(category%32)&1 != 0
					right = member != (mode&setGoesLeft != 0)
					if category/32 >= len(set) {
						right = mode&unknownLeft == 0
					}
				}
				if !right {
					c.bits[category*c.words+word] |= mark
				}
			}
		}
		first += c.words
		t.cats = append(t.cats, c)
	}
	t.keyWidth = first
	return bit, nil
}

// put writes a node to its position.
func (t *trees) put(n *nodes, columns map[column]int, bit map[int32]int, narrow bool, at int, node int32, next uint32) {
	feature, mode := n.feature[node], n.mode[node]
	leaf := feature < 0
	switch {
	case narrow && leaf:
		t.narrow = append(t.narrow, narrowNode{key: n.left[node]})
	case narrow:
		c := columns[column{feature, mode & missingBits}]
		key := key32(floor32(n.threshold[node]))
		if t.Less {
			key--
		}
		t.narrow = append(t.narrow, narrowNode{key: key, col: uint16(c * lanes), next: uint16(next)})
	case leaf:
		t.wide = append(t.wide, wideNode{key: int64(n.left[node])})
	case mode&categorical != 0:
		b := bit[int32(at)]
		// A row goes right if its value is more than the key: shifted, its sign is the node's bit.
		t.wide = append(t.wide, wideNode{key: -1, col: uint32(b >> shiftBits * lanes), next: 2*next<<shiftBits | uint32(b&63)})
	default:
		c := columns[column{feature, mode & missingBits}]
		key := key64(n.threshold[node])
		if t.Less {
			key--
		}
		if next *= 2; t.cats != nil {
			next <<= shiftBits
		}
		t.wide = append(t.wide, wideNode{key: key, col: uint32(c * lanes), next: next})
	}
}

func (t *trees) width() int { return t.Outputs }

// key32 and key64 map numbers to integers of the same order; 0 and -0 to the same. NaN must not be given.
func key32(x float32) int32 {
	b := int32(math.Float32bits(x + 0))
	return b ^ (b >> 31 & math.MaxInt32)
}

func key64(x float64) int64 {
	b := int64(math.Float64bits(x + 0))
	return b ^ (b >> 63 & math.MaxInt64)
}

// floor32 is the largest float32 that is not more than x.
func floor32(x float64) float32 {
	f := float32(x)
	if float64(f) > x {
		f = math.Nextafter32(f, float32(math.Inf(-1)))
	}
	return f
}
