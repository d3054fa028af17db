package main

import (
	"context"
	"maps"
	"os"
	"os/signal"
	"slices"
	"sync"
	"syscall"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"
)

var protocols = map[string][]kgo.Opt{
	"range":       {kgo.Balancers(kgo.RangeBalancer()), kgo.SessionTimeout(6 * time.Second)},
	"cooperative": {kgo.Balancers(kgo.CooperativeStickyBalancer()), kgo.SessionTimeout(6 * time.Second)},
	"consumer":    {kgo.Balancers(kgo.StickyBalancer()), kgo.ServerSideBalancer()},
}

// owned is the set of partitions of a member. The client's goroutines change it.
type owned struct {
	alone      sync.Mutex
	partitions map[int32]bool
}

func (o *owned) change(partitions []int32, owns bool) {
	o.alone.Lock()
	defer o.alone.Unlock()
	for _, partition := range partitions {
		if owns {
			o.partitions[partition] = true
		} else {
			delete(o.partitions, partition)
		}
	}
	say(map[string]any{"owns": append([]int32{}, slices.Sorted(maps.Keys(o.partitions))...)})
}

// member is a member of a group: GROUP TOPIC range|cooperative|consumer [INSTANCE]. It prints a line of JSON for each change of the
// partitions it owns and for each record, and commits what it printed. It leaves on SIGTERM.
func member(ctx context.Context, bootstrap string, args []string) error {
	group, topic, protocol := args[0], args[1], args[2]
	owned := &owned{partitions: map[int32]bool{}}
	assigned := func(_ context.Context, _ *kgo.Client, topics map[string][]int32) { owned.change(topics[topic], true) }
	revoked := func(_ context.Context, _ *kgo.Client, topics map[string][]int32) { owned.change(topics[topic], false) }
	options := append([]kgo.Opt{
		kgo.SeedBrokers(bootstrap),
		kgo.ConsumerGroup(group),
		kgo.ConsumeTopics(topic),
		kgo.ConsumeResetOffset(kgo.NewOffset().AtStart()),
		kgo.DisableAutoCommit(),
		kgo.FetchMaxWait(500 * time.Millisecond),
		kgo.OnPartitionsAssigned(assigned),
		kgo.OnPartitionsRevoked(revoked),
		kgo.OnPartitionsLost(revoked),
	}, protocols[protocol]...)
	if len(args) > 3 {
		// The session of a static member must outlast its restart.
		options = append(options, kgo.InstanceID(args[3]), kgo.SessionTimeout(45*time.Second))
	}
	client, err := kgo.NewClient(options...)
	if err != nil {
		return err
	}
	defer client.Close()
	ctx, stop := signal.NotifyContext(ctx, syscall.SIGTERM, os.Interrupt)
	defer stop()
	for {
		fetches := client.PollFetches(ctx)
		if ctx.Err() != nil {
			return nil
		}
		if err := fetches.Err(); err != nil {
			return err
		}
		for _, record := range fetches.Records() {
			say(map[string]any{"partition": record.Partition, "offset": record.Offset, "value": string(record.Value)})
		}
		if err := client.CommitRecords(context.Background(), fetches.Records()...); err != nil {
			// The group has rebalanced meanwhile; the new owners of the partitions read these records again.
			say(map[string]any{"commit_refused": err.Error()})
		}
	}
}
