package guard_test

import (
	"bytes"
	"flag"
	"os"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"github.com/google/go-cmp/cmp"

	"bulkhead.dev/bulkhead"
	"bulkhead.dev/bulkhead/guard"
)

var update = flag.Bool("update", false, "write the golden files anew")

// crowded is a finding of which everything is known, and all of it is long.
func crowded(now time.Time) bulkhead.Finding {
	long := strings.Repeat("a-rather-long-name-", 4)
	f := bulkhead.Finding{
		ID: "118b1ceae7", Severity: bulkhead.Critical, Namespace: long + "x", Since: now.Add(-26 * time.Hour), PerHour: 224,
		Title:  "jobs, networkpolicies, configmaps and 3 more kinds multiply in " + long + "x",
		Client: "helm", Users: []string{"ann"}, Keeps: "nothing removes the networkpolicies, configmaps and secrets; jobs go 7d after their end; pods go with their owner",
		Facts: []bulkhead.Fact{{Key: "username", Value: "ann"}, {Key: "example.org/script", Value: "requeueTranscodes.php"},
			{Key: "comment", Value: "T363966, and what else there is to say of it in more than one line of a terminal, which nobody reads to its end"}},
	}
	for i, kind := range []string{"jobs.batch", "pods", "networkpolicies.networking.k8s.io", "configmaps", "secrets", "foos.example.org"} {
		f.Members = append(f.Members, bulkhead.Member{Key: bulkhead.Key{Kind: kind, Namespace: f.Namespace, Family: long + "*"},
			Objects: 12537 * int64(i+1), PerHour: 224, Ratio: float64(i + 1), Example: long + "e659e6c6"})
	}
	f.Members[2].Rules = 3_384_990
	for i := range 8 {
		f.Reaches = append(f.Reaches, bulkhead.Reach{Budget: bulkhead.Budget{Name: "networkpolicies rules", Limit: 200_000,
			Source: "measured: calico-node 3.23 with a limit of 500Mi is full at 211,860 rules; 3.30 and later take a tenth"},
			Now: 181_980, In: time.Duration(i) * time.Hour, Low: time.Duration(i) * 50 * time.Minute, High: time.Duration(i) * 70 * time.Minute})
	}
	for range 6 {
		f.Advice = append(f.Advice, bulkhead.Advice{Text: "refuse more of them at the API; without --yes it says what that would be, and whom else it would refuse",
			Command: "bulkhead guard quota --kinds jobs,networkpolicies,configmaps,secrets,foos.example.org -n " + f.Namespace})
	}
	return f
}

