package main

import (
	"encoding/base64"
	"encoding/json"
	"fmt"
	"time"
	"unicode/utf8"

	"github.com/twmb/franz-go/pkg/kgo"
)

// data is a key or a value as `highwater consume --json` prints it: text, base64 in a separate field, or null.
type data struct {
	text, code *string
}

func dataOf(bytes []byte) data {
	if bytes == nil {
		return data{}
	}
	text := string(bytes)
	if utf8.ValidString(text) {
		return data{text: &text}
	}
	code := base64.StdEncoding.EncodeToString(bytes)
	return data{code: &code}
}

func (d data) bytes() ([]byte, error) {
	if d.code != nil {
		return base64.StdEncoding.DecodeString(*d.code)
	}
	if d.text == nil {
		return nil, nil
	}
	return []byte(*d.text), nil
}

type header struct {
	Key       string  `json:"key"`
	Value     *string `json:"value"`
	ValueCode *string `json:"value_base64,omitempty"`
}

// line is a record as a line of JSON.
type line struct {
	Partition int32    `json:"partition"`
	Offset    int64    `json:"offset"`
	Timestamp int64    `json:"timestamp"`
	Key       *string  `json:"key"`
	KeyCode   *string  `json:"key_base64,omitempty"`
	Value     *string  `json:"value"`
	ValueCode *string  `json:"value_base64,omitempty"`
	Headers   []header `json:"headers"`
}

func lineOf(record *kgo.Record) line {
	key, value := dataOf(record.Key), dataOf(record.Value)
	out := line{
		Partition: record.Partition,
		Offset:    record.Offset,
		Timestamp: record.Timestamp.UnixMilli(),
		Key:       key.text,
		KeyCode:   key.code,
		Value:     value.text,
		ValueCode: value.code,
		Headers:   []header{},
	}
	for _, h := range record.Headers {
		value := dataOf(h.Value)
		out.Headers = append(out.Headers, header{h.Key, value.text, value.code})
	}
	return out
}

func recordOf(text []byte) (*kgo.Record, error) {
	var in line
	if err := json.Unmarshal(text, &in); err != nil {
		return nil, err
	}
	key, err := data{in.Key, in.KeyCode}.bytes()
	if err != nil {
		return nil, err
	}
	value, err := data{in.Value, in.ValueCode}.bytes()
	if err != nil {
		return nil, err
	}
	record := &kgo.Record{Key: key, Value: value, Timestamp: time.UnixMilli(in.Timestamp)}
	for _, h := range in.Headers {
		value, err := data{h.Value, h.ValueCode}.bytes()
		if err != nil {
			return nil, err
		}
		record.Headers = append(record.Headers, kgo.RecordHeader{Key: h.Key, Value: value})
	}
	return record, nil
}

// say prints an event at once, as the scenario waits for it.
func say(event map[string]any) {
	text, err := json.Marshal(event)
	if err != nil {
		panic(err)
	}
	fmt.Println(string(text))
}
