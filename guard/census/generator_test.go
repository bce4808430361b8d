package census_test

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"testing"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/serializer/protobuf"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/rest"
)

// A million objects do not fit into a lab on a small machine, and need not be real:
// what is measured is who reads them. The generator speaks as an API server does to a
// watch of metadata, in another process, so that its memory is not the census's.

const generatorEnv = "BULKHEAD_CENSUS_GENERATOR" // OBJECTS/CHANGES PER SECOND

// generator starts one and returns how to reach it.
func generator(t testing.TB, objects, changes int) *rest.Config {
	t.Helper()
	cmd := exec.CommandContext(context.WithoutCancel(t.Context()), os.Args[0])
	cmd.Env = append(os.Environ(), fmt.Sprintf("%s=%d/%d", generatorEnv, objects, changes))
	cmd.Stderr = os.Stderr
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal("start the generator:", err)
	}
	out, err := cmd.StdoutPipe()
	if err == nil {
		err = cmd.Start()
	}
	if err != nil {
		t.Fatal("start the generator:", err)
	}
	t.Cleanup(func() {
		in.Close()
		if err := cmd.Wait(); err != nil {
			t.Error("the generator:", err)
		}
	})
	url, err := bufio.NewReader(out).ReadString('\n')
	if err != nil {
		t.Fatal("start the generator:", err)
	}
	return &rest.Config{Host: strings.TrimSpace(url)}
}

// generate serves until its input ends.
func generate(w io.Writer, what string) error {
	objects, changes, _ := strings.Cut(what, "/")
	g := &generated{}
	var err error
	if g.objects, err = strconv.Atoi(objects); err == nil {
		g.changes, err = strconv.Atoi(changes)
	}
	if err != nil {
		return err
	}
	server := httptest.NewServer(g)
	fmt.Fprintln(w, server.URL)
	_, err = io.Copy(io.Discard, os.Stdin) // until the test has ended, however it does
	return err
}

// generated is an API server with ConfigMaps and nothing else.
type generated struct{ objects, changes int }

func (g *generated) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	switch r.URL.Path {
	case "/api":
		answer(w, metav1.APIVersions{TypeMeta: metav1.TypeMeta{Kind: "APIVersions"}, Versions: []string{"v1"}})
	case "/apis":
		answer(w, metav1.APIGroupList{TypeMeta: metav1.TypeMeta{Kind: "APIGroupList", APIVersion: "v1"}})
	case "/api/v1":
		answer(w, metav1.APIResourceList{TypeMeta: metav1.TypeMeta{Kind: "APIResourceList", APIVersion: "v1"}, GroupVersion: "v1",
			APIResources: []metav1.APIResource{{Name: "configmaps", Namespaced: true, Kind: "ConfigMap", Verbs: []string{"list", "watch"}}}})
	case "/api/v1/configmaps":
		g.watch(w, r)
	default:
		http.NotFound(w, r)
	}
}

func answer(w http.ResponseWriter, v any) {
	w.Header().Set("Content-Type", "application/json")
	json.NewEncoder(w).Encode(v) //nolint:errcheck // whoever asked sees it
}

func (g *generated) watch(w http.ResponseWriter, r *http.Request) {
	e := newEncoder(w)
	if r.URL.Query().Get("sendInitialEvents") != "true" {
		http.Error(w, "only streamed lists", http.StatusBadRequest)
		return
	}
	for i := range g.objects {
		e.event("ADDED", configMap(i))
	}
	e.event("BOOKMARK", bookmark(g.objects))
	w.(http.Flusher).Flush()
	if g.changes == 0 {
		<-r.Context().Done()
		return
	}
	ticker := time.NewTicker(time.Second / time.Duration(g.changes))
	defer ticker.Stop()
	for i := g.objects; ; i++ {
		select {
		case <-ticker.C:
		case <-r.Context().Done():
			return
		}
		// One comes, one goes, two change.
		switch i % 4 {
		case 0:
			e.event("ADDED", configMap(i))
		case 1:
			e.event("DELETED", configMap(i-g.objects))
		default:
			e.event("MODIFIED", configMap(rand.IntN(g.objects/2)+g.objects/2))
		}
		w.(http.Flusher).Flush()
	}
}

// encoder writes watch events as the API server does: frames with their length in
// front, in protobuf.
type encoder struct {
	frames io.Writer
	object *protobuf.Serializer
	events *protobuf.RawSerializer
}

