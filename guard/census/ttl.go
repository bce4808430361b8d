package census

import (
	"context"
	"fmt"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
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
	job, err := client.BatchV1().Jobs(key.Namespace).Get(ctx, example, metav1.GetOptions{})
	if err != nil {
		return 0, fmt.Errorf("read a Job of the family: %w", err)
	}
	if job.Spec.TTLSecondsAfterFinished == nil {
		return 0, nil
	}
	return time.Duration(*job.Spec.TTLSecondsAfterFinished) * time.Second, nil
}
