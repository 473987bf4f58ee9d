//go:build !amd64

package codec

func fir(sum, x, h []float32) { firGeneric(sum, x, h) }
