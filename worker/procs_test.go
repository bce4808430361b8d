package worker

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// Pids wrap once in 32768 forks or more rarely, which is too long to wait for.
func TestProcsAsksWhatWasBornSince(t *testing.T) {
	const pidMax = 1000
	tests := map[string]struct {
		since int
		last  []string // what /proc/loadavg says, one look after another
		want  []int
		all   bool // it reads /proc
	}{
		"nobody":                        {since: 500, last: []string{"500"}},
		"a few":                         {since: 500, last: []string{"503"}, want: []int{501, 502, 503}},
		"more while it looks":           {since: 500, last: []string{"501", "503"}, want: []int{501, 502, 503}},
		"beyond the highest pid":        {since: 998, last: []string{"2"}, want: []int{999, 1000, 1, 2}},
		"too many":                      {since: 500, last: []string{"900"}, all: true},
		"no idea since when":            {since: -1, last: []string{"503"}, all: true},
		"the kernel does not say":       {since: 500, last: []string{"0"}, all: true},
		"many, and more while it looks": {since: 100, last: []string{"500", "502"}, all: true, want: []int{501, 502}},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			f, err := os.Create(filepath.Join(t.TempDir(), "loadavg"))
			if err != nil {
				t.Fatal(err)
			}
			defer f.Close()
			say := func(pid string) {
				if _, err := f.WriteAt([]byte("0.00 0.01 0.05 1/123 "+pid+"\n"), 0); err != nil {
					t.Fatal(err)
				}
			}
			p := &procs{loadavg: int(f.Fd()), pidMax: pidMax}
			say(tt.last[0])
			var asked []int
			self := false
			err = p.each(tt.since, func(pid int) bool {
				if self = self || pid == os.Getpid(); !tt.all || pid > 500 && pid < 503 {
					asked = append(asked, pid)
				}
				say(tt.last[len(tt.last)-1]) // from the first visit on
				return true
			})
			if err != nil {
				t.Fatal(err)
			}
			if tt.all != self {
				t.Errorf("read /proc: %t, want %t", self, tt.all)
			}
			if diff := cmp.Diff(tt.want, asked); diff != "" {
				t.Error(diff)
			}
		})
	}
}

func TestMarks(t *testing.T) {
	for limit, want := range map[uint64]uint64{
		0: 0, 1: 0, 200_000: 0, 1 << 60: 0, 1<<62 - 1: 1<<32 - 1, 1 << 61: 1 << 31, 1 << 62: 0, 1<<64 - 1: 0,
		attemptMark(0x8123_4567, 1<<30+5): 0x8123_4567,
	} {
		if got := ownerOf(limit); got != want {
			t.Errorf("owner of limit %#x is %#x, want %#x", limit, got, want)
		}
	}
}

func TestParentOf(t *testing.T) {
	if got := parentOf(os.Getpid()); got != os.Getppid() {
		t.Errorf("parent %d, want %d", got, os.Getppid())
	}
	if got := parentOf(0); got != 0 {
		t.Errorf("parent of nothing: %d", got)
	}
}
