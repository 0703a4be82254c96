import java.time.Duration;
import java.util.List;
import java.util.Properties;
import java.util.stream.IntStream;
import org.apache.kafka.clients.consumer.ConsumerRecord;
import org.apache.kafka.clients.consumer.ConsumerRecords;
import org.apache.kafka.clients.consumer.KafkaConsumer;
import org.apache.kafka.common.TopicPartition;
import org.apache.kafka.common.serialization.ByteArrayDeserializer;

/** Reads through the Java client: assign and poll. */
final class Reading {
    /** Time without a record after which a reader has failed. */
    private static final Duration STALLED = Duration.ofSeconds(20);

    private long records;
    private long bytes;
    private long firsts;

    static String run(Peers.Work work) throws Exception {
        Properties properties = new Properties();
        properties.put("bootstrap.servers", work.bootstrap);
        properties.put("client.id", "peers");
        properties.put("key.deserializer", ByteArrayDeserializer.class.getName());
        properties.put("value.deserializer", ByteArrayDeserializer.class.getName());
        properties.put("check.crcs", "true");
        work.putTls(properties);
        try (KafkaConsumer<byte[], byte[]> consumer = new KafkaConsumer<>(properties)) {
            List<TopicPartition> all = IntStream.range(0, work.partitions)
                    .mapToObj(partition -> new TopicPartition(work.topic, partition))
                    .toList();
            consumer.assign(all);
            consumer.seekToBeginning(all);
            // At most half of a log with an end is read before the clock starts, so that the other half is timed.
            Reading warmed = new Reading();
            warmed.read(consumer, work.warmup, work.records / 2);
            Reading timed = new Reading();
            Peers.Clock clock = new Peers.Clock();
            timed.read(consumer, work.timed, work.records - warmed.records);
            String tally = ",\"bytes\":" + timed.bytes + ",\"firsts\":" + timed.firsts;
            return clock.line(timed.records, new long[0], tally);
        }
    }

    private void read(KafkaConsumer<byte[], byte[]> consumer, Duration time, long most) {
        long end = System.nanoTime() + time.toNanos();
        while (records < most && System.nanoTime() - end < 0) {
            ConsumerRecords<byte[], byte[]> polled = consumer.poll(STALLED);
            if (polled.isEmpty()) {
                throw new IllegalStateException("no record arrived");
            }
            for (ConsumerRecord<byte[], byte[]> record : polled) {
                lookAt(record.value());
            }
        }
    }

    private void lookAt(byte[] value) {
        records++;
        if (value != null && value.length > 0) {
            bytes += value.length;
            firsts += value[0] & 0xff;
        }
    }
}
