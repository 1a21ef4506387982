package main

import (
	"context"
	"fmt"
	"log"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"time"

	v1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// pod is one pod of this node from its first sight to its end.
type pod struct {
	k       *kubelet
	object  *v1.Pod
	address string
	started metav1.Time

	mu         sync.Mutex
	containers map[string]*container
	initDone   bool
	waiting    string
	message    string
	network    string
	folders    map[string]string // of claims, by their volumes

	ending   chan struct{} // closed once the pod is to end
	deadline time.Time     // when what still runs is killed; read after ending is closed
	over     bool
}

func newPod(k *kubelet, object *v1.Pod, address string) *pod {
	return &pod{k: k, object: object, address: address, started: metav1.Now(),
		containers: map[string]*container{}, folders: map[string]string{}, waiting: "ContainerCreating", ending: make(chan struct{})}
}

// end asks the pod to be gone after so long; asked again, the earlier time counts.
func (p *pod) end(grace time.Duration) {
	p.mu.Lock()
	defer p.mu.Unlock()
	deadline := time.Now().Add(grace)
	select {
	case <-p.ending:
		if deadline.Before(p.deadline) {
			p.deadline = deadline
		}
	default:
		p.deadline = deadline
		close(p.ending)
	}
}

func (p *pod) isEnding() bool {
	select {
	case <-p.ending:
		return true
	default:
		return false
	}
}

// killed ends the pod's processes and its network at once, without a word to the API server.
func (p *pod) killed() {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, c := range p.containers {
		c.kill()
	}
	removeNetwork(p.network)
}

func isSidecar(c *v1.Container) bool {
	return c.RestartPolicy != nil && *c.RestartPolicy == v1.ContainerRestartPolicyAlways
}

func (p *pod) run(ctx context.Context) {
	if p.k.o.paper {
		p.pretend(ctx)
		return
	}
	if p.prepare(ctx) && p.runInit(ctx) {
		p.mu.Lock()
		p.initDone, p.waiting = true, ""
		p.mu.Unlock()
		for i := range p.object.Spec.Containers {
			p.start(&p.object.Spec.Containers[i])
		}
		p.tell()
		p.await(p.object.Spec.Containers)
	}
	p.endSidecars()
	p.mu.Lock()
	p.over = true
	p.mu.Unlock()
	p.tell()
	removeNetwork(p.network)
	// The pod's status stands; once somebody wants it gone nothing holds it here.
	select {
	case <-p.ending:
	case <-ctx.Done():
		return
	}
	p.letGo()
}

// pretend says that the pod runs until somebody wants it gone, and then that it was terminated.
func (p *pod) pretend(ctx context.Context) {
	p.mu.Lock()
	for _, specs := range [][]v1.Container{p.object.Spec.InitContainers, p.object.Spec.Containers} {
		for i := range specs {
			p.containers[specs[i].Name] = newContainer(p, &specs[i])
		}
	}
	p.initDone, p.waiting = true, ""
	p.mu.Unlock()
	p.tell()
	select {
	case <-p.ending:
	case <-ctx.Done():
		return
	}
	p.mu.Lock()
	for _, c := range p.containers {
		c.code, c.endedAt = 128+int(syscall.SIGTERM), metav1.Now()
		close(c.done)
	}
	p.over = true
	p.mu.Unlock()
	p.letGo()
}

// letGo tells of the pod's end and lets nothing hold it here any more.
func (p *pod) letGo() {
	p.tell()
	if err := p.k.remove(p.object); err != nil && !errors.IsNotFound(err) && !errors.IsConflict(err) {
		log.Print("remove: ", err)
	}
}

// prepare waits for images and volumes and makes the network; false if the pod is to end before.
func (p *pod) prepare(ctx context.Context) bool {
	for told := ""; ; {
		reason, message := p.missing(ctx)
		if reason == "" {
			break
		}
		if message != told {
			told = message
			p.mu.Lock()
			p.waiting, p.message = reason, message
			p.mu.Unlock()
			kind := "Failed"
			if reason == "ContainerCreating" {
				kind = "FailedMount"
			}
			p.k.event(p.object, v1.EventTypeWarning, kind, message)
			p.tell()
		}
		select {
		case <-p.ending:
			return false
		case <-ctx.Done():
			return false
		case <-time.After(time.Second):
		}
	}
	p.mu.Lock()
	p.waiting, p.message = "PodInitializing", ""
	p.mu.Unlock()
	network, err := makeNetwork(p.k.o, p.object.UID, p.address)
	if err == nil {
		p.network = network
		err = p.writeHosts()
	}
	if err != nil {
		log.Print("network: ", err)
		p.k.event(p.object, v1.EventTypeWarning, "FailedCreatePodSandBox", err.Error())
		return false
	}
	return !p.isEnding()
}

// missing says what the pod still lacks, as the reason and the message of its containers.
func (p *pod) missing(ctx context.Context) (string, string) {
	for _, c := range append(append([]v1.Container{}, p.object.Spec.InitContainers...), p.object.Spec.Containers...) {
		known := false
		for _, image := range p.k.o.images {
			known = known || image == c.Image
		}
		if !known {
			return "ImagePullBackOff", fmt.Sprintf("Back-off pulling image %q: not found", c.Image)
		}
	}
	if err := p.mountAll(ctx); err != nil {
		return "ContainerCreating", "MountVolume.SetUp failed: " + err.Error()
	}
	return "", ""
}

// runInit runs what comes before the containers, and starts what runs beside them.
func (p *pod) runInit(ctx context.Context) bool {
	for i := range p.object.Spec.InitContainers {
		c := &p.object.Spec.InitContainers[i]
		p.start(c)
		if !isSidecar(c) {
			p.await([]v1.Container{*c})
			if p.code(c.Name) != 0 {
				return false
			}
		}
		if p.isEnding() {
			return false
		}
	}
	return true
}

func (p *pod) start(spec *v1.Container) {
	c := newContainer(p, spec)
	p.mu.Lock()
	p.containers[spec.Name] = c
	p.mu.Unlock()
	if err := c.start(); err != nil {
		p.k.event(p.object, v1.EventTypeWarning, "Failed", err.Error())
		return
	}
	p.k.event(p.object, v1.EventTypeNormal, "Started", "Started container "+spec.Name)
	if isSidecar(spec) {
		go p.restart(c)
	}
}

// restart starts a container again that is to run as long as the others do.
func (p *pod) restart(c *container) {
	for {
		<-c.done
		select {
		case <-p.ending:
			return
		case <-time.After(time.Second):
		}
		p.mu.Lock()
		over := p.over || c.wasStopped()
		p.mu.Unlock()
		if over {
			return
		}
		next := newContainer(p, c.spec)
		next.restarts = c.restarts + 1
		p.mu.Lock()
		p.containers[c.spec.Name] = next
		p.mu.Unlock()
		if next.start() != nil {
			return
		}
		p.tell()
		c = next
	}
}

// await waits for the end of these containers, which is brought about once the pod is to end.
func (p *pod) await(specs []v1.Container) {
	var group sync.WaitGroup
	for _, spec := range specs {
		p.mu.Lock()
		c := p.containers[spec.Name]
		p.mu.Unlock()
		group.Add(1)
		go func() {
			defer group.Done()
			select {
			case <-c.done:
				p.tell()
				return
			case <-p.ending:
			}
			c.stop(func() time.Time { p.mu.Lock(); defer p.mu.Unlock(); return p.deadline })
		}()
	}
	group.Wait()
}

func (p *pod) endSidecars() {
	grace := 30 * time.Second
	if s := p.object.Spec.TerminationGracePeriodSeconds; s != nil {
		grace = time.Duration(*s) * time.Second
	}
	deadline := time.Now().Add(grace)
	for i := len(p.object.Spec.InitContainers) - 1; i >= 0; i-- {
		p.mu.Lock()
		c := p.containers[p.object.Spec.InitContainers[i].Name]
		p.mu.Unlock()
		if c != nil {
			c.stop(func() time.Time {
				p.mu.Lock()
				defer p.mu.Unlock()
				if p.isEnding() && p.deadline.Before(deadline) {
					return p.deadline
				}
				return deadline
			})
		}
	}
}

func (p *pod) code(name string) int {
	p.mu.Lock()
	c := p.containers[name]
	p.mu.Unlock()
	if c == nil || !c.hasEnded() {
		return -1
	}
	return c.code
}

func (p *pod) writeHosts() error {
	p.k.mu.Lock()
	names := p.k.hosts[p.object.Namespace]
	p.k.mu.Unlock()
	var text strings.Builder
	fmt.Fprintf(&text, "127.0.0.1 localhost\n%s %s\n", p.address, p.object.Name)
	for service, addresses := range names {
		for _, address := range addresses {
			fmt.Fprintf(&text, "%s %s %[2]s.%[3]s.svc %[2]s.%[3]s.svc.cluster.local\n", address, service, p.object.Namespace)
		}
	}
	// In place: containers have the file itself, not its name.
	path := filepath.Join(p.k.folderOf(p.object), "hosts")
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return err
	}
	return os.WriteFile(path, []byte(text.String()), 0o644)
}