// TestAPageIsOneScreenOf80Columns compares with testdata/page.txt; go test -update writes
// it anew.
func TestAPageIsOneScreenOf80Columns(t *testing.T) {
	now := time.Date(2024, 10, 9, 5, 1, 36, 0, time.UTC)
	f := crowded(now)
	var b bytes.Buffer
	if err := guard.Text(&b, []bulkhead.Finding{f}, now, 0); err != nil {
		t.Fatal(err)
	}
	commands := map[string]bool{}
	for _, a := range f.Advice {
		commands["     "+a.Command] = true
	}
	lines := strings.Split(strings.TrimSuffix(b.String(), "\n"), "\n")
	for _, line := range lines {
		if n := utf8.RuneCountInString(line); n > 80 && !commands[line] { // a command is never cut
			t.Errorf("%d columns: %s", n, line)
		}
	}
	if len(lines) > 24 {
		t.Errorf("%d lines", len(lines))
	}
	const golden = "testdata/page.txt"
	if *update {
		if err := os.WriteFile(golden, b.Bytes(), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(golden)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(string(want), b.String()); diff != "" {
		t.Errorf("-want +got:\n%s", diff)
	}
}

// Where it is matters more than what all of it is.
func TestATitleNamesItsNamespaceAndAsManyKindsAsThereIsRoomFor(t *testing.T) {
	for namespace, want := range map[string]string{
		"lists":                               "configmaps, endpointslices, leases and 3 more kinds multiply in lists",
		"mediawiki-dev":                       "configmaps, endpointslices and 4 more kinds multiply in mediawiki-dev",
		"a-namespace-with-a-rather-long-name": "configmaps and 5 more kinds multiply in a-namespace-with-a-rather-long-name",
	} {
		now := time.Date(2024, 10, 9, 5, 1, 36, 0, time.UTC)
		c := bulkhead.Census{At: now}
		for _, kind := range []string{"configmaps", "endpointslices.discovery.k8s.io", "leases.coordination.k8s.io", "rolebindings.rbac.authorization.k8s.io", "serviceaccounts", "services"} {
			c.Tallies = append(c.Tallies, bulkhead.Tally{Key: bulkhead.Key{Kind: kind, Namespace: namespace, Family: "x-*", Manager: "helm"},
				Objects: 20000, Keeps: bulkhead.Keep{Nothing: 20000}, Born: births(now.Add(-8*time.Hour), now, 20000)})
		}
		findings := guard.Analyze(guard.Input{Now: now, Census: c})
		if len(findings) != 1 || findings[0].Title != want {
			t.Errorf("%q instead of %q", findings[0].Title, want)
		}
	}
}

// To refuse what a controller makes of other things breaks these, and stops nobody.
func TestAQuotaIsOnWhatPeopleMakeAndNotOnWhatFollowsFromIt(t *testing.T) {
	for _, c := range []struct {
		grow []string
		want string
	}{
		{[]string{"services", "endpointslices.discovery.k8s.io", "configmaps"}, "configmaps,services"},
		{[]string{"jobs.batch", "pods"}, "jobs"},
		{[]string{"replicasets.apps", "pods"}, "replicasets"},
		{[]string{"pods"}, "pods"},
		{[]string{"endpointslices.discovery.k8s.io"}, "services"},
	} {
		now := time.Date(2024, 10, 9, 5, 1, 36, 0, time.UTC)
		in := bulkhead.Census{At: now}
		for _, kind := range c.grow {
			in.Tallies = append(in.Tallies, bulkhead.Tally{Key: bulkhead.Key{Kind: kind, Namespace: "shop", Family: "x-*", Manager: "helm"},
				Objects: 20000, Keeps: bulkhead.Keep{Nothing: 20000}, Born: births(now.Add(-8*time.Hour), now, 20000)})
		}
		findings := guard.Analyze(guard.Input{Now: now, Census: in})
		if len(findings) != 1 || !strings.Contains(commands(findings[0]), "bulkhead guard quota --kinds "+c.want+" -n shop\n") {
			t.Errorf("%v: %+v", c.grow, findings)
		}
	}
}

// Who has only a kubeconfig has no runs to hold, and a command that fails is no advice.
func TestABrakeIsAdvisedWhereThereAreRuns(t *testing.T) {
	now := time.Date(2024, 10, 9, 5, 1, 36, 0, time.UTC)
	in := guard.Input{Now: now, Census: bulkhead.Census{At: now, Tallies: []bulkhead.Tally{{
		Key: bulkhead.Key{Kind: "configmaps", Namespace: "shop", Family: "x-*"}, Objects: 20000, Keeps: bulkhead.Keep{Nothing: 20000}, Born: births(now.Add(-8*time.Hour), now, 20000)}}}}
	for _, in.Runs = range []bool{false, true} {
		findings := guard.Analyze(in)
		if len(findings) != 1 || strings.Contains(commands(findings[0]), "bulkhead brake on --namespace shop --reason") != in.Runs {
			t.Errorf("%v: %+v", in.Runs, findings)
		}
	}
}

func commands(f bulkhead.Finding) string {
	var b strings.Builder
	for _, a := range f.Advice {
		b.WriteString(a.Command + "\n")
	}
	return b.String()
}

func TestTheMemoryOfAnAgentIsToldAsItsLimitIsWritten(t *testing.T) {
	now := time.Date(2024, 10, 9, 1, 10, 0, 0, time.UTC)
	f := crowded(now)
	f.Reaches = []bulkhead.Reach{{Budget: bulkhead.Budget{Name: "calico-node memory", Unit: "bytes", Limit: 500 << 20, Source: "full at 1,690 policies; learned"},
		Now: 410 << 20, In: 230 * time.Minute, Low: 190 * time.Minute, High: 280 * time.Minute, Detail: "restarting calico-node is safe up to 1,500 policies"}}
	var b bytes.Buffer
	if err := guard.Text(&b, []bulkhead.Finding{f}, now, 0); err != nil {
		t.Fatal(err)
	}
	const want = "calico-node memory (limit 500Mi, now 410Mi) is full in 3h50m (3h10m – 4h40m); restarting calico-node is safe up to 1,500"
	if text := strings.Join(strings.Fields(b.String()), " "); !strings.Contains(text, want) {
		t.Error(b.String())
	}
}
