package main

import (
	"bufio"
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/spf13/cobra"

	"bulkhead.dev/bulkhead"
	"bulkhead.dev/bulkhead/plan"
)

// runFlags are the flags of run as they were written.
type runFlags struct {
	file, csv, name, comment, dir               string
	stdin, stdinFile, class                     string
	shape                                       bulkhead.Shape
	files                                       []string
	rate, timeout, grace, retryDelay, maxOutput string
	halt                                        string
	each, env, pool                             []string
	limit, retries, canary, priority            int
	detach, dryRun, interactive, tty, announce  bool
	plan                                        bool
	output                                      outputFlag

	place   place
	uploads []upload // of files

	stdinFrom io.Reader // what a terminal would be
}

func (a *app) runCmd() *cobra.Command {
	var f runFlags
	cmd := &cobra.Command{
		Use:   "run [flags] -- COMMAND [ARGUMENT…]",
		Short: "Run a command once, or once for each item of an input",
		Long: `Run a command once, or once for each item of an input.

Without an input it behaves like the command itself: its output streams
through, its exit code is ours, and it is kept all the same (bulkhead logs). It
reads what we were given to read, with -d too unless that is a terminal; in a
loop that reads lines, write </dev/null or --stdin '' to leave them alone.

With an input it runs once per item. A SOURCE is a file (one item per line,
empty lines are skipped), - for standard input, a list a,b,c, a range 0..99 or
0..99..2, or glob:PATTERN, in which **/ is any number of folders. file: and list:
before it say which is meant. Several --each form the product, the first varies
slowest. --csv names the columns by its header.

{} {NAME} {#} in arguments, --env, --stdin and --pool stand for the item, a
column of it, and its number from 1. Of several --each without a NAME {1} is the
first, {2} the second. Any other brace is literal; {{NAME} writes {NAME}.
Arguments go to exec as they are, no shell reads them.

--halt ends the run when so many items failed: soon starts nothing more and lets
what runs come to its end, now also ends what runs (SIGTERM, and SIGKILL after
the grace). What is queued is cancelled.

The first Ctrl-C starts nothing more and waits for what runs; bulkhead resume
goes on later. The second cancels the run. A single script gets the first one
itself (SIGTERM and a hang-up too), as without Bulkhead.

At a server (--server, or a context) the workers of a --class run it. The input
is read here; nothing else of this machine goes along that is not asked for: no
environment but --env, no working folder, no file but those of --file, and
nothing to read but --stdin, --stdin-file or, with -i, what comes as it comes. Output and exit code are the same.
Ctrl-C leaves the run to the server and says how to come back; -d does at once.

-it runs one script in a terminal: keys, Ctrl-C too, go to the script. At a
server, Enter ~ . leaves it running and bulkhead attach comes back; ~? says what
else there is. -i alone is for pipes of any length.`,
		Example: `  bulkhead run --each wikis.txt --limit 4 -- php maintenance/showSiteStats.php --wiki={}
  bulkhead run --each wiki=wikis.txt --each key=144p,240p --pool 'db:{wiki}=1' --halt soon,fail=5% -- ./requeue --wiki={wiki} --key={key}
  bulkhead run -- ./one-script --now
  seq 100000 | bulkhead run --each - --limit 8 --rate 50/s --timeout 30s --retries 2 -- ./check {}
  bulkhead run --plan --class mediawiki --each all.dblist -- showSiteStats.php --wiki={}
  bulkhead run -d --csv users.csv -- ./migrate --id={id} --mail={mail}
  bulkhead run --class mediawiki -it -- shell.php --wiki=enwiki
  bulkhead run --class mediawiki -i -- importDump.php --wiki=testwiki < dump.xml
  bulkhead run --class mediawiki --each all.dblist --limit 20 -- showSiteStats.php --wiki={}`,
		Args: cobra.ArbitraryArgs,
		RunE: func(cmd *cobra.Command, args []string) error { return a.run(cmd, &f, args) },
	}
	f.define(a, cmd)
	return cmd
}

