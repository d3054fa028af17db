package main

import (
	"bufio"
	"context"
	"fmt"
	"os"
	"sync/atomic"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"
)

var codecs = map[string]kgo.CompressionCodec{
	"none":   kgo.NoCompression(),
	"gzip":   kgo.GzipCompression(),
	"snappy": kgo.SnappyCompression(),
	"lz4":    kgo.Lz4Compression(),
	"zstd":   kgo.ZstdCompression(),
}

// lineBytesMax is larger than all lines of the suite.
const lineBytesMax = 16 << 20

// produce sends the records of stdin and prints the position of each: TOPIC CODEC plain|idempotent.
func produce(ctx context.Context, bootstrap string, args []string) error {
	topic, codec, mode := args[0], args[1], args[2]
	options := []kgo.Opt{
		kgo.SeedBrokers(bootstrap),
		kgo.DefaultProduceTopic(topic),
		kgo.ProducerBatchCompression(codecs[codec]),
		kgo.ProducerLinger(50 * time.Millisecond),
	}
	if mode == "plain" {
		options = append(options, kgo.DisableIdempotentWrite())
	}
	client, err := kgo.NewClient(options...)
	if err != nil {
		return err
	}
	defer client.Close()
	var failed atomic.Pointer[error]
	in := bufio.NewScanner(os.Stdin)
	in.Buffer(nil, lineBytesMax)
	for index := 0; in.Scan(); index++ {
		record, err := recordOf(in.Bytes())
		if err != nil {
			return fmt.Errorf("record %d: %w", index, err)
		}
		client.Produce(ctx, record, func(record *kgo.Record, err error) {
			if err != nil {
				failed.CompareAndSwap(nil, &err)
				return
			}
			say(map[string]any{"record": index, "partition": record.Partition, "offset": record.Offset})
		})
	}
	ctx, cancel := context.WithTimeout(ctx, 2*time.Minute)
	defer cancel()
	if err := client.Flush(ctx); err != nil {
		return fmt.Errorf("not all records were acknowledged within two minutes: %w", err)
	}
	if err := failed.Load(); err != nil {
		return fmt.Errorf("a record was not acknowledged: %w", *err)
	}
	return in.Err()
}
