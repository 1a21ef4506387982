package main

import (
	"context"
	"log"
	"os"

	v1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/util/retry"
)

// As much of a log as a status may have for a message.
const mostMessage = 2048

// tell writes how the pod stands to the API server.
func (p *pod) tell() {
	pods := p.k.client.CoreV1().Pods(p.object.Namespace)
	err := retry.RetryOnConflict(retry.DefaultBackoff, func() error {
		now, err := pods.Get(context.Background(), p.object.Name, metav1.GetOptions{})
		if err != nil {
			return err
		}
		if now.UID != p.object.UID {
			return nil
		}
		p.fill(now)
		_, err = pods.UpdateStatus(context.Background(), now, metav1.UpdateOptions{})
		return err
	})
	if err != nil && !errors.IsNotFound(err) {
		log.Print("status: ", err)
	}
}

func (p *pod) fill(now *v1.Pod) {
	p.mu.Lock()
	defer p.mu.Unlock()
	status := &now.Status
	if status.Phase == v1.PodSucceeded || status.Phase == v1.PodFailed {
		return
	}
	status.HostIP, status.StartTime = p.k.o.address, &p.started
	if p.network != "" {
		status.PodIP, status.PodIPs = p.address, []v1.PodIP{{IP: p.address}}
	}
	status.InitContainerStatuses = p.statuses(p.object.Spec.InitContainers)
	status.ContainerStatuses = p.statuses(p.object.Spec.Containers)
	status.Phase = p.phase()
	ready := status.Phase == v1.PodRunning
	for _, c := range status.ContainerStatuses {
		ready = ready && c.Ready
	}
	set(status, v1.PodInitialized, p.initDone)
	set(status, v1.ContainersReady, ready)
	set(status, v1.PodReady, ready)
}

func (p *pod) phase() v1.PodPhase {
	if p.over {
		for _, spec := range p.object.Spec.Containers {
			if c := p.containers[spec.Name]; c == nil || c.code != 0 {
				return v1.PodFailed
			}
		}
		return v1.PodSucceeded
	}
	if p.initDone {
		return v1.PodRunning
	}
	return v1.PodPending
}

func (p *pod) statuses(specs []v1.Container) []v1.ContainerStatus {
	var found []v1.ContainerStatus
	for _, spec := range specs {
		s := v1.ContainerStatus{Name: spec.Name, Image: spec.Image, ImageID: "sha256:of-this-machine"}
		c := p.containers[spec.Name]
		running, yes := false, true
		switch {
		case c == nil:
			s.State.Waiting = &v1.ContainerStateWaiting{Reason: p.waiting, Message: p.message}
		case c.hasEnded():
			s.RestartCount, s.ContainerID = c.restarts, c.id()
			s.State.Terminated = &v1.ContainerStateTerminated{ExitCode: int32(c.code), Reason: "Completed",
				StartedAt: c.startedAt, FinishedAt: c.endedAt, ContainerID: c.id()}
			if c.code != 0 {
				s.State.Terminated.Reason = "Error"
				if spec.TerminationMessagePolicy == v1.TerminationMessageFallbackToLogsOnError {
					s.State.Terminated.Message = tail(c.logPath())
				}
			}
		default:
			running = true
			s.RestartCount, s.ContainerID = c.restarts, c.id()
			s.State.Running = &v1.ContainerStateRunning{StartedAt: c.startedAt}
		}
		s.Ready, s.Started = running && c.ready.Load(), &running
		if c != nil && isSidecar(c.spec) && running {
			s.Started = &yes
		}
		found = append(found, s)
	}
	return found
}

func tail(path string) string {
	content, err := os.ReadFile(path)
	if err != nil {
		return ""
	}
	if len(content) > mostMessage {
		content = content[len(content)-mostMessage:]
	}
	return string(content)
}

func set(status *v1.PodStatus, kind v1.PodConditionType, is bool) {
	value := v1.ConditionFalse
	if is {
		value = v1.ConditionTrue
	}
	for i := range status.Conditions {
		if status.Conditions[i].Type == kind {
			if status.Conditions[i].Status != value {
				status.Conditions[i].Status, status.Conditions[i].LastTransitionTime = value, metav1.Now()
			}
			return
		}
	}
	status.Conditions = append(status.Conditions, v1.PodCondition{Type: kind, Status: value,
		LastTransitionTime: metav1.Now()})
}
