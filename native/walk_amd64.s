#include "textflag.h"

// The walks of walk.go for this processor. SI are the keys, DI counts the steps that are left, R8 to R15 are the nodes
// of the eight walks; DX collects the offsets of their children: 0 if all nodes are leaves. The compiler's code for
// the same keeps half of the walks in memory.

// NARROW is a step of one walk: offset is that of its lane in the keys.
#define NARROW(node, offset) \
	MOVWLZX 4(node), AX           \
	MOVL    offset(SI)(AX*4), AX  \
	XORL    CX, CX                \
	MOVWLZX 6(node), BX           \
	ORL     BX, DX                \
	CMPL    AX, (node)            \
	SETGT   CX                    \
	ADDL    BX, CX                \
	LEAQ    (node)(CX*8), node

#define WIDE(node, offset) \
	MOVL  8(node), AX           \
	MOVQ  offset(SI)(AX*8), AX  \
	XORL  CX, CX                \
	MOVL  12(node), BX          \
	ORL   BX, DX                \
	CMPQ  AX, (node)            \
	SETGT CX                    \
	LEAQ  (BX)(CX*2), CX        \
	LEAQ  (node)(CX*8), node

// CATEGORIES shifts the key first, by the low bits of the node's last word.
#define CATEGORIES(node, offset) \
	MOVL  8(node), AX           \
	MOVL  12(node), CX          \
	MOVQ  offset(SI)(AX*8), AX  \
	XORL  BX, BX                \
	SHLQ  CX, AX                \
	SHRL  $6, CX                \
	ORL   CX, DX                \
	CMPQ  AX, (node)            \
	SETGT BX                    \
	LEAQ  (CX)(BX*2), CX        \
	LEAQ  (node)(CX*8), node

// ROOTS begins eight walks at the roots of eight trees, ROOT eight walks at that of one tree; shift is that of a
// node's size.
#define ONE(node, offset, shift) \
	MOVL offset(BX), node \
	SHLQ $shift, node     \
	ADDQ AX, node

#define ROOTS(shift) \
	ONE(R8, 0, shift) \
	ONE(R9, 4, shift) \
	ONE(R10, 8, shift) \
	ONE(R11, 12, shift) \
	ONE(R12, 16, shift) \
	ONE(R13, 20, shift) \
	ONE(R14, 24, shift) \
	ONE(R15, 28, shift)

#define ROOT(shift) \
	SHLQ $shift, BX \
	ADDQ BX, AX     \
	MOVQ AX, R8 \
	MOVQ AX, R9 \
	MOVQ AX, R10 \
	MOVQ AX, R11 \
	MOVQ AX, R12 \
	MOVQ AX, R13 \
	MOVQ AX, R14 \
	MOVQ AX, R15

// LEAVES stores the first words of the nodes in which the walks ended.
#define LEAF(node, offset) \
	MOVL (node), CX \
	MOVL CX, offset(AX)

#define LEAVES \
	LEAF(R8, 0) \
	LEAF(R9, 4) \
	LEAF(R10, 8) \
	LEAF(R11, 12) \
	LEAF(R12, 16) \
	LEAF(R13, 20) \
	LEAF(R14, 24) \
	LEAF(R15, 28)

// func treesNarrow(nodes, keys unsafe.Pointer, roots *[8]uint32, depth int, leaves *[8]uint32)
TEXT ·treesNarrow(SB), NOSPLIT, $0-40
	MOVQ nodes+0(FP), AX
	MOVQ keys+8(FP), SI
	MOVQ roots+16(FP), BX
	ROOTS(3)
	MOVQ depth+24(FP), DI
	TESTQ DI, DI
	JZ   arrived

step:
	XORL DX, DX
	NARROW(R8, 0)
	NARROW(R9, 0)
	NARROW(R10, 0)
	NARROW(R11, 0)
	NARROW(R12, 0)
	NARROW(R13, 0)
	NARROW(R14, 0)
	NARROW(R15, 0)
	TESTL DX, DX
	JZ    arrived
	DECQ  DI
	JNZ   step

arrived:
	MOVQ leaves+32(FP), AX
	LEAVES
	RET

// func rowsNarrow(nodes, keys unsafe.Pointer, root uintptr, depth int, leaves *[8]uint32)
TEXT ·rowsNarrow(SB), NOSPLIT, $0-40
	MOVQ nodes+0(FP), AX
	MOVQ keys+8(FP), SI
	MOVQ root+16(FP), BX
	ROOT(3)
	MOVQ depth+24(FP), DI
	TESTQ DI, DI
	JZ   arrived

