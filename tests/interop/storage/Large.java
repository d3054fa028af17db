import java.security.MessageDigest;
import java.security.SecureRandom;
import java.time.Duration;
import java.util.HexFormat;
import java.util.List;
import java.util.Map;
import org.apache.kafka.clients.consumer.ConsumerRecord;
import org.apache.kafka.clients.consumer.KafkaConsumer;
import org.apache.kafka.clients.producer.KafkaProducer;
import org.apache.kafka.clients.producer.ProducerRecord;
import org.apache.kafka.common.TopicPartition;
import org.apache.kafka.common.serialization.ByteArrayDeserializer;
import org.apache.kafka.common.serialization.ByteArraySerializer;

/**
 * Sends or reads very large records: Large BOOTSTRAP produce TOPIC BYTES, or consume TOPIC COUNT. Prints the offset and the SHA-256 of each
 * record.
 */
class Large {
    /** Twice the largest batch: what a request holds besides, and a batch that is too large. */
    static final int BYTES_MAX = 200 << 20;

    public static void main(String[] args) throws Exception {
        if (args[1].equals("produce")) {
            produce(args[0], args[2], Integer.parseInt(args[3]));
        } else {
            consume(args[0], args[2], Integer.parseInt(args[3]));
        }
    }

    static void produce(String bootstrap, String topic, int size) throws Exception {
        Map<String, Object> config = Map.of("bootstrap.servers", bootstrap, "max.request.size", BYTES_MAX, "buffer.memory", 2L * BYTES_MAX);
        byte[] value = new byte[size];
        new SecureRandom().nextBytes(value);
        try (var producer = new KafkaProducer<>(config, new ByteArraySerializer(), new ByteArraySerializer())) {
            long offset = producer.send(new ProducerRecord<>(topic, 0, null, value)).get().offset();
            System.out.println(offset + " " + sum(value));
        } catch (java.util.concurrent.ExecutionException failed) {
            System.err.println("not acknowledged: " + failed.getCause());
            System.exit(1);
        }
    }

    static void consume(String bootstrap, String topic, int count) throws Exception {
        Map<String, Object> config = Map.of("bootstrap.servers", bootstrap, "enable.auto.commit", false);
        var partition = new TopicPartition(topic, 0);
        try (var consumer = new KafkaConsumer<>(config, new ByteArrayDeserializer(), new ByteArrayDeserializer())) {
            consumer.assign(List.of(partition));
            consumer.seekToBeginning(List.of(partition));
            while (count > 0) {
                var records = consumer.poll(Duration.ofMinutes(4));
                if (records.isEmpty()) {
                    throw new IllegalStateException(count + " records are missing");
                }
                for (ConsumerRecord<byte[], byte[]> record : records) {
                    System.out.println(record.offset() + " " + sum(record.value()));
                    count--;
                }
            }
        }
    }

    static String sum(byte[] value) throws Exception {
        return HexFormat.of().formatHex(MessageDigest.getInstance("SHA-256").digest(value));
    }
}
