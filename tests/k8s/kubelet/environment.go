package main

import (
	"context"
	"fmt"
	"strings"

	v1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/kubernetes/pkg/api/v1/resource"
	"k8s.io/kubernetes/pkg/fieldpath"
	"k8s.io/kubernetes/third_party/forked/golang/expansion"
)

// environment is the container's variables, the image's first.
func (c *container) environment() ([]string, error) {
	values := map[string]string{}
	order := []string{}
	set := func(name, value string) {
		if _, known := values[name]; !known {
			order = append(order, name)
		}
		values[name] = value
	}
	for _, row := range c.pod.k.o.variables {
		name, value, _ := strings.Cut(row, "=")
		set(name, value)
	}
	for _, from := range c.spec.EnvFrom {
		if from.SecretRef == nil {
			return nil, fmt.Errorf("this kubelet knows no such source")
		}
		secret, err := c.pod.k.client.CoreV1().Secrets(c.pod.object.Namespace).Get(context.Background(),
			from.SecretRef.Name, metav1.GetOptions{})
		if err != nil {
			if errors.IsNotFound(err) && from.SecretRef.Optional != nil && *from.SecretRef.Optional {
				continue
			}
			return nil, err
		}
		for name, value := range secret.Data {
			set(from.Prefix+name, string(value))
		}
	}
	for _, row := range c.spec.Env {
		value := expansion.Expand(row.Value, expansion.MappingFuncFor(values))
		if row.ValueFrom != nil {
			var err error
			if value, err = c.value(row.ValueFrom); err != nil {
				return nil, fmt.Errorf("variable %s: %w", row.Name, err)
			}
		}
		set(row.Name, value)
	}
	made := make([]string, 0, len(order))
	for _, name := range order {
		made = append(made, name+"="+values[name])
	}
	return made, nil
}

func (c *container) value(from *v1.EnvVarSource) (string, error) {
	p := c.pod
	core := p.k.client.CoreV1()
	switch {
	case from.FieldRef != nil:
		return p.field(from.FieldRef.FieldPath)
	case from.ResourceFieldRef != nil:
		return resource.ExtractContainerResourceValue(from.ResourceFieldRef, c.spec)
	case from.SecretKeyRef != nil:
		secret, err := core.Secrets(p.object.Namespace).Get(context.Background(), from.SecretKeyRef.Name, metav1.GetOptions{})
		if err != nil {
			return "", err
		}
		return string(secret.Data[from.SecretKeyRef.Key]), nil
	}
	return "", fmt.Errorf("this kubelet knows no such source")
}

// field is what the pod says of itself.
func (p *pod) field(path string) (string, error) {
	switch path {
	case "status.podIP":
		return p.address, nil
	case "spec.nodeName":
		return p.object.Spec.NodeName, nil
	}
	return fieldpath.ExtractFieldPathAsString(p.object, path)
}

// expandAll replaces the variables that a container's command names.
func expandAll(words, environment []string) []string {
	values := map[string]string{}
	for _, row := range environment {
		name, value, _ := strings.Cut(row, "=")
		values[name] = value
	}
	made := make([]string, len(words))
	for i, word := range words {
		made[i] = expansion.Expand(word, expansion.MappingFuncFor(values))
	}
	return made
}
