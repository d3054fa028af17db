package main

import (
	"encoding/base64"
	"encoding/json"
	"fmt"
	"time"
	"unicode/utf8"

	"github.com/IBM/sarama"
)

// field is a key or a value as `highwater consume --json` prints it: text, base64 in a separate field, or null.
type field struct {
	text, code *string
}

func fieldOf(bytes []byte) field {
	if bytes == nil {
		return field{}
	}
	text := string(bytes)
	if utf8.ValidString(text) {
		return field{text: &text}
	}
	code := base64.StdEncoding.EncodeToString(bytes)
	return field{code: &code}
}

func (f field) bytes() ([]byte, error) {
	if f.code != nil {
		return base64.StdEncoding.DecodeString(*f.code)
	}
	if f.text == nil {
		return nil, nil
	}
	return []byte(*f.text), nil
}

// encoder returns nil for null, which is how sarama distinguishes null from empty.
func (f field) encoder() (sarama.Encoder, error) {
	bytes, err := f.bytes()
	if err != nil || bytes == nil {
		return nil, err
	}
	return sarama.ByteEncoder(bytes), nil
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

func lineOf(message *sarama.ConsumerMessage) line {
	key, value := fieldOf(message.Key), fieldOf(message.Value)
	out := line{
		Partition: message.Partition,
		Offset:    message.Offset,
		Timestamp: message.Timestamp.UnixMilli(),
		Key:       key.text,
		KeyCode:   key.code,
		Value:     value.text,
		ValueCode: value.code,
		Headers:   []header{},
	}
	for _, h := range message.Headers {
		value := fieldOf(h.Value)
		out.Headers = append(out.Headers, header{string(h.Key), value.text, value.code})
	}
	return out
}

func messageOf(text []byte, topic string) (*sarama.ProducerMessage, error) {
	var in line
	if err := json.Unmarshal(text, &in); err != nil {
		return nil, err
	}
	key, err := field{in.Key, in.KeyCode}.encoder()
	if err != nil {
		return nil, err
	}
	value, err := field{in.Value, in.ValueCode}.encoder()
	if err != nil {
		return nil, err
	}
	message := &sarama.ProducerMessage{Topic: topic, Key: key, Value: value, Timestamp: time.UnixMilli(in.Timestamp)}
	for _, h := range in.Headers {
		value, err := field{h.Value, h.ValueCode}.bytes()
		if err != nil {
			return nil, err
		}
		message.Headers = append(message.Headers, sarama.RecordHeader{Key: []byte(h.Key), Value: value})
	}
	return message, nil
}

// say prints an event at once, as the scenario waits for it.
func say(event map[string]any) {
	text, err := json.Marshal(event)
	if err != nil {
		panic(err)
	}
	fmt.Println(string(text))
}
