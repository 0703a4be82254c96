import java.nio.ByteBuffer;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.Collections;
import java.util.HashMap;
import java.util.List;
import java.util.Map;
import java.util.Optional;
import java.util.Random;
import java.util.TreeMap;
import java.util.TreeSet;
import org.apache.kafka.clients.consumer.ConsumerGroupMetadata;
import org.apache.kafka.clients.consumer.ConsumerPartitionAssignor;
import org.apache.kafka.clients.consumer.ConsumerPartitionAssignor.Assignment;
import org.apache.kafka.clients.consumer.ConsumerPartitionAssignor.GroupSubscription;
import org.apache.kafka.clients.consumer.ConsumerPartitionAssignor.Subscription;
import org.apache.kafka.clients.consumer.CooperativeStickyAssignor;
import org.apache.kafka.clients.consumer.RangeAssignor;
import org.apache.kafka.clients.consumer.RoundRobinAssignor;
import org.apache.kafka.clients.consumer.StickyAssignor;
import org.apache.kafka.common.Cluster;
import org.apache.kafka.common.Node;
import org.apache.kafka.common.PartitionInfo;
import org.apache.kafka.common.TopicPartition;

/**
 * Shares out random groups by Kafka's own assignors, over rounds in which members and topics come and go, and prints every
 * input and result: what Ottla's assignors are held against.
 *
 * Run with kafka-clients and slf4j-api on the class path; the seed is fixed, so the output stays the same.
 *
 * Members are called p0 to p9, because Java's HashMap then goes through them in order, as Ottla does.
 */
public class Assignors {
    static final Random RANDOM = new Random(20260);
    static final String[] RACKS = {"a", "b", "c"};

    static class Member {
        List<String> topics = new ArrayList<>();
        String instance;
        String rack;
        List<TopicPartition> last = new ArrayList<>();
        int generation = -1;
    }

    static String list(List<TopicPartition> partitions) {
        TreeSet<String> sorted = new TreeSet<>();
        for (TopicPartition partition : partitions) sorted.add(partition.topic() + ":" + String.format("%02d", partition.partition()));
        return sorted.isEmpty() ? "-" : String.join(",", sorted);
    }

    static List<String> some(List<String> topics, boolean all) {
        List<String> chosen = new ArrayList<>();
        for (String topic : topics) if (all || RANDOM.nextInt(100) < 60) chosen.add(topic);
        return chosen.isEmpty() ? new ArrayList<>(topics.subList(0, 1)) : chosen;
    }

    public static void main(String[] args) {
        int scenarios = args.length > 0 ? Integer.parseInt(args[0]) : 40;
        for (int scenario = 0; scenario < scenarios; scenario++) {
            for (String name : new String[] {"range", "roundrobin", "sticky", "cooperative-sticky"}) scenario(name, scenario);
        }
    }

