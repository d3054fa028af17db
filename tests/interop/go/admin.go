package main

import (
	"context"
	"errors"
	"fmt"
	"reflect"
	"slices"
	"strconv"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"
)

const (
	adminTopic = "orders"
	adminGroup = "billing"
)

// administrator tests kadm's requests. The first response that differs from Kafka's ends the program.
type administrator struct {
	*kadm.Client
	ctx     context.Context
	broker  string
	startMs int64
}

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
	if err != nil {
		panic(failure{err})
	}
	return value
}

func equal(what string, seen, wanted any) {
	if !reflect.DeepEqual(seen, wanted) {
		panic(failure{fmt.Errorf("%s: expected %v, saw %v", what, wanted, seen)})
	}
}

func refused(what string, err error, wanted *kerr.Error) {
	if !errors.Is(err, wanted) {
		panic(failure{fmt.Errorf("%s: expected %w, saw %v", what, wanted, err)})
	}
}

// admin tests administrative requests with kadm. It fails at the first response that differs from Kafka's.
func admin(ctx context.Context, bootstrap string, _ []string) (err error) {
	defer caught(&err)
	client := must(kgo.NewClient(kgo.SeedBrokers(bootstrap), kgo.RecordPartitioner(kgo.ManualPartitioner())))
	defer client.Close()
	a := &administrator{kadm.NewClient(client), ctx, bootstrap, time.Now().Add(-time.Hour).UnixMilli()}
	a.topics()
	a.configs()
	a.produce(client)
	a.offsets()
	a.commits()
	a.groups()
	a.commits()
	a.consumerGroups()
	return nil
}

// topics creates topics with a configuration, lists, extends and deletes them, and checks that the cluster has one broker.
func (a *administrator) topics() {
	metadata := must(a.BrokerMetadata(a.ctx))
	equal("brokers", metadata.Brokers.NodeIDs(), []int32{metadata.Controller})
	day := "86400000"
	must(a.CreateTopic(a.ctx, 2, 1, map[string]*string{"retention.ms": &day}, adminTopic))
	must(a.CreateTopic(a.ctx, -1, -1, nil, "short-lived"))
	_, err := a.CreateTopic(a.ctx, 1, 1, nil, adminTopic)
	refused("creating a topic again", err, kerr.TopicAlreadyExists)
	_, err = a.CreateTopic(a.ctx, 1, 1, map[string]*string{"colour": &day}, "t")
	refused("a bad setting", err, kerr.InvalidConfig)
	_, err = a.CreateTopic(a.ctx, 1, 3, nil, "t")
	refused("three replicas on one node", err, kerr.InvalidReplicationFactor)
	must(a.ValidateCreateTopics(a.ctx, 1, 1, nil, "only-asked"))
	must(a.UpdatePartitions(a.ctx, 3, adminTopic))
	fewer := must(a.UpdatePartitions(a.ctx, 1, adminTopic))
	refused("fewer partitions", fewer.Error(), kerr.InvalidPartitions)
	must(a.DeleteTopic(a.ctx, "short-lived"))
	_, err = a.DeleteTopic(a.ctx, "short-lived")
	refused("deleting it again", err, kerr.UnknownTopicOrPartition)
	listed := must(a.ListTopics(a.ctx))
	equal("topics", listed.Names(), []string{adminTopic})
	equal("partitions", listed[adminTopic].Partitions.Numbers(), []int32{0, 1, 2})
}

// config returns a setting of the topic.
func (a *administrator) config(name string) string {
	described := must(must(a.DescribeTopicConfigs(a.ctx, adminTopic)).On(adminTopic, nil))
	for _, config := range described.Configs {
		if config.Key == name {
			return config.MaybeValue()
		}
	}
	panic(failure{fmt.Errorf("the topic has no setting %s", name)})
}

