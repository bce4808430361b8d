package main

import (
	"errors"
	"os"

	"bulkhead.dev/bulkhead"
	"bulkhead.dev/bulkhead/guard/budget"
)

// budgetsOf are the default budgets and those of a file ("": none) and of flags, which
// count before them: of those that are as special, the last one does.
func budgetsOf(file string, texts []string) ([]bulkhead.Budget, error) {
	budgets := budget.Defaults()
	if file != "" {
		more, err := readBudgetsFile(file)
		if err != nil {
			return nil, err
		}
		budgets = append(budgets, more...)
	}
	for _, text := range texts {
		b, err := budget.Parse(text)
		if err != nil {
			return nil, err
		}
		budgets = append(budgets, b)
	}
	return budgets, nil
}

func readBudgetsFile(name string) ([]bulkhead.Budget, error) {
	file, err := os.Open(name)
	if err != nil {
		return nil, usage("", "--budgets %s: %v", name, errors.Unwrap(err))
	}
	defer file.Close()
	return budget.ReadFile(file, name)
}
