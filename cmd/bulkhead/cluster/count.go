package cluster

import (
	"bufio"
	"context"
	"fmt"
	"strconv"
	"strings"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/client-go/discovery"
	"k8s.io/client-go/dynamic"
	"k8s.io/client-go/metadata"
	"k8s.io/client-go/rest"

	"bulkhead.dev/bulkhead"
	"bulkhead.dev/bulkhead/guard/budget"
	"bulkhead.dev/bulkhead/guard/footprint"
)

// Count asks the API server how much there is of each. Objects cost one request for one
// object's metadata: the answer says how many remain. Rules are counted in whole policies,
// page by page, and the bytes of everything are those of the cluster's database, of which
// the API server's metrics tell. NotKnown says what could not be counted, with the reason;
// a kind that the cluster has not got is counted as 0.
func Count(ctx context.Context, o Options, counts []footprint.Count) (found map[footprint.Count]int64, notKnown []string, err error) {
	config, err := o.loader().ClientConfig()
	if err != nil {
		return nil, nil, unreadable(err)
	}
	config.UserAgent, config.Timeout, config.WarningHandler = o.UserAgent, requestTime, rest.NoWarnings{}
	c := &counter{}
	if c.discovery, err = discovery.NewDiscoveryClientForConfig(config); err != nil {
		return nil, nil, unreadable(err)
	}
	if c.metadata, err = metadata.NewForConfig(config); err != nil {
		return nil, nil, unreadable(err)
	}
	if c.dynamic, err = dynamic.NewForConfig(config); err != nil {
		return nil, nil, unreadable(err)
	}
	if err := c.learn(); err != nil {
		return nil, nil, away(config, err)
	}
	found = map[footprint.Count]int64{}
	for _, what := range counts {
		n, why, err := c.count(ctx, what)
		switch {
		case err != nil:
			return nil, nil, away(config, err)
		case why != "":
			notKnown = append(notKnown, fmt.Sprintf("%s (%s)", named(what), why))
		default:
			found[what] = n
		}
	}
	return found, notKnown, nil
}

// named is what is counted, for people.
func named(what footprint.Count) string {
	name := what.Kind
	switch {
	case what.Unit == budget.Bytes:
		name = "bytes of all"
	case what.Unit != budget.Objects:
		name = what.Unit + " of " + what.Kind
	}
	if what.Namespace != "" {
		name += " in namespace " + what.Namespace
	}
	return name
}

type counter struct {
	discovery *discovery.DiscoveryClient
	metadata  metadata.Interface
	dynamic   dynamic.Interface
	versions  map[string]schema.GroupVersionResource // the one that is preferred, by kind
	failed    map[string]bool                        // groups of which nothing is known
}

// learn asks which kinds there are.
func (c *counter) learn() error {
	lists, err := c.discovery.ServerPreferredResources()
	if err != nil && len(lists) == 0 {
		return err
	}
	c.versions, c.failed = map[string]schema.GroupVersionResource{}, map[string]bool{}
	groups, _ := discovery.GroupDiscoveryFailedErrorGroups(err) // some may be served by what is away
	for version := range groups {
		c.failed[version.Group] = true
	}
	for _, list := range lists {
		version, err := schema.ParseGroupVersion(list.GroupVersion)
		if err != nil {
			continue
		}
		for _, r := range list.APIResources {
			name := strings.TrimSuffix(r.Name+"."+version.Group, ".")
			c.versions[name] = version.WithResource(r.Name)
		}
	}
	return nil
}

// count is how much there is of one, or why that is not known.
func (c *counter) count(ctx context.Context, what footprint.Count) (n int64, why string, err error) {
	if what.Unit == budget.Bytes {
		n, why = c.databaseBytes(ctx)
		return n, why, nil
	}
	resource, known := c.versions[what.Kind]
	if _, group, _ := strings.Cut(what.Kind, "."); !known {
		if c.failed[group] {
			why = "the API server of their group does not answer"
		}
		return 0, why, nil
	}
	if what.Unit == budget.Rules {
		n, err = c.rules(ctx, what, resource)
	} else {
		n, err = c.objects(ctx, what, resource)
	}
	switch {
	case apierrors.IsForbidden(err):
		return 0, "to list them is not permitted", nil
	case apierrors.IsNotFound(err) || apierrors.IsMethodNotSupported(err):
		return 0, "", nil
	}
	return n, "", err
}

func (c *counter) objects(ctx context.Context, what footprint.Count, resource schema.GroupVersionResource) (int64, error) {
	list, err := c.metadata.Resource(resource).Namespace(what.Namespace).List(ctx, metav1.ListOptions{Limit: 1})
	if err != nil {
		return 0, err
	}
	n := int64(len(list.Items))
	if list.RemainingItemCount != nil {
		n += *list.RemainingItemCount
	}
	return n, nil
}

// policyPage is how many policies are read at once: one with a hundred rules has some
// 20 kB.
const policyPage = 100

func (c *counter) rules(ctx context.Context, what footprint.Count, resource schema.GroupVersionResource) (n int64, err error) {
	for o := (metav1.ListOptions{Limit: policyPage}); ; {
		list, err := c.dynamic.Resource(resource).Namespace(what.Namespace).List(ctx, o)
		if err != nil {
			return 0, err
		}
		for i := range list.Items {
			n += footprint.RulesOf(what.Kind, list.Items[i].Object)
		}
		if o.Continue = list.GetContinue(); o.Continue == "" {
			return n, nil
		}
	}
}

// storageSize is the API server's metric of how large its database is, what it has not
// compacted yet with it, as etcd's own quota counts
// (https://kubernetes.io/docs/reference/instrumentation/metrics).
const storageSize = "apiserver_storage_size_bytes{"

// databaseBytes is how large the cluster's database is, or why that is not known.
func (c *counter) databaseBytes(ctx context.Context) (n int64, why string) {
	body, err := c.discovery.RESTClient().Get().AbsPath("/metrics").SetHeader("Accept", "text/plain").Stream(ctx)
	if apierrors.IsForbidden(err) {
		return 0, "to get /metrics of the API server is not permitted"
	}
	if err != nil {
		return 0, "the API server's metrics cannot be read"
	}
	defer body.Close() //nolint:errcheck // it was read
	const longest = 64 << 10
	lines, told := bufio.NewScanner(body), false
	lines.Buffer(nil, longest)
	for lines.Scan() {
		rest, is := strings.CutPrefix(lines.Text(), storageSize)
		_, value, cut := strings.Cut(rest, "} ")
		if size, err := strconv.ParseFloat(value, 64); is && cut && err == nil && size >= 0 && size < 1<<60 {
			n, told = n+int64(size), true
		}
	}
	if lines.Err() != nil || !told {
		return 0, "the API server does not say how large its database is"
	}
	return n, ""
}

func away(config *rest.Config, err error) error {
	if apierrors.IsUnauthorized(err) || apierrors.IsForbidden(err) {
		return &bulkhead.Error{Code: bulkhead.CodeDenied, Message: "the cluster at " + bulkhead.Quote(config.Host) + " refuses the credentials of the kubeconfig", Err: err,
			Hint: "they are wrong or have expired; `kubectl auth whoami` says whom it takes you for"}
	}
	return &bulkhead.Error{Code: bulkhead.CodeUnavailable, Message: "the cluster at " + bulkhead.Quote(config.Host) + " does not answer", Err: err,
		Hint: "without --live and --kube-context no cluster is asked"}
}
