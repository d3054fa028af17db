package main

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/sasl/plain"
)

// refusals tests permanent errors, and administrative requests with trivial responses. If franz-go retried until its timeout, the error would
// be the timeout.
func refusals(ctx context.Context, bootstrap string, _ []string) (err error) {
	defer caught(&err)
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	transactional := must(kgo.NewClient(kgo.SeedBrokers(bootstrap), kgo.TransactionalID("pays")))
	defer transactional.Close()
	_, _, failed := transactional.ProducerID(ctx)
	refused("a transactional producer", failed, kerr.TransactionalIDAuthorizationFailed)

	user := plain.Auth{User: "u", Pass: "p"}.AsMechanism()
	authenticated := must(kgo.NewClient(kgo.SeedBrokers(bootstrap), kgo.SASL(user), kgo.RequestRetries(0)))
	defer authenticated.Close()
	refused("SASL on a plain listener", authenticated.Ping(ctx), kerr.IllegalSaslState)

	client := must(kgo.NewClient(kgo.SeedBrokers(bootstrap), kgo.DefaultProduceTopic("a.b")))
	defer client.Close()
	admin := kadm.NewClient(client)
	create := func(name string, settings map[string]*string) (kadm.CreateTopicResponse, error) {
		return admin.CreateTopic(ctx, 1, 1, settings, name)
	}
	yes, none := " True ", ""
	must(create("a.b", map[string]*string{"preallocate": &yes, "cleanup.policy": &none}))
	says := func(name string, wanted *kerr.Error, text string) {
		answer, failed := create(name, nil)
		refused("creating "+name, failed, wanted)
		equal("error message of "+name, answer.ErrMessage, text)
	}
	says("a.b", kerr.TopicAlreadyExists, "Topic 'a.b' already exists.")
	says("a_b", kerr.InvalidTopicException, "Topic 'a_b' collides with existing topic: a.b")
	for _, name := range []string{"__consumer_offsets", "__transaction_state"} {
		says(name, kerr.InvalidTopicException, fmt.Sprintf("Topic '%s' is reserved for the broker itself; choose another name.", name))
	}

	must[any](nil, client.ProduceSync(ctx, kgo.StringRecord("v")).FirstErr())
	directories := must(admin.DescribeAllLogDirs(ctx, nil))
	equal("directories", len(directories.Sorted()), 1)
	equal("whether they have bytes", directories.Sorted()[0].Size() > 0, true)
	producers := must(admin.DescribeProducers(ctx, kadm.TopicsSet{"a.b": {0: {}}}))
	var active []kadm.DescribedProducer
	producers.EachProducer(func(producer kadm.DescribedProducer) { active = append(active, producer) })
	equal("producers", len(active), 1)
	equal("the sequence of its last record", active[0].LastSequence, int32(0))
	equal("transactions", len(must(admin.ListTransactions(ctx, nil, nil))), 0)
	equal("reassignments", len(must(admin.ListPartitionReassignments(ctx, nil))), 0)
	equal("quotas", len(must(admin.DescribeClientQuotas(ctx, false, nil))), 0)
	equal("credentials", len(must(admin.DescribeUserSCRAMs(ctx))), 0)
	elected := must(admin.ElectLeaders(ctx, kadm.ElectPreferredReplica, kadm.TopicsSet{"a.b": {0: {}}}))
	refused("an election", elected["a.b"][0].Err, kerr.ElectionNotNeeded)
	acls := kadm.NewACLs().AnyResource().Allow().AllowHosts().Deny().DenyHosts().Operations().ResourcePatternType(kadm.ACLPatternAny)
	described, failed := admin.DescribeACLs(ctx, acls)
	for _, filter := range described {
		failed = errors.Join(failed, filter.Err)
	}
	refused("access control", failed, kerr.SecurityDisabled)
	return nil
}
