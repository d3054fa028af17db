// Prints the records of a topic from its beginning: consume.js BOOTSTRAP TOPIC COUNT. kafkajs reads only as a member of a group, so a new one is used.
'use strict';

const { randomUUID } = require('node:crypto');
const { givesUp, kafkaAt, run, say } = require('./kafka');
const { asFields, headerFields } = require('./lines');

run(async (bootstrap, topic, count) => {
  const consumer = kafkaAt(bootstrap).consumer({ groupId: `reader-${randomUUID()}`, maxWaitTimeInMs: 500 });
  await consumer.connect();
  await consumer.subscribe({ topic, fromBeginning: true });
  let left = Number(count);
  const whole = new Promise((done) => {
    consumer.run({
      eachMessage: async ({ partition, message }) => {
        say({
          partition,
          offset: Number(message.offset),
          timestamp: Number(message.timestamp),
          ...asFields('key', message.key),
          ...asFields('value', message.value),
          headers: headerFields(message.headers),
        });
        left -= 1;
        if (left === 0) done();
      },
    });
  });
  await Promise.race([whole, givesUp(consumer)]);
  await consumer.disconnect();
});
