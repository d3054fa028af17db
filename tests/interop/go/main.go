// Command client tests franz-go. Its subcommands are documented at their functions.
package main

import (
	"context"
	"fmt"
	"os"
)

func main() {
	words := map[string]func(context.Context, string, []string) error{
		"produce":  produce,
		"consume":  consume,
		"member":   member,
		"admin":    admin,
		"refusals": refusals,
	}
	if len(os.Args) < 3 || words[os.Args[1]] == nil {
		fmt.Fprintln(os.Stderr, "usage: client produce|consume|member|admin|refusals BOOTSTRAP ...")
		os.Exit(2)
	}
	if err := words[os.Args[1]](context.Background(), os.Args[2], os.Args[3:]); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}
