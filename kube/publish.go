package kube

import (
	"context"
	"fmt"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	applycorev1 "k8s.io/client-go/applyconfigurations/core/v1"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
)

// What a server in a cluster is found by, in its own namespace.
const (
	// ServerName is the name of its Service, and one that its certificate is always for.
	ServerName = "bulkhead"
	// ServerSelector finds its pods, and ServerPort is the port they listen on.
	ServerSelector = "app.kubernetes.io/name=bulkhead,app.kubernetes.io/component=server"
	ServerPort     = 8443
	// TrustName is the ConfigMap with the certificates, under TrustKey, that may have
	// signed the server's.
	TrustName = "bulkhead-ca"
	TrustKey  = caKey
)

// Publish tells the users of a cluster how to know the server: in ConfigMap
// bulkhead-ca of its namespace. It is no secret, but whoever may change it can
// pretend to be the server. What the installation has said of it stays as it is.
func Publish(ctx context.Context, config *rest.Config, namespace string, ca []byte) error {
	client, err := kubernetes.NewForConfig(config)
	if err != nil {
		return fmt.Errorf("reach the cluster: %w", err)
	}
	object := applycorev1.ConfigMap(TrustName, namespace).
		WithData(map[string]string{TrustKey: string(ca)})
	ctx, cancel := context.WithTimeout(ctx, askTime)
	defer cancel()
	_, err = client.CoreV1().ConfigMaps(namespace).Apply(ctx, object, metav1.ApplyOptions{FieldManager: fieldManager, Force: true})
	if err != nil {
		return fmt.Errorf("publish ConfigMap %s in namespace %s: %w", TrustName, namespace, err)
	}
	return nil
}
