package main

import (
	"encoding/json"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"sync/atomic"
	"syscall"
	"time"

	v1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

type container struct {
	pod       *pod
	spec      *v1.Container
	made      *inside // as it was started
	command   *exec.Cmd
	restarts  int32
	startedAt metav1.Time
	endedAt   metav1.Time
	code      int
	stopped   atomic.Bool
	ready     atomic.Bool   // once it runs
	done      chan struct{} // closed once it has ended
}

func newContainer(p *pod, spec *v1.Container) *container {
	c := &container{pod: p, spec: spec, startedAt: metav1.Now(), done: make(chan struct{})}
	c.ready.Store(p.k.o.paper || !asksByHTTP(spec))
	return c
}

func (c *container) hasEnded() bool {
	select {
	case <-c.done:
		return true
	default:
		return false
	}
}

func (c *container) wasStopped() bool { return c.stopped.Load() }

func (c *container) id() string {
	return fmt.Sprintf("process://%s-%s-%d", c.pod.object.UID, c.spec.Name, c.restarts)
}

func (c *container) logPath() string {
	return filepath.Join(c.pod.k.folderOf(c.pod.object), c.spec.Name+".log")
}

// start makes the container's process; one that cannot be made ends with 128, as elsewhere.
func (c *container) start() error {
	err := c.launch()
	if err != nil {
		c.code, c.endedAt = 128, metav1.Now()
		close(c.done)
	}
	return err
}

func (c *container) launch() error {
	inside, err := c.inside()
	if err != nil {
		return err
	}
	c.made = inside
	text, err := json.Marshal(inside)
	if err != nil {
		return err
	}
	out, err := os.OpenFile(c.logPath(), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o644)
	if err != nil {
		return err
	}
	defer out.Close()
	c.command = exec.Command("/proc/self/exe", "container", string(text))
	c.command.Stdout, c.command.Stderr = out, out
	c.command.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL,
		Cloneflags: syscall.CLONE_NEWNS | syscall.CLONE_NEWPID | syscall.CLONE_NEWUTS | syscall.CLONE_NEWIPC}
	begun, told, err := os.Pipe()
	if err != nil {
		return err
	}
	defer begun.Close()
	c.command.ExtraFiles = []*os.File{told}
	err = inNetwork(c.pod.network, c.command.Start)
	told.Close()
	if err != nil {
		return err
	}
	// Closed when the container's own program takes over, before which nothing can join it.
	_, _ = io.Copy(io.Discard, begun)
	if asksByHTTP(c.spec) {
		go c.watchReadiness()
	}
	// For whoever wants to kill it.
	name := filepath.Join(c.pod.k.folderOf(c.pod.object), c.spec.Name+".pid")
	if err := os.WriteFile(name, fmt.Appendf(nil, "%d", c.command.Process.Pid), 0o644); err != nil {
		return err
	}
	go func() {
		err := c.command.Wait()
		c.code = c.command.ProcessState.ExitCode()
		if status, ok := c.command.ProcessState.Sys().(syscall.WaitStatus); ok && status.Signaled() {
			c.code = 128 + int(status.Signal())
		}
		_ = err
		c.endedAt = metav1.Now()
		close(c.done)
	}()
	return nil
}

// stop asks the container to end, and kills it at the deadline, which may be brought forward.
func (c *container) stop(deadline func() time.Time) {
	c.stopped.Store(true)
	if c.hasEnded() {
		return
	}
	begun := time.Now()
	c.beforeStop(deadline)
	_ = c.command.Process.Signal(syscall.SIGTERM)
	for !c.hasEnded() {
		if time.Now().After(deadline()) {
			c.kill()
			<-c.done
			c.pod.k.event(c.pod.object, v1.EventTypeWarning, "ExceededGracePeriod",
				fmt.Sprintf("%s did not end within %s", c.spec.Name, time.Since(begun).Round(time.Second)))
			return
		}
		select {
		case <-c.done:
		case <-time.After(100 * time.Millisecond):
		}
	}
}

func (c *container) kill() {
	if c.command != nil && c.command.Process != nil && !c.hasEnded() {
		_ = c.command.Process.Kill()
	}
}

// inNetwork does something in a pod's network.
func inNetwork(network string, do func() error) error {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	own, err := os.Open("/proc/thread-self/ns/net")
	if err != nil {
		return err
	}
	defer own.Close()
	other, err := os.Open("/var/run/netns/" + network)
	if err != nil {
		return err
	}
	defer other.Close()
	if err := setns(other); err != nil {
		return err
	}
	defer func() {
		if err := setns(own); err != nil {
			panic(err)
		}
	}()
	return do()
}
