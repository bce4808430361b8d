package rpc_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"bulkhead.dev/bulkhead"
	"bulkhead.dev/bulkhead/rpc"
)

// cuts is a budget that lets n connections carry between least and most bytes
// each; those behind them are whole.
func cuts(n int, least, most int64) func() int64 {
	r := rand.New(rand.NewPCG(1, uint64(most)))
	return func() int64 {
		if n--; n < 0 {
			return 0
		}
		return least + r.Int64N(most-least)
	}
}

func TestASubmissionOverBreaksIsOneRunWithEveryItemOnce(t *testing.T) {
	s := newSite(t, nil, nil)
	p := newProxy(t, s, cuts(40, 2_000, 900_000))
	away, back := 0, 0
	c := s.client(p, func(o *rpc.ClientOptions) {
		o.Away = func(err error) {
			if err == nil {
				back++
			} else {
				away++
			}
		}
	})
	const n = 60_000
	value := func(i int64) string { return fmt.Sprintf("%d %s", i, strings.Repeat("x", int(i%200))) }
	r := &bulkhead.Run{Spec: spec()}
	if err := c.Submit(t.Context(), r, items(n, value), hash); err != nil {
		t.Fatal(err)
	}
	if p.cut() == 0 || away == 0 || back == 0 {
		t.Fatalf("%d cuts, away %d and back %d times: nothing was tried", p.cut(), away, back)
	}
	runs, err := s.store.Runs(t.Context(), 0)
	if err != nil || len(runs) != 1 || runs[0].Counts.Queued != n || runs[0].State != bulkhead.RunRunning {
		t.Fatal(len(runs), err)
	}
	next := int64(1)
	err = c.Items(t.Context(), r, bulkhead.ItemQuery{}, func(it bulkhead.ItemStatus) error {
		if it.Index != next || it.Values[0] != value(next) {
			return fmt.Errorf("item %d is %d %q", next, it.Index, it.Values[0])
		}
		next++
		return nil
	})
	if err != nil || next != n+1 {
		t.Fatal(next, err)
	}
}

func TestASmallSubmissionOverBreaksIsOneRun(t *testing.T) {
	s := newSite(t, nil, nil)
	for n := range int64(30) {
		r := s.submit(s.client(newProxy(t, s, cuts(10, 500+100*n, 5_000)), nil), 2)
		runs, err := s.store.Runs(t.Context(), 0)
		if err != nil || len(runs) != int(n)+1 || int64(r.ID) != n+1 || runs[0].Counts.Queued != 2 {
			t.Fatal(n, len(runs), r.ID, err)
		}
	}
}

func TestASubmissionThatIsGivenUpLeavesNothing(t *testing.T) {
	s := newSite(t, nil, nil)
	c := s.client(nil, nil)
	ctx, cancel := context.WithCancel(t.Context())
	next := items(1e6, func(int64) string { return strings.Repeat("x", 100) })
	err := c.Submit(ctx, &bulkhead.Run{Spec: spec()}, func() (bulkhead.Item, error) {
		it, err := next()
		if it.Index == 50_000 {
			cancel()
		}
		return it, err
	}, hash)
	if err == nil {
		t.Fatal("no error")
	}
	if runs, err := s.store.Runs(t.Context(), 0); len(runs) != 0 || err != nil {
		t.Fatal(len(runs), err)
	}
}

func TestASubmissionWhoseEndIsNotKnownSaysSo(t *testing.T) {
	s := newSite(t, nil, nil)
	inner := s.web.Config.Handler
	lose := map[string]bool{}
	s.web.Config.Handler = http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
		if procedure := strings.TrimPrefix(req.URL.Path, "/bulkhead.v1.RunService/"); lose[procedure] {
			inner.ServeHTTP(httptest.NewRecorder(), req) // it arrives, and its answer does not
			panic(http.ErrAbortHandler)
		}
		inner.ServeHTTP(w, req)
	})
	c := s.client(nil, func(o *rpc.ClientOptions) { o.Tries = 2 })
	for want, k := range map[string]struct {
		items int64
		lost  []string
	}{
		"was accepted all the same":                     {20_000, []string{"AcceptRun"}},
		"it is not known whether the run was accepted":  {20_000, []string{"AcceptRun", "DeleteRun"}},
		"it is not known whether the run was accepted:": {1, []string{"CreateRun"}},
	} {
		clear(lose)
		for _, procedure := range k.lost {
			lose[procedure] = true
		}
		err := c.Submit(t.Context(), &bulkhead.Run{Spec: spec()}, items(k.items, func(int64) string { return "x" }), hash)
		if err == nil || !strings.Contains(err.Error(), want) || bulkhead.HintOf(err) == "" {
			t.Errorf("%v (%s)", err, bulkhead.HintOf(err))
		}
	}
}

