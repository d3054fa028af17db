// A member of a group: member.js BOOTSTRAP GROUP TOPIC range [INSTANCE]. kafkajs has only its own eager assignor.
// Prints a line of JSON for each change of the partitions it owns and for each record, and commits what it printed. Leaves on SIGTERM.
'use strict';

const { givesUp, kafkaAt, run, say } = require('./kafka');

run(async (bootstrap, groupId, topic) => {
  const consumer = kafkaAt(bootstrap).consumer({ groupId, sessionTimeout: 6000, heartbeatInterval: 500, maxWaitTimeInMs: 500 });
  consumer.on(consumer.events.REBALANCING, () => say({ owns: [] }));
  consumer.on(consumer.events.GROUP_JOIN, ({ payload }) => say({ owns: payload.memberAssignment[topic] ?? [] }));
  await consumer.connect();
  await consumer.subscribe({ topic, fromBeginning: true });
  const stopped = new Promise((done) => process.once('SIGTERM', done));
  await consumer.run({
    autoCommit: false,
    eachBatch: async ({ batch, resolveOffset, isRunning, isStale }) => {
      let next = null;
      for (const message of batch.messages) {
        if (!isRunning() || isStale()) break;
        say({ partition: batch.partition, offset: Number(message.offset), value: message.value.toString() });
        resolveOffset(message.offset);
        next = String(BigInt(message.offset) + 1n);
      }
      if (next === null) return;
      // If the group has rebalanced meanwhile, this throws and kafkajs rejoins; the new owner of the partition reads these records again.
      await consumer.commitOffsets([{ topic, partition: batch.partition, offset: next }]);
    },
  });
  await Promise.race([stopped, givesUp(consumer)]);
  await consumer.disconnect();
});
