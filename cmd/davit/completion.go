package main

import (
	"io"

	"github.com/spf13/cobra"
)

func newCompletion(g *globals) *cobra.Command {
	return &cobra.Command{
		Use:       "completion bash|zsh|fish|powershell",
		Short:     "Print a script that completes davit's commands in a shell",
		ValidArgs: []string{"bash", "zsh", "fish", "powershell"},
		Args:      exactArgs("SHELL"),
		// A broken configuration must not break the start of every shell.
		PersistentPreRunE: noConfig,
		RunE: func(cmd *cobra.Command, args []string) error {
			if g.json {
				return usagef("a shell script has no JSON form")
			}
			return runCompletion(cmd.Root(), cmd.OutOrStdout(), args[0])
		},
	}
}

func runCompletion(root *cobra.Command, stdout io.Writer, shell string) error {
	switch shell {
	case "bash":
		return root.GenBashCompletionV2(stdout, true)
	case "zsh":
		return root.GenZshCompletion(stdout)
	case "fish":
		return root.GenFishCompletion(stdout, true)
	case "powershell":
		return root.GenPowerShellCompletionWithDesc(stdout)
	}
	return usagef("%s: not one of bash, zsh, fish, powershell", shell)
}
