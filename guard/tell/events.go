package tell

import (
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"strings"
	"time"
	"unicode/utf8"

	"golang.org/x/time/rate"
	corev1 "k8s.io/api/core/v1"
	eventsv1 "k8s.io/api/events/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/kubernetes"

	"bulkhead.dev/bulkhead"
)

// A finding is one Event, about the namespace in which it grows, whatever becomes of
// it: its text follows the finding, and its count says how often that was told. It is
// made by the API of events.k8s.io and changed by that of core, because there alone the text of
// an Event may change; the object is the same. Its name comes from the finding, so
// two guards make one Event of one growth.
const (
	reporter    = "bulkhead"
	reasonGrows = "ObjectsMultiply"
	reasonEnded = "GrowthEnded"
	action      = "Watch"
)

// EventRules are what a guard needs to make Events.
func EventRules() []rbacv1.PolicyRule {
	return []rbacv1.PolicyRule{{APIGroups: []string{"", "events.k8s.io"}, Resources: []string{"events"}, Verbs: []string{"create", "patch"}}}
}

// events makes Events.
type events struct {
	client    kubernetes.Interface
	own       string
	reporter  string
	now       func() time.Time
	allowance *rate.Limiter
}

// In any hour there are at most twice so many requests about Events. What is more
// waits for its turn: it is still true then, or not worth an Event.
const halfOfHour = 10

func newEvents(o Events, now func() time.Time) (*events, error) {
	client, err := kubernetes.NewForConfig(o.Config)
	if err != nil {
		return nil, fmt.Errorf("reach the cluster: %w", err)
	}
	const mostReporter = 128 // says the API
	by := cmp.Or(o.Reporter, reporter)
	return &events{client: client, own: cmp.Or(o.Namespace, metav1.NamespaceDefault), reporter: by[:min(len(by), mostReporter)], now: now,
		allowance: rate.NewLimiter(rate.Every(time.Hour/halfOfHour), halfOfHour)}, nil
}

func (*events) name() string { return "events" }

// repeat is half of the time after which an API server forgets an Event (--event-ttl,
// an hour by default): what goes on does not vanish.
func (*events) repeat() time.Duration { return 30 * time.Minute }

func (*events) close() {}

// send makes an Event of each note, as long as it may.
func (e *events) send(ctx context.Context, notes []note) (arrived int, err error) {
	for i := range notes {
		switch err := e.one(ctx, &notes[i]); {
		case err == errLater: //nolint:errorlint // it is ours, and never wrapped
			return i, nil
		case err != nil:
			return i, err
		}
	}
	return len(notes), nil
}

// errLater says that enough requests were made for now.
var errLater = fmt.Errorf("enough Events for this hour")

// one makes or changes the Event of a note: in the namespace that grows, or else in
// our own.
func (e *events) one(ctx context.Context, n *note) error {
	for _, namespace := range []string{cmp.Or(n.Namespace, e.own), e.own} {
		err := e.put(ctx, n, namespace)
		// Namespaces end, and rights may be those of some of them only.
		if namespace != e.own && (apierrors.IsForbidden(err) || apierrors.IsNotFound(err) || apierrors.IsInvalid(err)) {
			continue
		}
		return err
	}
	return nil
}

func (e *events) put(ctx context.Context, n *note, namespace string) error {
	if n.n > 0 {
		if err := e.change(ctx, n, namespace); !apierrors.IsNotFound(err) {
			return err
		}
	}
	if !e.allowance.AllowN(e.now(), 1) {
		return errLater
	}
	event := e.eventOf(n, namespace)
	_, err := e.client.EventsV1().Events(namespace).Create(ctx, event, metav1.CreateOptions{FieldManager: reporter})
	if apierrors.IsAlreadyExists(err) {
		return e.change(ctx, n, namespace)
	}
	if err != nil {
		return fmt.Errorf("make an Event: %w", err)
	}
	return nil
}

// change is a patch: to read an Event first would be one right and one request more.
func (e *events) change(ctx context.Context, n *note, namespace string) error {
	if !e.allowance.AllowN(e.now(), 1) {
		return errLater
	}
	event := e.eventOf(n, namespace)
	patch, err := json.Marshal(map[string]any{
		"message": event.Note, "reason": event.Reason, "type": event.Type,
		"series": corev1.EventSeries{Count: int32(min(n.n+1, 1<<30)), LastObservedTime: event.EventTime},
	})
	if err != nil {
		return err
	}
	_, err = e.client.CoreV1().Events(namespace).Patch(ctx, event.Name, types.MergePatchType, patch, metav1.PatchOptions{FieldManager: reporter})
	if err != nil {
		return fmt.Errorf("change an Event: %w", err)
	}
	return nil
}

func (e *events) eventOf(n *note, namespace string) *eventsv1.Event {
	about := cmp.Or(n.Namespace, e.own)
	event := &eventsv1.Event{
		ObjectMeta: metav1.ObjectMeta{Name: "bulkhead-guard." + n.fingerprint(), Namespace: namespace,
			Labels: map[string]string{"app.kubernetes.io/managed-by": "bulkhead"}},
		EventTime: metav1.NewMicroTime(e.now()), ReportingController: reporter, ReportingInstance: e.reporter,
		Type: corev1.EventTypeWarning, Reason: reasonGrows, Action: action, Note: noteOf(n),
		Regarding: corev1.ObjectReference{APIVersion: "v1", Kind: "Namespace", Name: about, Namespace: about},
	}
	if n.news == ended {
		event.Type, event.Reason = corev1.EventTypeNormal, reasonEnded
	} else if n.Severity == bulkhead.Notice {
		event.Type = corev1.EventTypeNormal
	}
	return event
}

// noteOf is the text of an Event, which may have so many bytes and not one more.
func noteOf(n *note) string {
	text := n.Annotations["summary"]
	if n.news == ended {
		text = "ended: " + text
	}
	for _, more := range []string{"description", "advice"} {
		if n.Annotations[more] != "" {
			text += "\n" + n.Annotations[more]
		}
	}
	if len(text) <= noteLength {
		return text
	}
	text = text[:noteLength]
	if at := strings.LastIndexByte(text, '\n'); at > 0 {
		return text[:at] + "\n…"
	}
	for !utf8.ValidString(text) {
		text = text[:len(text)-1]
	}
	return text + "…"
}
