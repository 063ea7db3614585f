import java.io.IOException;
import java.io.InputStream;
import java.io.PrintStream;
import java.nio.charset.StandardCharsets;
import java.nio.file.Files;
import java.nio.file.Path;
import java.time.Duration;
import java.util.ArrayDeque;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.Collection;
import java.util.Deque;
import java.util.HashMap;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;
import java.util.Properties;
import java.util.TreeMap;
import java.util.concurrent.Callable;
import java.util.concurrent.ExecutionException;

import org.apache.kafka.clients.admin.Admin;
import org.apache.kafka.clients.admin.AlterConfigOp;
import org.apache.kafka.clients.admin.ConfigEntry;
import org.apache.kafka.clients.admin.ConsumerGroupDescription;
import org.apache.kafka.clients.admin.MemberDescription;
import org.apache.kafka.clients.admin.NewTopic;
import org.apache.kafka.clients.admin.ProducerState;
import org.apache.kafka.clients.admin.TopicDescription;
import org.apache.kafka.clients.admin.TransactionDescription;
import org.apache.kafka.clients.admin.TransactionListing;
import org.apache.kafka.clients.consumer.ConsumerConfig;
import org.apache.kafka.clients.consumer.ConsumerRecord;
import org.apache.kafka.clients.consumer.KafkaConsumer;
import org.apache.kafka.common.Node;
import org.apache.kafka.common.TopicPartition;
import org.apache.kafka.common.TopicPartitionInfo;
import org.apache.kafka.common.acl.AccessControlEntry;
import org.apache.kafka.common.acl.AclBinding;
import org.apache.kafka.common.acl.AclOperation;
import org.apache.kafka.common.acl.AclPermissionType;
import org.apache.kafka.common.config.ConfigResource;
import org.apache.kafka.common.errors.GroupIdNotFoundException;
import org.apache.kafka.common.header.Header;
import org.apache.kafka.common.resource.PatternType;
import org.apache.kafka.common.resource.ResourcePattern;
import org.apache.kafka.common.resource.ResourceType;
import org.apache.kafka.common.serialization.ByteArrayDeserializer;
import org.apache.kafka.common.utils.Utils;

/**
 * What Apache Kafka's own client sees: it shares no code with librdkafka, so that one cannot hide the other's mistake.
 *
 * <p>Run it by tests/kafka/client, or by {@code java -cp 'libs/*' Client.java}. The answer is JSON on stdout; anything
 * that fails is said on stderr, and the exit status is 1. Nothing is waited for longer than {@link #PATIENCE}.
 */
public final class Client {
    private static final String USAGE = """
            usage: Client COMMAND BOOTSTRAP … [--properties FILE]

              consume BOOTSTRAP TOPIC [--uncommitted] [--partition-check]
                  every record that is there now, an object a line; with --partition-check the partition that Java
                  gives its key, and status 1 if one differs
              counts BOOTSTRAP TOPIC
                  the records that are committed, and all of them: aborted and open ones, too
              create BOOTSTRAP TOPIC PARTITIONS REPLICATION [KEY=VALUE…]
              config BOOTSTRAP TOPIC KEY=VALUE…
                  sets configs of the topic; KEY= alone gives it its default again
              describe BOOTSTRAP TOPIC
                  partitions with leader, replicas and who is in sync; configs
              acl BOOTSTRAP add|remove PRINCIPAL RESOURCE_TYPE NAME OPERATION…
                  allows it, or takes that back; NAME may be * or end with it
              groups BOOTSTRAP GROUP
                  the members of a consumer group; none if there is no such group
              transactions BOOTSTRAP TOPIC
                  the producers that the topic's partitions know, and all transactional ids with their state
              ready BOOTSTRAP N
                  waits until N brokers take part
            """;
    private static final Duration PATIENCE = Duration.ofSeconds(60);

    private final Properties properties;
    private final PrintStream out;

    private Client(Properties properties, PrintStream out) {
        this.properties = properties;
        this.out = out;
    }

