package main

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"path"
	"path/filepath"
	"regexp"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"bulkhead.dev/bulkhead"
	"bulkhead.dev/bulkhead/plan"
)

// mwscriptName is what the drop-in is called; by this name the program is it.
const mwscriptName = "mwscript-k8s"

// mwscript is the command line of mwscript-k8s, the tool of Wikimedia's operations
// that this is a drop-in for (modules/profile/files/kubernetes of operations/puppet).
// Each call is one of bulkhead run, which -v shows.
type mwscript struct {
	app *app

	verbose                          int
	comment, image, php, timeout     string
	dblist, localDBList, output      string
	files, env                       []string
	follow, attach, announce         bool
	class, dblists, limit, halt, can string
	pools                            []string
	retries                          string
}

func (a *app) mwscriptCmd() *cobra.Command {
	m := &mwscript{app: a}
	cmd := &cobra.Command{
		Use:   mwscriptName + " [flags] [--] SCRIPT [ARGUMENT…]",
		Short: "Run a MediaWiki maintenance script: a drop-in for Wikimedia's tool of that name",
		Long: `Run a MediaWiki maintenance script at a server, by the workers of its class
mediawiki. The flags are those of Wikimedia's tool of that name; what comes behind
SCRIPT, or --, is passed on untouched.

What is better than before:
  - A call is a row, not a Helm release: no Job, no NetworkPolicy, no ConfigMap.
  - With -f and --attach the exit code is the script's.
  - bulkhead ls shows what runs, whose it is and why; bulkhead wait waits for it.
  - bulkhead logs has what it wrote, also when its pod is gone.
  - bulkhead cancel ends it; so it is known to have been ended, and not lost.
  - --dblist is a batch with a result for each wiki: --limit, --pool, --halt and
    --canary hold it back, bulkhead retry --failed runs again what failed.

Without -f and --attach it returns once the server has accepted the script.
Ctrl-C leaves the script running, and says how to come back and how to stop it.`,
		Example: `  mwscript-k8s --comment='backfill for T123456' -- Filename.php --wiki=aawiki
  mwscript-k8s -f --comment T363966 -- extensions/TimedMediaHandler/maintenance/requeueTranscodes.php \
    --wiki=mrwiki --throttle --video --key=144p.mjpeg.mov --missing
  mwscript-k8s --attach -- shell.php --wiki=testwiki
  mwscript-k8s -f --dblist 's3 - testwikis' --limit 4 --halt soon,fail=3 -- showSiteStats.php`,
		Args: cobra.ArbitraryArgs,
		RunE: func(cmd *cobra.Command, args []string) error {
			err := m.run(cmd, args)
			if m.output == "json" && err != nil {
				m.report(err, nil)
			}
			return err
		},
	}
	m.define(cmd)
	return cmd
}

