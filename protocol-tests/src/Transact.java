import java.io.BufferedReader;
import java.io.InputStreamReader;
import java.time.Duration;
import java.util.HashMap;
import java.util.Map;
import java.util.Properties;
import java.util.Random;
import org.apache.kafka.clients.producer.KafkaProducer;
import org.apache.kafka.clients.producer.ProducerRecord;
import org.apache.kafka.common.serialization.StringSerializer;

/**
 * Transactions by Kafka's own client. The first argument is where the brokers are, the second what to do:
 *
 * script             carries out the lines of standard input, one after the other, each record acknowledged before the next:
 *                        begin ID | send ID TOPIC PARTITION VALUE | commit ID | abort ID
 *                    ID "-" is a producer without transactions. What is open at the end stays so.
 * load TOPIC PARTITIONS PRODUCERS SEED PAUSE
 *                    producers that commit and abort at random, whatever happens to the brokers, until standard input ends.
 *                    Values are PRODUCER:TRANSACTION:PARTITION:NUMBER. Says of each transaction how it ended and how many
 *                    records it has in each partition: committed|aborted|unknown PRODUCER TRANSACTION COUNT,COUNT,...
 */
public class Transact {
    static volatile boolean stopped = false;

    public static void main(String[] args) throws Exception {
        if (args[1].equals("script")) {
            script(args[0]);
        } else {
            load(args[0], args[2], Integer.parseInt(args[3]), Integer.parseInt(args[4]), Long.parseLong(args[5]),
                Integer.parseInt(args[6]));
        }
        // Producers that are closed would abort what is open.
        System.out.flush();
        Runtime.getRuntime().halt(0);
    }

    static KafkaProducer<String, String> open(String bootstrap, String id, String codec) {
        Properties properties = new Properties();
        properties.put("bootstrap.servers", bootstrap);
        properties.put("compression.type", codec);
        properties.put("linger.ms", "5");
        if (!id.equals("-")) {
            properties.put("transactional.id", id);
            properties.put("transaction.timeout.ms", "60000");
            properties.put("max.block.ms", "30000");
        }
        KafkaProducer<String, String> producer =
            new KafkaProducer<>(properties, new StringSerializer(), new StringSerializer());
        if (!id.equals("-")) {
            producer.initTransactions();
        }
        return producer;
    }

    static void script(String bootstrap) throws Exception {
        BufferedReader lines = new BufferedReader(new InputStreamReader(System.in));
        Map<String, KafkaProducer<String, String>> producers = new HashMap<>();
        for (String line = lines.readLine(); line != null; line = lines.readLine()) {
            String[] parts = line.split(" ", 5);
            KafkaProducer<String, String> producer = producers.get(parts[1]);
            if (producer == null) {
                producer = open(bootstrap, parts[1], producers.size() % 2 == 0 ? "none" : "lz4");
                producers.put(parts[1], producer);
            }
            switch (parts[0]) {
                case "begin": producer.beginTransaction(); break;
                case "commit": producer.commitTransaction(); break;
                case "abort": producer.abortTransaction(); break;
                case "send":
                    producer.send(new ProducerRecord<>(parts[2], Integer.parseInt(parts[3]), null, parts[4])).get();
                    break;
                default: throw new IllegalArgumentException(line);
            }
        }
    }

    static void load(String bootstrap, String topic, int partitions, int producers, long seed, int pause)
            throws Exception {
        Thread[] threads = new Thread[producers];
        for (int n = 0; n < producers; n++) {
            int number = n;
            threads[n] = new Thread(() -> drive(bootstrap, topic, partitions, number, new Random(seed * 31 + number), pause));
            threads[n].start();
        }
        while (System.in.read() >= 0) { }
        stopped = true;
        for (Thread thread : threads) {
            thread.join();
        }
    }

    static void drive(String bootstrap, String topic, int partitions, int number, Random dice, int pause) {
        String id = topic + "-" + number;
        String codec = new String[] {"none", "lz4", "zstd", "gzip"}[number % 4];
        KafkaProducer<String, String> producer = null;
        for (long transaction = 0; !stopped; transaction++) {
            int[] counts = new int[partitions];
            boolean committing = false;
            String ended;
            try {
                if (producer == null) {
                    // Fences the one before, and ends what that left open.
                    producer = open(bootstrap, id, codec);
                }
                producer.beginTransaction();
                int records = 1 + dice.nextInt(60);
                for (int n = 0; n < records; n++) {
                    int partition = dice.nextInt(partitions);
                    String value = number + ":" + transaction + ":" + partition + ":" + counts[partition]++;
                    producer.send(new ProducerRecord<>(topic, partition, null, value));
                }
                if (dice.nextInt(4) == 0) {
                    Thread.sleep(dice.nextInt(300));
                }
                if (dice.nextInt(3) != 0) {
                    committing = true;
                    producer.commitTransaction();
                    ended = "committed";
                } else {
                    producer.abortTransaction();
                    ended = "aborted";
                }
                Thread.sleep(pause);
            } catch (Exception error) {
                // A commit that got no answer may have been carried out.
                ended = committing ? "unknown" : "aborted";
                System.err.println(number + ":" + transaction + " " + error);
                if (producer != null) {
                    producer.close(Duration.ZERO);
                    producer = null;
                }
            }
            StringBuilder line = new StringBuilder(ended + " " + number + " " + transaction + " ");
            for (int partition = 0; partition < partitions; partition++) {
                line.append(partition == 0 ? "" : ",").append(counts[partition]);
            }
            synchronized (System.out) {
                System.out.println(line);
                System.out.flush();
            }
        }
        // What the last one left open is ended, so that it holds nobody up.
        while (producer == null) {
            try {
                producer = open(bootstrap, id, codec);
            } catch (Exception error) {
                System.err.println(number + " " + error);
            }
        }
        producer.close(Duration.ofSeconds(30));
    }
}
