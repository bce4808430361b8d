// Command pack compresses a program, from standard input to standard output, for
// another one to carry. `make build` runs it.
package main

import (
	"fmt"
	"io"
	"os"

	"bulkhead.dev/bulkhead/cmd/bulkhead/packed"
)

func main() { os.Exit(run(os.Stdin, os.Stdout, os.Stderr)) }

func run(stdin io.Reader, stdout, stderr io.Writer) int {
	if err := packed.Pack(stdout, stdin); err != nil {
		fmt.Fprintf(stderr, "pack: %v\n", err)
		return 1
	}
	return 0
}
