package main

import (
	"context"
	"fmt"
	"log"
	"path/filepath"
	"sync"
	"time"

	v1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/informers"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/tools/cache"
)

type kubelet struct {
	o      *options
	client kubernetes.Interface

	mu        sync.Mutex
	pods      map[types.UID]*pod
	addresses int
	// Names of headless Services by namespace, with the addresses of their pods.
	hosts map[string]map[string][]string
}

func newKubelet(o *options, client kubernetes.Interface) *kubelet {
	return &kubelet{o: o, client: client, pods: map[types.UID]*pod{}, addresses: 1,
		hosts: map[string]map[string][]string{}}
}

// watch runs the pods of this node until ctx is done.
func (k *kubelet) watch(ctx context.Context) {
	mine := informers.NewSharedInformerFactoryWithOptions(k.client, time.Minute,
		informers.WithTweakListOptions(func(l *metav1.ListOptions) {
			l.FieldSelector = fields.OneTermEqualSelector("spec.nodeName", k.o.name).String()
		}))
	_, _ = mine.Core().V1().Pods().Informer().AddEventHandler(cache.ResourceEventHandlerFuncs{
		AddFunc:    func(o any) { k.see(ctx, o.(*v1.Pod)) },
		UpdateFunc: func(_, o any) { k.see(ctx, o.(*v1.Pod)) },
		DeleteFunc: func(o any) {
			if gone, ok := o.(cache.DeletedFinalStateUnknown); ok {
				o = gone.Obj
			}
			k.forget(o.(*v1.Pod).UID)
		},
	})
	all := informers.NewSharedInformerFactory(k.client, 0)
	slices := all.Discovery().V1().EndpointSlices().Informer()
	changed := func(any) { k.noteHosts(slices.GetStore().List()) }
	_, _ = slices.AddEventHandler(cache.ResourceEventHandlerFuncs{AddFunc: changed,
		UpdateFunc: func(_, o any) { changed(o) }, DeleteFunc: changed})
	all.Start(ctx.Done())
	mine.Start(ctx.Done())
	<-ctx.Done()
}

func (k *kubelet) see(ctx context.Context, seen *v1.Pod) {
	k.mu.Lock()
	p, known := k.pods[seen.UID]
	if !known {
		if seen.Status.Phase == v1.PodSucceeded || seen.Status.Phase == v1.PodFailed {
			k.mu.Unlock()
			if seen.DeletionTimestamp != nil {
				_ = k.remove(seen)
			}
			return
		}
		k.addresses++
		p = newPod(k, seen, fmt.Sprintf("%s.%d", k.o.subnet, k.addresses))
		k.pods[seen.UID] = p
	}
	k.mu.Unlock()
	if !known {
		go p.run(ctx)
	}
	if seen.DeletionTimestamp != nil {
		grace := int64(0)
		if seen.DeletionGracePeriodSeconds != nil {
			grace = *seen.DeletionGracePeriodSeconds
		}
		p.end(time.Duration(grace) * time.Second)
	}
}

// forget ends what is left of a pod that is no more.
func (k *kubelet) forget(uid types.UID) {
	k.mu.Lock()
	p := k.pods[uid]
	delete(k.pods, uid)
	k.mu.Unlock()
	if p != nil {
		p.end(0)
	}
}

func (k *kubelet) endAll() {
	k.mu.Lock()
	all := make([]*pod, 0, len(k.pods))
	for _, p := range k.pods {
		all = append(all, p)
	}
	k.mu.Unlock()
	for _, p := range all {
		p.killed()
	}
}

// remove lets go of a pod whose containers have all ended.
func (k *kubelet) remove(p *v1.Pod) error {
	zero := int64(0)
	return k.client.CoreV1().Pods(p.Namespace).Delete(context.Background(), p.Name,
		metav1.DeleteOptions{GracePeriodSeconds: &zero, Preconditions: &metav1.Preconditions{UID: &p.UID}})
}

func (k *kubelet) find(namespace, name string) *pod {
	k.mu.Lock()
	defer k.mu.Unlock()
	for _, p := range k.pods {
		if p.object.Namespace == namespace && p.object.Name == name {
			return p
		}
	}
	return nil
}

// noteHosts writes the names of all headless Services into the pods' hosts files: this
// cluster has no name server.
func (k *kubelet) noteHosts(slices []any) {
	if k.o.paper {
		return
	}
	hosts := map[string]map[string][]string{}
	for _, o := range slices {
		slice := o.(*discoveryv1.EndpointSlice)
		service := slice.Labels[discoveryv1.LabelServiceName]
		for _, endpoint := range slice.Endpoints {
			if endpoint.Conditions.Terminating != nil && *endpoint.Conditions.Terminating {
				continue
			}
			if hosts[slice.Namespace] == nil {
				hosts[slice.Namespace] = map[string][]string{}
			}
			hosts[slice.Namespace][service] = append(hosts[slice.Namespace][service], endpoint.Addresses...)
		}
	}
	k.mu.Lock()
	k.hosts = hosts
	all := make([]*pod, 0, len(k.pods))
	for _, p := range k.pods {
		all = append(all, p)
	}
	k.mu.Unlock()
	for _, p := range all {
		if err := p.writeHosts(); err != nil {
			log.Print("hosts: ", err)
		}
	}
}

func (k *kubelet) event(p *v1.Pod, kind, reason, message string) {
	now := metav1.Now()
	_, err := k.client.CoreV1().Events(p.Namespace).Create(context.Background(), &v1.Event{
		ObjectMeta: metav1.ObjectMeta{GenerateName: p.Name + ".", Namespace: p.Namespace},
		InvolvedObject: v1.ObjectReference{Kind: "Pod", APIVersion: "v1", Namespace: p.Namespace,
			Name: p.Name, UID: p.UID},
		Type: kind, Reason: reason, Message: message, Count: 1, FirstTimestamp: now, LastTimestamp: now,
		Source: v1.EventSource{Component: "kubelet", Host: k.o.name},
	}, metav1.CreateOptions{})
	if err != nil {
		log.Print("event: ", err)
	}
}

func (k *kubelet) folderOf(p *v1.Pod) string {
	return filepath.Join(k.o.folder, string(p.UID))
}
