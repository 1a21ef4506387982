package main

import (
	"os"
	"os/signal"
	"runtime"
	"syscall"

	"golang.org/x/sys/unix"
)

// runBeside runs the container's program as a process that is not the first of its process ids, as
// where a pod shares these: a signal that the program does not care for then ends it. Here each
// container still has ids of its own, so that all of it ends with the program.
func (made *inside) runBeside(path string) error {
	// What was set for this thread is for what it starts.
	runtime.LockOSThread()
	unix.CloseOnExec(3)
	heard := make(chan os.Signal, 8)
	signal.Notify(heard, syscall.SIGTERM, syscall.SIGINT)
	person := &syscall.Credential{Uid: uint32(made.User), Gid: uint32(made.Group)}
	for _, group := range made.Groups {
		person.Groups = append(person.Groups, uint32(group))
	}
	program, err := syscall.ForkExec(path, made.Command, &syscall.ProcAttr{Env: made.Environment,
		Files: []uintptr{0, 1, 2}, Sys: &syscall.SysProcAttr{Credential: person}})
	if err != nil {
		return err
	}
	// What the kubelet listens to, see launch.
	_ = unix.Close(3)
	go func() {
		for told := range heard {
			_ = syscall.Kill(program, told.(syscall.Signal))
		}
	}()
	for {
		var status syscall.WaitStatus
		ended, err := syscall.Wait4(-1, &status, 0, nil)
		if err == syscall.EINTR || ended != program && err == nil {
			continue
		}
		if err != nil {
			return err
		}
		if status.Signaled() {
			os.Exit(128 + int(status.Signal()))
		}
		os.Exit(status.ExitStatus())
	}
}