// define gives a command the flags.
func (f *runFlags) define(a *app, cmd *cobra.Command) {
	fl := cmd.Flags()
	fl.SetInterspersed(false)
	fl.StringVarP(&f.file, "run-file", "f", "", "run `file` (YAML, the same fields as these flags; paths in it are relative to the current folder); flags win")
	fl.StringArrayVar(&f.each, "each", nil, "`[NAME=]SOURCE` of items; repeat for the product")
	fl.StringVar(&f.csv, "csv", "", "CSV or .tsv `file` whose header names the columns; - is standard input")
	fl.StringVar(&f.name, "name", "", "name of the run (default: the command's base name)")
	fl.StringVar(&f.comment, "comment", "", "why; often a task number")
	fl.BoolVar(&f.announce, "announce", false, "at a server: write a line into its admin log when the run starts and when it ends")
	fl.IntVar(&f.limit, "limit", runtime.NumCPU(), fmt.Sprintf("items at once (at a server: %d)", defaultRemoteLimit))
	fl.StringVar(&f.rate, "rate", "", "starts per time: `50/s`, 30/m, 10/h; a bare number is per second")
	fl.StringArrayVar(&f.pool, "pool", nil, "`NAME[:KEY]=N`: at most N at once in this process, or at the server, of each key if it has placeholders; repeat")
	fl.StringVar(&f.timeout, "timeout", "", "end an attempt after this `time`: 30s, 5m, 1d 2h; a bare number is seconds")
	fl.StringVar(&f.grace, "grace", "10s", "`time` between SIGTERM and SIGKILL, at most a day")
	fl.IntVar(&f.retries, "retries", 0, "further attempts of an item that failed or was lost")
	fl.StringVar(&f.retryDelay, "retry-delay", "1s", "`time` before the first retry; doubles up to 5m")
	fl.StringVar(&f.halt, "halt", "", "`soon|now,fail=N|N%`: end the run when so many failed; now also ends what runs")
	fl.IntVar(&f.canary, "canary", 0, "let this many items succeed before the rest may start; pause when one fails")
	fl.IntVar(&f.priority, "priority", 0, "higher first among the runs of one owner and one process")
	fl.StringArrayVar(&f.env, "env", nil, "`NAME=TEMPLATE` for the environment; repeat")
	fl.StringVar(&f.stdin, "stdin", "", "`template` of what the script reads")
	fl.StringVar(&f.dir, "dir", "", "working `folder` of the script (default: this one; of a class: its own)")
	fl.StringVar(&f.maxOutput, "max-output", "64MiB", "`size` of output kept per attempt; the rest is cut, visibly")
	fl.BoolVarP(&f.detach, "detach", "d", false, "go on in the background; print the run's id")
	fl.BoolVarP(&f.interactive, "interactive", "i", false, "the script reads what is typed or piped in here, as it comes")
	fl.BoolVarP(&f.tty, "tty", "t", false, "with -i (which goes without saying): the script runs in a terminal, which is ours")
	fl.BoolVar(&f.dryRun, "dry-run", false, "print the first and last items and their number; run nothing")
	fl.StringVar(&f.class, "class", "", "`class` of the server's workers; bulkhead class ls lists them")
	fl.StringArrayVar(&f.files, "file", nil, "at a server: put `LOCAL[:REMOTE]` into the folder $BULKHEAD_FILES of every attempt; repeat")
	fl.StringVar(&f.stdinFile, "stdin-file", "", "at a server: `file` that every attempt reads; - is what we are given to read")
	fl.StringVar(&f.shape.Image, "image", "", "with --class: another `image` than the class's")
	fl.StringVar(&f.shape.CPU, "cpu", "", "with --class: another `quantity` of CPU, as 500m or 2")
	fl.StringVar(&f.shape.Memory, "memory", "", "with --class: another `quantity` of memory, as 512Mi")
	fl.BoolVar(&f.plan, "plan", false, "say how many items, where, how long and what they would wait for; run nothing")
	outputVar(cmd, &f.output, "with -d and --plan: text or json")
	completeNoFiles(cmd, "name", "comment", "limit", "rate", "pool", "halt", "timeout", "grace", "retries", "retry-delay",
		"canary", "priority", "env", "stdin", "max-output", "image", "cpu", "memory")
	_ = cmd.RegisterFlagCompletionFunc("class", a.completeClasses)
	_ = cmd.MarkFlagDirname("dir") // it fails only for a flag that there is not
}

