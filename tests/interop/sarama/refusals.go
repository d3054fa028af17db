//go:build !old

package main

import (
	"fmt"
	"strings"

	"github.com/IBM/sarama"
)

// refusals tests permanent errors, and administrative requests with trivial responses. If sarama retried until its limit, the error would be
// different.
func refusals(bootstrap string, config *sarama.Config, _ []string) (err error) {
	defer caught(&err)
	brokers := []string{bootstrap}
	transactional := *config
	transactional.Producer.Transaction.ID = "pays"
	transactional.Producer.Idempotent = true
	transactional.Producer.RequiredAcks = sarama.WaitForAll
	transactional.Producer.Return.Successes = true
	transactional.Net.MaxOpenRequests = 1
	_, failed := sarama.NewSyncProducer(brokers, &transactional)
	refused("a transactional producer", failed, sarama.ErrTransactionalIDAuthorizationFailed)

	authenticated := *config
	authenticated.Net.SASL.Enable = true
	authenticated.Net.SASL.Mechanism = sarama.SASLTypePlaintext
	authenticated.Net.SASL.User, authenticated.Net.SASL.Password = "u", "p"
	broker := sarama.NewBroker(bootstrap)
	done(broker.Open(&authenticated))
	_, failed = broker.Connected()
	refused("SASL on a plain listener", failed, sarama.ErrIllegalSASLState)

	admin := must(sarama.NewClusterAdmin(brokers, config))
	create := func(name string, settings map[string]*string) error {
		return admin.CreateTopic(name, &sarama.TopicDetail{NumPartitions: 1, ReplicationFactor: 1, ConfigEntries: settings}, false)
	}
	yes, none := " True ", ""
	done(create("a.b", map[string]*string{"preallocate": &yes, "cleanup.policy": &none}))
	failsWith := func(what string, err error, wanted sarama.KError, text string) {
		refused(what, err, wanted)
		if !strings.Contains(err.Error(), text) {
			panic(failure{fmt.Errorf("%s: expected %q in it, saw %w", what, text, err)})
		}
	}
	failsWith("an existing topic", create("a.b", nil), sarama.ErrTopicAlreadyExists, "Topic 'a.b' already exists.")
	failsWith("a colliding name", create("a_b", nil), sarama.ErrInvalidTopic, "collides with existing topic: a.b")
	for _, name := range []string{"__consumer_offsets", "__transaction_state"} {
		failsWith("the name "+name, create(name, nil), sarama.ErrInvalidTopic, "reserved")
	}

	directories := must(admin.DescribeLogDirs([]int32{0}))
	equal("directories", len(directories[0]), 1)
	equal("topics in it", len(directories[0][0].Topics), 1)
	equal("reassignments", len(must(admin.ListPartitionReassignments("a.b", []int32{0}))), 0)
	equal("quotas", len(must(admin.DescribeClientQuotas(nil, false))), 0)
	equal("credentials", len(must(admin.DescribeUserScramCredentials(nil))), 0)
	elected := must(admin.ElectLeaders(sarama.PreferredElection, map[string][]int32{"a.b": {0}}))
	equal("an election", elected["a.b"][0].ErrorCode, sarama.KError(84))
	return admin.Close()
}

func init() { words["refusals"] = refusals }
