package main

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"os"
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

// lineBytesMax is more than any line of the suite has.
const lineBytesMax = 16 << 20

// produce sends the records of stdin and prints where each of them went, in their order: TOPIC CODEC plain|idempotent.
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
	var records []*kgo.Record
	in := bufio.NewScanner(os.Stdin)
	in.Buffer(nil, lineBytesMax)
	for in.Scan() {
		record, err := recordOf(in.Bytes())
		if err != nil {
			return fmt.Errorf("record %d: %w", len(records), err)
		}
		records = append(records, record)
	}
	ctx, cancel := context.WithTimeout(ctx, 2*time.Minute)
	defer cancel()
	if err := client.ProduceSync(ctx, records...).FirstErr(); err != nil {
		return fmt.Errorf("a record was not acknowledged: %w", err)
	}
	out := json.NewEncoder(os.Stdout)
	for _, record := range records {
		if err := out.Encode(map[string]int64{"partition": int64(record.Partition), "offset": record.Offset}); err != nil {
			return err
		}
	}
	return in.Err()
}