    public static void main(String[] args) {
        System.setProperty("org.slf4j.simpleLogger.defaultLogLevel", "error");
        // Buffered, and UTF-8 whatever the machine's language is.
        PrintStream out = new PrintStream(new java.io.BufferedOutputStream(
                new java.io.FileOutputStream(java.io.FileDescriptor.out), 1 << 16), false, StandardCharsets.UTF_8);
        boolean well;
        try {
            well = run(new ArrayDeque<>(Arrays.asList(args)), out);
        } catch (IllegalArgumentException error) {
            System.err.println(error.getMessage());
            System.exit(2);
            return;
        } catch (Exception error) {
            Throwable cause = error instanceof ExecutionException ? error.getCause() : error;
            System.err.println(cause.getClass().getSimpleName() + ": " + cause.getMessage());
            well = false;
        }
        out.flush();
        System.exit(well && !out.checkError() ? 0 : 1);
    }

    private static boolean run(Deque<String> words, PrintStream out) throws Exception {
        Properties properties = new Properties();
        List<String> args = new ArrayList<>();
        boolean committed = true;
        boolean partitionCheck = false;
        while (!words.isEmpty()) {
            String word = words.pop();
            switch (word) {
                case "--uncommitted" -> committed = false;
                case "--partition-check" -> partitionCheck = true;
                case "--properties" -> {
                    try (InputStream file = Files.newInputStream(Path.of(need(words)))) {
                        properties.load(file);
                    }
                }
                default -> args.add(word);
            }
        }
        Deque<String> rest = new ArrayDeque<>(args);
        String command = need(rest);
        properties.put("bootstrap.servers", need(rest));
        Client client = new Client(properties, out);
        String subject = need(rest);
        switch (command) {
            case "consume" -> {
                return client.consume(subject, committed, partitionCheck);
            }
            case "counts" -> client.counts(subject);
            case "create" -> client.create(subject, Integer.parseInt(need(rest)), Short.parseShort(need(rest)), rest);
            case "config" -> client.config(subject, rest);
            case "describe" -> client.describe(subject);
            case "acl" -> client.acl(subject, need(rest), need(rest), need(rest), rest);
            case "groups" -> client.group(subject);
            case "transactions" -> client.transactions(subject);
            case "ready" -> client.ready(Integer.parseInt(subject));
            default -> throw new IllegalArgumentException(USAGE);
        }
        return true;
    }

    private static String need(Deque<String> words) {
        if (words.isEmpty()) {
            throw new IllegalArgumentException(USAGE);
        }
        return words.pop();
    }

    private interface Visitor {
        void see(ConsumerRecord<byte[], byte[]> record);
    }

    /** Shows each record from the beginning to what is the end at the start; returns how many partitions there are. */
    private int read(String topic, boolean committed, Visitor visitor) throws IOException {
        Map<String, Object> all = new HashMap<>();
        properties.forEach((key, value) -> all.put((String) key, value));
        all.put(ConsumerConfig.ISOLATION_LEVEL_CONFIG, committed ? "read_committed" : "read_uncommitted");
        all.put(ConsumerConfig.ENABLE_AUTO_COMMIT_CONFIG, false);
        all.put(ConsumerConfig.AUTO_OFFSET_RESET_CONFIG, "earliest");
        all.put(ConsumerConfig.ALLOW_AUTO_CREATE_TOPICS_CONFIG, false);
        all.put(ConsumerConfig.DEFAULT_API_TIMEOUT_MS_CONFIG, (int) PATIENCE.toMillis());
        ByteArrayDeserializer bytes = new ByteArrayDeserializer();
        try (KafkaConsumer<byte[], byte[]> consumer = new KafkaConsumer<>(all, bytes, bytes)) {
            var infos = consumer.partitionsFor(topic);
            if (infos == null || infos.isEmpty()) {
                throw new IOException("there is no topic " + topic);
            }
            List<TopicPartition> partitions =
                    infos.stream().map(info -> new TopicPartition(topic, info.partition())).toList();
            // With read_committed the last stable offset: before it nothing is open.
            Map<TopicPartition, Long> ends = consumer.endOffsets(partitions);
            consumer.assign(partitions);
            consumer.seekToBeginning(partitions);
            long moved = System.nanoTime();
            long last = -1;
            while (true) {
                long behind = 0;
                for (TopicPartition partition : partitions) {
                    behind += Math.max(0, ends.get(partition) - consumer.position(partition));
                }
                if (behind == 0) {
                    return partitions.size();
                }
                if (behind != last) {
                    last = behind;
                    moved = System.nanoTime();
                } else if (System.nanoTime() - moved > PATIENCE.toNanos()) {
                    throw new IOException(behind + " offsets before the end of " + topic + " nothing comes any more");
                }
                for (ConsumerRecord<byte[], byte[]> record : consumer.poll(Duration.ofMillis(200))) {
                    if (record.offset() < ends.get(new TopicPartition(topic, record.partition()))) {
                        visitor.see(record);
                    }
                }
            }
        }
    }

