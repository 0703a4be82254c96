import java.time.Duration;
import java.util.Properties;
import java.util.concurrent.atomic.AtomicReference;
import java.util.concurrent.atomic.LongAdder;
import java.util.stream.LongStream;
import org.apache.kafka.clients.producer.Callback;
import org.apache.kafka.clients.producer.KafkaProducer;

/** Sends in transactions through the Java client: send, results by callback, commitTransaction. */
final class Transacting {
    private final LongAdder delivered = new LongAdder();
    private final AtomicReference<Exception> failure = new AtomicReference<>();
    private final LongStream.Builder latencies = LongStream.builder();
    private long sent;

    static String run(Peers.Work work) throws Exception {
        Properties properties = Peers.properties(work);
        properties.put("transactional.id", "peers-java");
        KafkaProducer<byte[], byte[]> producer = new KafkaProducer<>(properties);
        try {
            producer.partitionsFor(work.topic);
            producer.initTransactions();
            new Transacting().commitFor(work, producer, work.warmup);
            Transacting timed = new Transacting();
            Peers.Clock clock = new Peers.Clock();
            timed.commitFor(work, producer, work.timed);
            return clock.line(timed.sent, timed.latencies.build().toArray());
        } finally {
            producer.close(Duration.ofSeconds(10));
        }
    }

    /** Commits one transaction after the other for that long. */
    private void commitFor(Peers.Work work, KafkaProducer<byte[], byte[]> producer, Duration time) {
        Callback callback = (metadata, error) -> {
            if (error == null) {
                delivered.increment();
            } else {
                failure.compareAndSet(null, error);
            }
        };
        long end = System.nanoTime() + time.toNanos();
        while (sent < work.records && System.nanoTime() - end < 0) {
            producer.beginTransaction();
            long upTo = sent + Math.min(work.transaction, work.records - sent);
            for (; sent < upTo; sent++) {
                // Waits while the buffer is full.
                producer.send(Peers.record(work, sent), callback);
            }
            long since = System.nanoTime();
            producer.commitTransaction();
            latencies.add(System.nanoTime() - since);
            if (failure.get() != null || delivered.sum() != sent) {
                throw new IllegalStateException(sent + " sent, " + delivered.sum() + " delivered", failure.get());
            }
        }
    }
}
