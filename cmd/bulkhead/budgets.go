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
	own, err := ownBudgets(file, texts)
	return append(budget.Defaults(), own...), err
}

// ownBudgets are those without the defaults.
func ownBudgets(file string, texts []string) (budgets []bulkhead.Budget, err error) {
	if file != "" {
		if budgets, err = readBudgetsFile(file); err != nil {
			return nil, err
		}
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
	if info, err := file.Stat(); err == nil && info.IsDir() {
		return nil, usage("name a YAML file in it", "--budgets %s is a folder", bulkhead.Quote(name))
	}
	return budget.ReadFile(file, name)
}
