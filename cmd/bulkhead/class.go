package main

import "github.com/spf13/cobra"

// classCmd is what there is to do with classes.
func (a *app) classCmd() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "class",
		Short: "List the classes of a server, or write one",
		Long: `List the classes of a server, or write one. A class (on Kubernetes a ScriptClass)
is what an operator writes once for many runs: image, environment, how many
workers there may be and what they may reach.`,
		Args: unknownCommand,
		RunE: func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	cmd.AddCommand(a.classLsCmd(), a.classFromCmd())
	return cmd
}

// classFromFlags is the command line of class from.
type classFromFlags struct{ kubeconfig, namespace, format string }

func (a *app) classFromCmd() *cobra.Command {
	f := &classFromFlags{}
	cmd := &cobra.Command{
		Use:   "from KIND/NAME",
		Short: "Write a class from a Job, a CronJob or a Deployment that exists",
		Long: `Write a class from a Job, a CronJob or a Deployment that exists, to standard
output. Nothing in the cluster is changed. What to look at before it is used
goes to standard error.`,
		Example: `  bulkhead class from cronjob/purge-parsercache -n mediawiki >class.yaml
  bulkhead class from deployment/web | kubectl apply -f -`,
		Args: exactly("KIND/NAME"),
		RunE: func(cmd *cobra.Command, args []string) error {
			return a.classFrom(cmd.Context(), args[0], f)
		},
	}
	cmd.Flags().StringVar(&f.kubeconfig, "kubeconfig", "", "`file` that says how to reach the cluster (default $KUBECONFIG, else ~/.kube/config)")
	cmd.Flags().StringVarP(&f.namespace, "namespace", "n", "", "`namespace` (default that of the kubeconfig)")
	cmd.Flags().StringVarP(&f.format, "output", "o", "yaml", "`format`: yaml or json")
	completeFlag(cmd, "output", "yaml", "json")
	return cmd
}