    private boolean consume(String topic, boolean committed, boolean partitionCheck) throws IOException {
        int partitions;
        Map<String, Object> all = new HashMap<>();
        properties.forEach((key, value) -> all.put((String) key, value));
        try (Admin admin = Admin.create(all)) {
            partitions = describe(admin, topic).partitions().size();
        } catch (Exception error) {
            throw new IOException("there is no topic " + topic + ": " + error.getMessage(), error);
        }
        int[] elsewhere = {0};
        read(topic, committed, record -> {
            Map<String, Object> line = new LinkedHashMap<>();
            line.put("partition", record.partition());
            line.put("offset", record.offset());
            line.put("timestamp", record.timestamp());
            line.put("key", text(record.key()));
            Map<String, Object> headers = new LinkedHashMap<>();
            for (Header header : record.headers()) {
                headers.put(header.key(), text(header.value()));
            }
            line.put("headers", headers);
            line.put("value", text(record.value()));
            if (partitionCheck && record.key() != null) {
                // As DefaultPartitioner did, and what the default does since with a key.
                int java = Utils.toPositive(Utils.murmur2(record.key())) % partitions;
                line.put("java_partition", java);
                elsewhere[0] += java == record.partition() ? 0 : 1;
            }
            out.println(json(line));
        });
        if (elsewhere[0] > 0) {
            System.err.println(elsewhere[0] + " records are not in the partition that Java gives their key");
        }
        return elsewhere[0] == 0;
    }

    private void counts(String topic) throws IOException {
        Map<String, Object> counts = new LinkedHashMap<>();
        for (boolean committed : new boolean[] {true, false}) {
            long[] count = {0};
            read(topic, committed, record -> count[0]++);
            counts.put(committed ? "committed" : "all", count[0]);
        }
        out.println(json(counts));
    }

    private void create(String topic, int partitions, short replication, Collection<String> configs) throws Exception {
        Map<String, String> set = new HashMap<>();
        for (String config : configs) {
            set.put(before(config), after(config));
        }
        try (Admin admin = Admin.create(properties)) {
            admin.createTopics(List.of(new NewTopic(topic, partitions, replication).configs(set))).all().get();
            // It is created before every broker knows of it.
            await("a leader of each partition of " + topic, () -> {
                try {
                    List<TopicPartitionInfo> described = describe(admin, topic).partitions();
                    return described.size() == partitions && described.stream().allMatch(Client::isLed);
                } catch (ExecutionException unknown) {
                    return false;
                }
            });
        }
    }

    private static boolean isLed(TopicPartitionInfo partition) {
        return partition.leader() != null && !partition.leader().isEmpty();
    }

    private void config(String topic, Collection<String> configs) throws Exception {
        List<AlterConfigOp> changes = new ArrayList<>();
        for (String config : configs) {
            String value = after(config);
            changes.add(new AlterConfigOp(new ConfigEntry(before(config), value),
                    value.isEmpty() ? AlterConfigOp.OpType.DELETE : AlterConfigOp.OpType.SET));
        }
        ConfigResource resource = new ConfigResource(ConfigResource.Type.TOPIC, topic);
        try (Admin admin = Admin.create(properties)) {
            admin.incrementalAlterConfigs(Map.of(resource, changes)).all().get();
        }
    }

