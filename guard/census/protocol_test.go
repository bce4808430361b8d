package census_test

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/rest"

	"bulkhead.dev/bulkhead"
	"bulkhead.dev/bulkhead/guard/census"
)

// played is an API server with ConfigMaps only that does what a test says: what a
// real one cannot be made to do, or not with so many objects.
type played struct {
	mu      sync.Mutex
	objects []*metav1.PartialObjectMetadata
	version int
	old     bool // it cannot stream lists
	metrics string
	expired int  // so many watches are told that their version is too old
	late    int  // so many watches are told it once they are open
	lost    int  // so many lists in pages cannot be gone on with
	deaf    bool // it does not know what a streamed list is, and does not say so
	pages   []string
	watches []string
	drop    chan struct{} // closed: watches end
}

func play(t *testing.T, p *played) *rest.Config {
	p.drop = make(chan struct{})
	server := httptest.NewServer(p)
	t.Cleanup(server.Close)
	return &rest.Config{Host: server.URL}
}

// hold is what is done while nobody is served.
func (p *played) hold(do func()) {
	p.mu.Lock()
	defer p.mu.Unlock()
	do()
}

// end ends all watches.
func (p *played) end() {
	p.hold(func() { close(p.drop); p.drop = make(chan struct{}) })
}

func (p *played) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if r.URL.Path == "/metrics" && p.metrics != "" {
		fmt.Fprint(w, p.metrics)
		return
	}
	if r.URL.Path != "/api/v1/configmaps" {
		(&generated{}).ServeHTTP(w, r)
		return
	}
	q := r.URL.Query()
	p.mu.Lock()
	defer p.mu.Unlock()
	switch {
	case q.Get("watch") == "" && q.Get("continue") != "" && p.lost > 0:
		p.lost--
		refuse(w, http.StatusGone, metav1.StatusReasonExpired)
	case q.Get("watch") == "":
		p.pages = append(p.pages, q.Get("continue"))
		p.page(w, q.Get("continue"))
	case p.old && q.Get("sendInitialEvents") != "":
		refuse(w, http.StatusUnprocessableEntity, metav1.StatusReasonInvalid)
	default:
		p.watches = append(p.watches, "from "+q.Get("resourceVersion"))
		p.stream(w, r)
	}
}

func refuse(w http.ResponseWriter, code int, reason metav1.StatusReason) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(code)
	json.NewEncoder(w).Encode(metav1.Status{TypeMeta: metav1.TypeMeta{Kind: "Status", APIVersion: "v1"}, //nolint:errcheck // whoever asked sees it
		Status: metav1.StatusFailure, Reason: reason, Code: int32(code), Message: "played"})
}

// page answers with three objects.
func (p *played) page(w http.ResponseWriter, from string) {
	const size = 3
	first, _ := strconv.Atoi(from)
	last := min(first+size, len(p.objects))
	list := metav1.PartialObjectMetadataList{TypeMeta: metav1.TypeMeta{Kind: "PartialObjectMetadataList", APIVersion: "meta.k8s.io/v1"}}
	list.ResourceVersion = strconv.Itoa(p.version)
	for _, o := range p.objects[first:last] {
		list.Items = append(list.Items, *o)
	}
	if last < len(p.objects) {
		list.Continue = strconv.Itoa(last)
	}
	answer(w, list)
}

func (p *played) stream(w http.ResponseWriter, r *http.Request) {
	e := newEncoder(w)
	if p.expired > 0 && r.URL.Query().Get("resourceVersion") != "" {
		p.expired--
		refuse(w, http.StatusGone, metav1.StatusReasonExpired)
		return
	}
	if r.URL.Query().Get("sendInitialEvents") != "" {
		for _, o := range p.objects {
			e.event("ADDED", o)
		}
		if !p.deaf {
			e.event("BOOKMARK", bookmark(p.version))
		}
	}
	if p.late > 0 && r.URL.Query().Get("resourceVersion") != "" {
		p.late--
		e.expire()
		return
	}
	w.(http.Flusher).Flush()
	drop := p.drop
	p.mu.Unlock()
	defer p.mu.Lock()
	select {
	case <-drop:
	case <-r.Context().Done():
	}
}

