package main

import (
	"encoding/json"
	"fmt"
	"os"
	"strconv"

	"github.com/IBM/sarama"
)

// consume prints the records of a topic from its beginning: TOPIC COUNT.
func consume(bootstrap string, config *sarama.Config, args []string) error {
	left, err := strconv.Atoi(args[1])
	if err != nil {
		return err
	}
	config.Consumer.Return.Errors = true
	consumer, err := sarama.NewConsumer([]string{bootstrap}, config)
	if err != nil {
		return err
	}
	partitions, err := consumer.Partitions(args[0])
	if err != nil {
		return err
	}
	messages, failures := make(chan *sarama.ConsumerMessage), make(chan error)
	for _, partition := range partitions {
		reader, err := consumer.ConsumePartition(args[0], partition, sarama.OffsetOldest)
		if err != nil {
			return err
		}
		go func() {
			for message := range reader.Messages() {
				messages <- message
			}
		}()
		go func() {
			for failure := range reader.Errors() {
				failures <- failure
			}
		}()
	}
	out := json.NewEncoder(os.Stdout)
	for ; left > 0; left-- {
		select {
		case message := <-messages:
			if err := out.Encode(lineOf(message)); err != nil {
				return err
			}
		case failure := <-failures:
			return fmt.Errorf("%d records are missing: %w", left, failure)
		}
	}
	// The readers are not closed, as closing one waits until its messages are taken.
	return nil
}