func (a *app) run(cmd *cobra.Command, f *runFlags, args []string) (err error) {
	if f.place, err = a.place(); err != nil {
		return err
	}
	f.stdinFrom = a.stdin
	spec, err := f.spec(cmd, args)
	if err != nil {
		return err
	}
	in, err := a.openInput(spec, f.file)
	if err != nil {
		return err
	}
	reading := false
	defer func() {
		if !reading {
			in.Close()
		}
	}()
	spec.Columns = in.Columns()
	if spec.Interactive {
		if err := spec.CheckInteractive(); err != nil {
			return err
		}
	}
	if spec.Single() {
		spec.Limit = 1
	}
	if err := checkTemplates(spec); err != nil {
		return err
	}
	if note := unused(spec); note != "" {
		a.tell("bulkhead: %s", note)
	}
	if f.plan || f.dryRun {
		return a.foresee(cmd.Context(), f, spec, in)
	}
	if f.place.remote() {
		reading = true // and who reads it closes it
		return a.runRemote(cmd.Context(), f.place, f, spec, in)
	}
	if err := cmp.Or(checkCommand(spec), checkFiles(spec.Limit, "--limit", "use --limit")); err != nil {
		return err
	}
	st, err := a.openFolder(cmd.Context())
	if err != nil {
		return err
	}
	defer st.close()
	l := st.adopt(cmd.Context(), spec.Grace)
	defer l.closeWorker()
	reading = true // and who reads it closes it
	r, err := l.accept(spec, in)
	if err != nil {
		return err
	}
	if f.detach {
		return st.detach(r, f.output)
	}
	return l.own(r)
}

// spec makes a Spec of the run file and the flags; flags that were given win.
func (f *runFlags) spec(cmd *cobra.Command, args []string) (*bulkhead.Spec, error) {
	spec := &bulkhead.Spec{}
	given := func(name string) bool { return f.file == "" || cmd.Flags().Changed(name) }
	if f.file != "" {
		file, err := readRunFile(f.file, cmd.InOrStdin())
		if err != nil {
			return nil, err
		}
		*spec = file.Spec()
		if !cmd.Flags().Changed("file") {
			f.files = file.Files
		}
		if !cmd.Flags().Changed("stdin-file") && !cmd.Flags().Changed("stdin") {
			f.stdinFile = file.StdinFile
		}
	}
	if len(args) > 0 {
		spec.Command = args
	}
	if len(spec.Command) == 0 || spec.Command[0] == "" {
		return nil, usage("write it behind --, for example bulkhead run -- ./script --now", "no command to run")
	}
	if err := f.inputs(cmd, spec); err != nil {
		return nil, err
	}
	if err := f.limits(cmd, spec, given); err != nil {
		return nil, err
	}
	if err := f.rest(cmd, spec, given); err != nil {
		return nil, err
	}
	if err := cmp.Or(f.checkPlan(), f.console(spec)); err != nil {
		return nil, err
	}
	if f.place.remote() {
		return spec, f.atServer(spec)
	}
	return spec, cmp.Or(f.onlyAtServer(spec), f.here(spec))
}

func readRunFile(name string, stdin io.Reader) (plan.File, error) {
	if name == "-" {
		return plan.ParseFile(stdin, "standard input")
	}
	file, err := os.Open(name)
	if err != nil {
		return plan.File{}, usage("", "--run-file %s: %v", name, errors.Unwrap(err))
	}
	defer file.Close()
	return plan.ParseFile(file, name)
}