func plain(namespace, name string, labels map[string]string) *metav1.PartialObjectMetadata {
	return &metav1.PartialObjectMetadata{TypeMeta: partial, ObjectMeta: metav1.ObjectMeta{
		Name: name, Namespace: namespace, UID: types.UID(namespace + "/" + name), Labels: labels,
		ResourceVersion: "1", CreationTimestamp: metav1.NewTime(time.Unix(1_790_000_000, 0)),
	}}
}

func eventually(t *testing.T, c *census.Census, ok func(bulkhead.Census) bool) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	ticker := time.NewTicker(200 * time.Millisecond)
	defer ticker.Stop()
	for !ok(c.Snapshot()) {
		select {
		case <-ticker.C:
		case <-ctx.Done():
			t.Fatalf("it did not come: %+v", c.Snapshot())
		}
	}
}

func isExact(s bulkhead.Census) bool { return status(s, "configmaps").Exact }

func TestAServerThatCannotStreamAListIsAskedForPages(t *testing.T) {
	p := &played{old: true, version: 7}
	for i := range 10 {
		p.objects = append(p.objects, plain("a", fmt.Sprintf("dump-%d", i), nil))
	}
	c, _ := run(t, play(t, p), census.Options{})
	eventually(t, c, func(s bulkhead.Census) bool { return isExact(s) && tally(s, "configmaps", "a", "dump-*").Objects == 10 })
	eventually(t, c, func(bulkhead.Census) bool {
		p.mu.Lock()
		defer p.mu.Unlock()
		return len(p.watches) > 0
	})
	p.mu.Lock()
	defer p.mu.Unlock()
	if diff := cmp.Diff("from 7", p.watches[0]); diff != "" {
		t.Errorf("the watch behind the list, -want +got:\n%s", diff)
	}
}

func TestAVersionThatIsTooOldIsListedAnewAndWhatIsGoneIsDeleted(t *testing.T) {
	p := &played{version: 7}
	for i := range 10 {
		p.objects = append(p.objects, plain("a", fmt.Sprintf("dump-%d", i), map[string]string{"username": "ann"}))
	}
	c, _ := run(t, play(t, p), census.Options{})
	eventually(t, c, isExact)
	p.hold(func() {
		p.objects = append(p.objects[4:], plain("a", "dump-11", map[string]string{"username": "bob"}))
		p.expired, p.version = 1, 9
	})
	p.end()
	eventually(t, c, func(s bulkhead.Census) bool {
		got := tally(s, "configmaps", "a", "dump-*")
		return isExact(s) && got.Objects == 7 && got.Deleted == 4 && got.Created == 1
	})
	got := tally(c.Snapshot(), "configmaps", "a", "dump-*")
	want := []bulkhead.Fact{{Key: "username", Value: "ann", Objects: 6}, {Key: "username", Value: "bob", Objects: 1}}
	if diff := cmp.Diff(want, got.Facts); diff != "" {
		t.Errorf("facts, -want +got:\n%s", diff)
	}
	if len(got.Born) != 1 || got.Born[0].Objects != 7 {
		t.Errorf("born: %+v", got.Born)
	}
}

