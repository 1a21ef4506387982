package main

import (
	"fmt"
	"net/http"
	"time"

	v1 "k8s.io/api/core/v1"
)

// asksByHTTP says whether the container is ready only once it answers. Other kinds of questions
// are not asked: what they are about counts as ready as soon as it runs.
func asksByHTTP(spec *v1.Container) bool {
	return spec.ReadinessProbe != nil && spec.ReadinessProbe.HTTPGet != nil
}

// watchReadiness asks as often as the probe wants, and tells of each change, until the container ends.
func (c *container) watchReadiness() {
	probe := c.spec.ReadinessProbe
	client := http.Client{Timeout: time.Duration(max(1, probe.TimeoutSeconds)) * time.Second}
	url := fmt.Sprintf("http://%s:%d%s", c.pod.address, probe.HTTPGet.Port.IntValue(), probe.HTTPGet.Path)
	for failures := int32(0); ; {
		answer, err := client.Get(url)
		if err == nil {
			answer.Body.Close()
		}
		if err == nil && answer.StatusCode < 400 {
			failures = 0
			c.turn(true)
		} else if failures++; failures >= probe.FailureThreshold {
			c.turn(false)
		}
		select {
		case <-c.done:
			return
		case <-time.After(time.Duration(max(1, probe.PeriodSeconds)) * time.Second):
		}
	}
}

func (c *container) turn(ready bool) {
	if c.ready.Swap(ready) != ready {
		c.pod.tell()
	}
}