func (m *mwscript) define(cmd *cobra.Command) {
	fl := cmd.Flags()
	fl.SetInterspersed(false) // all behind the script is the script's
	fl.CountVarP(&m.verbose, "verbose", "v", "show the call of bulkhead run that this is; -vv: and where")
	fl.StringVar(&m.comment, "comment", "", "why; often a task number such as T363966")
	fl.BoolVar(&m.announce, "sal", false, "write to the server admin log when it starts and ends, arguments included")
	fl.StringVar(&m.image, "mediawiki_image", "", "`image`, without registry ($MWSCRIPT_REGISTRY); the class must allow it")
	fl.StringVar(&m.php, "php_version", "", "`version` of PHP: by the workers of class CLASS-phpVERSION; not with --mediawiki_image")
	fl.StringArrayVar(&m.files, "file", nil, "put `LOCAL[:REMOTE]` into the script's working folder; repeat")
	fl.StringArrayVar(&m.env, "env", nil, "`VAR=value` for the environment; repeat")
	fl.StringVar(&m.timeout, "timeout", "", "end the script after this `time`: 1d, 2h, 30m, 40s; a bare number is seconds (default: never)")
	fl.StringVar(&m.dblist, "dblist", "", "all wikis of a list, or of an `expression` like s3 - testwikis")
	fl.StringVar(&m.localDBList, "local_dblist", "", "all wikis of a local `file`")
	fl.StringVarP(&m.output, "output", "o", "none", "none or json; json not with -f, --attach or -v")
	fl.BoolVarP(&m.follow, "follow", "f", false, "print what the script writes; the exit code is its own")
	fl.BoolVar(&m.attach, "attach", false, "type into the script; what is piped in is passed on, too")
	fl.StringVar(&m.class, "class", "", "`class` of the workers (default $MWSCRIPT_CLASS, else mediawiki)")
	fl.StringVar(&m.dblists, "dblists", "", "`folder` of the lists (default $MWSCRIPT_DBLISTS, else /srv/mediawiki/dblists)")
	fl.StringVar(&m.limit, "limit", "1", "with a dblist: wikis at once")
	fl.StringArrayVar(&m.pools, "pool", nil, "with a dblist: see bulkhead run; {wiki} is the wiki")
	fl.StringVar(&m.halt, "halt", "", "with a dblist: end it when so many wikis failed, see bulkhead run")
	fl.StringVar(&m.can, "canary", "", "with a dblist: let so many `wikis` succeed before the rest may start")
	fl.StringVar(&m.retries, "retries", "", "with a dblist: further attempts of a `wiki` that failed or was lost")
	completeNoFiles(cmd, "comment", "mediawiki_image", "php_version", "env", "timeout", "dblist", "class", "limit", "pool", "halt", "canary", "retries")
	completeFlag(cmd, "output", "none", "json")
	_ = cmd.RegisterFlagCompletionFunc("class", m.app.completeClasses)
}

// exclusions are the flags that do not go together.
func (m *mwscript) exclusions(cmd *cobra.Command) error {
	given := cmd.Flags().Changed
	for _, pair := range [][2]string{{"follow", "attach"}, {"dblist", "local_dblist"}} {
		if given(pair[0]) && given(pair[1]) {
			return usage("give one of them", "--%s and --%s exclude each other", pair[0], pair[1])
		}
	}
	if m.output != "none" && m.output != "json" {
		return usage("none or json", "--output %s is not a format", bulkhead.Quote(m.output))
	}
	for _, name := range []string{"follow", "attach", "verbose"} {
		if m.output == "json" && given(name) {
			return usage("leave one of them out", "--output=json cannot be passed with --%s", name)
		}
	}
	if m.batch() {
		if m.attach {
			return usage("one script can be attached to, a batch cannot", "--attach and a dblist exclude each other")
		}
		return nil
	}
	for _, name := range []string{"dblists", "limit", "pool", "halt", "canary", "retries"} {
		if given(name) {
			return usage("one script is one attempt", "--%s is of use with --dblist or --local_dblist only", name)
		}
	}
	return nil
}

func (m *mwscript) batch() bool { return m.dblist != "" || m.localDBList != "" }

func (m *mwscript) run(cmd *cobra.Command, args []string) error {
	if len(args) == 0 || args[0] == "" {
		return usage("for example mwscript-k8s -- Version.php --wiki=enwiki", "no script to run")
	}
	if err := m.exclusions(cmd); err != nil {
		return err
	}
	// This may go on as the whole program, so nothing is said before.
	p, err := m.app.place()
	if err == nil && !p.remote() {
		err = noServer("MediaWiki's scripts are run by workers")
	}
	if err != nil {
		return err
	}
	line, err := m.line(cmd)
	if err != nil {
		return err
	}
	// Extension:Script is a name, too.
	line = append(line, "--name", args[0][strings.LastIndexAny(args[0], "/:")+1:])
	if !m.batch() {
		return m.submit(cmd.Context(), append(append(line, "--"), args...), nil)
	}
	wikis, err := m.wikis(args)
	if err != nil {
		return err
	}
	line = append(line, "--each", "wiki=list:"+strings.Join(wikis, ","), "--")
	columns := []string{"wiki"}
	line = append(line, bulkhead.Literal(args[0], columns), "--wiki={wiki}")
	for _, arg := range args[1:] {
		line = append(line, bulkhead.Literal(arg, columns))
	}
	return m.submit(cmd.Context(), line, wikis)
}

