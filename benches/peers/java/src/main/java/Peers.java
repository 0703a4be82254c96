import com.sun.management.OperatingSystemMXBean;
import java.io.IOException;
import java.lang.management.ManagementFactory;
import java.nio.charset.StandardCharsets;
import java.nio.file.Files;
import java.nio.file.Path;
import java.time.Duration;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.List;
import java.util.Locale;
import java.util.Properties;
import java.util.concurrent.CountDownLatch;
import java.util.concurrent.TimeUnit;
import java.util.concurrent.atomic.AtomicReference;
import java.util.concurrent.atomic.LongAdder;
import java.util.concurrent.locks.LockSupport;
import org.apache.kafka.clients.producer.Callback;
import org.apache.kafka.clients.producer.KafkaProducer;
import org.apache.kafka.clients.producer.ProducerRecord;
import org.apache.kafka.common.serialization.ByteArraySerializer;
import org.apache.kafka.common.utils.AppInfoParser;

/** Runs the work through the Java client: send, results by callback. Command line and output: see runners/common. */
public final class Peers {
    /** Number of different keys. */
    private static final int KEYS = 10_000;
    /** Number of records between two readings of the clock. */
    private static final long STRIDE = 256;

    public static void main(String[] args) {
        try {
            System.out.println(run(new Work(args)));
        } catch (Exception error) {
            System.err.println("error: " + error + (error.getCause() == null ? "" : ": " + error.getCause()));
            System.exit(1);
        }
    }

    private static String run(Work work) throws Exception {
        if (work.consume) {
            return Reading.run(work);
        }
        if (work.transact) {
            return Transacting.run(work);
        }
        KafkaProducer<byte[], byte[]> producer = new KafkaProducer<>(properties(work));
        try {
            producer.partitionsFor(work.topic);
            if (work.latency) {
                paced(work, producer, work.scheduled(work.warmup));
                Clock clock = new Clock();
                long[] latencies = paced(work, producer, work.scheduled(work.timed));
                return clock.line(latencies.length, latencies);
            }
            produce(work, producer, work.warmup);
            Clock clock = new Clock();
            long sent = produce(work, producer, work.timed);
            return clock.line(sent, new long[0]);
        } finally {
            producer.close(Duration.ofSeconds(10));
        }
    }

    static Properties properties(Work work) {
        Properties properties = new Properties();
        properties.put("bootstrap.servers", work.bootstrap);
        properties.put("client.id", "peers");
        properties.put("key.serializer", ByteArraySerializer.class.getName());
        properties.put("value.serializer", ByteArraySerializer.class.getName());
        properties.put("acks", "all");
        properties.put("enable.idempotence", "true");
        properties.put("max.in.flight.requests.per.connection", "5");
        properties.put("linger.ms", work.latency ? "0" : "5");
        properties.put("compression.type", work.compression);
        if (work.batchSize != null) {
            properties.put("batch.size", work.batchSize.toString());
        }
        if (work.level != null) {
            // snappy and none have no such property: it is then ignored, as by the other clients.
            properties.put("compression." + work.compression + ".level", work.level.toString());
        }
        work.putTls(properties);
        return properties;
    }

    static ProducerRecord<byte[], byte[]> record(Work work, long n) {
        return new ProducerRecord<>(work.topic, work.keyed ? work.key(n) : null, work.value(n));
    }

    /** Sends for that long, and waits until every record has its result. */
    private static long produce(Work work, KafkaProducer<byte[], byte[]> producer, Duration time) {
        LongAdder delivered = new LongAdder();
        AtomicReference<Exception> failure = new AtomicReference<>();
        Callback callback = (metadata, error) -> {
            if (error == null) {
                delivered.increment();
            } else {
                failure.compareAndSet(null, error);
            }
        };
        long end = System.nanoTime() + time.toNanos();
        long sent = 0;
        while (sent < work.records && (sent % STRIDE != 0 || System.nanoTime() - end < 0)) {
            // Waits while the buffer is full.
            producer.send(record(work, sent), callback);
            sent++;
        }
        // No longer than delivery.timeout.ms.
        producer.flush();
        if (failure.get() != null || delivered.sum() != sent) {
            throw new IllegalStateException(sent + " sent, " + delivered.sum() + " delivered", failure.get());
        }
        return sent;
    }

