package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"testing"
	"time"
)

// site is a server with the class c, and what runs for it, all of them the real
// program.
type site struct {
	t      *testing.T
	bin    string // file of the program
	dir    string
	listen string
	url    string
	server *program
}

// program is a bulkhead process in the background.
type program struct {
	*exec.Cmd
	out, err string // files
	done     chan struct{}
}

func newSite(t *testing.T) *site {
	return newSiteOf(t, "/proc/self/exe") // see TestMain
}

// newSiteOf is newSite with another build of the program.
func newSiteOf(t *testing.T, bin string) *site {
	s := &site{t: t, bin: bin, dir: t.TempDir(), listen: "localhost:0"}
	class := "apiVersion: bulkhead.dev/v1alpha1\nkind: ScriptClass\nmetadata: {name: c}\nspec: {image: none}\n"
	for name, text := range map[string]string{"class.yaml": class, "echo.yaml": strings.ReplaceAll(class, "}\nspec: {", "}\nspec: {echo: true, ")} {
		if err := os.WriteFile(filepath.Join(s.dir, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	s.serve("class.yaml")
	token, err := s.bulkhead("token", "c").Output()
	if err != nil {
		t.Fatal("token:", err)
	}
	if err := os.WriteFile(filepath.Join(s.dir, "token"), token, 0o600); err != nil {
		t.Fatal(err)
	}
	return s
}

// bulkhead is a command that was not started yet.
func (s *site) bulkhead(args ...string) *exec.Cmd {
	cmd := exec.Command(s.bin)
	cmd.Args = append([]string{"bulkhead"}, args...)
	cmd.Dir = s.dir
	cmd.Env = append(os.Environ(), "BULKHEAD_STATE="+filepath.Join(s.dir, "state"), "GORACE=atexit_sleep_ms=0 halt_on_error=1",
		"HOME="+s.dir, "XDG_CONFIG_HOME="+s.dir)
	return cmd
}

func (s *site) start(name string, args ...string) *program {
	s.t.Helper()
	p := &program{Cmd: s.bulkhead(args...), out: filepath.Join(s.dir, name+".out"), err: filepath.Join(s.dir, name+".err"), done: make(chan struct{})}
	out, err := os.Create(p.out)
	if err != nil {
		s.t.Fatal(err)
	}
	defer out.Close()
	errs, err := os.OpenFile(p.err, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		s.t.Fatal(err)
	}
	defer errs.Close()
	p.Stdout, p.Stderr = out, errs
	if err := p.Start(); err != nil {
		s.t.Fatal(err)
	}
	go func() {
		defer close(p.done)
		_ = p.Wait() // ended looks at its state
	}()
	s.t.Cleanup(func() {
		_ = p.Process.Kill()
		<-p.done
		if text, _ := os.ReadFile(p.err); s.t.Failed() && len(text) > 0 {
			s.t.Logf("%s said:\n%s", name, text)
		}
	})
	return p
}

// serve starts the server, again at the same address.
func (s *site) serve(classes string) {
	s.t.Helper()
	s.server = s.start("server", "serve", "--listen", s.listen, "--classes", classes)
	serving := regexp.MustCompile(`msg=serving url=https://127\.0\.0\.1:(\d+) `)
	before := len(serving.FindAll(read(s.t, s.server.err), -1))
	var port []byte
	s.until("the server serves", func() bool {
		m := serving.FindAllSubmatch(read(s.t, s.server.err), -1)
		if len(m) > before {
			port = m[len(m)-1][1]
		}
		return port != nil
	})
	s.listen = "localhost:" + string(port)
	s.url = "https://" + s.listen
}

func read(t *testing.T, file string) []byte {
	t.Helper()
	text, err := os.ReadFile(file)
	if err != nil && !os.IsNotExist(err) {
		t.Fatal(err)
	}
	return text
}

func (s *site) until(what string, is func() bool) {
	s.t.Helper()
	for over := time.After(patience); !is(); {
		select {
		case <-time.After(10 * time.Millisecond):
		case <-over:
			s.t.Fatal("it did not come to this: " + what)
		}
	}
}

// agent starts an agent.
func (s *site) agent(name string, args ...string) *program {
	s.t.Helper()
	return s.start(name, append([]string{
		"agent", "--server", s.url, "--ca", filepath.Join("state", "keys", "ca.crt"), "--token-file", "token", "--class", "c",
		"--name", name, "--spool", name + ".spool",
	}, args...)...)
}

// user calls the server as a user does.
func (s *site) user(args ...string) *exec.Cmd {
	return s.bulkhead(append([]string{
		"--server", s.url, "--ca", filepath.Join("state", "keys", "ca.crt"), "--token-file", filepath.Join("state", "keys", "token"),
	}, args...)...)
}

// run hands a run over.
func (s *site) run(args ...string) {
	s.t.Helper()
	if out, err := s.user(append([]string{"run", "-d", "--class", "c"}, args...)...).CombinedOutput(); err != nil {
		s.t.Fatalf("run: %v\n%s", err, out)
	}
}

// attempt is what the server says of the only item of a run.
func (s *site) attempt(run string) (state, how string) {
	out, err := s.user("items", run, "-o", "json").Output()
	var items []struct {
		State string
		How   string
	}
	if err != nil || json.Unmarshal(out, &items) != nil || len(items) != 1 {
		s.t.Fatalf("items: %v\n%s", err, out)
	}
	return items[0].State, items[0].How
}

func (s *site) ended(p *program, code int) {
	s.t.Helper()
	select {
	case <-p.done:
	case <-time.After(patience):
		s.t.Fatal("it does not end")
	}
	if got := p.ProcessState.ExitCode(); got != code {
		s.t.Errorf("exit code %d instead of %d", got, code)
	}
}

func (s *site) signal(p *program, sig syscall.Signal) {
	s.t.Helper()
	if err := p.Process.Signal(sig); err != nil {
		s.t.Fatal(err)
	}
}

func TestAnAgentRunsScriptsAsTheyWereAskedFor(t *testing.T) {
	s := newSite(t)
	a := s.agent("a")
	cmd := s.user("run", "--class", "c", "--stdin", "given ", "--env", "MORE=more", "--", "sh", "-c",
		`cat; echo "$BULKHEAD_RUN $BULKHEAD_ITEM $BULKHEAD_ATTEMPT $MORE"; env | grep -c BULKHEAD_STATE; echo oops >&2; exit 7`)
	var errs bytes.Buffer
	cmd.Stderr = &errs
	out, err := cmd.Output()
	if want := "given 1 1 1 more\n0\n"; string(out) != want || !strings.Contains(errs.String(), "oops") || cmd.ProcessState.ExitCode() != 7 {
		t.Errorf("%v\n%s%s", err, out, &errs)
	}
	s.signal(a, syscall.SIGTERM)
	s.ended(a, exitOK)
}

func TestAnAgentPutsTheFilesOfARunWhereItsScriptsAre(t *testing.T) {
	s := newSite(t)
	script := "#!/bin/sh\n[ \"$PWD\" = \"$BULKHEAD_FILES\" ] && find . -type f | sort; cat\n"
	if err := os.WriteFile(filepath.Join(s.dir, "script"), []byte(script), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(s.dir, "in"), bytes.Repeat([]byte("0123456789\n"), 300_000), 0o600); err != nil {
		t.Fatal(err)
	}
	s.agent("a")
	out, err := s.user("run", "--class", "c", "--file", "script", "--file", "class.yaml:conf/x", "--stdin-file", "in", "--", "./script").Output()
	want := "./conf/x\n./script\n" + strings.Repeat("0123456789\n", 300_000)
	if err != nil || string(out) != want {
		t.Errorf("%v, %d bytes instead of %d: %.100q", err, len(out), len(want), out)
	}
}

func TestAnAgentThatGetsSIGTERMEndsItsScriptsAndSaysSo(t *testing.T) {
	s := newSite(t)
	a := s.agent("a")
	s.run("--", "sh", "-c", `trap 'echo told; exit 5' TERM; echo here; while :; do sleep 0.01; done`)
	s.until("it runs", func() bool { return bytes.Contains(s.logs("1"), []byte("here")) })
	s.signal(a, syscall.SIGTERM)
	s.ended(a, exitOK)
	if state, how := s.attempt("1"); state != "failed" || how != "interrupt" {
		t.Errorf("%s, %s", state, how)
	}
	if out := s.logs("1"); string(out) != "here\ntold\n" {
		t.Errorf("it wrote %q", out)
	}
}

func (s *site) logs(run string) []byte {
	out, _ := s.user("logs", run).Output() // there may be none yet
	return out
}

func TestASecondSIGTERMKills(t *testing.T) {
	s := newSite(t)
	a := s.agent("a")
	s.run("--grace", "10m", "--", "sh", "-c", `trap 'echo told' TERM; echo here; while :; do sleep 0.01; done`)
	s.until("it runs", func() bool { return bytes.Contains(s.logs("1"), []byte("here")) })
	s.signal(a, syscall.SIGTERM)
	s.until("it was told", func() bool { return bytes.Contains(s.logs("1"), []byte("told")) })
	s.signal(a, syscall.SIGTERM)
	s.ended(a, exitOK)
	if state, how := s.attempt("1"); state != "failed" || how != "interrupt" {
		t.Errorf("%s, %s", state, how)
	}
}

func TestAnAgentIsGoneInTimeWhateverTheGraceOfItsScripts(t *testing.T) {
	s := newSite(t)
	a := s.agent("a", "--stop-within", "4s")
	s.run("--grace", "10m", "--", "sh", "-c", `trap 'echo told' TERM; echo here; while :; do sleep 0.01; done`)
	s.until("it runs", func() bool { return bytes.Contains(s.logs("1"), []byte("here")) })
	s.signal(a, syscall.SIGTERM)
	s.ended(a, exitOK)
	if state, how := s.attempt("1"); state != "failed" || how != "interrupt" {
		t.Errorf("%s, %s", state, how)
	}
	if out := s.logs("1"); string(out) != "here\ntold\n" {
		t.Errorf("it wrote %q", out)
	}
}

func TestWhatAnAgentRanThatWasKilledIsLostAndItsScriptIsGone(t *testing.T) {
	s := newSite(t)
	a := s.agent("a")
	s.run("--grace", "1s", "--", "sh", "-c", `echo $$ > pid; echo once >> ran; exec sleep 600`)
	s.until("it runs", func() bool { return len(read(t, filepath.Join(s.dir, "ran"))) > 0 })
	s.signal(a, syscall.SIGKILL)
	<-a.done
	pid := strings.TrimSpace(string(read(t, filepath.Join(s.dir, "pid"))))
	s.until("its script is gone", func() bool {
		_, err := os.Stat("/proc/" + pid)
		return os.IsNotExist(err)
	})
	b := s.agent("a")
	s.until("it is lost", func() bool {
		state, _ := s.attempt("1")
		return state == "lost"
	})
	s.signal(b, syscall.SIGTERM)
	s.ended(b, exitOK)
	if ran := read(t, filepath.Join(s.dir, "ran")); string(ran) != "once\n" {
		t.Errorf("it ran: %q", ran)
	}
}

func TestAScriptThatEndsWhileTheServerIsAwayIsHandedInByTheNextAgent(t *testing.T) {
	s := newSite(t)
	a := s.agent("a", "--delivery-timeout", "200ms")
	s.run("--", "sh", "-c", `echo here; until [ -e go ]; do sleep 0.01; done; echo done; seq 100000; touch over`)
	s.until("it runs", func() bool { return bytes.Contains(s.logs("1"), []byte("here")) })
	s.signal(s.server, syscall.SIGKILL)
	<-s.server.done
	for _, name := range []string{"go", "over"} {
		if name == "go" {
			if err := os.WriteFile(filepath.Join(s.dir, name), nil, 0o600); err != nil {
				t.Fatal(err)
			}
		}
		s.until(name, func() bool {
			_, err := os.Stat(filepath.Join(s.dir, name))
			return err == nil
		})
	}
	s.until("the result is kept", func() bool {
		done, err := filepath.Glob(filepath.Join(s.dir, "a.spool", "*.done"))
		return err == nil && len(done) == 1
	})
	s.signal(a, syscall.SIGTERM)
	s.ended(a, exitInternal)
	s.serve("class.yaml")
	b := s.agent("a")
	s.until("it is finished", func() bool {
		state, _ := s.attempt("1")
		return state == "succeeded"
	})
	want := bytes.NewBufferString("here\ndone\n")
	for i := range 100000 {
		fmt.Fprintln(want, i+1)
	}
	if out := s.logs("1"); !bytes.Equal(out, want.Bytes()) {
		t.Errorf("there are %d bytes of output instead of %d", len(out), want.Len())
	}
	s.signal(b, syscall.SIGINT)
	s.ended(b, exitOK)
}

func TestAnAgentWithTheWrongTokenSaysSoAndGoesOnAsking(t *testing.T) {
	s := newSite(t)
	right := read(t, filepath.Join(s.dir, "token"))
	if err := os.WriteFile(filepath.Join(s.dir, "token"), []byte("wrong"), 0o600); err != nil {
		t.Fatal(err)
	}
	a := s.agent("a", "--max-items", "1")
	s.until("it says so", func() bool { return bytes.Contains(read(t, a.err), []byte("the server refuses this agent")) })
	if err := os.WriteFile(filepath.Join(s.dir, "token"), right, 0o600); err != nil {
		t.Fatal(err)
	}
	s.run("--", "true")
	s.ended(a, exitOK)
	if state, _ := s.attempt("1"); state != "succeeded" {
		t.Error(state)
	}
}

func TestTheAgentCopiesItselfToWhereAPodFindsIt(t *testing.T) {
	s, dir := &site{t: t, bin: "/proc/self/exe", dir: t.TempDir()}, t.TempDir()
	for range 2 { // also over a former one
		if out, err := s.bulkhead("copy-agent", dir).CombinedOutput(); err != nil {
			t.Fatalf("%v\n%s", err, out)
		}
	}
	file := filepath.Join(dir, "bulkhead")
	info, err := os.Stat(file)
	if err != nil || info.Mode() != 0o755 {
		t.Fatal(info, err)
	}
	if out, err := exec.Command(file, "version").Output(); err != nil || !bytes.HasPrefix(out, []byte("bulkhead version ")) {
		t.Errorf("%v: %s", err, out)
	}
	if entries, err := os.ReadDir(dir); err != nil || len(entries) != 1 {
		t.Error(entries, err)
	}
	if out, err := s.bulkhead("copy-agent", filepath.Join(dir, "none")).CombinedOutput(); err == nil {
		t.Errorf("into nowhere: %s", out)
	}
}

func TestAServerWhoseFolderWasRemovedPromisesNothing(t *testing.T) {
	s := newSite(t)
	s.run("--", "true")
	for _, name := range []string{"ca.crt", "token"} { // of which callers have copies of their own
		if err := os.WriteFile(filepath.Join(s.dir, name+".copy"), read(t, filepath.Join(s.dir, "state", "keys", name)), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.RemoveAll(filepath.Join(s.dir, "state")); err != nil {
		t.Fatal(err)
	}
	cmd := s.bulkhead("run", "-d", "--server", s.url, "--ca", "ca.crt.copy", "--token-file", "token.copy", "--class", "c", "--", "true")
	out, err := cmd.CombinedOutput()
	if err == nil || !bytes.Contains(out, []byte("was removed while it was in use")) {
		t.Errorf("a run that is kept nowhere was accepted: %v\n%s", err, out)
	}
}