// remoteName is what a file may be called, as a key of a ConfigMap may.
var remoteName = regexp.MustCompile(`^[-._a-zA-Z0-9]+$`)

// line is the command line of bulkhead run, without the command.
func (m *mwscript) line(cmd *cobra.Command) ([]string, error) {
	line := []string{"--class", m.className()}
	add := func(flag, value string) {
		if value != "" {
			line = append(line, flag, value)
		}
	}
	add("--comment", m.comment)
	add("--timeout", m.timeout)
	if m.image != "" {
		add("--image", path.Join(cmp.Or(os.Getenv("MWSCRIPT_REGISTRY"), "docker-registry.discovery.wmnet"), m.image))
	}
	for _, file := range m.files {
		up, err := parseUploads([]string{file})
		if err == nil && !remoteName.MatchString(up[0].remote) {
			err = usage("files are put into the working folder: letters, digits and -._", "--file %s: %s cannot be its name there", bulkhead.Quote(file), bulkhead.Quote(up[0].remote))
		}
		if err != nil {
			return nil, err
		}
		add("--file", file)
	}
	for _, env := range m.env {
		if m.batch() {
			env = bulkhead.Literal(env, []string{"wiki"})
		}
		add("--env", env)
	}
	if m.announce {
		line = append(line, "--announce")
	}
	if m.batch() {
		add("--limit", m.limit)
		add("--halt", m.halt)
		add("--canary", m.can)
		add("--retries", m.retries)
		for _, pool := range m.pools {
			add("--pool", pool)
		}
	}
	if cmd.Flags().Changed("php_version") && m.image != "" {
		m.app.tell("mwscript-k8s: --php_version is ignored, because --mediawiki_image says which image")
	}
	return line, nil
}

func (m *mwscript) className() string {
	class := cmp.Or(m.class, os.Getenv("MWSCRIPT_CLASS"), "mediawiki")
	if m.php != "" && m.image == "" {
		class += "-php" + m.php
	}
	return class
}

// wikis are those of the dblist.
func (m *mwscript) wikis(args []string) (wikis []string, err error) {
	for _, arg := range args[1:] {
		if arg == "--wiki" || strings.HasPrefix(arg, "--wiki=") {
			return nil, usage("leave it out: the script is run once for each wiki of the list", "%s and a dblist exclude each other", arg)
		}
	}
	source := m.dblist
	if m.dblist != "" {
		wikis, err = plan.DBLists(cmp.Or(m.dblists, os.Getenv("MWSCRIPT_DBLISTS"), "/srv/mediawiki/dblists"), m.dblist)
	} else {
		source = m.localDBList
		var f *os.File
		if f, err = os.Open(m.localDBList); err != nil {
			return nil, usage("", "--local_dblist: %v", err)
		}
		defer f.Close()
		wikis, err = plan.DBList(f, m.localDBList)
	}
	if err == nil && len(wikis) == 0 {
		err = usage("", "no wiki is in %s", bulkhead.Quote(source))
	}
	return wikis, err
}

// submit is bulkhead run, as the flags want it.
func (m *mwscript) submit(ctx context.Context, line, wikis []string) error {
	switch {
	case m.attach && isTerminal(m.app.stdin):
		line = append([]string{"-it"}, line...)
	case m.attach:
		line = append([]string{"-i"}, line...)
	case !m.follow || wikis != nil:
		line = append([]string{"-d", "-o", "json"}, line...)
	}
	m.say(line)
	if m.attach || m.follow && wikis == nil {
		return m.bulkheadRun(ctx, m.app.stdout, line)
	}
	var accepted bytes.Buffer
	if err := m.bulkheadRun(ctx, &accepted, line); err != nil {
		return err
	}
	var r runView
	if err := json.Unmarshal(accepted.Bytes(), &r); err != nil {
		return fmt.Errorf("read what was accepted: %w", err)
	}
	if m.output == "json" {
		m.report(nil, &r)
	}
	if !m.follow {
		return nil
	}
	return m.followWikis(ctx, r.ID, wikis)
}