    /** Sends at the rate; returns the latency of every record, in nanoseconds. */
    private static long[] paced(Work work, KafkaProducer<byte[], byte[]> producer, int count) throws InterruptedException {
        long[] from = new long[count];
        long[] ends = new long[count];
        AtomicReference<Exception> failure = new AtomicReference<>();
        CountDownLatch left = new CountDownLatch(count);
        long start = System.nanoTime();
        for (int n = 0; n < count; n++) {
            int place = n;
            from[n] = work.waitUntilDue(start, n);
            producer.send(record(work, n), (metadata, error) -> {
                ends[place] = System.nanoTime();
                if (error != null) {
                    failure.compareAndSet(null, error);
                }
                left.countDown();
            });
        }
        boolean all = left.await(60, TimeUnit.SECONDS);
        if (failure.get() != null || !all) {
            throw new IllegalStateException(left.getCount() + " of " + count + " without a result", failure.get());
        }
        for (int n = 0; n < count; n++) {
            ends[n] -= from[n];
        }
        return ends;
    }

    /** The command line. */
    static final class Work {
        final boolean latency;
        final boolean consume;
        final boolean transact;
        int partitions = 1;
        String bootstrap = "";
        String topic = "perf";
        String compression = "none";
        /** Null for the client's own default. */
        Integer level;
        /** Null for the client's own default. */
        Integer batchSize;
        boolean keyed;
        /** Records per second, for latency. */
        long rate = 2_000;
        /** Records of each transaction, for transact. */
        long transaction = 100;
        Duration warmup = Duration.ofMillis(300);
        Duration timed = Duration.ofMillis(1_500);
        /** Maximum number of records that are sent in one part, or read in all, whatever the time. */
        long records = Long.MAX_VALUE;
        /** The authority (a PEM file) that issued the broker's certificate; null for no TLS. */
        String ca;
        final byte[][] values;
        final byte[][] keys = new byte[KEYS][];

        /** Sets TLS, if the work uses it; the client verifies the host name by default. */
        void putTls(Properties properties) {
            if (ca != null) {
                properties.put("security.protocol", "SSL");
                properties.put("ssl.enabled.protocols", "TLSv1.3");
                properties.put("ssl.truststore.type", "PEM");
                properties.put("ssl.truststore.location", ca);
            }
        }

        Work(String[] args) throws IOException {
            String mode = args.length == 0 ? "" : args[0];
            if (!List.of("produce", "latency", "consume", "transact").contains(mode)) {
                throw new IllegalArgumentException("produce, latency, consume or transact, not \"" + mode + "\"");
            }
            latency = mode.equals("latency");
            consume = mode.equals("consume");
            transact = mode.equals("transact");
            int size = 100;
            String file = null;
            for (int at = 1; at < args.length; at += 2) {
                if (at + 1 == args.length) {
                    throw new IllegalArgumentException(args[at] + " wants a value");
                }
                String value = args[at + 1];
                switch (args[at]) {
                    case "--bootstrap-server" -> bootstrap = value;
                    case "--topic" -> topic = value;
                    case "--values" -> file = value;
                    case "--size" -> size = Integer.parseInt(value);
                    case "--partitions" -> partitions = Integer.parseInt(value);
                    case "--compression" -> compression = value;
                    case "--level" -> level = optional(value);
                    case "--batch-size" -> batchSize = optional(value);
                    case "--keyed" -> keyed = bool(value);
                    case "--rate" -> rate = Long.parseLong(value);
                    case "--transaction" -> transaction = Long.parseLong(value);
                    case "--warmup" -> warmup = seconds(value);
                    case "--seconds" -> timed = seconds(value);
                    case "--records" -> records = Long.parseLong(value);
                    case "--ca" -> ca = value;
                    case "--api" -> {
                        if (!value.equals("callback")) {
                            throw new IllegalArgumentException("unknown --api " + value);
                        }
                    }
                    default -> throw new IllegalArgumentException("unknown option " + args[at]);
                }
            }
            if (file == null) {
                throw new IllegalArgumentException("--values wants a file");
            }
            byte[] bytes = Files.readAllBytes(Path.of(file));
            if (size <= 0 || partitions <= 0 || rate <= 0 || transaction <= 0 || records <= 0 || bytes.length < size) {
                throw new IllegalArgumentException("nothing to send");
            }
            values = new byte[bytes.length / size][];
            for (int n = 0; n < values.length; n++) {
                values[n] = Arrays.copyOfRange(bytes, n * size, (n + 1) * size);
            }
            for (int n = 0; n < KEYS; n++) {
                keys[n] = String.format(Locale.ROOT, "%08d", n).getBytes(StandardCharsets.US_ASCII);
            }
        }