// In the middle of a watch it is an event that says so, and of a list in pages the answer
// to the next one.
func TestAVersionThatBecomesTooOldInTheMiddleIsListedAnew(t *testing.T) {
	for name, c := range map[string]struct {
		old                 bool
		expired, late, lost int
	}{
		"of a watch":         {late: 1},
		"of a list in pages": {old: true, expired: 1, lost: 1},
		"of both":            {old: true, late: 1, lost: 1},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			p := &played{version: 7, old: c.old}
			for i := range 10 {
				p.objects = append(p.objects, plain("a", fmt.Sprintf("dump-%d", i), map[string]string{"username": "ann"}))
			}
			census, _ := run(t, play(t, p), census.Options{})
			eventually(t, census, isExact)
			p.hold(func() {
				p.objects = append(p.objects[4:], plain("a", "dump-11", map[string]string{"username": "ann"}))
				p.version, p.expired, p.late, p.lost = 9, c.expired, c.late, c.lost
			})
			p.end()
			eventually(t, census, func(s bulkhead.Census) bool {
				got := tally(s, "configmaps", "a", "dump-*")
				p.mu.Lock()
				defer p.mu.Unlock()
				return isExact(s) && got.Objects == 7 && len(got.Facts) == 1 && got.Facts[0].Objects == 7 && p.late+p.lost+p.expired == 0
			})
		})
	}
}

// An API server from before streamed lists, or a proxy that drops the question, sends the
// objects and never says that they were all.
func TestAServerThatNeverEndsItsListIsAskedForPages(t *testing.T) {
	p := &played{version: 7, deaf: true}
	for i := range 10 {
		p.objects = append(p.objects, plain("a", fmt.Sprintf("dump-%d", i), nil))
	}
	c, err := census.New(play(t, p), census.Options{})
	if err != nil {
		t.Fatal(err)
	}
	c.SetIdle(300 * time.Millisecond)
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan struct{})
	go func() { defer close(done); _ = c.Run(ctx) }()
	defer func() { cancel(); <-done }()
	eventually(t, c, func(s bulkhead.Census) bool {
		p.mu.Lock()
		defer p.mu.Unlock()
		return isExact(s) && tally(s, "configmaps", "a", "dump-*").Objects == 10 && len(p.pages) == 4 && len(p.watches) >= 2
	})
	p.mu.Lock()
	defer p.mu.Unlock()
	if diff := cmp.Diff([]string{"from ", "from 7"}, p.watches[:2]); diff != "" {
		t.Errorf("watches, -want +got:\n%s", diff)
	}
	if diff := cmp.Diff([]string{"", "3", "6", "9"}, p.pages); diff != "" {
		t.Errorf("pages, -want +got:\n%s", diff)
	}
}

func TestWordsThatAreOneOfManyBecomeOneFamily(t *testing.T) {
	p := &played{version: 7}
	names := func(n int) (names []string) {
		const letters = "abcdefghij"
		for i := range n {
			names = append(names, "ma"+string(letters[i/100%10])+"o"+string(letters[i/10%10])+string(letters[i%10]))
		}
		return names
	}
	for _, name := range names(300) {
		p.objects = append(p.objects, plain("people", "home-"+name+"-config", map[string]string{"release": name}))
	}
	for _, name := range names(40) {
		p.objects = append(p.objects, plain("few", "home-"+name+"-config", nil))
	}
	for i := range 30 { // one that reads like a word, among those that do not
		p.objects = append(p.objects, plain("random", fmt.Sprintf("web-%08d", i), nil))
	}
	p.objects = append(p.objects, plain("random", "web-mailings", nil))
	for i := range 700 {
		p.objects = append(p.objects, plain("team"+names(700)[i], "kube-root-ca.crt", nil))
	}
	c, _ := run(t, play(t, p), census.Options{})
	eventually(t, c, isExact)
	s := c.Snapshot()
	got := map[string]int64{}
	for _, x := range s.Tallies {
		if x.Namespace != "few" {
			got[x.Namespace+" "+x.Family+" "+x.Origin] = x.Objects
		}
	}
	want := map[string]int64{"people home-*-config release/*": 300, "random web-* ": 31, "* kube-root-ca.crt ": 700}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("-want +got:\n%s", diff)
	}
	if n := len(s.Tallies); n != 3+40 {
		t.Errorf("%d families, want 43: those of whom there are few stay apart", n)
	}
}

