package main

import (
	"errors"
	"fmt"
	"maps"
	"reflect"
	"slices"
	"time"

	"github.com/IBM/sarama"
)

const (
	adminTopic = "orders"
	adminGroup = "billing"
)

// failure is the panic value of a failed check, which saves error handling after each step.
type failure struct{ error }

// caught is deferred by functions that check. It returns the error of a failed check.
func caught(err *error) {
	if thrown := recover(); thrown != nil {
		failed, is := thrown.(failure)
		if !is {
			panic(thrown)
		}
		*err = failed
	}
}

func must[T any](value T, err error) T {
	done(err)
	return value
}

func done(err error) {
	if err != nil {
		panic(failure{err})
	}
}

func equal(what string, seen, wanted any) {
	if !reflect.DeepEqual(seen, wanted) {
		panic(failure{fmt.Errorf("%s: expected %v, saw %v", what, wanted, seen)})
	}
}

func refused(what string, err error, wanted sarama.KError) {
	if !errors.Is(err, wanted) {
		panic(failure{fmt.Errorf("%s: expected %w, saw %v", what, wanted, err)})
	}
}

// administrator tests the requests of sarama's ClusterAdmin and Client.
type administrator struct {
	sarama.ClusterAdmin
	client sarama.Client
	start  time.Time
}

// admin tests administrative requests with sarama. It fails at the first response that differs from Kafka's.
func admin(bootstrap string, config *sarama.Config, _ []string) (err error) {
	defer caught(&err)
	config.Producer.Partitioner = sarama.NewManualPartitioner
	config.Producer.RequiredAcks = sarama.WaitForAll
	config.Producer.Return.Successes = true
	client := must(sarama.NewClient([]string{bootstrap}, config))
	a := &administrator{must(sarama.NewClusterAdminFromClient(client)), client, time.Now().Add(-time.Hour).Truncate(time.Millisecond)}
	a.topics()
	if client.Config().Version.IsAtLeast(sarama.V1_1_0_0) {
		// Like Kafka 4, Highwater does not support the older versions of DescribeConfigs.
		a.configs()
	}
	a.produce()
	a.offsets()
	a.groups()
	return a.Close()
}

// topics creates topics with a configuration, lists, extends and deletes them, and checks that the cluster has one broker.
func (a *administrator) topics() {
	brokers, controller, err := a.DescribeCluster()
	done(err)
	equal("brokers", len(brokers), 1)
	equal("the controller", brokers[0].ID(), controller)
	day := "86400000"
	done(a.CreateTopic(adminTopic, &sarama.TopicDetail{
		NumPartitions: 2, ReplicationFactor: 1, ConfigEntries: map[string]*string{"retention.ms": &day},
	}, false))
	done(a.CreateTopic("short-lived", &sarama.TopicDetail{NumPartitions: 1, ReplicationFactor: 1}, false))
	err = a.CreateTopic(adminTopic, &sarama.TopicDetail{NumPartitions: 1, ReplicationFactor: 1}, false)
	refused("creating a topic again", err, sarama.ErrTopicAlreadyExists)
	done(a.CreateTopic("only-asked", &sarama.TopicDetail{NumPartitions: 1, ReplicationFactor: 1}, true))
	done(a.CreatePartitions(adminTopic, 3, nil, false))
	done(a.DeleteTopic("short-lived"))
	refused("deleting it again", a.DeleteTopic("short-lived"), sarama.ErrUnknownTopicOrPartition)
	done(a.client.RefreshMetadata())
	equal("topics", must(a.client.Topics()), []string{adminTopic})
	equal("partitions", must(a.client.Partitions(adminTopic)), []int32{0, 1, 2})
}

// configs describes and replaces settings.
func (a *administrator) configs() {
	config := func() string {
		entries := must(a.DescribeConfig(sarama.ConfigResource{
			Type: sarama.TopicResource, Name: adminTopic, ConfigNames: []string{"retention.ms"},
		}))
		equal("number of settings", len(entries), 1)
		return entries[0].Value
	}
	listed := must(a.ListTopics())
	equal("topics with their settings", slices.Sorted(maps.Keys(listed)), []string{adminTopic})
	equal("retention.ms as created", config(), "86400000")
	hours := "7200000"
	done(a.AlterConfig(sarama.TopicResource, adminTopic, map[string]*string{"retention.ms": &hours}, false))
	equal("retention.ms as replaced", config(), hours)
}

// produce writes thirty records with timestamps a second apart, round-robin to the three partitions.
func (a *administrator) produce() {
	producer := must(sarama.NewSyncProducerFromClient(a.client))
	for n := range 30 {
		_, _, err := producer.SendMessage(&sarama.ProducerMessage{
			Topic:     adminTopic,
			Partition: int32(n % 3),
			Value:     sarama.StringEncoder(fmt.Sprintf("order %d", n)),
			Timestamp: a.start.Add(time.Duration(n) * time.Second),
		})
		done(err)
	}
}

// at returns the offset of each partition at a time, or at one of sarama's constants for the two ends.
func (a *administrator) at(time int64) []int64 {
	var offsets []int64
	for partition := range int32(3) {
		offsets = append(offsets, must(a.client.GetOffset(adminTopic, partition, time)))
	}
	return offsets
}

// offsets lists offsets by time and by name, and deletes records before an offset.
func (a *administrator) offsets() {
	equal("earliest offsets", a.at(sarama.OffsetOldest), []int64{0, 0, 0})
	equal("latest offsets", a.at(sarama.OffsetNewest), []int64{10, 10, 10})
	equal("offsets by time", a.at(a.start.UnixMilli()+5_500), []int64{2, 2, 2})
	equal("offsets of the last records by time", a.at(a.start.UnixMilli()+27_000), []int64{9, 9, 9})
	equal("offsets after the last time", a.at(a.start.UnixMilli()+30_000), []int64{-1, -1, -1})
	done(a.DeleteRecords(adminTopic, map[int32]int64{0: 4, 1: 10}))
	equal("earliest offsets after deletion", a.at(sarama.OffsetOldest), []int64{4, 10, 0})
}

// groups commits offsets, and lists, describes and deletes groups.
func (a *administrator) groups() {
	offsets := must(sarama.NewOffsetManagerFromClient(adminGroup, a.client))
	place := must(offsets.ManagePartition(adminTopic, 0))
	place.MarkOffset(5, "up to order 12")
	offsets.Commit()
	done(place.Close())
	done(offsets.Close())
	listed := must(a.ListConsumerGroups())
	equal("groups", slices.Sorted(maps.Keys(listed)), []string{adminGroup})
	described := must(a.DescribeConsumerGroups([]string{adminGroup}))
	equal("its state without members", described[0].State, "Empty")
	committed := must(a.ListConsumerGroupOffsets(adminGroup, map[string][]int32{adminTopic: {0, 1}}))
	block := committed.GetBlock(adminTopic, 0)
	equal("committed offset", fmt.Sprintf("%d %s", block.Offset, block.Metadata), "5 up to order 12")
	equal("no committed offset", committed.GetBlock(adminTopic, 1).Offset, int64(-1))
	if a.client.Config().Version.IsAtLeast(sarama.V1_1_0_0) {
		done(a.DeleteConsumerGroup(adminGroup))
		equal("groups at the end", len(must(a.ListConsumerGroups())), 0)
	}
}