func TestAFileOverBreaksArrivesWhole(t *testing.T) {
	s := newSite(t, nil, nil)
	p := newProxy(t, s, cuts(15, 100_000, 2_500_000))
	content := bytes.Repeat([]byte("0123456789abcdef"), 400_000)
	path := t.TempDir() + "/large"
	write(t, path, string(content))
	f, err := s.client(p, nil).PutFile(t.Context(), "a", path)
	if err != nil {
		t.Fatal(err)
	}
	r, err := s.files.Open(f.SHA256)
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	if got, err := io.ReadAll(r); !bytes.Equal(got, content) || err != nil || p.cut() == 0 {
		t.Fatal(len(got), err, p.cut())
	}
}

// talk writes much in small pieces, more than is kept.
func talk(w *work) bulkhead.Result {
	for i := range 300 {
		w.say(bulkhead.Stream(1+i%2), sentence(w.Lease.Item.Values[0], i))
	}
	return bulkhead.Result{}
}

// sentence is a line that no compression makes short.
func sentence(value string, i int) string {
	r := rand.New(rand.NewPCG(uint64(i), uint64(len(value))))
	b := make([]byte, i/2)
	for j := range b {
		b[j] = byte(r.Uint32())
	}
	return fmt.Sprintf("%s says %d %x\n", value, i, b)
}

// said is what talk of an item says, of each stream.
func said(value string) (text [3]string) {
	for i := range 300 {
		text[1+i%2] += sentence(value, i)
	}
	return text
}

func TestFollowingARunOverBreaksGivesEveryByteOnce(t *testing.T) {
	s := newSite(t, talk, nil)
	direct := s.client(nil, nil)
	r := s.submit(direct, 12)
	p := newProxy(t, s, cuts(60, 3_000, 60_000))
	c := s.client(p, nil)
	got := map[int64]*[3]string{}
	err := c.FollowOutput(t.Context(), r.ID, true, func(err error) { t.Error(err) }, func(item int64, n int, c bulkhead.Chunk) error {
		if n != 1 {
			return fmt.Errorf("attempt %d", n)
		}
		if got[item] == nil {
			got[item] = &[3]string{}
		}
		got[item][c.Stream] += string(c.Data)
		return nil
	})
	if err != nil || p.cut() < 10 {
		t.Fatal(err, p.cut())
	}
	for i := range int64(12) {
		if d := cmp.Diff(said(fmt.Sprint("v", i+1)), *got[i+1]); d != "" {
			t.Fatalf("item %d: %s", i+1, d)
		}
	}
}

func TestFollowingAnAttemptOverBreaksGivesEveryByteOnce(t *testing.T) {
	for name, most := range map[string]int64{"all of it": 1 << 20, "cut short": 20_000} {
		t.Run(name, func(t *testing.T) {
			s := newSite(t, talk, nil)
			direct := s.client(nil, nil)
			sp := spec()
			sp.MaxOutput = most
			r := &bulkhead.Run{Spec: sp}
			if err := direct.Submit(t.Context(), r, items(1, func(int64) string { return "v" }), hash); err != nil {
				t.Fatal(err)
			}
			waitFor(t, direct, r.ID, func(st rpc.Status) bool { return st.Run.Counts.Queued == 0 })
			p := newProxy(t, s, cuts(20, 3_000, 30_000))
			read := func(c *rpc.Client, follow bool) (text [3]string, dropped int64) {
				err := c.ReadOutput(t.Context(), r.ID, bulkhead.Attempt{Item: 1, N: 1}, follow, func(c bulkhead.Chunk) error {
					text[c.Stream] += string(c.Data)
					dropped += c.Dropped
					return nil
				})
				if err != nil {
					t.Fatal(err)
				}
				return text, dropped
			}
			followed, dropped := read(s.client(p, nil), true)
			if p.cut() == 0 {
				t.Fatal("nothing was cut")
			}
			s.finish(direct, r.ID)
			whole, all := read(direct, false)
			if d := cmp.Diff(whole, followed); d != "" || dropped != all || (all > 0) != (most < 1<<20) {
				t.Fatal(d, dropped, all)
			}
		})
	}
}