func TestFamiliesHaveABound(t *testing.T) {
	p := &played{version: 7}
	words := make([]string, 0, 27_000)
	for i := range cap(words) {
		// Words that differ in every place: no * would help.
		words = append(words, fmt.Sprintf("ba%[1]cna-mo%[2]cta-ri%[3]cko", 'a'+i%26, 'a'+i/26%26, 'a'+i/676%26)+fmt.Sprintf("-to%cla", 'a'+i/17576))
	}
	for i, w := range words {
		p.objects = append(p.objects, plain(fmt.Sprintf("ns%c%c%c", 'a'+i%26, 'a'+i/26%26, 'a'+i/676%26), w, nil))
	}
	c, _ := run(t, play(t, p), census.Options{})
	eventually(t, c, isExact)
	s := c.Snapshot()
	if n := len(s.Tallies); n > 20_001 {
		t.Errorf("%d families", n)
	}
	if got := objects(s)["configmaps"]; got != len(words) {
		t.Errorf("%d objects, want %d", got, len(words))
	}
	if rest := tally(s, "configmaps", "", "*").Objects; rest == 0 || status(s, "configmaps").Reason == "" {
		t.Errorf("%d objects are in the family of the rest: %+v", rest, status(s, "configmaps"))
	}
}

func TestWhatLabelsSayIsBoundedAndHarmless(t *testing.T) {
	p := &played{version: 7}
	long := string(make([]byte, 1<<16))
	for i := range 100 {
		labels := map[string]string{"example.org/username": "user" + strconv.Itoa(i%6), "comment": "\x1b[31mred" + long, "unknown": "x", "script": fmt.Sprintf("s%d.php", i)}
		p.objects = append(p.objects, plain("a", fmt.Sprintf("dump-%d", i), labels))
	}
	c, _ := run(t, play(t, p), census.Options{})
	eventually(t, c, isExact)
	users := 0
	for _, f := range tally(c.Snapshot(), "configmaps", "a", "dump-*").Facts {
		switch f.Key {
		case "username":
			users++
			if f.Objects < 16 || f.Objects > 17 {
				t.Errorf("%+v", f)
			}
		case "comment":
			if len(f.Value) != 128 || f.Value[:8] != "?[31mred" || f.Objects != 100 {
				t.Errorf("%d bytes %q, %d objects", len(f.Value), f.Value, f.Objects)
			}
		default: // each has another script: none is frequent
			t.Errorf("%+v", f)
		}
	}
	if users != 4 {
		t.Errorf("%d users, want the 4 most frequent", users)
	}
}

func TestBirthsAreToldByTheQuarterTheHourAndTheWeek(t *testing.T) {
	now := time.Date(2026, 11, 25, 12, 7, 0, 0, time.UTC)
	p := &played{version: 7}
	for i, age := range []time.Duration{0, time.Minute, 10 * time.Minute, 26 * time.Hour, 26*time.Hour + 20*time.Minute, 30 * 24 * time.Hour, 300 * 24 * time.Hour} {
		o := plain("a", fmt.Sprintf("dump-%d", i), nil)
		o.CreationTimestamp = metav1.NewTime(now.Add(-age))
		p.objects = append(p.objects, o)
	}
	var mu sync.Mutex
	clock := func() time.Time {
		mu.Lock()
		defer mu.Unlock()
		return now
	}
	c, _ := run(t, play(t, p), census.Options{Now: clock})
	eventually(t, c, isExact)
	at := func(day, hour, minute int) time.Time { return time.Date(2026, 11, day, hour, minute, 0, 0, time.UTC) }
	want := []bulkhead.Birth{{At: at(18, 12, 0), Objects: 2}, {At: at(24, 9, 0), Objects: 1}, {At: at(24, 10, 0), Objects: 1},
		{At: at(25, 11, 45), Objects: 1}, {At: at(25, 12, 0), Objects: 2}}
	if diff := cmp.Diff(want, tally(c.Snapshot(), "configmaps", "a", "dump-*").Born); diff != "" {
		t.Errorf("-want +got:\n%s", diff)
	}
	// Two days later, and after the clock was set back.
	for _, later := range []time.Duration{48 * time.Hour, -60 * time.Hour} {
		mu.Lock()
		now = now.Add(later)
		mu.Unlock()
		total := int64(0)
		for _, b := range tally(c.Snapshot(), "configmaps", "a", "dump-*").Born {
			total += b.Objects
		}
		if total != 7 {
			t.Errorf("%d births, want 7", total)
		}
	}
}

