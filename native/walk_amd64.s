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

// func treesNarrow(nodes, keys unsafe.Pointer, roots *[8]uint32, depth int, leaves *[8]uint32)
TEXT ·treesNarrow(SB), NOSPLIT, $0-40
	MOVQ nodes+0(FP), AX
	MOVQ keys+8(FP), SI
	MOVQ roots+16(FP), BX
	MOVL 0(BX), R8
	SHLQ $3, R8
	ADDQ AX, R8
	MOVL 4(BX), R9
	SHLQ $3, R9
	ADDQ AX, R9
	MOVL 8(BX), R10
	SHLQ $3, R10
	ADDQ AX, R10
	MOVL 12(BX), R11
	SHLQ $3, R11
	ADDQ AX, R11
	MOVL 16(BX), R12
	SHLQ $3, R12
	ADDQ AX, R12
	MOVL 20(BX), R13
	SHLQ $3, R13
	ADDQ AX, R13
	MOVL 24(BX), R14
	SHLQ $3, R14
	ADDQ AX, R14
	MOVL 28(BX), R15
	SHLQ $3, R15
	ADDQ AX, R15
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
	MOVL (R8), CX
	MOVL CX, 0(AX)
	MOVL (R9), CX
	MOVL CX, 4(AX)
	MOVL (R10), CX
	MOVL CX, 8(AX)
	MOVL (R11), CX
	MOVL CX, 12(AX)
	MOVL (R12), CX
	MOVL CX, 16(AX)
	MOVL (R13), CX
	MOVL CX, 20(AX)
	MOVL (R14), CX
	MOVL CX, 24(AX)
	MOVL (R15), CX
	MOVL CX, 28(AX)
	RET

// func rowsNarrow(nodes, keys unsafe.Pointer, root uintptr, depth int, leaves *[8]uint32)
TEXT ·rowsNarrow(SB), NOSPLIT, $0-40
	MOVQ nodes+0(FP), AX
	MOVQ keys+8(FP), SI
	MOVQ root+16(FP), BX
	SHLQ $3, BX
	ADDQ BX, AX
	MOVQ AX, R8
	MOVQ AX, R9
	MOVQ AX, R10
	MOVQ AX, R11
	MOVQ AX, R12
	MOVQ AX, R13
	MOVQ AX, R14
	MOVQ AX, R15
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
	MOVL (R8), CX
	MOVL CX, 0(AX)
	MOVL (R9), CX
	MOVL CX, 4(AX)
	MOVL (R10), CX
	MOVL CX, 8(AX)
	MOVL (R11), CX
	MOVL CX, 12(AX)
	MOVL (R12), CX
	MOVL CX, 16(AX)
	MOVL (R13), CX
	MOVL CX, 20(AX)
	MOVL (R14), CX
	MOVL CX, 24(AX)
	MOVL (R15), CX
	MOVL CX, 28(AX)
	RET

// func treesWide(nodes, keys unsafe.Pointer, roots *[8]uint32, depth int, leaves *[8]uint32)
TEXT ·treesWide(SB), NOSPLIT, $0-40
	MOVQ nodes+0(FP), AX
	MOVQ keys+8(FP), SI
	MOVQ roots+16(FP), BX
	MOVL 0(BX), R8
	SHLQ $4, R8
	ADDQ AX, R8
	MOVL 4(BX), R9
	SHLQ $4, R9
	ADDQ AX, R9
	MOVL 8(BX), R10
	SHLQ $4, R10
	ADDQ AX, R10
	MOVL 12(BX), R11
	SHLQ $4, R11
	ADDQ AX, R11
	MOVL 16(BX), R12
	SHLQ $4, R12
	ADDQ AX, R12
	MOVL 20(BX), R13
	SHLQ $4, R13
	ADDQ AX, R13
	MOVL 24(BX), R14
	SHLQ $4, R14
	ADDQ AX, R14
	MOVL 28(BX), R15
	SHLQ $4, R15
	ADDQ AX, R15
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
	MOVL (R8), CX
	MOVL CX, 0(AX)
	MOVL (R9), CX
	MOVL CX, 4(AX)
	MOVL (R10), CX
	MOVL CX, 8(AX)
	MOVL (R11), CX
	MOVL CX, 12(AX)
	MOVL (R12), CX
	MOVL CX, 16(AX)
	MOVL (R13), CX
	MOVL CX, 20(AX)
	MOVL (R14), CX
	MOVL CX, 24(AX)
	MOVL (R15), CX
	MOVL CX, 28(AX)
	RET

