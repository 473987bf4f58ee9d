package codec

// firStep is how many sums fir computes side by side.
const firStep = 16

// firGeneric adds to each sum[i] the inner product of h and x[i:]. The length
// of sum is a multiple of firStep, and x has len(sum)+len(h)-1 values.
func firGeneric(sum, x, h []float32) {
	for len(sum) >= 4 && len(x) >= len(h)+3 {
		a, b, c, d := sum[0], sum[1], sum[2], sum[3]
		x0, x1, x2 := x[0], x[1], x[2]
		for k, v := range x[3 : len(h)+3] {
			c3 := h[k]
			a += c3 * x0
			b += c3 * x1
			c += c3 * x2
			d += c3 * v
			x0, x1, x2 = x1, x2, v
		}
		sum[0], sum[1], sum[2], sum[3] = a, b, c, d
		sum, x = sum[4:], x[4:]
	}
}
