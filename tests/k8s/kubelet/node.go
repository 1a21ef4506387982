package main

import (
	"context"
	"fmt"
	"log"
	"strings"
	"time"

	coordinationv1 "k8s.io/api/coordination/v1"
	v1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/util/retry"
)

const leaseSeconds = 8

// register makes the node and keeps saying that it is there.
func (k *kubelet) register(ctx context.Context) error {
	node := &v1.Node{ObjectMeta: metav1.ObjectMeta{Name: k.o.name, Labels: map[string]string{
		v1.LabelHostname: k.o.name, v1.LabelOSStable: "linux", v1.LabelArchStable: "amd64"}}}
	for _, row := range k.o.labels {
		name, value, _ := strings.Cut(row, "=")
		node.Labels[name] = value
	}
	for _, row := range k.o.taints {
		what, effect, _ := strings.Cut(row, ":")
		name, value, _ := strings.Cut(what, "=")
		node.Spec.Taints = append(node.Spec.Taints,
			v1.Taint{Key: name, Value: value, Effect: v1.TaintEffect(effect)})
	}
	nodes := k.client.CoreV1().Nodes()
	if _, err := nodes.Create(ctx, node, metav1.CreateOptions{}); err != nil && !errors.IsAlreadyExists(err) {
		return err
	}
	if err := k.report(ctx); err != nil {
		return err
	}
	go func() {
		for ctx.Err() == nil {
			if err := k.renew(ctx); err != nil && ctx.Err() == nil {
				log.Print("lease: ", err)
			}
			if err := k.report(ctx); err != nil && ctx.Err() == nil {
				log.Print("node: ", err)
			}
			time.Sleep(leaseSeconds / 4 * time.Second)
		}
	}()
	return nil
}

// report says how the node is; others write to it too, so it may take a second try.
func (k *kubelet) report(ctx context.Context) error {
	return retry.RetryOnConflict(retry.DefaultBackoff, func() error { return k.reportOnce(ctx) })
}

func (k *kubelet) reportOnce(ctx context.Context) error {
	node, err := k.client.CoreV1().Nodes().Get(ctx, k.o.name, metav1.GetOptions{})
	if err != nil {
		return err
	}
	there := v1.ResourceList{
		v1.ResourceCPU:              resource.MustParse("16"),
		v1.ResourceMemory:           resource.MustParse("64Gi"),
		v1.ResourceEphemeralStorage: resource.MustParse("500Gi"),
		v1.ResourcePods:             resource.MustParse(fmt.Sprint(k.o.pods)),
	}
	if k.o.paper {
		there[v1.ResourceCPU], there[v1.ResourceMemory] = resource.MustParse("10k"), resource.MustParse("100Ti")
	}
	if k.o.gpus > 0 {
		there["nvidia.com/gpu"] = resource.MustParse(fmt.Sprint(k.o.gpus))
	}
	now := metav1.Now()
	node.Status.Capacity, node.Status.Allocatable = there, there
	node.Status.Addresses = []v1.NodeAddress{{Type: v1.NodeInternalIP, Address: k.o.address}}
	node.Status.DaemonEndpoints.KubeletEndpoint.Port = int32(k.o.port)
	node.Status.NodeInfo.KubeletVersion = "v1.36.3"
	changed := now
	for _, c := range node.Status.Conditions {
		if c.Type == v1.NodeReady && c.Status == v1.ConditionTrue {
			changed = c.LastTransitionTime
		}
	}
	node.Status.Conditions = []v1.NodeCondition{{Type: v1.NodeReady, Status: v1.ConditionTrue,
		Reason: "KubeletReady", LastHeartbeatTime: now, LastTransitionTime: changed}}
	_, err = k.client.CoreV1().Nodes().UpdateStatus(ctx, node, metav1.UpdateOptions{})
	return err
}

func (k *kubelet) renew(ctx context.Context) error {
	seconds, now := int32(leaseSeconds), metav1.NowMicro()
	leases := k.client.CoordinationV1().Leases(v1.NamespaceNodeLease)
	lease, err := leases.Get(ctx, k.o.name, metav1.GetOptions{})
	if errors.IsNotFound(err) {
		lease = &coordinationv1.Lease{ObjectMeta: metav1.ObjectMeta{Name: k.o.name}}
		lease.Spec = coordinationv1.LeaseSpec{HolderIdentity: &k.o.name, LeaseDurationSeconds: &seconds, RenewTime: &now}
		_, err = leases.Create(ctx, lease, metav1.CreateOptions{})
		return err
	}
	if err != nil {
		return err
	}
	lease.Spec.RenewTime = &now
	_, err = leases.Update(ctx, lease, metav1.UpdateOptions{})
	return err
}
