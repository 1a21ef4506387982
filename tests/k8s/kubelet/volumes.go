package main

import (
	"context"
	"fmt"
	"os"
	"path/filepath"

	v1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// mountAll makes the pod's volumes, as far as all that they come from is there.
func (p *pod) mountAll(ctx context.Context) error {
	for i := range p.object.Spec.Volumes {
		v := &p.object.Spec.Volumes[i]
		if err := p.mount(ctx, v); err != nil {
			return fmt.Errorf("volume %q: %w", v.Name, err)
		}
	}
	return nil
}

func (p *pod) mount(ctx context.Context, v *v1.Volume) error {
	core := p.k.client.CoreV1()
	folder := filepath.Join(p.k.folderOf(p.object), "volumes", v.Name)
	switch {
	case v.EmptyDir != nil:
		return p.own(folder, 0o777)
	case v.Secret != nil:
		secret, err := core.Secrets(p.object.Namespace).Get(ctx, v.Secret.SecretName, metav1.GetOptions{})
		if err != nil {
			return err
		}
		return p.write(folder, secret.Data, v.Secret.Items, v.Secret.DefaultMode)
	case v.ConfigMap != nil:
		files, err := core.ConfigMaps(p.object.Namespace).Get(ctx, v.ConfigMap.Name, metav1.GetOptions{})
		if err != nil {
			return err
		}
		data := map[string][]byte{}
		for name, text := range files.Data {
			data[name] = []byte(text)
		}
		return p.write(folder, data, v.ConfigMap.Items, v.ConfigMap.DefaultMode)
	case v.Projected != nil:
		data, err := p.projected(ctx, v.Projected.Sources)
		if err != nil {
			return err
		}
		return p.write(folder, data, nil, v.Projected.DefaultMode)
	case v.PersistentVolumeClaim != nil:
		path, err := p.claim(ctx, v.PersistentVolumeClaim.ClaimName)
		if err != nil {
			return err
		}
		p.mu.Lock()
		p.folders[v.Name] = path
		p.mu.Unlock()
		return p.own(path, 0o770)
	}
	return fmt.Errorf("this kubelet knows no such volume")
}

func (p *pod) write(folder string, data map[string][]byte, items []v1.KeyToPath, mode *int32) error {
	if err := p.own(folder, 0o755); err != nil {
		return err
	}
	if items == nil {
		for name := range data {
			items = append(items, v1.KeyToPath{Key: name, Path: name})
		}
	}
	for _, item := range items {
		content, there := data[item.Key]
		if !there {
			return fmt.Errorf("references non-existent key: %s", item.Key)
		}
		own := os.FileMode(0o644)
		if mode != nil {
			own = os.FileMode(*mode)
		}
		path := filepath.Join(folder, item.Path)
		if err := os.WriteFile(path, content, own); err != nil {
			return err
		}
		if err := os.Chown(path, 0, p.group()); err != nil {
			return err
		}
	}
	return nil
}

// own makes a folder that belongs to the pod's group.
func (p *pod) own(folder string, mode os.FileMode) error {
	if err := os.MkdirAll(folder, mode); err != nil {
		return err
	}
	if err := os.Chown(folder, 0, p.group()); err != nil {
		return err
	}
	return os.Chmod(folder, mode|os.ModeSetgid)
}

func (p *pod) group() int {
	if s := p.object.Spec.SecurityContext; s != nil && s.FSGroup != nil {
		return int(*s.FSGroup)
	}
	return 0
}

// claim is the folder of a bound claim.
func (p *pod) claim(ctx context.Context, name string) (string, error) {
	core := p.k.client.CoreV1()
	claim, err := core.PersistentVolumeClaims(p.object.Namespace).Get(ctx, name, metav1.GetOptions{})
	if err != nil {
		return "", err
	}
	if claim.Spec.VolumeName == "" {
		return "", fmt.Errorf("claim %s is not bound", name)
	}
	volume, err := core.PersistentVolumes().Get(ctx, claim.Spec.VolumeName, metav1.GetOptions{})
	if err != nil {
		return "", err
	}
	if volume.Spec.HostPath == nil {
		return "", fmt.Errorf("volume %s is no folder", volume.Name)
	}
	return volume.Spec.HostPath.Path, nil
}