// configs describes, incrementally alters, and replaces settings.
func (a *administrator) configs() {
	equal("retention.ms as created", a.config("retention.ms"), "86400000")
	bytes, compact, hours := "2000000", "compact", "7200000"
	changes := []kadm.AlterConfig{
		{Op: kadm.SetConfig, Name: "max.message.bytes", Value: &bytes},
		{Op: kadm.AppendConfig, Name: "cleanup.policy", Value: &compact},
		{Op: kadm.DeleteConfig, Name: "retention.ms"},
	}
	must(must(a.AlterTopicConfigs(a.ctx, changes, adminTopic)).On(adminTopic, nil))
	equal("max.message.bytes after SET", a.config("max.message.bytes"), bytes)
	equal("cleanup.policy after APPEND", a.config("cleanup.policy"), "delete,compact")
	equal("retention.ms after DELETE", a.config("retention.ms"), "604800000")
	whole := []kadm.AlterConfig{{Name: "retention.ms", Value: &hours}}
	must(must(a.AlterTopicConfigsState(a.ctx, whole, adminTopic)).On(adminTopic, nil))
	equal("retention.ms as replaced", a.config("retention.ms"), hours)
	equal("cleanup.policy, no longer given", a.config("cleanup.policy"), "delete")
	node := must(a.BrokerMetadata(a.ctx)).Controller
	broker := must(must(a.DescribeBrokerConfigs(a.ctx, node)).On(strconv.Itoa(int(node)), nil))
	equal("the broker has settings", len(broker.Configs) > 0, true)
}

// produce writes thirty records with timestamps a second apart, round-robin to the three partitions.
func (a *administrator) produce(client *kgo.Client) {
	for n := range 30 {
		record := &kgo.Record{
			Topic:     adminTopic,
			Partition: int32(n % 3),
			Value:     fmt.Appendf(nil, "order %d", n),
			Timestamp: time.UnixMilli(a.startMs + int64(n)*1000),
		}
		if err := client.ProduceSync(a.ctx, record).FirstErr(); err != nil {
			panic(failure{err})
		}
	}
}

// at returns listed offsets, by partition.
func at(listed kadm.ListedOffsets, err error) []int64 {
	must(listed, errors.Join(err, listed.Error()))
	offsets := make([]int64, 3)
	listed.Each(func(o kadm.ListedOffset) { offsets[o.Partition] = o.Offset })
	return offsets
}

// offsets lists offsets by time and by name, and deletes records before an offset.
func (a *administrator) offsets() {
	equal("earliest offsets", at(a.ListStartOffsets(a.ctx, adminTopic)), []int64{0, 0, 0})
	equal("latest offsets", at(a.ListEndOffsets(a.ctx, adminTopic)), []int64{10, 10, 10})
	equal("stable offsets", at(a.ListCommittedOffsets(a.ctx, adminTopic)), []int64{10, 10, 10})
	equal("offsets of the newest times", at(a.ListMaxTimestampOffsets(a.ctx, adminTopic)), []int64{9, 9, 9})
	equal("offsets by time", at(a.ListOffsetsAfterMilli(a.ctx, a.startMs+5_500, adminTopic)), []int64{2, 2, 2})
	var places kadm.Offsets
	places.AddOffset(adminTopic, 0, 4, -1)
	places.AddOffset(adminTopic, 1, -1, -1)
	must(a.DeleteRecords(a.ctx, places))
	equal("earliest offsets after deletion", at(a.ListStartOffsets(a.ctx, adminTopic)), []int64{4, 10, 0})
}

// committed returns the group's offsets with their metadata.
func (a *administrator) committed() []string {
	var all []string
	for _, o := range must(a.FetchOffsets(a.ctx, adminGroup)).Sorted() {
		all = append(all, fmt.Sprintf("%d:%d %s", o.Partition, o.At, o.Metadata))
	}
	return all
}

