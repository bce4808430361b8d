package bulkhead

import (
	"fmt"
	"path"
	"strings"
	"time"
	"unicode/utf8"
)

// Bounds of a Spec.
const (
	MaxLimit   = 10_000    // items of a run at once
	MaxRetries = 1_000_000 // further attempts of an item; and the items of a canary
	MaxColumns = 1000      // of a run: each costs something for every item
	MaxFiles   = 1000      // of a run
)

// Check refuses a spec that no run can have, before anything of it is stored:
// a number out of its bounds, a template with an unknown placeholder, text that
// is no UTF-8. Whether there is such a class, and whether the files are there, it
// cannot know.
func (s *Spec) Check() error {
	for _, check := range []func() error{
		s.checkTexts, s.checkNumbers, s.checkTimes, s.checkEnv, s.checkColumns, s.checkTemplates, s.checkPools, s.checkFiles, s.CheckInteractive,
		s.Shape.check,
	} {
		if err := check(); err != nil {
			return err
		}
	}
	return nil
}

func refuse(hint, format string, args ...any) error {
	return &Error{Code: CodeUsage, Message: fmt.Sprintf(format, args...), Hint: hint}
}

func (s *Spec) checkTexts() error {
	if len(s.Command) == 0 || s.Command[0] == "" {
		return refuse("", "no command to run")
	}
	for _, t := range []struct{ name, value string }{
		{"name", s.Name}, {"comment", s.Comment}, {"dir", s.Dir}, {"class", s.Class}, {"owner", s.Owner},
	} {
		// The spec is stored as JSON, which would change such bytes without a word.
		if !utf8.ValidString(t.value) {
			return refuse("", "%s %s is not UTF-8", t.name, Quote(t.value))
		}
	}
	if s.Dir != "" && !path.IsAbs(s.Dir) {
		return refuse("begin it with /", "dir %s is not an absolute path", Quote(s.Dir))
	}
	return nil
}

func (s *Spec) checkNumbers() error {
	if s.Limit < 1 || s.Limit > MaxLimit {
		return refuse("", "limit %d is not between 1 and %d", s.Limit, MaxLimit)
	}
	for _, n := range []struct {
		name  string
		value int
	}{{"retries", s.Retries}, {"canary", s.Canary}} {
		if n.value < 0 || n.value > MaxRetries {
			return refuse("", "%s %d is not between 0 and %d", n.name, n.value, MaxRetries)
		}
	}
	if s.MaxOutput < 1 {
		return refuse("", "max-output %d is less than a byte", s.MaxOutput)
	}
	return nil
}

func (s *Spec) checkTimes() error {
	for _, d := range []struct {
		name  string
		value time.Duration
	}{{"timeout", s.Timeout}, {"grace", s.Grace}, {"retry-delay", s.RetryDelay}} {
		if d.value < 0 {
			return refuse("", "%s %s is less than nothing", d.name, d.value)
		}
	}
	if s.Grace > MaxGrace {
		return refuse("", "grace %s is more than %s", s.Grace, MaxGrace)
	}
	return nil
}

func (s *Spec) checkEnv() error {
	for _, env := range s.Env {
		if name, _, ok := strings.Cut(env, "="); !ok || name == "" {
			return refuse("write NAME=VALUE", "env %s has no name or no =", Quote(env))
		}
	}
	return nil
}

func (s *Spec) checkColumns() error {
	if len(s.Columns) > MaxColumns {
		return refuse("keep the columns that the command needs", "%d columns are more than %d", len(s.Columns), MaxColumns)
	}
	seen := map[string]bool{}
	for _, c := range s.Columns {
		if !ValidName(c) {
			return refuse("a column name is made of letters, digits, _ - . so that {name} can stand for it",
				"column %s cannot be a placeholder", Quote(c))
		}
		if seen[c] {
			return refuse("rename one of them", "two columns are named %s", Quote(c))
		}
		seen[c] = true
	}
	return nil
}

// Templates are all texts of a spec in which placeholders stand for something.
func (s *Spec) Templates() []string {
	texts := append(append([]string{}, s.Command...), s.Env...)
	if s.Stdin != nil {
		texts = append(texts, *s.Stdin)
	}
	for _, p := range s.Pools {
		texts = append(texts, p.Key)
	}
	return texts
}

// checkTemplates parses every template once, so that a misspelt placeholder is an
// error before anything is stored.
func (s *Spec) checkTemplates() error {
	for _, t := range s.Templates() {
		if !utf8.ValidString(t) {
			return refuse("give such bytes as items (--each, --csv), which reach the script as they are", "%q is not UTF-8", t)
		}
		if _, err := ParseTemplate(t, s.Columns); err != nil {
			return err
		}
	}
	return nil
}

func (s *Spec) checkPools() error {
	for _, p := range s.Pools {
		if !poolName.MatchString(p.Name) {
			return refuse("", "pool %s is not a name of letters, digits, _ - .", Quote(p.Name))
		}
		if p.Slots < 1 {
			return refuse("", "pool %s: %d is not a whole number of at least 1", p.Name, p.Slots)
		}
	}
	return nil
}

// checkFiles refuses files that cannot stand beside one another.
func (s *Spec) checkFiles() error {
	if s.StdinFile != "" {
		if s.Stdin != nil {
			return refuse("", "stdin and a file for it exclude each other")
		}
		if err := CheckFileHash(s.StdinFile); err != nil {
			return err
		}
	}
	if len(s.Files) > MaxFiles {
		return refuse("put them into an archive", "%d files are more than %d", len(s.Files), MaxFiles)
	}
	names, folders := map[string]bool{}, map[string]bool{}
	for _, f := range s.Files {
		if err := CheckFilePath(f.Path); err != nil {
			return err
		}
		if err := CheckFileHash(f.SHA256); err != nil {
			return err
		}
		if names[f.Path] {
			return refuse("", "two files have the path %s", Quote(f.Path))
		}
		names[f.Path] = true
		for dir := path.Dir(f.Path); dir != "."; dir = path.Dir(dir) {
			folders[dir] = true
		}
	}
	for _, f := range s.Files {
		if folders[f.Path] {
			return refuse("", "file path %s is the folder of another file", Quote(f.Path))
		}
	}
	return nil
}