// func rowsWide(nodes, keys unsafe.Pointer, root uintptr, depth int, leaves *[8]uint32)
TEXT ·rowsWide(SB), NOSPLIT, $0-40
	MOVQ nodes+0(FP), AX
	MOVQ keys+8(FP), SI
	MOVQ root+16(FP), BX
	SHLQ $4, BX
	ADDQ BX, AX
	MOVQ AX, R8
	MOVQ AX, R9
	MOVQ AX, R10
	MOVQ AX, R11
	MOVQ AX, R12
	MOVQ AX, R13
	MOVQ AX, R14
	MOVQ AX, R15
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
	MOVL (R8), CX
	MOVL CX, 0(AX)
	MOVL (R9), CX
	MOVL CX, 4(AX)
	MOVL (R10), CX
	MOVL CX, 8(AX)
	MOVL (R11), CX
	MOVL CX, 12(AX)
	MOVL (R12), CX
	MOVL CX, 16(AX)
	MOVL (R13), CX
	MOVL CX, 20(AX)
	MOVL (R14), CX
	MOVL CX, 24(AX)
	MOVL (R15), CX
	MOVL CX, 28(AX)
	RET

// func treesCategories(nodes, keys unsafe.Pointer, roots *[8]uint32, depth int, leaves *[8]uint32)
TEXT ·treesCategories(SB), NOSPLIT, $0-40
	MOVQ nodes+0(FP), AX
	MOVQ keys+8(FP), SI
	MOVQ roots+16(FP), BX
	MOVL 0(BX), R8
	SHLQ $4, R8
	ADDQ AX, R8
	MOVL 4(BX), R9
	SHLQ $4, R9
	ADDQ AX, R9
	MOVL 8(BX), R10
	SHLQ $4, R10
	ADDQ AX, R10
	MOVL 12(BX), R11
	SHLQ $4, R11
	ADDQ AX, R11
	MOVL 16(BX), R12
	SHLQ $4, R12
	ADDQ AX, R12
	MOVL 20(BX), R13
	SHLQ $4, R13
	ADDQ AX, R13
	MOVL 24(BX), R14
	SHLQ $4, R14
	ADDQ AX, R14
	MOVL 28(BX), R15
	SHLQ $4, R15
	ADDQ AX, R15
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
	MOVL (R8), CX
	MOVL CX, 0(AX)
	MOVL (R9), CX
	MOVL CX, 4(AX)
	MOVL (R10), CX
	MOVL CX, 8(AX)
	MOVL (R11), CX
	MOVL CX, 12(AX)
	MOVL (R12), CX
	MOVL CX, 16(AX)
	MOVL (R13), CX
	MOVL CX, 20(AX)
	MOVL (R14), CX
	MOVL CX, 24(AX)
	MOVL (R15), CX
	MOVL CX, 28(AX)
	RET

// func rowsCategories(nodes, keys unsafe.Pointer, root uintptr, depth int, leaves *[8]uint32)
TEXT ·rowsCategories(SB), NOSPLIT, $0-40
	MOVQ nodes+0(FP), AX
	MOVQ keys+8(FP), SI
	MOVQ root+16(FP), BX
	SHLQ $4, BX
	ADDQ BX, AX
	MOVQ AX, R8
	MOVQ AX, R9
	MOVQ AX, R10
	MOVQ AX, R11
	MOVQ AX, R12
	MOVQ AX, R13
	MOVQ AX, R14
	MOVQ AX, R15
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
	MOVL (R8), CX
	MOVL CX, 0(AX)
	MOVL (R9), CX
	MOVL CX, 4(AX)
	MOVL (R10), CX
	MOVL CX, 8(AX)
	MOVL (R11), CX
	MOVL CX, 12(AX)
	MOVL (R12), CX
	MOVL CX, 16(AX)
	MOVL (R13), CX
	MOVL CX, 20(AX)
	MOVL (R14), CX
	MOVL CX, 24(AX)
	MOVL (R15), CX
	MOVL CX, 28(AX)
	RET
