// Command davit packs virtual machine disks into OCI registries and takes
// them out again, verified.
//
// One file is one command: newX declares its flags and says how it is called,
// runX is the command as a function. Read push.go and pull.go first. What the
// commands share is in flags.go (options that several commands take), config.go
// (files and environment), exit.go (errors, exit codes, hints), output.go (the
// result on stdout, files), progress.go (stderr), printable.go (what terminals
// do not get) and secret.go (what nobody gets).
package main

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"os/signal"
	"runtime/debug"
	"slices"
	"strings"
	"syscall"

	"github.com/davit-oci/davit/internal/secret"
	"github.com/spf13/cobra"
)

func main() {
	os.Exit(run("/etc/davit", os.Args[1:]))
}

// run is the whole program; system is the folder of the host's own
// configuration and policy, which no flag and no variable may move.
func run(system string, args []string) (code int) {
	g := &globals{
		system: system,
		stdin:  os.Stdin,
		stdout: os.Stdout,
		stderr: &console{file: os.Stderr, secrets: learnSecrets(args, os.Environ())},
	}
	defer func() {
		if v := recover(); v != nil {
			g.stderr.line("davit: error: internal: %v: this is a bug in davit, please report it", v)
			if g.verbose {
				_, _ = g.stderr.Write(debug.Stack())
			}
			code = exitBug
		}
	}()
	if slices.Contains(args, cobra.ShellCompRequestCmd) || slices.Contains(args, cobra.ShellCompNoDescRequestCmd) {
		// cobra writes all that was given to stderr, past the console, if it
		// cannot complete it. Shells throw it away.
		if null, err := os.OpenFile(os.DevNull, os.O_WRONLY, 0); err == nil {
			defer null.Close()
			os.Stderr = null
		}
	}
	ctx, stop := interruptible(context.Background())
	defer stop()

	// The result waits here, so that a failure leaves stdout empty.
	var result bytes.Buffer
	root := newRoot(g)
	root.SetArgs(args)
	root.SetOut(&result)
	root.SetErr(g.stderr)
	cmd, err := root.ExecuteContextC(ctx)
	if err != nil && ctx.Err() != nil && exitCode(err) != exitRefused {
		err = context.Cause(ctx)
	}

	code = exitCode(err)
	done := code == exitOK || code == exitDiffers
	switch {
	case code == exitRefused && g.json:
		// A command that has more to tell has written its own report.
		if result.Len() == 0 {
			_ = writeJSON(&result, refusedReport{newReport(cmd.CommandPath()), newRefusal(err)})
		}
	case !done:
		result.Reset()
	}
	text := result.Bytes()
	if !done { // it says why
		text = hideInJSON(text, g.stderr.secrets.Hide)
	}
	if werr := writeResult(g.stdout, text); werr != nil && done {
		err, code, done = fmt.Errorf("writing the result: %w", werr), exitFailed, false
	}
	if !done {
		g.stderr.fail(commandName(cmd), err)
	}
	return code
}

// interruptible returns a context that ends with an [interruptError] on SIGINT
// or SIGTERM, so that commands remove what they have begun. A second signal
// does not wait for them.
func interruptible(parent context.Context) (context.Context, func()) {
	ctx, cancel := context.WithCancelCause(parent)
	signals := make(chan os.Signal, 2)
	signal.Notify(signals, os.Interrupt, syscall.SIGTERM)
	// Asked for, so that the runtime does not end the process on a write to a
	// closed pipe; the write fails and the command cleans up. Not ignored:
	// credential helpers would inherit that.
	signal.Notify(make(chan os.Signal, 1), syscall.SIGPIPE)
	done := make(chan struct{})
	go func() {
		for n := 0; ; n++ {
			select {
			case s := <-signals:
				if n > 0 {
					os.Exit(exitCode(interruptError{s}))
				}
				cancel(interruptError{s})
			case <-done:
				return
			}
		}
	}()
	return ctx, func() {
		signal.Stop(signals)
		close(done)
		cancel(nil)
	}
}

