package cluster

import (
	"context"
	"fmt"
	"strings"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/client-go/discovery"
	"k8s.io/client-go/metadata"
	"k8s.io/client-go/rest"

	"bulkhead.dev/bulkhead"
)

// Kind is objects of one resource, as RESOURCE or RESOURCE.GROUP, in a namespace or,
// if that is "", in all of the cluster.
type Kind struct{ Resource, Namespace string }

// Count asks the API server how many objects there are of each kind. Each costs one
// request for one object's metadata: the answer says how many remain. Denied are the
// kinds that may not be counted, with the reason; a kind that the cluster has not got
// is counted as 0.
func Count(ctx context.Context, o Options, kinds []Kind) (counts map[Kind]int64, denied []string, err error) {
	config, err := o.loader().ClientConfig()
	if err != nil {
		return nil, nil, unreadable(err)
	}
	config.UserAgent, config.Timeout, config.WarningHandler = o.UserAgent, requestTime, rest.NoWarnings{}
	versions, err := served(config)
	if err != nil {
		return nil, nil, err
	}
	client, err := metadata.NewForConfig(config)
	if err != nil {
		return nil, nil, unreadable(err)
	}
	counts = map[Kind]int64{}
	for _, kind := range kinds {
		resource, known := versions[kind.Resource]
		if !known {
			counts[kind] = 0
			continue
		}
		list, err := client.Resource(resource).Namespace(kind.Namespace).List(ctx, metav1.ListOptions{Limit: 1})
		switch {
		case apierrors.IsForbidden(err):
			denied = append(denied, fmt.Sprintf("%s (to list them is not permitted)", kind.Resource))
		case apierrors.IsNotFound(err) || apierrors.IsMethodNotSupported(err):
			counts[kind] = 0
		case err != nil:
			return nil, nil, away(config, err)
		default:
			counts[kind] = int64(len(list.Items))
			if list.RemainingItemCount != nil {
				counts[kind] += *list.RemainingItemCount
			}
		}
	}
	return counts, denied, nil
}

// served is the version in which the cluster prefers each of its resources.
func served(config *rest.Config) (map[string]schema.GroupVersionResource, error) {
	client, err := discovery.NewDiscoveryClientForConfig(config)
	if err != nil {
		return nil, unreadable(err)
	}
	lists, err := client.ServerPreferredResources()
	if err != nil && len(lists) == 0 { // some groups may be served by what is away
		return nil, away(config, err)
	}
	versions := map[string]schema.GroupVersionResource{}
	for _, list := range lists {
		version, err := schema.ParseGroupVersion(list.GroupVersion)
		if err != nil {
			continue
		}
		for _, r := range list.APIResources {
			name := strings.TrimSuffix(r.Name+"."+version.Group, ".")
			versions[name] = version.WithResource(r.Name)
		}
	}
	return versions, nil
}

func away(config *rest.Config, err error) error {
	return &bulkhead.Error{Code: bulkhead.CodeUnavailable, Message: "the cluster at " + bulkhead.Quote(config.Host) + " does not answer", Err: err,
		Hint: "without --live and --kube-context no cluster is asked"}
}
