#include "textflag.h"

// func fir(sum, x, h []float32)
TEXT ·fir(SB), NOSPLIT, $0-72
	MOVQ sum_base+0(FP), DI
	MOVQ sum_len+8(FP), CX
	MOVQ x_base+24(FP), SI
	MOVQ h_base+48(FP), R9
	MOVQ h_len+56(FP), R10

sums: // sixteen at a time, in X0 to X3
	MOVUPS 0(DI), X0
	MOVUPS 16(DI), X1
	MOVUPS 32(DI), X2
	MOVUPS 48(DI), X3
	MOVQ SI, R8
	XORQ BX, BX

taps:
	MOVSS (R9)(BX*4), X4
	SHUFPS $0, X4, X4
	MOVUPS 0(R8), X5
	MULPS X4, X5
	ADDPS X5, X0
	MOVUPS 16(R8), X6
	MULPS X4, X6
	ADDPS X6, X1
	MOVUPS 32(R8), X7
	MULPS X4, X7
	ADDPS X7, X2
	MOVUPS 48(R8), X8
	MULPS X4, X8
	ADDPS X8, X3
	ADDQ $4, R8
	INCQ BX
	CMPQ BX, R10
	JLT taps

	MOVUPS X0, 0(DI)
	MOVUPS X1, 16(DI)
	MOVUPS X2, 32(DI)
	MOVUPS X3, 48(DI)
	ADDQ $64, DI
	ADDQ $64, SI
	SUBQ $16, CX
	JG sums
	RET
