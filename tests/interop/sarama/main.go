// Command client tests sarama. Its subcommands are documented at their functions.
package main

import (
	"fmt"
	"io"
	"log"
	"os"
	"time"

	"github.com/IBM/sarama"
)

// words are the subcommands. Those that older versions of sarama do not support register themselves.
var words = map[string]func(bootstrap string, config *sarama.Config, args []string) error{
	"produce": produce,
	"consume": consume,
	"member":  member,
	"admin":   admin,
	"fresh":   fresh,
}

func main() {
	if len(os.Args) < 4 || words[os.Args[2]] == nil {
		fmt.Fprintln(os.Stderr, "usage: client VERSION produce|consume|member|admin|fresh|refusals BOOTSTRAP ...")
		os.Exit(2)
	}
	sarama.Logger = log.New(io.Discard, "", 0)
	config := sarama.NewConfig()
	version, err := sarama.ParseKafkaVersion(os.Args[1])
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(2)
	}
	// Determines the versions of the requests.
	config.Version = version
	config.Metadata.Retry.Max = 100
	config.Metadata.Retry.Backoff = 200 * time.Millisecond
	if err := words[os.Args[2]](os.Args[3], config, os.Args[4:]); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}