        private static Integer optional(String text) {
            return text.equals("default") ? null : Integer.valueOf(text);
        }

        private static boolean bool(String text) {
            return switch (text) {
                case "true" -> true;
                case "false" -> false;
                default -> throw new IllegalArgumentException("true or false, not " + text);
            };
        }

        private static Duration seconds(String text) {
            double value = Double.parseDouble(text);
            if (!(value >= 0)) {
                throw new IllegalArgumentException(text + " is no number of seconds");
            }
            return Duration.ofNanos((long) (value * 1e9));
        }

        byte[] value(long n) {
            return values[(int) (n % values.length)];
        }

        byte[] key(long n) {
            return keys[(int) (n % KEYS)];
        }

        /** Returns the number of records that latency sends in that time. */
        int scheduled(Duration time) {
            long count = Math.max((long) (time.toNanos() / 1e9 * rate), 1);
            return Math.toIntExact(Math.min(count, records));
        }

        /**
         * Waits until the nth record is due. Returns the time from which its latency counts: that of the call or, if the
         * sender is behind its schedule, the time at which the record was due.
         */
        long waitUntilDue(long start, long n) {
            long due = start + n * 1_000_000_000L / rate;
            long left = due - System.nanoTime();
            if (left <= 0) {
                return due;
            }
            for (; left > 0; left = due - System.nanoTime()) {
                LockSupport.parkNanos(left);
            }
            return System.nanoTime();
        }
    }

    /** Measures the timed part: real time, and this process's CPU time with that of compiler and collector. */
    static final class Clock {
        private final OperatingSystemMXBean system =
                (OperatingSystemMXBean) ManagementFactory.getOperatingSystemMXBean();
        private final long cpu = system.getProcessCpuTime();
        private final long started = System.nanoTime();

        /** Ends the timed part, once all results of these records have arrived; returns the line to print. */
        String line(long records, long[] latencies) throws IOException {
            return line(records, latencies, "");
        }

        /** Like the method above, with more fields, each after a comma. */
        String line(long records, long[] latencies, String more) throws IOException {
            double seconds = (System.nanoTime() - started) / 1e9;
            double micros = (system.getProcessCpuTime() - cpu) / 1e3;
            List<String> fields = new ArrayList<>();
            fields.add("\"client\":\"java\"");
            fields.add("\"version\":\"" + AppInfoParser.getVersion() + "\"");
            fields.add("\"records\":" + records);
            fields.add(field("seconds", "%.6f", seconds));
            fields.add(field("records_per_s", "%.1f", records / seconds));
            fields.add(field("cpu_us_per_record", "%.5f", micros / records));
            fields.add(field("rss_peak_mb", "%.1f", rssPeakMb()));
            if (latencies.length > 0) {
                Arrays.sort(latencies);
                fields.add(quantile("p50_us", latencies, 0.5));
                fields.add(quantile("p99_us", latencies, 0.99));
                fields.add(quantile("p999_us", latencies, 0.999));
            }
            return "{" + String.join(",", fields) + more + "}";
        }

        private static String quantile(String name, long[] sorted, double share) {
            return field(name, "%.1f", sorted[(int) Math.round((sorted.length - 1) * share)] / 1e3);
        }

        private static String field(String name, String format, double value) {
            return "\"" + name + "\":" + String.format(Locale.ROOT, format, value);
        }

        /** Returns the peak of the resident memory. */
        private static double rssPeakMb() throws IOException {
            for (String line : Files.readAllLines(Path.of("/proc/self/status"))) {
                if (line.startsWith("VmHWM:")) {
                    return Double.parseDouble(line.replaceAll("[^0-9]", "")) / 1024;
                }
            }
            throw new IOException("no VmHWM in /proc/self/status");
        }
    }
}