func newEncoder(w http.ResponseWriter) *encoder {
	w.Header().Set("Content-Type", "application/vnd.kubernetes.protobuf;stream=watch")
	scheme := runtime.NewScheme()
	return &encoder{
		frames: protobuf.LengthDelimitedFramer.NewFrameWriter(w),
		object: protobuf.NewSerializer(scheme, scheme),
		events: protobuf.NewRawSerializer(scheme, scheme),
	}
}

func (e *encoder) event(kind string, o *metav1.PartialObjectMetadata) {
	raw, err := runtime.Encode(e.object, o)
	if err != nil {
		panic(err)
	}
	if err := e.events.Encode(&metav1.WatchEvent{Type: kind, Object: runtime.RawExtension{Raw: raw}}, e.frames); err != nil {
		return // whoever watched has gone
	}
}

// expire says, as the last event of a watch, that its version has become too old.
func (e *encoder) expire() {
	status := &metav1.Status{TypeMeta: metav1.TypeMeta{Kind: "Status", APIVersion: "v1"}, Status: metav1.StatusFailure,
		Reason: metav1.StatusReasonExpired, Code: http.StatusGone, Message: "played"}
	raw, err := runtime.Encode(e.object, status)
	if err != nil {
		panic(err)
	}
	if err := e.events.Encode(&metav1.WatchEvent{Type: "ERROR", Object: runtime.RawExtension{Raw: raw}}, e.frames); err != nil {
		return // whoever watched has gone
	}
}

var partial = metav1.TypeMeta{Kind: "PartialObjectMetadata", APIVersion: "meta.k8s.io/v1"}

func bookmark(version int) *metav1.PartialObjectMetadata {
	return &metav1.PartialObjectMetadata{TypeMeta: partial, ObjectMeta: metav1.ObjectMeta{
		ResourceVersion: strconv.Itoa(version), Annotations: map[string]string{metav1.InitialEventsAnnotationKey: "true"},
	}}
}

// configMap is one of those that a release of the incident's shape has, always the
// same for a number.
func configMap(i int) *metav1.PartialObjectMetadata {
	random := rand.New(rand.NewPCG(7, uint64(i/7)))
	const letters = "abcdefghijklmnopqrstuvwxyz0123456789"
	release := make([]byte, 8)
	for k := range release {
		release[k] = letters[random.IntN(len(letters))]
	}
	parts := [...]string{"mail-config", "php-config", "envoy-config", "httpd-sites", "mcrouter-config", "rsyslog-config", "wikimedia-cluster"}
	name := "mediawiki-" + string(release) + "-" + parts[i%len(parts)]
	born := metav1.NewTime(time.Unix(1_790_000_000-int64(random.IntN(14*24*3600)), 0))
	fields := `{"f:data":{".":{},"f:config.json":{}},"f:metadata":{"f:annotations":{".":{},"f:meta.helm.sh/release-name":{},"f:meta.helm.sh/release-namespace":{}},` +
		`"f:labels":{".":{},"f:app":{},"f:app.kubernetes.io/managed-by":{},"f:chart":{},"f:heritage":{},"f:release":{},"f:username":{},"f:script":{}}}}`
	return &metav1.PartialObjectMetadata{TypeMeta: partial, ObjectMeta: metav1.ObjectMeta{
		Name: name, Namespace: "mw-script-" + strconv.Itoa(i%10), UID: types.UID(fmt.Sprintf("%08x-0000-4000-8000-%012x", i*2654435761&0xffffffff, i)),
		ResourceVersion: strconv.Itoa(i + 1), CreationTimestamp: born,
		Labels: map[string]string{"app": "mediawiki", "app.kubernetes.io/managed-by": "Helm", "chart": "mediawiki-0.7.3", "heritage": "Helm",
			"release": string(release), "username": "user" + strconv.Itoa(i%3), "script": "requeueTranscodes.php"},
		Annotations:   map[string]string{"meta.helm.sh/release-name": string(release), "meta.helm.sh/release-namespace": "mw-script"},
		ManagedFields: []metav1.ManagedFieldsEntry{{Manager: "helm", Operation: "Update", APIVersion: "v1", Time: &born, FieldsType: "FieldsV1", FieldsV1: metav1.NewFieldsV1(fields)}},
	}}
}
