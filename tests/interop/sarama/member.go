package main

import (
	"context"
	"errors"
	"os/signal"
	"slices"
	"syscall"
	"time"

	"github.com/IBM/sarama"
)

// work is the group handler of a member.
type work struct{ topic string }

func (w work) Setup(session sarama.ConsumerGroupSession) error {
	say(map[string]any{"owns": append([]int32{}, slices.Sorted(slices.Values(session.Claims()[w.topic]))...)})
	return nil
}

func (w work) Cleanup(sarama.ConsumerGroupSession) error {
	say(map[string]any{"owns": []int32{}})
	return nil
}

// ConsumeClaim prints records and commits them.
func (w work) ConsumeClaim(session sarama.ConsumerGroupSession, claim sarama.ConsumerGroupClaim) error {
	for {
		select {
		case message, more := <-claim.Messages():
			if !more {
				return nil
			}
			say(map[string]any{"partition": message.Partition, "offset": message.Offset, "value": string(message.Value)})
			session.MarkMessage(message, "")
			if len(claim.Messages()) == 0 {
				session.Commit()
			}
		case <-session.Context().Done():
			return nil
		}
	}
}

// member is a member of a group: GROUP TOPIC range [INSTANCE]. It prints a line of JSON for each change of the
// partitions it owns and for each record, and commits what it printed. It leaves on SIGTERM.
func member(bootstrap string, config *sarama.Config, args []string) error {
	group, topic := args[0], args[1]
	config.Consumer.Group.Rebalance.GroupStrategies = []sarama.BalanceStrategy{sarama.NewBalanceStrategyRange()}
	config.Consumer.Group.Session.Timeout = 6 * time.Second
	config.Consumer.Group.Heartbeat.Interval = time.Second
	config.Consumer.Group.Rebalance.Retry.Max = 100
	config.Consumer.Offsets.Initial = sarama.OffsetOldest
	config.Consumer.Offsets.AutoCommit.Enable = false
	if len(args) > 3 {
		config.Consumer.Group.InstanceId = args[3]
		// The session of a static member must outlast its restart.
		config.Consumer.Group.Session.Timeout = 45 * time.Second
	}
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM)
	defer stop()
	consumers, err := sarama.NewConsumerGroup([]string{bootstrap}, group, config)
	if err != nil {
		return err
	}
	for ctx.Err() == nil {
		err := consumers.Consume(ctx, []string{topic}, work{topic})
		// Errors while the broker is down are retriable; sarama leaves retrying to the application.
		if err != nil && !errors.Is(err, context.Canceled) {
			say(map[string]any{"tries_again_after": err.Error()})
			time.Sleep(200 * time.Millisecond)
		}
	}
	return consumers.Close()
}