func TestTheAPIServersMetricsAreReadLineByLine(t *testing.T) {
	p := &played{metrics: strings.Join([]string{
		`# HELP apiserver_resource_objects [ALPHA] Number of stored objects.`,
		`apiserver_storage_objects{resource="configmaps"} 11`,
		`apiserver_resource_objects{group="",resource="configmaps"} 12`,
		`apiserver_resource_objects{group="batch",resource="jobs"} 1.791e+03`,
		`apiserver_storage_objects{resource="events"} 5`,
		`apiserver_storage_objects{resource="tasks.example.org"} 7`,
		`apiserver_resource_objects{group="",resource="secrets"} -1`, // an error of etcd's
		`apiserver_resource_size_estimate_bytes{group="batch",resource="jobs"} 4.2e+06`,
		`apiserver_resource_size_estimate_bytes{group="",resource="configmaps"} -1`,
		`apiserver_resource_objects{group="",resource="` + strings.Repeat("x", 1<<20) + `"} 3`,
		`apiserver_resource_objects{group="",resource="pods"} NaN`,
		`apiserver_resource_objects{`, `apiserver_resource_objects`, "\x00{}\x00",
		`apiserver_request_total{resource="configmaps",verb="LIST"} 9`,
		`apiserver_resource_objects{group="apps",resource="replicasets"} 4`, `apiserver_resource_objects{group="",resource="nodes"} 1`, // cut off
	}, "\n")}
	s, err := census.Once(t.Context(), play(t, p), census.Options{MetricsOnly: true})
	if err != nil {
		t.Fatal(err)
	}
	got := map[string][2]int64{}
	for _, k := range s.Kinds {
		got[k.Kind] = [2]int64{k.Objects, k.Bytes}
	}
	want := map[string][2]int64{"configmaps": {12, 0}, "jobs.batch": {1791, 4_200_000}, "events": {5, 0}, "tasks.example.org": {7, 0}, "replicasets.apps": {4, 0}}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("-want +got:\n%s", diff)
	}
	s, err = census.Once(t.Context(), play(t, &played{}), census.Options{MetricsOnly: true})
	if err != nil || len(s.Kinds) != 1 || !strings.HasPrefix(s.Kinds[0].Reason, "not seen for now: the API server's metrics cannot be read") {
		t.Errorf("without metrics: %+v, %v", s, err)
	}
}

// A proxy that has lost its API server keeps the connection, and would for hours.
func TestAWatchThatSaysNothingIsOpenedAnew(t *testing.T) {
	p := &played{version: 7, objects: []*metav1.PartialObjectMetadata{plain("a", "dump-1", nil)}}
	c, err := census.New(play(t, p), census.Options{})
	if err != nil {
		t.Fatal(err)
	}
	c.SetSilent(100 * time.Millisecond)
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan struct{})
	go func() { defer close(done); _ = c.Run(ctx) }()
	defer func() { cancel(); <-done }()
	eventually(t, c, func(bulkhead.Census) bool {
		p.mu.Lock()
		defer p.mu.Unlock()
		return len(p.watches) > 1 && p.watches[1] == "from 7"
	})
}