func (f *runFlags) inputs(cmd *cobra.Command, spec *bulkhead.Spec) error {
	if len(f.each) > 0 || f.csv != "" {
		spec.Inputs = nil
	}
	if cmd.Flags().Changed("csv") && f.csv == "" {
		return usage("", "--csv is empty")
	}
	if f.csv != "" {
		// First, as in a run file: it is the one that is likely to be large.
		spec.Inputs = append(spec.Inputs, bulkhead.Source{From: f.csv, CSV: true})
	}
	for _, text := range f.each {
		src, err := plan.ParseEach(text)
		if err != nil {
			return err
		}
		spec.Inputs = append(spec.Inputs, src)
	}
	return nil
}

// limits reads the flags that bound a run.
func (f *runFlags) limits(cmd *cobra.Command, spec *bulkhead.Spec, given func(string) bool) (err error) {
	if given("limit") || spec.Limit == 0 {
		spec.Limit = f.limit
		if f.place.remote() && !cmd.Flags().Changed("limit") {
			spec.Limit = defaultRemoteLimit
		}
	}
	if spec.Limit < 1 || spec.Limit > bulkhead.MaxLimit {
		return usage("", "--limit %d is not between 1 and %d", spec.Limit, bulkhead.MaxLimit)
	}
	if given("rate") && f.rate != "" {
		if spec.Rate, err = bulkhead.ParseRate(f.rate); err != nil {
			return err
		}
	}
	if given("halt") && f.halt != "" {
		if spec.Halt, err = bulkhead.ParseHalt(f.halt); err != nil {
			return err
		}
	}
	if cmd.Flags().Changed("pool") {
		spec.Pools = nil
	}
	for _, text := range f.pool {
		p, err := bulkhead.ParsePool(text)
		if err != nil {
			return err
		}
		spec.Pools = append(spec.Pools, p)
	}
	for _, n := range []struct {
		name  string
		value int
		to    *int
	}{{"retries", f.retries, &spec.Retries}, {"canary", f.canary, &spec.Canary}} {
		if given(n.name) {
			*n.to = n.value
		}
		if *n.to < 0 || *n.to > bulkhead.MaxRetries {
			return usage("", "--%s %d is not between 0 and %d", n.name, *n.to, bulkhead.MaxRetries)
		}
	}
	if given("priority") {
		spec.Priority = f.priority
	}
	if given("announce") {
		spec.Announce = f.announce
	}
	return nil
}

// rest reads the flags that say what an attempt looks like.
func (f *runFlags) rest(cmd *cobra.Command, spec *bulkhead.Spec, given func(string) bool) (err error) {
	for _, d := range []struct {
		name, value string
		to          *time.Duration
	}{
		{"timeout", f.timeout, &spec.Timeout}, {"grace", f.grace, &spec.Grace}, {"retry-delay", f.retryDelay, &spec.RetryDelay},
	} {
		if d.value == "" || !given(d.name) && (*d.to != 0 || d.name == "timeout") {
			continue
		}
		if *d.to, err = plan.ParseDuration(d.value); err != nil {
			return fmt.Errorf("--%s: %w", d.name, err)
		}
	}
	if given("max-output") || spec.MaxOutput == 0 {
		if spec.MaxOutput, err = plan.ParseSize(f.maxOutput); err != nil {
			return fmt.Errorf("--max-output: %w", err)
		}
	}
	if spec.MaxOutput < 1 {
		return usage("", "--max-output %s is less than a byte", f.maxOutput)
	}
	if cmd.Flags().Changed("env") {
		spec.Env = nil
	}
	spec.Env = append(spec.Env, f.env...)
	for _, env := range spec.Env {
		if name, _, ok := strings.Cut(env, "="); !ok || name == "" {
			return usage("write NAME=VALUE", "--env %q has no name or no =", env)
		}
	}
	if cmd.Flags().Changed("stdin") {
		spec.Stdin = &f.stdin
	} else if cmd.Flags().Changed("stdin-file") {
		spec.Stdin = nil
	}
	if spec.Stdin != nil && f.stdinFile != "" {
		return usage("give one of them", "--stdin and --stdin-file exclude each other")
	}
	return f.texts(cmd, spec)
}