step:
	XORL DX, DX
	NARROW(R8, 0)
	NARROW(R9, 4)
	NARROW(R10, 8)
	NARROW(R11, 12)
	NARROW(R12, 16)
	NARROW(R13, 20)
	NARROW(R14, 24)
	NARROW(R15, 28)
	TESTL DX, DX
	JZ    arrived
	DECQ  DI
	JNZ   step

arrived:
	MOVQ leaves+32(FP), AX
	LEAVES
	RET

// func treesWide(nodes, keys unsafe.Pointer, roots *[8]uint32, depth int, leaves *[8]uint32)
TEXT ·treesWide(SB), NOSPLIT, $0-40
	MOVQ nodes+0(FP), AX
	MOVQ keys+8(FP), SI
	MOVQ roots+16(FP), BX
	ROOTS(4)
	MOVQ depth+24(FP), DI
	TESTQ DI, DI
	JZ   arrived

step:
	XORL DX, DX
	WIDE(R8, 0)
	WIDE(R9, 0)
	WIDE(R10, 0)
	WIDE(R11, 0)
	WIDE(R12, 0)
	WIDE(R13, 0)
	WIDE(R14, 0)
	WIDE(R15, 0)
	TESTL DX, DX
	JZ    arrived
	DECQ  DI
	JNZ   step

arrived:
	MOVQ leaves+32(FP), AX
	LEAVES
	RET

// func rowsWide(nodes, keys unsafe.Pointer, root uintptr, depth int, leaves *[8]uint32)
TEXT ·rowsWide(SB), NOSPLIT, $0-40
	MOVQ nodes+0(FP), AX
	MOVQ keys+8(FP), SI
	MOVQ root+16(FP), BX
	ROOT(4)
	MOVQ depth+24(FP), DI
	TESTQ DI, DI
	JZ   arrived

step:
	XORL DX, DX
	WIDE(R8, 0)
	WIDE(R9, 8)
	WIDE(R10, 16)
	WIDE(R11, 24)
	WIDE(R12, 32)
	WIDE(R13, 40)
	WIDE(R14, 48)
	WIDE(R15, 56)
	TESTL DX, DX
	JZ    arrived
	DECQ  DI
	JNZ   step

arrived:
	MOVQ leaves+32(FP), AX
	LEAVES
	RET

// func treesCategories(nodes, keys unsafe.Pointer, roots *[8]uint32, depth int, leaves *[8]uint32)
TEXT ·treesCategories(SB), NOSPLIT, $0-40
	MOVQ nodes+0(FP), AX
	MOVQ keys+8(FP), SI
	MOVQ roots+16(FP), BX
	ROOTS(4)
	MOVQ depth+24(FP), DI
	TESTQ DI, DI
	JZ   arrived

step:
	XORL DX, DX
	CATEGORIES(R8, 0)
	CATEGORIES(R9, 0)
	CATEGORIES(R10, 0)
	CATEGORIES(R11, 0)
	CATEGORIES(R12, 0)
	CATEGORIES(R13, 0)
	CATEGORIES(R14, 0)
	CATEGORIES(R15, 0)
	TESTL DX, DX
	JZ    arrived
	DECQ  DI
	JNZ   step

arrived:
	MOVQ leaves+32(FP), AX
	LEAVES
	RET

// func rowsCategories(nodes, keys unsafe.Pointer, root uintptr, depth int, leaves *[8]uint32)
TEXT ·rowsCategories(SB), NOSPLIT, $0-40
	MOVQ nodes+0(FP), AX
	MOVQ keys+8(FP), SI
	MOVQ root+16(FP), BX
	ROOT(4)
	MOVQ depth+24(FP), DI
	TESTQ DI, DI
	JZ   arrived

step:
	XORL DX, DX
	CATEGORIES(R8, 0)
	CATEGORIES(R9, 8)
	CATEGORIES(R10, 16)
	CATEGORIES(R11, 24)
	CATEGORIES(R12, 32)
	CATEGORIES(R13, 40)
	CATEGORIES(R14, 48)
	CATEGORIES(R15, 56)
	TESTL DX, DX
	JZ    arrived
	DECQ  DI
	JNZ   step

arrived:
	MOVQ leaves+32(FP), AX
	LEAVES
	RET