    private static TopicDescription describe(Admin admin, String topic) throws Exception {
        return admin.describeTopics(List.of(topic)).allTopicNames().get().get(topic);
    }

    private void describe(String topic) throws Exception {
        ConfigResource resource = new ConfigResource(ConfigResource.Type.TOPIC, topic);
        try (Admin admin = Admin.create(properties)) {
            List<Object> partitions = new ArrayList<>();
            for (TopicPartitionInfo partition : describe(admin, topic).partitions()) {
                Map<String, Object> entry = new LinkedHashMap<>();
                entry.put("partition", partition.partition());
                entry.put("leader", isLed(partition) ? partition.leader().id() : null);
                entry.put("replicas", partition.replicas().stream().map(Node::id).toList());
                entry.put("in_sync", partition.isr().stream().map(Node::id).toList());
                partitions.add(entry);
            }
            Map<String, Object> configs = new TreeMap<>();
            for (ConfigEntry entry : admin.describeConfigs(List.of(resource)).all().get().get(resource).entries()) {
                configs.put(entry.name(), entry.value());
            }
            Map<String, Object> line = new LinkedHashMap<>();
            line.put("topic", topic);
            line.put("partitions", partitions);
            line.put("configs", configs);
            out.println(json(line));
        }
    }

    private void acl(String what, String principal, String type, String name, Collection<String> operations)
            throws Exception {
        boolean prefix = name.length() > 1 && name.endsWith("*");
        ResourcePattern pattern = new ResourcePattern(ResourceType.fromString(type),
                prefix ? name.substring(0, name.length() - 1) : name,
                prefix ? PatternType.PREFIXED : PatternType.LITERAL);
        List<AclBinding> bindings = new ArrayList<>();
        for (String operation : operations) {
            bindings.add(new AclBinding(pattern, new AccessControlEntry(
                    principal, "*", AclOperation.fromString(operation), AclPermissionType.ALLOW)));
        }
        if (bindings.isEmpty() || bindings.stream().anyMatch(AclBinding::isUnknown)) {
            throw new IllegalArgumentException("no such resource type or operation\n" + USAGE);
        }
        try (Admin admin = Admin.create(properties)) {
            switch (what) {
                case "add" -> admin.createAcls(bindings).all().get();
                case "remove" -> {
                    int removed = admin.deleteAcls(bindings.stream().map(AclBinding::toFilter).toList()).all().get()
                            .size();
                    if (removed != bindings.size()) {
                        throw new IOException("of " + bindings.size() + " rules " + removed + " were there");
                    }
                }
                default -> throw new IllegalArgumentException(USAGE);
            }
        }
    }

    private void group(String group) throws Exception {
        try (Admin admin = Admin.create(properties)) {
            ConsumerGroupDescription description;
            try {
                description = admin.describeConsumerGroups(List.of(group)).all().get().get(group);
            } catch (ExecutionException error) {
                if (!(error.getCause() instanceof GroupIdNotFoundException)) {
                    throw error;
                }
                // No one has joined yet: for whoever waits for members, a group without any.
                out.println(json(new TreeMap<>(Map.of("group", group, "state", "Dead", "members", List.of()))));
                return;
            }
            List<Object> members = new ArrayList<>();
            for (MemberDescription member : description.members()) {
                Map<String, Object> entry = new LinkedHashMap<>();
                entry.put("member", member.consumerId());
                entry.put("instance", member.groupInstanceId().orElse(null));
                entry.put("client", member.clientId());
                List<Object> assigned = new ArrayList<>();
                for (TopicPartition partition : member.assignment().topicPartitions()) {
                    Map<String, Object> one = new LinkedHashMap<>();
                    one.put("topic", partition.topic());
                    one.put("partition", partition.partition());
                    assigned.add(one);
                }
                entry.put("assigned", assigned);
                members.add(entry);
            }
            Map<String, Object> line = new LinkedHashMap<>();
            line.put("group", group);
            line.put("state", description.groupState().toString());
            line.put("members", members);
            out.println(json(line));
        }
    }

