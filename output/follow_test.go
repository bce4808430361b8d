package output_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"bulkhead.dev/bulkhead/output"
)

// follower runs a follow in the background, looks once, and then when told to.
// It belongs in a synctest bubble.
type follower struct {
	poll chan time.Time
	over atomic.Bool
	end  chan error
	got  strings.Builder
}

func newFollower(run func(f *follower, o output.Following) error) *follower {
	f := &follower{poll: make(chan time.Time), end: make(chan error, 1)}
	go func() { f.end <- run(f, output.Following{Poll: f.poll, Done: f.over.Load}) }()
	synctest.Wait() // it has looked once
	return f
}

func followOne(t *testing.T, dir string, a output.Attempt) *follower {
	return newFollower(func(f *follower, o output.Following) error {
		return output.Follow(t.Context(), dir, a, o, func(c output.Chunk) error {
			f.got.Write(c.Data)
			return nil
		})
	})
}

func followAll(t *testing.T, dir string) *follower {
	return newFollower(func(f *follower, o output.Following) error {
		return output.FollowAll(t.Context(), dir, o, func(item int64, n int, c output.Chunk) error {
			fmt.Fprintf(&f.got, "%d.%d:%s ", item, n, c.Data)
			return nil
		})
	})
}

// look returns what the follower saw since the last look.
func (f *follower) look() string {
	f.poll <- time.Time{}
	synctest.Wait()
	defer f.got.Reset()
	return f.got.String()
}

func TestARunningAttemptIsFollowedAcrossRotationAndSealing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		dir := runDir(t)
		l := openLog(t, output.Options{Dir: dir, SegmentSize: 100})
		w := l.Writer()
		f := followOne(t, dir, output.Attempt{Item: 1, N: 1, Ref: w.Position()})
		same(t, "before it began", f.look(), "")
		w.Begin(1, 1, begin, 0)
		same(t, "before it wrote", f.look(), "")
		write(t, w, output.Stdout, begin, "one ")
		same(t, "before it was flushed", f.look(), "")
		<-time.After(time.Second)
		same(t, "a second later", f.look(), "one ")
		same(t, "nothing new", f.look(), "")
		write(t, w, output.Stderr, begin, strings.Repeat("x", 200))
		end(t, w)
		attempt(t, w, 2, "another")
		<-time.After(2 * time.Second)
		same(t, "files", files(t, dir), []string{"1.seg.zst", "2.seg"})
		same(t, "after it was sealed", f.look(), strings.Repeat("x", 200))
		if err := <-f.end; err != nil {
			t.Fatal(err)
		}
		closeLog(t, l)
	})
}

func TestFollowingEndsWhenTheAttemptIsOver(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		dir := runDir(t)
		l := openLog(t, output.Options{Dir: dir})
		w := l.Writer()
		silent := followOne(t, dir, output.Attempt{Item: 1, N: 1, Ref: w.Position()})
		taken := followOne(t, dir, output.Attempt{Item: 1, N: 1, Ref: w.Position()})
		lost := followOne(t, dir, output.Attempt{Item: 2, N: 1, Ref: w.Position()})
		attempt(t, w, 1, "")
		silent.over.Store(true)
		same(t, "an attempt that wrote nothing", silent.look(), "")
		w.Begin(2, 1, begin, 0)
		write(t, w, output.Stdout, begin, "cut sh")
		if err := w.Flush(); err != nil {
			t.Fatal(err)
		}
		same(t, "its place was taken by another", taken.look(), "")
		same(t, "it still runs", lost.look(), "cut sh")
		lost.over.Store(true)
		same(t, "its owner died", lost.look(), "")
		for _, f := range []*follower{silent, taken, lost} {
			if err := <-f.end; err != nil {
				t.Fatal(err)
			}
		}
		closeLog(t, l)
	})
}

