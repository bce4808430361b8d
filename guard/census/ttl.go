package census

import (
	"context"
	"fmt"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"

	"bulkhead.dev/bulkhead"
)

// TTL asks how long after its end the Job that is the example of a family will be
// removed by the cluster; 0: it will not, or they are no Jobs. It is not in the metadata
// that a census reads; one request for a family that grows is cheap.
func TTL(ctx context.Context, config *rest.Config, key bulkhead.Key, example string) (time.Duration, error) {
	if key.Kind != "jobs.batch" || key.Namespace == "*" {
		return 0, nil
	}
	client, err := kubernetes.NewForConfig(config)
	if err != nil {
		return 0, fmt.Errorf("make a client: %w", err)
	}
	// A list of one: who watches Jobs may list them, and perhaps not get them.
	list, err := client.BatchV1().Jobs(key.Namespace).List(ctx, metav1.ListOptions{FieldSelector: fields.OneTermEqualSelector("metadata.name", example).String(), Limit: 1})
	if err != nil {
		return 0, fmt.Errorf("read a Job of the family: %w", err)
	}
	if len(list.Items) == 0 {
		return 0, fmt.Errorf("read a Job of the family: %s is gone", example)
	}
	if ttl := list.Items[0].Spec.TTLSecondsAfterFinished; ttl != nil {
		return time.Duration(*ttl) * time.Second, nil
	}
	return 0, nil
}
