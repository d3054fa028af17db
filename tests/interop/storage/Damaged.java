import java.time.Duration;
import java.util.List;
import java.util.Map;
import org.apache.kafka.clients.consumer.ConsumerRecord;
import org.apache.kafka.clients.consumer.KafkaConsumer;
import org.apache.kafka.common.KafkaException;
import org.apache.kafka.common.TopicPartition;
import org.apache.kafka.common.serialization.StringDeserializer;

/**
 * Reads a partition with damaged records: Damaged BOOTSTRAP TOPIC. Prints the values as JSON, the error with the position at which it came, and
 * after it has sought the end that position.
 */
class Damaged {
    public static void main(String[] args) {
        Map<String, Object> config = Map.of("bootstrap.servers", args[0], "enable.auto.commit", false);
        var partition = new TopicPartition(args[1], 0);
        try (var consumer = new KafkaConsumer<>(config, new StringDeserializer(), new StringDeserializer())) {
            consumer.assign(List.of(partition));
            consumer.seekToBeginning(List.of(partition));
            try {
                while (true) {
                    var records = consumer.poll(Duration.ofMinutes(2));
                    if (records.isEmpty()) {
                        throw new IllegalStateException("neither a record nor an error");
                    }
                    for (ConsumerRecord<String, String> record : records) {
                        System.out.println("{\"value\": \"" + record.value() + "\"}");
                    }
                }
            } catch (KafkaException damage) {
                System.err.println(damage);
                System.out.println("{\"error\": \"" + damage.getClass().getSimpleName() + "\", \"position\": " + consumer.position(partition) + "}");
            }
            consumer.seekToEnd(List.of(partition));
            long end = consumer.position(partition);
            if (!consumer.poll(Duration.ofSeconds(1)).isEmpty()) {
                throw new IllegalStateException("there is nothing behind the damage");
            }
            System.out.println("{\"end\": " + end + "}");
        }
    }
}
