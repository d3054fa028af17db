// Tests administrative requests with kafkajs: admin.js BOOTSTRAP. Fails at the first response that differs from Kafka's.
'use strict';

const assert = require('node:assert/strict');
const { ConfigResourceTypes } = require('kafkajs');
const { givesUp, kafkaAt, partitioner, run } = require('./kafka');

const topic = 'orders';
const groupId = 'billing';
const startMs = Date.now() - 3_600_000;

/** Asserts that the promise fails with this Kafka error. kafkajs wraps the errors of batched requests. */
const refused = (promise, type) =>
  assert.rejects(promise, (error) => {
    const types = [error.type, error.cause?.type, ...(error.errors ?? []).map((e) => e.type), ...(error.groups ?? []).map((g) => g.error.type)];
    assert.ok(types.includes(type), `expected ${type}, saw ${types} in ${error}`);
    return true;
  });

/** Returns the listed offsets, by partition. */
const byPartition = (listed) => [...listed].sort((a, b) => a.partition - b.partition);

const topics = async (admin) => {
  const cluster = await admin.describeCluster();
  assert.deepEqual(cluster.brokers.map((b) => b.nodeId), [cluster.controller]);
  const configEntries = [{ name: 'retention.ms', value: '86400000' }];
  assert.equal(await admin.createTopics({ topics: [{ topic, numPartitions: 2, configEntries }, { topic: 'short-lived' }] }), true);
  assert.equal(await admin.createTopics({ topics: [{ topic }] }), false, 'it already exists');
  await refused(admin.createTopics({ topics: [{ topic: 't', configEntries: [{ name: 'colour', value: 'red' }] }] }), 'INVALID_CONFIG');
  await refused(admin.createTopics({ topics: [{ topic: 't', replicationFactor: 3 }] }), 'INVALID_REPLICATION_FACTOR');
  await admin.createTopics({ validateOnly: true, waitForLeaders: false, topics: [{ topic: 'only-asked' }] });
  await admin.createPartitions({ topicPartitions: [{ topic, count: 3 }] });
  await refused(admin.createPartitions({ topicPartitions: [{ topic, count: 1 }] }), 'INVALID_PARTITIONS');
  await admin.deleteTopics({ topics: ['short-lived'] });
  assert.deepEqual(await admin.listTopics(), [topic]);
  const metadata = await admin.fetchTopicMetadata({ topics: [topic] });
  assert.deepEqual(byPartition(metadata.topics[0].partitions.map((p) => ({ ...p, partition: p.partitionId }))).map((p) => [p.partitionId, p.isr.length]), [[0, 1], [1, 1], [2, 1]]);
};

const configs = async (admin) => {
  const resource = { type: ConfigResourceTypes.TOPIC, name: topic };
  const config = async (name) => {
    const { resources } = await admin.describeConfigs({ includeSynonyms: false, resources: [{ ...resource, configNames: [name] }] });
    return resources[0].configEntries.map((entry) => entry.configValue);
  };
  assert.deepEqual(await config('retention.ms'), ['86400000']);
  await admin.alterConfigs({ validateOnly: false, resources: [{ ...resource, configEntries: [{ name: 'max.message.bytes', value: '2000000' }] }] });
  assert.deepEqual(await config('max.message.bytes'), ['2000000']);
  assert.deepEqual(await config('retention.ms'), ['604800000'], 'what is not given is the default again');
  const bad = { ...resource, configEntries: [{ name: 'retention.ms', value: 'soon' }] };
  await refused(admin.alterConfigs({ validateOnly: false, resources: [bad] }), 'INVALID_CONFIG');
};

const produce = async (kafka) => {
  const producer = kafka.producer({ createPartitioner: partitioner });
  await producer.connect();
  const messages = Array.from({ length: 30 }, (_, n) => ({ value: `order ${n}`, partition: n % 3, timestamp: String(startMs + n * 1000) }));
  await producer.send({ topic, messages });
  await producer.disconnect();
};

const offsets = async (admin) => {
  const places = async () => byPartition(await admin.fetchTopicOffsets(topic)).map((p) => [p.low, p.high]);
  assert.deepEqual(await places(), [['0', '10'], ['0', '10'], ['0', '10']]);
  const found = byPartition(await admin.fetchTopicOffsetsByTimestamp(topic, startMs + 5_500));
  assert.deepEqual(found.map((p) => p.offset), ['2', '2', '2']);
  await admin.deleteTopicRecords({ topic, partitions: [{ partition: 0, offset: '4' }, { partition: 1, offset: '-1' }] });
  assert.deepEqual(await places(), [['4', '10'], ['10', '10'], ['0', '10']]);
};

const groups = async (admin, kafka) => {
  const committed = async () => {
    const [{ partitions }] = await admin.fetchOffsets({ groupId, topics: [topic] });
    return byPartition(partitions).map((p) => [p.offset, p.metadata || null]);
  };
  await admin.setOffsets({ groupId, topic, partitions: [{ partition: 0, offset: '5' }, { partition: 2, offset: '3' }] });
  assert.deepEqual(await committed(), [['5', null], ['-1', null], ['3', null]]);

  const member = kafka.consumer({ groupId, maxWaitTimeInMs: 500 });
  await member.connect();
  await member.subscribe({ topic, fromBeginning: true });
  const read = [];
  const whole = new Promise((done) => {
    member.run({
      autoCommit: false,
      eachMessage: async ({ partition, message }) => {
        if (read.push(`${partition}:${message.offset}`) === 12) done();
      },
    });
  });
  await Promise.race([whole, givesUp(member)]);
  assert.deepEqual(read.sort(), ['0:5', '0:6', '0:7', '0:8', '0:9', '2:3', '2:4', '2:5', '2:6', '2:7', '2:8', '2:9']);
  await member.commitOffsets([{ topic, partition: 0, offset: '10', metadata: 'all of it' }]);
  assert.deepEqual((await committed())[0], ['10', 'all of it']);
  const described = await admin.describeGroups([groupId]);
  assert.deepEqual(described.groups.map((g) => [g.state, g.protocolType, g.members.length]), [['Stable', 'consumer', 1]]);
  await refused(admin.deleteGroups([groupId]), 'NON_EMPTY_GROUP');
  await member.disconnect();

  assert.deepEqual((await admin.listGroups()).groups, [{ groupId, protocolType: 'consumer' }]);
  await admin.deleteGroups([groupId]);
  await refused(admin.deleteGroups([groupId]), 'GROUP_ID_NOT_FOUND');
  assert.deepEqual((await admin.listGroups()).groups, []);
};

run(async (bootstrap) => {
  const kafka = kafkaAt(bootstrap);
  const admin = kafka.admin();
  await admin.connect();
  await topics(admin);
  await configs(admin);
  await produce(kafka);
  await offsets(admin);
  await groups(admin, kafka);
  await admin.disconnect();
});
