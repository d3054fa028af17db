// Sends the records of stdin: produce.js BOOTSTRAP TOPIC CODEC plain|idempotent. Prints the position of each.
'use strict';

const { readFileSync } = require('node:fs');
const { codecs, kafkaAt, partitioner, run, say } = require('./kafka');
const { asBytes, headersOf } = require('./lines');

run(async (bootstrap, topic, codec, mode) => {
  const producer = kafkaAt(bootstrap).producer({ createPartitioner: partitioner, idempotent: mode === 'idempotent' });
  await producer.connect();
  const lines = readFileSync(0, 'utf8').split('\n').filter(Boolean);
  for (const [index, line] of lines.entries()) {
    const record = JSON.parse(line);
    const message = {
      key: asBytes(record, 'key'),
      value: asBytes(record, 'value'),
      headers: headersOf(record),
      timestamp: String(record.timestamp),
    };
    const [place] = await producer.send({ topic, acks: -1, compression: codecs[codec], messages: [message] });
    say({ record: index, partition: place.partition, offset: Number(place.baseOffset) });
  }
  await producer.disconnect();
});
