//go:build !unix

package ws

import "errors"

const canTry = false

func writeSome(int, []byte) (int, error) { return 0, errors.ErrUnsupported }
