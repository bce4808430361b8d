package main

import (
	"bytes"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// block is a fenced block of a document.
type block struct{ lang, text string }

func blocks(t *testing.T, file string) (out []block) {
	t.Helper()
	data, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	for _, m := range regexp.MustCompile("(?ms)^```([a-z]*)\n(.*?)^```$").FindAllStringSubmatch(string(data), -1) {
		out = append(out, block{m[1], m[2]})
	}
	return out
}

// install installs the real binary and returns a function that runs shell text
// with it in the PATH, and with a home, a state folder and a folder for temporary
// files of its own.
func install(t *testing.T) func(dir, text string) (string, error) {
	t.Helper()
	bin, state, home, tmp := filepath.Join(buildDir, "installed"), t.TempDir(), t.TempDir(), t.TempDir()
	if out, err := makeInstall(); err != nil {
		t.Fatalf("make install: %v\n%s", err, out)
	}
	caches, err := exec.Command("go", "env", "GOCACHE", "GOMODCACHE", "GOPATH").Output()
	if err != nil {
		t.Fatal(err)
	}
	cache := strings.Split(string(caches), "\n")
	return func(dir, text string) (string, error) {
		cmd := exec.Command("bash", "-euo", "pipefail", "-c", text)
		cmd.Dir = dir
		cmd.Env = append(os.Environ(), "PATH="+bin+":"+os.Getenv("PATH"), "BULKHEAD_STATE="+state, "HOME="+home, "BULKHEAD_SERVER=", "BULKHEAD_CONTEXT=", "TMPDIR="+tmp,
			"GOCACHE="+cache[0], "GOMODCACHE="+cache[1], "GOPATH="+cache[2])
		var out bytes.Buffer
		cmd.Stdout, cmd.Stderr = &out, &out
		err := cmd.Run()
		return out.String(), err
	}
}

// makeInstall installs once for all tests: to link the program takes longer than they do.
var makeInstall = sync.OnceValues(func() ([]byte, error) {
	return exec.Command("make", "-C", filepath.Join("..", ".."), "install",
		"BINDIR="+filepath.Join(buildDir, "installed"), "BIN="+filepath.Join(buildDir, "install", "bulkhead")).CombinedOutput()
})

func TestEveryCommandOfTheReadmeWorks(t *testing.T) {
	sh, root, scratch := install(t), filepath.Join("..", ".."), t.TempDir()
	for _, b := range blocks(t, filepath.Join(root, "README.md")) {
		if b.lang != "sh" || b.text == "make test\n" { // which runs this
			continue
		}
		dir := scratch
		if strings.HasPrefix(b.text, "go run ") || strings.HasPrefix(b.text, "make ") {
			dir = root
		}
		if out, err := sh(dir, b.text); err != nil {
			t.Errorf("%v\n%s\n%s", err, b.text, out)
		}
	}
}

// What differs from one machine and moment to the next.
var varies = []struct{ pattern, with string }{
	{`[^\s@]+@\S+`, "OWNER"}, {`\b[0-9.]+s\b`, "TIME"}, {` +`, " "}, {` +\n`, "\n"},
}

func steady(text string) string {
	for _, v := range varies {
		text = regexp.MustCompile(v.pattern).ReplaceAllString(text, v.with)
	}
	return text
}

func TestTheTerminalSessionOfTheReadmeIsTrue(t *testing.T) {
	sh, scratch := install(t), t.TempDir()
	for _, b := range blocks(t, filepath.Join("..", "..", "README.md")) {
		if b.lang != "console" {
			continue
		}
		var got strings.Builder
		for line := range strings.Lines(b.text) {
			command, ok := strings.CutPrefix(line, "$ ")
			if !ok {
				continue
			}
			out, _ := sh(scratch, command) // a batch with a failed item exits 1; what it prints is compared
			got.WriteString(line + out)
		}
		if d := cmp.Diff(steady(b.text), steady(got.String())); d != "" {
			t.Errorf("the README shows something else (-README +now):\n%s", d)
		}
	}
}

// The commands of this document are one session: a server runs beside them.
func TestEveryCommandOfTheServerDocumentWorks(t *testing.T) {
	play(t, "server.md", "tools: hello", "tools: item 42", "and a file", `"succeeded":"100"`, `state="succeeded"} 103`,
		"CLASS", "WHAT TO DO NEXT", "comment=T363966 class=tools")
}

func TestEveryCommandOfTheDropInsDocumentWorks(t *testing.T) {
	play(t, "mwscript.md", "mwscript Version.php --wiki=enwiki", "dewiki:  mwscript showSiteStats.php --wiki=dewiki", `"run": 3`)
}

func TestEveryCommandOfThePlanDocumentWorks(t *testing.T) {
	play(t, "plan.md", "jobs                          1    7d     1,000           2,000  no (50 %)", "1h → 7d  ×168", "it does not fit",
		`"crossed": []`, "at least 8m19s, by the rate")
}

// play runs the shell blocks of a document as one session, which is to say all of wants.
func play(t *testing.T, document string, wants ...string) {
	t.Helper()
	sh := install(t)
	var session strings.Builder
	// What it leaves running when a command fails would keep the test waiting.
	session.WriteString("trap 'kill $(jobs -p) 2>/dev/null || true' EXIT\n")
	for _, b := range blocks(t, filepath.Join("..", "..", "docs", document)) {
		if b.lang == "sh" {
			session.WriteString(b.text)
		}
	}
	out, err := sh(t.TempDir(), session.String())
	if err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	for _, want := range wants {
		if !strings.Contains(out, want) {
			t.Errorf("it did not say %q:\n%s", want, out)
		}
	}
}