// texts reads the flags that are text. What is given empty takes the place of
// what the run file says, too.
func (f *runFlags) texts(cmd *cobra.Command, spec *bulkhead.Spec) error {
	for _, t := range []struct {
		name, value string
		to          *string
	}{{"name", f.name, &spec.Name}, {"comment", f.comment, &spec.Comment}, {"dir", f.dir, &spec.Dir}, {"class", f.class, &spec.Class},
		{"image", f.shape.Image, &spec.Shape.Image}, {"cpu", f.shape.CPU, &spec.Shape.CPU}, {"memory", f.shape.Memory, &spec.Shape.Memory}} {
		if cmd.Flags().Changed(t.name) {
			*t.to = t.value
		}
		// The spec is stored as JSON, which would change such bytes without a word.
		if !utf8.ValidString(*t.to) {
			return usage("", "--%s %q is not UTF-8", t.name, *t.to)
		}
	}
	if spec.Name == "" {
		spec.Name = filepath.Base(spec.Command[0])
	}
	return nil
}

// here completes a spec for this machine.
func (f *runFlags) here(spec *bulkhead.Spec) (err error) {
	if spec.Dir, err = filepath.Abs(spec.Dir); err != nil {
		return fmt.Errorf("working folder: %w", err)
	}
	if st, err := os.Stat(spec.Dir); err != nil || !st.IsDir() {
		return usage("", "--dir %s is not a folder", spec.Dir)
	}
	spec.Owner = me()
	spec.InputDir, err = os.Getwd()
	return err
}

// openInput opens the input; file is where the run file came from, if there is one.
func (a *app) openInput(spec *bulkhead.Spec, file string) (*plan.Input, error) {
	for _, src := range spec.Inputs {
		if file == "-" && src.From == "-" {
			return nil, usage("save one of them to a file, and name the file", "standard input (-) cannot be both the run file and a source of items")
		}
	}
	in, err := plan.Open(spec.Inputs, plan.Options{Stdin: a.stdin, Dir: spec.InputDir})
	if err != nil {
		return nil, fmt.Errorf("input: %w", err)
	}
	return in, nil
}

// foresee says what a run would do, and does nothing.
func (a *app) foresee(ctx context.Context, f *runFlags, spec *bulkhead.Spec, in *plan.Input) error {
	if f.plan {
		return a.planRun(ctx, f, spec, in)
	}
	w := bufio.NewWriter(a.stdout)
	return cmp.Or(dryRun(w, spec, in), w.Flush())
}

// dryShown is how many items of each end --dry-run prints.
const dryShown = 3

func dryRun(w io.Writer, spec *bulkhead.Spec, in *plan.Input) error {
	command, err := parseAll(spec.Command, spec.Columns)
	if err != nil {
		return err
	}
	line := func(it bulkhead.Item) {
		fmt.Fprintf(w, "%8d  %s\n", it.Index, printable(shellLine(expandAll(command, it)), 0))
	}
	if spec.Single() {
		line(bulkhead.Item{Index: 1})
		fmt.Fprintln(w, counted(1)+"; nothing was run")
		return nil
	}
	var last []bulkhead.Item
	n := int64(0)
	for {
		it, err := in.Next()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return err
		}
		if n++; n <= dryShown {
			line(it)
			continue
		}
		if last = append(last, it); len(last) > dryShown {
			last = last[1:]
		}
	}
	if n > 2*dryShown {
		fmt.Fprintln(w, "       …")
	}
	for _, it := range last {
		line(it)
	}
	fmt.Fprintf(w, "%s, limit %d; nothing was run\n", counted(n), spec.Limit)
	return nil
}

// shellLine quotes a command so that a shell would read it back as it is.
func shellLine(args []string) string { return bulkhead.ShellLine(args) }
