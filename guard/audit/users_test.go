package audit_test

import (
	"fmt"
	"math/rand/v2"
	"runtime"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"bulkhead.dev/bulkhead/guard/audit"
)

var start = time.Date(2024, 10, 9, 3, 30, 0, 0, time.UTC)

// made is a ConfigMap of a user.
func made(name, user string) *audit.Creation {
	return &audit.Creation{Kind: "configmaps", Namespace: "mw-script", Name: name, User: user, Client: "helm/3.16.1"}
}

func random(n int) string { return fmt.Sprintf("%08x", uint32(n+1)*2654435761) }

// told is who made a family, by name.
func told(u *audit.Users, name string, since time.Time) map[string]int64 {
	got := map[string]int64{}
	for _, m := range u.Of("configmaps", "mw-script", name, since).Makers {
		got[m.User] += m.Objects
	}
	return got
}

func TestMakersAreThoseOfTheFamily(t *testing.T) {
	var u audit.Users
	for i := range 40 {
		u.Add(made("mediawiki-"+random(i)+"-mail-config", "ann"), start, start)
		u.Add(made("mediawiki-"+random(i), "bob"), start, start)
		u.Add(made(fmt.Sprintf("user-%s-config", []string{"alice", "carol", "dave", "erin"}[i%4]), "hr"), start, start)
		u.Add(&audit.Creation{Kind: "configmaps", Namespace: "other", Name: "mediawiki-" + random(i), User: "eve"}, start, start)
		u.Add(&audit.Creation{Kind: "configmaps", Namespace: "made-up", GenerateName: "wf-", User: "argo"}, start, start)
		u.Add(&audit.Creation{Kind: "pods", Namespace: "made-up", User: "job-controller"}, start, start)
	}
	u.Add(made("settings", "root"), start, start)
	cases := map[string]struct {
		kind, namespace, name string
		want                  map[string]int64
		named                 bool
	}{
		"by its name":                           {"configmaps", "mw-script", "mediawiki-*-mail-config", map[string]int64{"ann": 40}, true},
		"a name that is the begin of another":   {"configmaps", "mw-script", "mediawiki-*", map[string]int64{"bob": 40}, true},
		"words that the census has united":      {"configmaps", "mw-script", "user-*-config", map[string]int64{"hr": 40}, true},
		"what only a label showed to vary":      {"configmaps", "mw-script", "user-*", map[string]int64{"hr": 40}, true},
		"a name without anything that varies":   {"configmaps", "mw-script", "settings", map[string]int64{"root": 1}, true},
		"all of a kind in a namespace":          {"configmaps", "mw-script", "*", map[string]int64{"ann": 40, "bob": 40, "hr": 40, "root": 1}, true},
		"namespaces that the census has united": {"configmaps", "*", "mediawiki-*", map[string]int64{"bob": 40, "eve": 40}, true},
		"what names were made up from":          {"configmaps", "made-up", "wf-*", map[string]int64{"argo": 40}, true},
		"names that nobody has written down":    {"pods", "made-up", "import-*", map[string]int64{"job-controller": 40}, false},
		"nobody has made it":                    {"configmaps", "mw-script", "nothing-*", map[string]int64{}, false},
		"a kind that nobody has made":           {"secrets", "mw-script", "mediawiki-*", map[string]int64{}, false},
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			answer, got := u.Of(c.kind, c.namespace, c.name, start), map[string]int64{}
			for _, m := range answer.Makers {
				got[m.User] += m.Objects
			}
			if diff := cmp.Diff(c.want, got); diff != "" || answer.Named != c.named {
				t.Errorf("named: %v; (-want +got):\n%s", answer.Named, diff)
			}
		})
	}
}

func TestMakersAreThoseSinceTheGrowthBegan(t *testing.T) {
	var u audit.Users
	for hour := range 30 {
		at := start.Add(time.Duration(hour) * time.Hour)
		user := "before"
		if hour >= 27 {
			user = "ann"
		}
		u.Add(made("mail-"+random(hour), user), at, at)
	}
	now := start.Add(29 * time.Hour)
	for since, want := range map[time.Time]map[string]int64{
		start:                     {"before": 21, "ann": 3}, // of the last 24 hours
		now.Add(-2 * time.Hour):   {"ann": 3},
		now.Add(-3 * time.Hour):   {"before": 1, "ann": 3},
		now.Add(20 * time.Minute): {"ann": 1}, // in whole hours
		now.Add(time.Hour):        {},
	} {
		if diff := cmp.Diff(want, told(&u, "mail-*", since)); diff != "" {
			t.Errorf("since %s (-want +got):\n%s", since, diff)
		}
	}
	later := now.Add(30 * time.Hour)
	u.Add(made("other", "bob"), later, later)
	if got := told(&u, "mail-*", time.Time{}); len(got) > 0 {
		t.Errorf("after a day it is forgotten, and yet %v", got)
	}
}