// waitFor watches a run until something is so.
func waitFor(t *testing.T, c *rpc.Client, id bulkhead.RunID, is func(rpc.Status) bool) rpc.Status {
	t.Helper()
	var last rpc.Status
	err := c.Watch(t.Context(), id, func(st rpc.Status) error {
		if last = st; is(st) {
			return io.EOF
		}
		return nil
	})
	if !errors.Is(err, io.EOF) {
		t.Fatalf("%v, %+v", err, last.Run)
	}
	return last
}

func TestWatchingAndFollowingGoOnAfterARestart(t *testing.T) {
	release := make(chan struct{})
	s := newSite(t, func(w *work) bulkhead.Result {
		w.say(bulkhead.Stdout, w.Lease.Item.Values[0]+" begins\n")
		if w.Lease.Item.Index > 5 {
			select {
			case <-release:
			case <-w.gone:
				return bulkhead.Result{}
			}
		}
		w.say(bulkhead.Stdout, w.Lease.Item.Values[0]+" ends\n")
		return bulkhead.Result{}
	}, nil)
	r := s.submit(s.client(nil, nil), 6)
	p := newProxy(t, s, cuts(20, 6_000, 12_000))
	c := s.client(p, nil)
	var wg sync.WaitGroup
	defer wg.Wait()
	got := map[int64]string{}
	wg.Go(func() {
		err := c.FollowOutput(t.Context(), r.ID, true, func(err error) { t.Error(err) }, func(item int64, _ int, c bulkhead.Chunk) error {
			got[item] += string(c.Data)
			return nil
		})
		if err != nil {
			t.Error(err)
		}
	})
	waitFor(t, c, r.ID, func(st rpc.Status) bool { return st.Run.Counts.Succeeded == 5 })
	s.close()
	s.start()
	p.lead(s)
	close(release)
	if st := s.finish(c, r.ID); st.Run.State != bulkhead.RunSucceeded || st.Run.Counts.Succeeded != 6 {
		t.Fatalf("%+v", st.Run)
	}
	wg.Wait()
	for i := range int64(6) {
		if want := fmt.Sprintf("v%d begins\nv%[1]d ends\n", i+1); got[i+1] != want {
			t.Errorf("%q, want %q", got[i+1], want)
		}
	}
}

func TestAServerThatIsStoppedSendsItsReadersAway(t *testing.T) {
	stopping := make(chan struct{})
	s := newSite(t, nil, func(o *rpc.Options) { o.Stopping = stopping })
	r := s.submit(s.client(nil, nil), 1)
	told := make(chan error, 1)
	ctx, cancel := context.WithCancel(t.Context())
	c := s.client(nil, func(o *rpc.ClientOptions) {
		o.Away = func(err error) {
			if err != nil {
				select {
				case told <- err:
				default:
				}
			}
		}
	})
	seen := make(chan struct{})
	first := sync.OnceFunc(func() { close(seen) })
	end := make(chan error, 1)
	go func() { end <- c.Watch(ctx, r.ID, func(rpc.Status) error { first(); return nil }) }()
	<-seen
	close(stopping)
	if err := <-told; !strings.Contains(err.Error(), "the server is being stopped") {
		t.Error(err)
	}
	cancel()
	if err := <-end; !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
}

func TestAServerThatSaysNothingIsLeftForOneThatDoes(t *testing.T) {
	s := newSite(t, nil, func(o *rpc.Options) { o.KeepAlive = 10 * time.Millisecond })
	r := s.submit(s.client(nil, nil), 1)
	var calls atomic.Int32
	inner := s.web.Config.Handler
	s.web.Config.Handler = http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
		if calls.Add(1) == 1 { // it hangs
			<-req.Context().Done()
			return
		}
		inner.ServeHTTP(w, req)
	})
	c := s.client(nil, func(o *rpc.ClientOptions) { o.Quiet = 500 * time.Millisecond })
	n := 0
	err := c.Watch(t.Context(), r.ID, func(rpc.Status) error {
		if n++; n == 3 { // nothing changes: these show that the server is there
			return io.EOF
		}
		return nil
	})
	if !errors.Is(err, io.EOF) || calls.Load() != 2 {
		t.Fatal(err, calls.Load())
	}
}
