package main

import (
	"os"
	"unicode/utf8"

	"bulkhead.dev/bulkhead"
	"bulkhead.dev/bulkhead/worker"
)

// checkTemplates parses every template once, so that a misspelt placeholder is
// an error before anything is stored.
func checkTemplates(spec *bulkhead.Spec) error {
	texts := append(append([]string{}, spec.Command...), spec.Env...)
	if spec.Stdin != nil {
		texts = append(texts, *spec.Stdin)
	}
	for _, p := range spec.Pools {
		texts = append(texts, p.Key)
	}
	for _, text := range texts {
		// The spec is stored as JSON, which would change such bytes without a word.
		if !utf8.ValidString(text) {
			return usage("give such bytes as items (--each, --csv), which reach the script as they are", "%q is not UTF-8", text)
		}
	}
	_, err := parseAll(texts, spec.Columns)
	return err
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
