package main

import (
	"context"
	"fmt"

	authenticationv1 "k8s.io/api/authentication/v1"
	v1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// projected is the content of a volume that is put together, such as the one with the token of
// the pod's account. The token is drawn once and lives longer than any pod here.
func (p *pod) projected(ctx context.Context, sources []v1.VolumeProjection) (map[string][]byte, error) {
	data := map[string][]byte{}
	for _, source := range sources {
		switch {
		case source.ServiceAccountToken != nil:
			token, err := p.token(ctx, source.ServiceAccountToken)
			if err != nil {
				return nil, err
			}
			data[source.ServiceAccountToken.Path] = []byte(token)
		case source.ConfigMap != nil:
			files, err := p.k.client.CoreV1().ConfigMaps(p.object.Namespace).Get(ctx, source.ConfigMap.Name, metav1.GetOptions{})
			if err != nil {
				return nil, err
			}
			for _, item := range source.ConfigMap.Items {
				data[item.Path] = []byte(files.Data[item.Key])
			}
		case source.DownwardAPI != nil:
			for _, item := range source.DownwardAPI.Items {
				if item.FieldRef == nil {
					return nil, fmt.Errorf("this kubelet knows no such source")
				}
				text, err := p.field(item.FieldRef.FieldPath)
				if err != nil {
					return nil, err
				}
				data[item.Path] = []byte(text)
			}
		default:
			return nil, fmt.Errorf("this kubelet knows no such source")
		}
	}
	return data, nil
}

// token asks for one of the pod's account, which ends with the pod.
func (p *pod) token(ctx context.Context, source *v1.ServiceAccountTokenProjection) (string, error) {
	request := &authenticationv1.TokenRequest{Spec: authenticationv1.TokenRequestSpec{
		ExpirationSeconds: source.ExpirationSeconds,
		BoundObjectRef: &authenticationv1.BoundObjectReference{APIVersion: "v1", Kind: "Pod",
			Name: p.object.Name, UID: p.object.UID},
	}}
	if source.Audience != "" {
		request.Spec.Audiences = []string{source.Audience}
	}
	answer, err := p.k.client.CoreV1().ServiceAccounts(p.object.Namespace).CreateToken(ctx,
		p.object.Spec.ServiceAccountName, request, metav1.CreateOptions{})
	if err != nil {
		return "", err
	}
	return answer.Status.Token, nil
}
