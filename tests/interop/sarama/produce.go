package main

import (
	"bufio"
	"errors"
	"fmt"
	"os"
	"sync"
	"time"

	"github.com/IBM/sarama"
)

var codecs = map[string]sarama.CompressionCodec{
	"none":   sarama.CompressionNone,
	"gzip":   sarama.CompressionGZIP,
	"snappy": sarama.CompressionSnappy,
	"lz4":    sarama.CompressionLZ4,
	"zstd":   sarama.CompressionZSTD,
}

// lineBytesMax is larger than all lines of the suite.
const lineBytesMax = 16 << 20

// produce sends the records of stdin and prints the position of each: TOPIC CODEC plain|idempotent.
func produce(bootstrap string, config *sarama.Config, args []string) error {
	topic, codec, mode := args[0], args[1], args[2]
	config.Producer.RequiredAcks = sarama.WaitForAll
	config.Producer.Compression = codecs[codec]
	config.Producer.Return.Successes = true
	config.Producer.Flush.Frequency = 50 * time.Millisecond
	// A restarted broker is down for seconds, longer than the default of a third of a second allows.
	config.Producer.Retry.Max = 300
	config.Producer.Retry.Backoff = 200 * time.Millisecond
	if mode == "idempotent" {
		config.Producer.Idempotent = true
		config.Net.MaxOpenRequests = 1
	}
	producer, err := sarama.NewAsyncProducer([]string{bootstrap}, config)
	if err != nil {
		return err
	}
	var unanswered sync.WaitGroup
	failures := make(chan error, 1)
	go func() {
		for message := range producer.Successes() {
			say(map[string]any{"record": message.Metadata, "partition": message.Partition, "offset": message.Offset})
			unanswered.Done()
		}
	}()
	go func() {
		for failed := range producer.Errors() {
			select {
			case failures <- fmt.Errorf("record %v was not acknowledged: %w", failed.Msg.Metadata, failed.Err):
			default:
			}
			unanswered.Done()
		}
	}()
	in := bufio.NewScanner(os.Stdin)
	in.Buffer(nil, lineBytesMax)
	for index := 0; in.Scan(); index++ {
		message, err := messageOf(in.Bytes(), topic)
		if err != nil {
			return fmt.Errorf("record %d: %w", index, err)
		}
		message.Metadata = index
		unanswered.Add(1)
		producer.Input() <- message
	}
	// Closing the producer earlier would drop the records that it retries.
	unanswered.Wait()
	select {
	case err := <-failures:
		return err
	default:
	}
	return errors.Join(in.Err(), producer.Close())
}

// fresh sends records with the current time, each in its own batch: TOPIC COUNT.
func fresh(bootstrap string, config *sarama.Config, args []string) error {
	var count int
	if _, err := fmt.Sscan(args[1], &count); err != nil {
		return err
	}
	config.Producer.RequiredAcks = sarama.WaitForAll
	config.Producer.Return.Successes = true
	producer, err := sarama.NewSyncProducer([]string{bootstrap}, config)
	if err != nil {
		return err
	}
	for n := range count {
		message := &sarama.ProducerMessage{Topic: args[0], Value: sarama.StringEncoder(fmt.Sprintf("fresh %d", n))}
		if _, _, err := producer.SendMessage(message); err != nil {
			return err
		}
	}
	return producer.Close()
}
