package main

import (
	"context"
	"fmt"
	"io"
	"text/tabwriter"

	"github.com/spf13/cobra"

	"bulkhead.dev/bulkhead"
)

// classView is a class in JSON. Its field names are a contract: add, never rename.
type classView struct {
	Name    string   `json:"name"`
	Command []string `json:"command"` // prefix
	Workers int      `json:"workers"` // agents that are connected
	Slots   int      `json:"slots"`   // attempts that they can run at once
	Queued  int64    `json:"queued"`  // items
	Running int64    `json:"running"`
	Blocked string   `json:"blocked"` // why no worker comes
	// Objects are what it has in its cluster, by kind; left out where there is none.
	Objects []bulkhead.ObjectCount `json:"objects,omitempty"`
}

func newClassView(c bulkhead.ClassStatus) classView {
	return classView{c.Name, append([]string{}, c.Command...), c.Workers, c.Slots, c.Queued, c.Running, c.Blocked, c.Objects}
}

func (a *app) classLsCmd() *cobra.Command {
	var out outputFlag
	cmd := &cobra.Command{
		Use:     "ls",
		Aliases: []string{"list"},
		Short:   "List the classes of the server and what waits for them",
		Long: `List the classes of the server and what waits for them.

-o json is an array of: name, command (what every command begins with), workers,
slots, queued, running, blocked (why no worker comes), and on Kubernetes objects
(kind, count): what the class has in the cluster, however many runs there are.`,
		Args: exactly(),
		RunE: func(cmd *cobra.Command, _ []string) error {
			classes, err := a.classes(cmd.Context())
			if err != nil {
				return err
			}
			if out != "json" {
				return printClasses(a.stdout, classes)
			}
			views := []classView{}
			for _, c := range classes {
				views = append(views, newClassView(c))
			}
			return writeJSON(a.stdout, views)
		},
	}
	outputVar(cmd, &out, "text or json")
	return cmd
}

// classes asks the server; a state folder has none.
func (a *app) classes(ctx context.Context) ([]bulkhead.ClassStatus, error) {
	h, err := a.openHome(ctx)
	if err != nil {
		return nil, err
	}
	defer h.close()
	s, ok := h.(*remote)
	if !ok {
		return nil, noServer("classes are those of a server")
	}
	return s.Classes(ctx)
}

func printClasses(w io.Writer, classes []bulkhead.ClassStatus) error {
	tw := tabwriter.NewWriter(w, 0, 8, 2, ' ', 0)
	fmt.Fprintln(tw, "CLASS\tWORKERS\tSLOTS\tQUEUED\tRUNNING\tCOMMAND\tREASON")
	for _, c := range classes {
		fmt.Fprintf(tw, "%s\t%d\t%d\t%d\t%d\t%s\t%s\n", printable(c.Name, 0), c.Workers, c.Slots, c.Queued, c.Running,
			printable(shellLine(c.Command), 60), printable(c.Blocked, 0))
	}
	return tw.Flush()
}

// completeClasses completes the name of a class.
func (a *app) completeClasses(cmd *cobra.Command, _ []string, _ string) ([]string, cobra.ShellCompDirective) {
	a.hurry = true
	classes, err := a.classes(cmd.Context())
	if err != nil {
		return nil, cobra.ShellCompDirectiveNoFileComp
	}
	var names []string
	for _, c := range classes {
		names = append(names, c.Name)
	}
	return names, cobra.ShellCompDirectiveNoFileComp
}
