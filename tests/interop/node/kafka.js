// What the programs share: kafkajs with its codecs, talking to one broker.
'use strict';

const { CompressionCodecs, CompressionTypes, Kafka, Partitioners, logLevel } = require('kafkajs');

// kafkajs has gzip built in. The packages for LZ4 and Zstandard that it names bind native libraries of long ago and do not build today.
CompressionCodecs[CompressionTypes.Snappy] = require('kafkajs-snappy');

const codecs = { none: CompressionTypes.None, gzip: CompressionTypes.GZIP, snappy: CompressionTypes.Snappy };

const kafkaAt = (bootstrap) =>
  new Kafka({ clientId: 'interop', brokers: [bootstrap], logLevel: logLevel.ERROR, retry: { retries: 20, maxRetryTime: 2000 } });

/** Runs a program with the words of the command line; whatever goes wrong is said, and ends it. */
const run = (main) =>
  main(...process.argv.slice(2)).then(
    // At the end of what was printed; exiting at once would cut it off.
    () => process.stdout.write('', () => process.exit(0)),
    (error) => {
      console.error(error);
      process.exit(1);
    },
  );

/** Tells the scenario what happened, at once: it waits for it. */
const say = (event) => process.stdout.write(`${JSON.stringify(event)}\n`);

/** Fails when the consumer gives up. After errors that may pass it starts again by itself. */
const givesUp = (consumer) =>
  new Promise((_, failed) => {
    consumer.on(consumer.events.CRASH, ({ payload }) => payload.restart || failed(payload.error));
  });

module.exports = { codecs, givesUp, kafkaAt, run, say, partitioner: Partitioners.DefaultPartitioner };
