package main

import (
	"context"
	"io"
	"time"

	v1 "k8s.io/api/core/v1"
)

type nowhere struct{ io.Writer }

func (nowhere) Close() error { return nil }

// beforeStop runs what the container wants to be run before it is told to end, as long as it may
// go on. Other kinds of it than a command are not known here.
func (c *container) beforeStop(deadline func() time.Time) {
	if c.spec.Lifecycle == nil || c.spec.Lifecycle.PreStop == nil || c.spec.Lifecycle.PreStop.Exec == nil {
		return
	}
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	ran := make(chan error, 1)
	go func() {
		out := nowhere{io.Discard}
		words := c.spec.Lifecycle.PreStop.Exec.Command
		ran <- c.ExecInContainer(ctx, "", "", "", words, nil, out, out, false, nil, 0)
	}()
	for time.Now().Before(deadline()) {
		select {
		case err := <-ran:
			if err != nil {
				c.pod.k.event(c.pod.object, v1.EventTypeWarning, "FailedPreStopHook", "PreStopHook failed: "+err.Error())
			}
			return
		case <-c.done:
			return
		case <-time.After(100 * time.Millisecond):
		}
	}
}
