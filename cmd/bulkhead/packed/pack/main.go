// Command pack compresses a program, from standard input to standard output, for
// another one to carry. `make build` runs it.
package main

import (
	"fmt"
	"os"

	"bulkhead.dev/bulkhead/cmd/bulkhead/packed"
)

func main() {
	if err := packed.Pack(os.Stdout, os.Stdin); err != nil {
		fmt.Fprintf(os.Stderr, "pack: %v\n", err)
		os.Exit(1)
	}
}
