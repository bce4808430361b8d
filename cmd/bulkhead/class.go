package main

import "github.com/spf13/cobra"

func (a *app) classCmd() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "class",
		Short: "Show the classes of a server: what runs with which workers",
		Args:  unknownCommand,
		RunE:  func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	cmd.AddCommand(a.classLsCmd())
	return cmd
}
