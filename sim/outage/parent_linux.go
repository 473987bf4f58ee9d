package outage

import (
	"os/exec"
	"syscall"
)

// dieWithParent has a server end with the test, however that ends.
func dieWithParent(cmd *exec.Cmd) { cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL} }