    static void scenario(String name, int number) {
        boolean equal = RANDOM.nextInt(2) == 0;
        int racks = number % 3 == 0 ? 0 : number % 3 + 1;
        boolean fixed = RANDOM.nextInt(4) == 0;
        List<String> topics = new ArrayList<>();
        Map<String, Integer> counts = new TreeMap<>();
        for (int i = 0; i < 1 + RANDOM.nextInt(4); i++) {
            topics.add("t" + i);
            counts.put("t" + i, RANDOM.nextInt(3) == 0 ? 4 : 1 + RANDOM.nextInt(8));
        }
        Map<String, List<List<String>>> places = new TreeMap<>();
        TreeMap<String, Member> members = new TreeMap<>();
        int rounds = name.endsWith("sticky") ? 5 : 2;
        for (int generation = 1; generation <= rounds; generation++) {
            // Members come and go, topics grow.
            int wanted = 1 + RANDOM.nextInt(7);
            for (int i = 0; members.size() < wanted && i < 20; i++) {
                String id = "p" + RANDOM.nextInt(10);
                if (members.containsKey(id)) continue;
                Member member = new Member();
                member.topics = some(topics, equal);
                if (racks > 0 && RANDOM.nextInt(10) < 9) member.rack = RACKS[RANDOM.nextInt(racks)];
                if (fixed) member.instance = "i" + (9 - Integer.parseInt(id.substring(1)));
                members.put(id, member);
            }
            while (members.size() > wanted) members.remove(new ArrayList<>(members.keySet()).get(RANDOM.nextInt(members.size())));
            if (!equal && RANDOM.nextInt(4) == 0) members.get(members.firstKey()).topics = some(topics, false);
            if (RANDOM.nextInt(4) == 0) counts.merge(topics.get(0), 1 + RANDOM.nextInt(3), Integer::sum);

            ConsumerPartitionAssignor assignor = switch (name) {
                case "range" -> new RangeAssignor();
                case "roundrobin" -> new RoundRobinAssignor();
                case "sticky" -> new StickyAssignor();
                default -> new CooperativeStickyAssignor();
            };
            List<Node> nodes = new ArrayList<>();
            for (int i = 0; i < Math.max(1, racks); i++) nodes.add(new Node(i, "h", 1, racks == 0 ? null : RACKS[i]));
            List<PartitionInfo> infos = new ArrayList<>();
            StringBuilder out = new StringBuilder("assignor " + name + "\n");
            for (String topic : topics) {
                List<List<String>> known = places.computeIfAbsent(topic, t -> new ArrayList<>());
                while (known.size() < counts.get(topic)) {
                    List<String> at = new ArrayList<>();
                    if (racks > 0) {
                        int first = RANDOM.nextInt(racks);
                        at.add(RACKS[first]);
                        if (RANDOM.nextInt(3) == 0 && racks > 1) at.add(RACKS[(first + 1) % racks]);
                        Collections.sort(at);
                    }
                    known.add(at);
                }
                List<String> shown = new ArrayList<>();
                for (int partition = 0; partition < known.size(); partition++) {
                    List<String> at = known.get(partition);
                    Node[] replicas = racks == 0
                        ? new Node[] {nodes.get(0)}
                        : nodes.stream().filter(node -> at.contains(node.rack())).toArray(Node[]::new);
                    infos.add(new PartitionInfo(topic, partition, replicas[0], replicas, replicas));
                    shown.add(at.isEmpty() ? "-" : String.join("", at));
                }
                out.append("topic ").append(topic).append(' ').append(String.join(",", shown)).append('\n');
            }
            Map<String, Subscription> subscriptions = new HashMap<>();
            for (Map.Entry<String, Member> entry : members.entrySet()) {
                Member member = entry.getValue();
                boolean cooperative = name.equals("cooperative-sticky");
                // Now and then a member missed the last rounds, and still claims what it had.
                List<TopicPartition> owned = cooperative ? new ArrayList<>(member.last) : new ArrayList<>();
                owned.removeIf(partition -> !member.topics.contains(partition.topic()));
                ByteBuffer data = null;
                if (name.equals("sticky") && member.generation >= 0) {
                    StickyAssignor remembers = new StickyAssignor();
                    remembers.onAssignment(new Assignment(member.last), new ConsumerGroupMetadata("g", member.generation, entry.getKey(), Optional.ofNullable(member.instance)));
                    data = remembers.subscriptionUserData(new TreeSet<>(member.topics));
                }
                int said = name.equals("sticky") || cooperative ? member.generation : -1;
                Subscription subscription = new Subscription(member.topics, data, owned, said, Optional.ofNullable(member.rack));
                subscription.setGroupInstanceId(Optional.ofNullable(member.instance));
                subscriptions.put(entry.getKey(), subscription);
                out.append("member ").append(entry.getKey())
                    .append(' ').append(member.instance == null ? "-" : member.instance)
                    .append(' ').append(member.rack == null ? "-" : member.rack)
                    .append(' ').append(String.join(",", member.topics))
                    .append(' ').append(name.equals("sticky") || cooperative ? member.generation : -1)
                    .append(' ').append(cooperative ? list(owned) : name.equals("sticky") ? list(member.last) : "-")
                    .append('\n');
            }
            Cluster cluster = new Cluster("c", nodes, infos, Collections.emptySet(), Collections.emptySet());
            Map<String, Assignment> result = assignor.assign(cluster, new GroupSubscription(subscriptions)).groupAssignment();
            for (Map.Entry<String, Member> entry : members.entrySet()) {
                List<TopicPartition> given = result.get(entry.getKey()).partitions();
                out.append("gives ").append(entry.getKey()).append(' ').append(list(given)).append('\n');
                if (RANDOM.nextInt(10) > 0) {
                    entry.getValue().last = new ArrayList<>(given);
                    entry.getValue().generation = generation;
                }
            }
            System.out.print(out.append('\n'));
        }
    }
}