// commits commits offsets with metadata, reads them back, and deletes one.
func (a *administrator) commits() {
	var places kadm.Offsets
	places.Add(kadm.Offset{Topic: adminTopic, Partition: 0, At: 5, LeaderEpoch: 0, Metadata: "up to order 15"})
	places.Add(kadm.Offset{Topic: adminTopic, Partition: 1, At: 7, LeaderEpoch: -1})
	places.Add(kadm.Offset{Topic: adminTopic, Partition: 2, At: 3, LeaderEpoch: -1})
	must("", a.CommitAllOffsets(a.ctx, adminGroup, places))
	equal("committed offsets", a.committed(), []string{"0:5 up to order 15", "1:7 ", "2:3 "})
	must(a.DeleteOffsets(a.ctx, adminGroup, kadm.TopicsSet{adminTopic: {1: {}}}))
	equal("without the deleted one", a.committed(), []string{"0:5 up to order 15", "2:3 "})
}

// member joins the group and reads all uncommitted records.
func (a *administrator) member(options ...kgo.Opt) *kgo.Client {
	member := must(kgo.NewClient(append([]kgo.Opt{
		kgo.SeedBrokers(a.broker),
		kgo.ConsumerGroup(adminGroup),
		kgo.ConsumeTopics(adminTopic),
		kgo.ConsumeResetOffset(kgo.NewOffset().AtStart()),
		kgo.DisableAutoCommit(),
		kgo.FetchMaxWait(500 * time.Millisecond),
	}, options...)...))
	var read []string
	for len(read) < 12 {
		fetches := member.PollFetches(a.ctx)
		must("", fetches.Err())
		for _, record := range fetches.Records() {
			read = append(read, fmt.Sprintf("%d:%d", record.Partition, record.Offset))
		}
	}
	slices.Sort(read)
	wanted := []string{"0:5", "0:6", "0:7", "0:8", "0:9", "2:3", "2:4", "2:5", "2:6", "2:7", "2:8", "2:9"}
	equal("what the member reads", read, wanted)
	return member
}

// groups lists and describes groups with and without members, and deletes them.
func (a *administrator) groups() {
	member := a.member()
	described := must(must(a.DescribeGroups(a.ctx, adminGroup)).On(adminGroup, nil))
	equal("state with a member", described.State, "Stable")
	equal("its assignment", described.AssignedPartitions(), kadm.TopicsSet{adminTopic: {0: {}, 1: {}, 2: {}}})
	lag := must(a.Lag(a.ctx, adminGroup))[adminGroup]
	equal("its lag", lag.Lag.Total(), int64(12))
	_, err := a.DeleteGroup(a.ctx, adminGroup)
	refused("deleting a group in use", err, kerr.NonEmptyGroup)
	deleted := must(a.DeleteOffsets(a.ctx, adminGroup, kadm.TopicsSet{adminTopic: {0: {}}}))
	refused("deleting offsets in use", deleted.Error(), kerr.GroupSubscribedToTopic)
	member.Close()
	equal("groups without members", must(a.ListGroups(a.ctx, "Empty")).Groups(), []string{adminGroup})
	must(a.DeleteGroup(a.ctx, adminGroup))
	_, err = a.DeleteGroup(a.ctx, adminGroup)
	refused("deleting it again", err, kerr.GroupIDNotFound)
	equal("groups at the end", len(must(a.ListGroups(a.ctx))), 0)
}

// consumerGroups tests groups of KIP-848, which are described by a separate request.
func (a *administrator) consumerGroups() {
	member := a.member(kgo.Balancers(kgo.StickyBalancer()), kgo.ServerSideBalancer())
	described := must(a.DescribeConsumerGroups(a.ctx, adminGroup))[adminGroup]
	equal("state with a member", described.State, "Stable")
	equal("its assignment", described.AssignedPartitions(), kadm.TopicsSet{adminTopic: {0: {}, 1: {}, 2: {}}})
	_, err := a.DeleteGroup(a.ctx, adminGroup)
	refused("deleting a group in use", err, kerr.NonEmptyGroup)
	member.Close()
	equal("groups of the protocol", must(a.ListGroupsByType(a.ctx, []string{"consumer"})).Groups(), []string{adminGroup})
	must(a.DeleteGroup(a.ctx, adminGroup))
}
