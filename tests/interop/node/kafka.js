// Code shared by the programs: kafkajs with its codecs, as a client of one broker.
'use strict';

const { CompressionCodecs, CompressionTypes, Kafka, Partitioners, logLevel } = require('kafkajs');

// kafkajs has gzip built in. Its recommended packages for LZ4 and Zstandard bind outdated native libraries and no longer build.
CompressionCodecs[CompressionTypes.Snappy] = require('kafkajs-snappy');

const codecs = { none: CompressionTypes.None, gzip: CompressionTypes.GZIP, snappy: CompressionTypes.Snappy };

const kafkaAt = (bootstrap) =>
  new Kafka({ clientId: 'interop', brokers: [bootstrap], logLevel: logLevel.ERROR, retry: { retries: 20, maxRetryTime: 2000 } });

/** Runs a program with the command-line arguments. Prints any error and exits. */
const run = (main) =>
  main(...process.argv.slice(2)).then(
    // Exit after the output is flushed; exiting at once would truncate it.
    () => process.stdout.write('', () => process.exit(0)),
    (error) => {
      console.error(error);
      process.exit(1);
    },
  );

/** Prints an event at once, as the scenario waits for it. */
const say = (event) => process.stdout.write(`${JSON.stringify(event)}\n`);

/** Fails when the consumer stops because of an error. It restarts by itself after retriable errors. */
const givesUp = (consumer) =>
  new Promise((_, failed) => {
    consumer.on(consumer.events.CRASH, ({ payload }) => payload.restart || failed(payload.error));
  });

module.exports = { codecs, givesUp, kafkaAt, run, say, partitioner: Partitioners.DefaultPartitioner };
