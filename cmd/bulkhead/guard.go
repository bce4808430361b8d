package main

import "github.com/spf13/cobra"

// guardCmd is what there is to do about objects that multiply.
func (a *app) guardCmd() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "guard",
		Short: "Do something about objects that multiply in a cluster",
		Args:  unknownCommand,
		RunE:  func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	cmd.AddCommand(a.guardCleanCommand(), a.guardQuotaCommand())
	return cmd
}
