package main

import (
	"fmt"
	"os"
	"slices"
	"unicode/utf8"

	"bulkhead.dev/bulkhead"
	"bulkhead.dev/bulkhead/worker"
)

// checkTemplates parses every template once, so that a misspelt placeholder is
// an error before anything is stored.
func checkTemplates(spec *bulkhead.Spec) error {
	texts := spec.Templates()
	for _, text := range texts {
		// The spec is stored as JSON, which would change such bytes without a word.
		if !utf8.ValidString(text) {
			return usage("give such bytes as items (--each, --csv), which reach the script as they are", "%q is not UTF-8", text)
		}
	}
	_, err := parseAll(texts, spec.Columns)
	return err
}

// unused says of a batch whose items make no difference to what is run that it
// is one, and how to use them: rarely was that meant. It is "" otherwise.
func unused(spec *bulkhead.Spec) string {
	parsed, err := parseAll(spec.Templates(), spec.Columns)
	differs := func(t bulkhead.Template) bool { return !t.Constant() }
	if err != nil || spec.Single() || slices.ContainsFunc(parsed, differs) {
		return ""
	}
	if len(spec.Columns) == 1 {
		return "no argument uses the item; {} stands for it"
	}
	return fmt.Sprintf("no argument uses the item; {%s} stands for its column %[1]s", spec.Columns[0])
}

// checkCommand refuses a batch whose command is not there or not executable: one
// mistake, and not as many failures as there are items. Where an item decides what
// is started, or in which PATH it is looked for, only the attempt can tell.
func checkCommand(spec *bulkhead.Spec) error {
	if spec.Single() {
		return nil // its exit code says so, as a shell's would
	}
	command, err := bulkhead.ParseTemplate(spec.Command[0], spec.Columns)
	if err != nil || !command.Constant() {
		return err
	}
	var set []string
	for _, v := range spec.Env {
		if nameOf(v) != "PATH" {
			continue
		}
		path, err := bulkhead.ParseTemplate(v, spec.Columns)
		if err != nil || !path.Constant() {
			return err
		}
		set = append(set, path.Expand(bulkhead.Item{}))
	}
	err = worker.Check(worker.Job{
		Args: []string{command.Expand(bulkhead.Item{})}, Env: newEnviron(os.Environ()).with(set...), Dir: spec.Dir,
	})
	if err != nil {
		return usage("", "%v", err)
	}
	return nil
}