func TestFollowingEndsWithTheContextOrTheReader(t *testing.T) {
	dir := runDir(t)
	l := openLog(t, output.Options{Dir: dir})
	w := l.Writer()
	a := attempt(t, w, 1, "x")
	stop := errors.New("enough")
	if err := output.Follow(t.Context(), dir, a, output.Following{}, func(output.Chunk) error { return stop }); !errors.Is(err, stop) {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancelCause(t.Context())
	cancel(stop)
	next := output.Attempt{Item: 2, N: 1, Ref: w.Position()}
	if err := output.Follow(ctx, dir, next, output.Following{}, nil); !errors.Is(err, stop) {
		t.Fatal(err)
	}
	err := output.FollowAll(t.Context(), dir, output.Following{}, func(int64, int, output.Chunk) error { return stop })
	if !errors.Is(err, stop) {
		t.Fatal(err)
	}
	closeLog(t, l)
}

func TestAWholeRunIsFollowedInOrderOfArrival(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		dir := runDir(t)
		f := followAll(t, dir)
		same(t, "before there is a folder", f.look(), "")
		l := openLog(t, output.Options{Dir: dir, SegmentSize: 150})
		v, w := l.Writer(), l.Writer()
		v.Begin(1, 1, begin, 0)
		w.Begin(2, 3, begin, 0)
		write(t, v, output.Stdout, after(1*time.Second), "a")
		write(t, w, output.Stdout, after(2*time.Second), "b")
		write(t, v, output.Stderr, after(3*time.Second), "c")
		<-time.After(time.Second)
		same(t, "both", f.look(), "1.1:a 2.3:b 1.1:c ")
		late := followAll(t, dir)
		write(t, w, output.Stdout, after(4*time.Second), strings.Repeat("d", 100))
		end(t, w)
		for i := range 3 {
			w.Begin(int64(10+i), 1, after(5*time.Second), 0)
			write(t, w, output.Stdout, after(5*time.Second), strings.Repeat("e", 100))
			end(t, w)
		}
		end(t, v)
		<-time.After(3 * time.Second)
		same(t, "files", files(t, dir), []string{"1.seg", "2.seg.zst", "3.seg.zst", "4.seg.zst", "5.seg.zst"})
		e := strings.Repeat("e", 100) + " "
		d := "2.3:" + strings.Repeat("d", 100) + " "
		same(t, "across rotation", f.look(), d+"10.1:"+e+"11.1:"+e+"12.1:"+e)
		same(t, "for one who came later", late.look(), "1.1:a 2.3:b 1.1:c "+d+"10.1:"+e+"11.1:"+e+"12.1:"+e)
		closeLog(t, l)
		f.over.Store(true)
		late.over.Store(true)
		same(t, "the end", f.look()+late.look(), "")
		if err := errors.Join(<-f.end, <-late.end, os.RemoveAll(dir)); err != nil {
			t.Fatal(err)
		}
	})
}

func TestReadingAWholeRunTakesEveryAttemptOnce(t *testing.T) {
	dir := runDir(t)
	l := openLog(t, output.Options{Dir: dir, SegmentSize: 500})
	const slots, items = 150, 1000 // more than are merged at once
	var writers []*output.Writer
	for range slots {
		writers = append(writers, l.Writer())
	}
	for i := range int64(items) {
		w := writers[i*7%slots]
		w.Begin(i, 1, after(time.Duration(i)*time.Second), 0)
		write(t, w, output.Stdout, after(time.Duration(i)*time.Second), fmt.Sprint("output of ", i, strings.Repeat(".", 50)))
		end(t, w)
	}
	closeLog(t, l)
	t.Run("alone", func(t *testing.T) { readWhole(t, dir, items, nil) })
	t.Run("together with others", func(t *testing.T) {
		wide := make(chan struct{}, 20)
		var all sync.WaitGroup
		for range 3 {
			all.Go(func() { readWhole(t, dir, items, wide) })
		}
		all.Wait()
		same(t, "places that were not given back", len(wide), 0)
	})
	t.Run("when others take all places", func(t *testing.T) { readWhole(t, dir, items, make(chan struct{})) })
}

// readWhole reads the output of a run and checks that there is one of each item.
func readWhole(t *testing.T, dir string, items int, wide chan struct{}) {
	seen := map[int64]int{}
	err := output.FollowAll(t.Context(), dir, output.Following{Done: func() bool { return true }, Wide: wide},
		func(item int64, _ int, c output.Chunk) error {
			seen[item]++
			if want := fmt.Sprint("output of ", item, strings.Repeat(".", 50)); string(c.Data) != want {
				return fmt.Errorf("%q, want %q", c.Data, want)
			}
			return nil
		})
	if err != nil || len(seen) != items {
		t.Error(len(seen), err)
	}
	for item, n := range seen {
		if n != 1 {
			t.Errorf("item %d was read %d times", item, n)
		}
	}
}