func newRoot(g *globals) *cobra.Command {
	root := &cobra.Command{
		Use:   "davit",
		Short: "Virtual machine images in OCI registries",
		Long: `davit packs virtual machine disks into OCI registries, signed and deduplicated,
and takes them out again, verified, in any disk format.`,
		Args: unknownCommand,
		RunE: func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
		PersistentPreRunE: func(cmd *cobra.Command, args []string) error {
			if err := refuseKeys(cmd, args); err != nil {
				return err
			}
			return g.load(cmd)
		},
		SilenceErrors:     true,
		SilenceUsage:      true,
		CompletionOptions: cobra.CompletionOptions{DisableDefaultCmd: true},
	}
	root.SetFlagErrorFunc(flagError)
	root.SetHelpCommand(newHelp(root))
	g.flags(root)
	root.AddCommand(
		newConvert(g),
		newDiff(g),
		newInspect(g),
		newKey(g),
		newLogin(g),
		newLogout(g),
		newLs(g),
		newMachine(g),
		newPull(g),
		newPush(g),
		newSign(g),
		newTag(g),
		newVerify(g),
		newRegistry(g),
		newVersion(g),
		newCompletion(g),
	)
	return root
}

// newGroup returns a command that only holds others.
func newGroup(use, short string, commands ...*cobra.Command) *cobra.Command {
	group := &cobra.Command{
		Use:   use,
		Short: short,
		Args:  unknownCommand,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return withHint(usagef("needs a command"), "%s --help", cmd.CommandPath())
		},
	}
	group.AddCommand(commands...)
	return group
}

// unknownCommand is the Args of commands that only hold others.
func unknownCommand(cmd *cobra.Command, args []string) error {
	if len(args) == 0 {
		return nil
	}
	err := usagef("no such command: %q", args[0])
	cmd.SuggestionsMinimumDistance = 2
	if similar := cmd.SuggestionsFor(args[0]); len(similar) > 0 {
		return withHint(err, "%s %s", cmd.CommandPath(), similar[0])
	}
	return withHint(err, "%s --help", cmd.CommandPath())
}

func newHelp(root *cobra.Command) *cobra.Command {
	return &cobra.Command{
		Use:               "help [COMMAND]",
		Short:             "Say how a command is used",
		Hidden:            true,
		PersistentPreRunE: noConfig,
		RunE: func(_ *cobra.Command, args []string) error {
			cmd, rest, err := root.Find(args)
			if err != nil || len(rest) > 0 {
				return withHint(usagef("no such command: %q", strings.Join(args, " ")), "davit --help")
			}
			return cmd.Help()
		},
	}
}

// noConfig keeps a command usable when the configuration is broken.
func noConfig(*cobra.Command, []string) error { return nil }

// flagError turns what the flag parser says into a usage error. --format and
// --output mean opposite things in the tools around davit, so it has neither.
func flagError(cmd *cobra.Command, err error) error {
	usage := usageError{err}
	var unknown interface{ GetSpecifiedName() string }
	if secret.LooksLikeKey(err.Error()) { // which begins with dashes
		return withHint(usagef("this looks like a private key, not like a flag or its value"), "%s", cmd.UseLine())
	}
	if !asError(err, &unknown) {
		return withHint(usage, "%s --help", cmd.CommandPath())
	}
	// example shows the command with the right flags before its arguments.
	example := func(flags string) error {
		_, arguments, _ := strings.Cut(cmd.Use, " ")
		return withHint(usage, "%s", strings.TrimSpace(cmd.CommandPath()+" "+flags+" "+arguments))
	}
	has := func(name string) bool { return cmd.Flags().Lookup(name) != nil }
	switch name := unknown.GetSpecifiedName(); {
	case name == "format" && has("source-format") && has("target-format"):
		return example("-f SOURCE_FORMAT -O TARGET_FORMAT")
	case name == "format" && has("source-format"):
		return example("-f FORMAT")
	case (name == "format" || name == "output") && has("target-format"):
		return example("-O FORMAT")
	case name == "output" && has("out"):
		return example("-o FILE")
	case name == "format" || name == "output":
		return example("--json")
	}
	return withHint(usage, "%s --help", cmd.CommandPath())
}

// commandName is how messages name a command: "push", "key generate".
func commandName(cmd *cobra.Command) string {
	_, name, below := strings.Cut(cmd.CommandPath(), " ")
	if !below {
		return "usage"
	}
	return name
}
