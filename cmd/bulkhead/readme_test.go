package main

import (
	"bytes"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
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

// install builds the real binary and returns a function that runs shell text
// with it in the PATH, a scratch folder and a state folder of its own.
func install(t *testing.T) func(dir, text string) (string, error) {
	t.Helper()
	bin := t.TempDir()
	if out, err := exec.Command("go", "build", "-o", filepath.Join(bin, "bulkhead"), ".").CombinedOutput(); err != nil {
		t.Fatalf("build: %v\n%s", err, out)
	}
	state := t.TempDir()
	return func(dir, text string) (string, error) {
		cmd := exec.Command("bash", "-euo", "pipefail", "-c", text)
		cmd.Dir = dir
		cmd.Env = append(os.Environ(), "PATH="+bin+":"+os.Getenv("PATH"), "BULKHEAD_STATE="+state)
		var out bytes.Buffer
		cmd.Stdout, cmd.Stderr = &out, &out
		err := cmd.Run()
		return out.String(), err
	}
}

func TestEveryCommandOfTheReadmeWorks(t *testing.T) {
	sh, root, scratch := install(t), filepath.Join("..", ".."), t.TempDir()
	ran := 0
	for _, b := range blocks(t, filepath.Join(root, "README.md")) {
		if b.lang != "sh" {
			continue
		}
		dir := scratch
		switch {
		case strings.HasPrefix(b.text, "go run "):
			dir = root
		case strings.HasPrefix(b.text, "make "):
			continue // CI runs the make targets themselves, this test among them
		}
		if out, err := sh(dir, b.text); err != nil {
			t.Errorf("%v\n%s\n%s", err, b.text, out)
		}
		ran++
	}
	if ran < 4 {
		t.Errorf("only %d blocks were run; did the fences change?", ran)
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