    private void transactions(String topic) throws Exception {
        try (Admin admin = Admin.create(properties)) {
            List<TopicPartition> partitions = describe(admin, topic).partitions().stream()
                    .map(partition -> new TopicPartition(topic, partition.partition())).toList();
            var described = admin.describeProducers(partitions).all().get();
            List<Object> producers = new ArrayList<>();
            for (TopicPartition partition : partitions) {
                for (ProducerState producer : described.get(partition).activeProducers()) {
                    Map<String, Object> entry = new LinkedHashMap<>();
                    entry.put("partition", partition.partition());
                    entry.put("producer", producer.producerId());
                    entry.put("epoch", producer.producerEpoch());
                    entry.put("last_sequence", producer.lastSequence());
                    entry.put("last_timestamp", producer.lastTimestamp());
                    long open = producer.currentTransactionStartOffset().orElse(-1);
                    entry.put("open_from", open < 0 ? null : open);
                    producers.add(entry);
                }
            }
            List<Object> transactions = new ArrayList<>();
            Collection<String> ids = admin.listTransactions().all().get().stream()
                    .map(TransactionListing::transactionalId).sorted().toList();
            var states = admin.describeTransactions(ids).all().get();
            for (String id : ids) {
                TransactionDescription state = states.get(id);
                Map<String, Object> entry = new LinkedHashMap<>();
                entry.put("id", id);
                entry.put("state", state.state().toString());
                entry.put("producer", state.producerId());
                entry.put("epoch", state.producerEpoch());
                entry.put("timeout_ms", state.transactionTimeoutMs());
                entry.put("partitions", state.topicPartitions().stream().map(TopicPartition::toString).sorted()
                        .toList());
                transactions.add(entry);
            }
            Map<String, Object> line = new LinkedHashMap<>();
            line.put("producers", producers);
            line.put("transactions", transactions);
            out.println(json(line));
        }
    }

    private void ready(int brokers) throws Exception {
        try (Admin admin = Admin.create(properties)) {
            await(brokers + " brokers", () -> {
                try {
                    // Fenced ones are not among them.
                    return admin.describeCluster().nodes().get().size() == brokers
                            && admin.describeMetadataQuorum().quorumInfo().get().leaderId() > 0;
                } catch (ExecutionException notYet) {
                    return false;
                }
            });
        }
    }

    private static void await(String what, Callable<Boolean> condition) throws Exception {
        long end = System.nanoTime() + PATIENCE.toNanos();
        while (!condition.call()) {
            if (System.nanoTime() > end) {
                throw new IOException("waited in vain for " + what);
            }
            Thread.sleep(50);
        }
    }

    private static String before(String pair) {
        int at = pair.indexOf('=');
        if (at < 1) {
            throw new IllegalArgumentException("expected KEY=VALUE, not " + pair);
        }
        return pair.substring(0, at);
    }

    private static String after(String pair) {
        return pair.substring(pair.indexOf('=') + 1);
    }

    private static String text(byte[] bytes) {
        return bytes == null ? null : new String(bytes, StandardCharsets.UTF_8);
    }

    private static String json(Object value) {
        StringBuilder text = new StringBuilder();
        write(text, value);
        return text.toString();
    }

    private static void write(StringBuilder text, Object value) {
        if (value instanceof Map<?, ?> map) {
            String separator = "{";
            for (Map.Entry<?, ?> entry : map.entrySet()) {
                text.append(separator);
                write(text, entry.getKey());
                text.append(':');
                write(text, entry.getValue());
                separator = ",";
            }
            text.append(map.isEmpty() ? "{}" : "}");
        } else if (value instanceof Collection<?> list) {
            String separator = "[";
            for (Object item : list) {
                text.append(separator);
                write(text, item);
                separator = ",";
            }
            text.append(list.isEmpty() ? "[]" : "]");
        } else if (value instanceof String string) {
            text.append('"');
            for (int at = 0; at < string.length(); at++) {
                char c = string.charAt(at);
                if (c == '"' || c == '\\') {
                    text.append('\\').append(c);
                } else if (c < ' ') {
                    text.append(String.format("\\u%04x", (int) c));
                } else {
                    text.append(c);
                }
            }
            text.append('"');
        } else {
            text.append(value);
        }
    }
}