func TestAClockThatJumpsEndsNothing(t *testing.T) {
	var u audit.Users
	for i, now := range []time.Time{start, start.Add(24 * 365 * time.Hour), start, start.Add(time.Minute)} {
		u.Add(made("mail-"+random(i), "ann"), now, now)
	}
	if got := told(&u, "mail-*", start)["ann"]; got < 2 {
		t.Errorf("%d are known", got)
	}
	u.Add(made("mail-0", "bob"), start.Add(48*time.Hour), start) // no line is of the future
	if got := told(&u, "mail-*", start.Add(2*time.Hour))["bob"]; got != 0 {
		t.Errorf("%d are of a time to come", got)
	}
}

func TestWhoMakesManyIsKnownAmongAnyNumberOfUsers(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		var u audit.Users
		many := rapid.IntRange(2, 5).Draw(t, "one in so many is of the loop")
		order := rand.New(rand.NewPCG(rapid.Uint64().Draw(t, "seed"), 1))
		n := rapid.IntRange(200, 2000).Draw(t, "objects")
		loop, total := int64(0), int64(0)
		for i := range n {
			user := fmt.Sprintf("user-%d", order.IntN(1000))
			if order.IntN(many) == 0 {
				user = "loop"
				loop++
			}
			u.Add(made("mail-"+random(i), user), start, start)
		}
		got := u.Of("configmaps", "mw-script", "mail-*", start).Makers
		for _, m := range got {
			total += m.Objects
		}
		if total != int64(n) || got[0].User != "loop" || got[0].Objects < loop/2 {
			t.Errorf("%d of %d: the loop made %d; %+v", total, n, loop, got)
		}
	})
}

func TestWhatIsHostileHasBounds(t *testing.T) {
	var u audit.Users
	before := memory()
	huge := string(make([]byte, 600))
	unkept := 0
	for i := range 30_000 {
		// No pattern, and as many users, namespaces and kinds.
		c := &audit.Creation{Kind: fmt.Sprintf("kind%s%s", letters(i%50), huge), Namespace: letters(i) + huge, Name: letters(i) + "-" + letters(i*7),
			User: fmt.Sprint("user-", i%5000, huge), Client: huge}
		if u.Add(c, start, start) == audit.Unkept {
			unkept++
		}
	}
	if used := memory() - before; used > 64<<20 || unkept == 0 {
		t.Errorf("it takes %d MiB; %d were not kept", used>>20, unkept)
	}
	if got := u.Of("configmaps", "*", "*", time.Time{}); len(got.Makers) > 0 {
		t.Errorf("%+v", got)
	}
	runtime.KeepAlive(&u)
}

// letters is a word that looks like none that was made up.
func letters(n int) string {
	const consonants, vowels = "bdklmnrst", "aeiou"
	word := ""
	for ; n > 0 || len(word) < 4; n /= 45 {
		word += string(consonants[n%9]) + string(vowels[n/9%5])
	}
	return word
}

func memory() int64 {
	runtime.GC()
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return int64(m.HeapAlloc)
}

// What 20,000 families and 1,000 users take, and what a line does.
func BenchmarkUsers(b *testing.B) {
	var u *audit.Users
	before := memory()
	for b.Loop() {
		u = &audit.Users{}
		for hour := range 4 {
			for i := range 20_000 {
				for k := range 3 { // users of each
					at := start.Add(time.Duration(hour) * time.Hour)
					c := audit.Creation{Kind: "configmaps", Namespace: fmt.Sprint("tenant-", letters(i/100)), Name: letters(i) + "-x7f2k9qa",
						User: fmt.Sprint("system:serviceaccount:tenant-", (i+k)%1000, ":deployer"), Client: "helm/3.16.1"}
					u.Add(&c, at, at)
				}
			}
		}
	}
	b.ReportMetric(float64(memory()-before)/(1<<20), "MiB")
	b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/240_000, "ns/creation")
	runtime.KeepAlive(u)
}
