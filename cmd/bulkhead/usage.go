package main

import (
	"errors"
	"fmt"
	"regexp"
	"strconv"
	"strings"

	"github.com/spf13/cobra"

	"bulkhead.dev/bulkhead"
)

// usage is an error of the command line.
func usage(hint, format string, args ...any) error {
	return &bulkhead.Error{Code: bulkhead.CodeUsage, Message: fmt.Sprintf(format, args...), Hint: hint}
}

// exactly checks the number of arguments and says what they should be.
func exactly(names ...string) cobra.PositionalArgs {
	return func(cmd *cobra.Command, args []string) error {
		if len(args) > len(names) {
			return wrongArgs(cmd, "one argument too many: %s", bulkhead.Quote(args[len(names)]))
		}
		return needed(cmd, args, names)
	}
}

// atLeast is exactly, and any number of further arguments.
func atLeast(names ...string) cobra.PositionalArgs {
	return func(cmd *cobra.Command, args []string) error { return needed(cmd, args, names) }
}

// atMost is exactly with a last argument that may be left out.
func atMost(names ...string) cobra.PositionalArgs {
	return func(cmd *cobra.Command, args []string) error {
		if len(args) == len(names)-1 {
			return nil
		}
		return exactly(names...)(cmd, args)
	}
}

func needed(cmd *cobra.Command, args, names []string) error {
	if len(args) < len(names) {
		return wrongArgs(cmd, "%s is missing", names[len(args)])
	}
	return nil
}

func wrongArgs(cmd *cobra.Command, format string, args ...any) error {
	return usage("usage: "+cmd.UseLine(), "%s: "+format, append([]any{cmd.Name()}, args...)...)
}

// unknownCommand refuses what is no command of cmd.
func unknownCommand(cmd *cobra.Command, args []string) error {
	if len(args) == 0 {
		return nil
	}
	var known []string
	for _, c := range cmd.Commands() {
		if c.IsAvailableCommand() {
			known = append(known, c.Name())
		}
	}
	hint := "known are " + strings.Join(known, ", ")
	near := []string{bulkhead.Nearest(args[0], known)}
	if near[0] == "" {
		near = cmd.SuggestionsFor(args[0]) // other tools' words, and beginnings
	}
	if len(near) > 0 {
		hint = fmt.Sprintf("did you mean %s %s? ", cmd.CommandPath(), near[0]) + hint
	}
	return usage(hint, "unknown command %s", bulkhead.Quote(args[0]))
}

// What pflag's errors tell.
type (
	namedFlag interface { // an unknown flag, or one without its value
		error
		GetSpecifiedName() string
	}
	invalidFlag interface { // a value that does not fit
		error
		GetValue() string
	}
)

// usageError makes what cobra found wrong with the command line an error with a
// hint. Such an error comes before the command began.
func usageError(cmd *cobra.Command, args []string, err error) error {
	// The flag of a misspelt command is unknown to the command above it.
	if at := strings.Count(cmd.CommandPath(), " "); cmd.HasSubCommands() && at < len(args) && !strings.HasPrefix(args[at], "-") {
		return unknownCommand(cmd, args[at:])
	}
	if _, ok := errors.AsType[*bulkhead.Error](err); ok {
		return err
	}
	hint := fmt.Sprintf("see %s --help", cmd.CommandPath())
	if bad, ok := errors.AsType[invalidFlag](err); ok {
		return usage(hint, "%s", invalidValue(bad.GetValue(), err))
	}
	if flag, ok := errors.AsType[namedFlag](err); ok && cmd.Flags().Lookup(flag.GetSpecifiedName()) == nil {
		if near := bulkhead.Nearest(flag.GetSpecifiedName(), flagNames(cmd)); near != "" {
			hint = fmt.Sprintf("did you mean --%s? ", near) + hint
		}
	}
	return usage(hint, "%v", err)
}

// invalidValue says what is wrong with the value of a flag, in our words where
// pflag's are those of package strconv.
func invalidValue(value string, err error) string {
	flag, _, _ := strings.Cut(strings.TrimPrefix(err.Error(), fmt.Sprintf("invalid argument %q for ", value)), " flag: ")
	name := flag[strings.Index(flag, "--")+len("--"):]
	what := errors.Unwrap(err).Error()
	if number, ok := errors.AsType[*strconv.NumError](err); ok {
		what = fmt.Sprintf("%s is not a whole number", bulkhead.Quote(value))
		if number.Func == "ParseBool" {
			what = fmt.Sprintf("%s is neither true nor false", bulkhead.Quote(value))
		}
	}
	return fmt.Sprintf("--%s: %s", strings.TrimSuffix(name, `"`), what)
}

var flagName = regexp.MustCompile(`(?m)^ +(?:-\w, )?--([a-z_-]+)`)

// flagNames are the long names of a command's flags.
func flagNames(cmd *cobra.Command) (names []string) {
	for _, m := range flagName.FindAllStringSubmatch(cmd.Flags().FlagUsages()+cmd.InheritedFlags().FlagUsages(), -1) {
		names = append(names, m[1])
	}
	return names
}
