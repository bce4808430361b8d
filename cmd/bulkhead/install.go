package main

import "github.com/spf13/cobra"

// installFlags is the command line of install.
type installFlags struct {
	namespace, values, format, chart string
	set                              []string
	noNamespace                      bool
}

func (a *app) installCmd() *cobra.Command {
	f := &installFlags{}
	cmd := &cobra.Command{
		Use:   "install",
		Short: "Print what puts a server into a Kubernetes cluster",
		Long: `Print the manifests that put a server into a Kubernetes cluster, for kubectl:
namespace, definition of ScriptClass, rights, volume, service and deployment.
Nothing is asked of a cluster, and nothing changed.

They are those of a Helm chart, which --chart writes to a folder for who has Helm.
Its values are those of --set and --values; the chart's values.yaml says what
there is.`,
		Example: `  bulkhead install --set image.repository=registry.example/bulkhead | kubectl apply -f -
  bulkhead install | kubectl delete --ignore-not-found -f -   # and with it all runs
  bulkhead install --values bulkhead.yaml | kubectl diff -f -
  bulkhead install --chart chart && helm install bulkhead chart --namespace bulkhead --create-namespace`,
		Args: exactly(),
		RunE: func(cmd *cobra.Command, _ []string) error {
			if f.chart != "" {
				for _, name := range []string{"set", "values", "output", "namespace", "no-namespace"} {
					if cmd.Flags().Changed(name) {
						return usage("Helm has its own", "--%s is of no use with --chart", name)
					}
				}
			}
			return a.install(f)
		},
	}
	fl := cmd.Flags()
	fl.StringVarP(&f.namespace, "namespace", "n", "bulkhead", "`namespace` of the server")
	fl.BoolVar(&f.noNamespace, "no-namespace", false, "leave the namespace itself out: it is there already, or is to stay")
	fl.StringArrayVar(&f.set, "set", nil, "`PATH=VALUE`, for example storage.size=50Gi; repeat")
	fl.StringVarP(&f.values, "values", "f", "", "YAML `file` with values")
	fl.StringVarP(&f.format, "output", "o", "yaml", "`format`: yaml or json")
	fl.StringVar(&f.chart, "chart", "", "write the chart to this `folder` instead")
	completeNoFiles(cmd, "namespace", "set")
	completeFlag(cmd, "output", "yaml", "json")
	_ = cmd.MarkFlagDirname("chart") // it fails only for a flag that the command has not got
	_ = cmd.MarkFlagFilename("values", "yaml", "yml", "json")
	return cmd
}