// say shows what is done.
func (m *mwscript) say(line []string) {
	if m.verbose > 0 {
		m.app.tell("+ %s", printable(shellLine(append([]string{"bulkhead", "run"}, line...)), 0))
	}
	if m.verbose > 1 {
		if p, err := m.app.findPlace(); err == nil {
			m.app.tell("+ at %s (%s)", cmp.Or(p.server.String(), "this machine"), cmp.Or(p.why, "nothing says otherwise"))
		}
	}
}

// bulkheadRun runs the command bulkhead run, which then says what goes wrong in the
// words of its own flags.
func (m *mwscript) bulkheadRun(ctx context.Context, stdout io.Writer, line []string) error {
	a := m.app
	defer func(was io.Writer) { a.stdout = was }(a.stdout)
	a.stdout, a.reads = stdout, "--attach gives it what is here on standard input"
	cmd := a.runCmd()
	cmd.SilenceErrors, cmd.SilenceUsage = true, true
	cmd.SetArgs(line)
	cmd.SetIn(a.stdin)
	cmd.SetOut(stdout)
	cmd.SetErr(a.stderr)
	return cmd.ExecuteContext(ctx)
}

// acceptance is what -o json prints, as the tool of before did, with what there is
// now: the number of a run in place of a Helm release. Its field names are a
// contract: add, never rename.
type acceptance struct {
	Error    *string   `json:"error"`
	MWScript *accepted `json:"mwscript"`
}

type accepted struct {
	Run   int64  `json:"run"`
	Class string `json:"class"`
	Name  string `json:"script"`
	Logs  string `json:"logs_command"`
	Stop  string `json:"stop_command"`
}

func (m *mwscript) report(err error, r *runView) {
	var out acceptance
	if err != nil {
		text := err.Error()
		out.Error = &text
	}
	if r != nil {
		out.MWScript = &accepted{Run: int64(r.ID), Class: m.className(), Name: r.Name,
			Logs: m.app.typed("logs %d -f", r.ID), Stop: m.app.typed("cancel %d", r.ID)}
	}
	_ = writeJSON(m.app.stdout, out) // the exit code says it, too
}

// followWikis prints what the scripts write, each line with its wiki, as
// foreachwikiindblist did, and ends as the batch does.
func (m *mwscript) followWikis(ctx context.Context, id bulkhead.RunID, wikis []string) error {
	h, err := m.app.openHome(ctx)
	if err != nil {
		return err
	}
	defer h.close()
	ctx, stop := m.app.interruptible(ctx)
	defer stop()
	r, err := h.Run(ctx, id)
	if err != nil {
		return err
	}
	began := time.Now()
	l := &logReader{app: m.app, home: h, run: r, prefixed: true, heads: func(item int64) string {
		if item < 1 || item > int64(len(wikis)) {
			return ""
		}
		return wikis[item-1] + ":  "
	}}
	err = l.followRun(ctx)
	if err == nil {
		err = h.watch(ctx, id, func(now *bulkhead.Run, _ bool) (bool, error) {
			r = now
			return now.State.Finished(), nil
		})
	}
	if left(ctx, err) {
		return m.app.leave(r)
	}
	if err != nil {
		return err
	}
	m.app.summary(r, began)
	return cmp.Or(exitOf(r), l.unreadable())
}

// asMWScript reports whether the program was called by the drop-in's name.
func asMWScript() bool { return filepath.Base(os.Args[0]) == mwscriptName }
