package main

import (
	"context"
	"encoding/json"
	"os"
	"strconv"

	"github.com/twmb/franz-go/pkg/kgo"
)

// consume prints the records of a topic from its beginning: TOPIC COUNT.
func consume(ctx context.Context, bootstrap string, args []string) error {
	left, err := strconv.Atoi(args[1])
	if err != nil {
		return err
	}
	client, err := kgo.NewClient(
		kgo.SeedBrokers(bootstrap),
		kgo.ConsumeTopics(args[0]),
		kgo.ConsumeResetOffset(kgo.NewOffset().AtStart()),
	)
	if err != nil {
		return err
	}
	defer client.Close()
	out := json.NewEncoder(os.Stdout)
	for left > 0 {
		fetches := client.PollRecords(ctx, left)
		if err := fetches.Err(); err != nil {
			return err
		}
		for _, record := range fetches.Records() {
			if err := out.Encode(lineOf(record)); err != nil {
				return err
			}
			left--
		}
	}
	return nil
}
