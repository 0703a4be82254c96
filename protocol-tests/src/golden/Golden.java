// Answers, line by line, with what Kafka's own classes write and read. golden/service.rs is the other end.
//
// A question is one line of tab-separated fields. The answer is "ok N" and N lines, or "error" and a reason.
// Bytes are in hexadecimal; null is "-", so that it is not empty.

import com.fasterxml.jackson.databind.JsonNode;
import com.fasterxml.jackson.databind.ObjectMapper;
import com.fasterxml.jackson.databind.node.ObjectNode;
import java.io.BufferedReader;
import java.io.FileDescriptor;
import java.io.FileOutputStream;
import java.io.InputStreamReader;
import java.io.PrintStream;
import java.lang.reflect.InvocationTargetException;
import java.lang.reflect.Method;
import java.lang.reflect.Modifier;
import java.nio.ByteBuffer;
import java.nio.charset.StandardCharsets;
import java.util.ArrayList;
import java.util.Collection;
import java.util.HexFormat;
import java.util.List;
import java.util.Map;
import java.util.Random;
import java.util.TreeMap;
import org.apache.kafka.common.Uuid;
import org.apache.kafka.common.compress.Compression;
import org.apache.kafka.common.header.Header;
import org.apache.kafka.common.header.internals.RecordHeader;
import org.apache.kafka.common.message.ApiMessageType;
import org.apache.kafka.common.protocol.ByteBufferAccessor;
import org.apache.kafka.common.protocol.Message;
import org.apache.kafka.common.protocol.MessageUtil;
import org.apache.kafka.common.protocol.types.BoundField;
import org.apache.kafka.common.protocol.types.Field;
import org.apache.kafka.common.protocol.types.Schema;
import org.apache.kafka.common.protocol.types.Struct;
import org.apache.kafka.common.protocol.types.TaggedFields;
import org.apache.kafka.common.protocol.types.Type;
import org.apache.kafka.common.record.TimestampType;
import org.apache.kafka.common.record.internal.MemoryRecords;
import org.apache.kafka.common.record.internal.MemoryRecordsBuilder;
import org.apache.kafka.common.record.internal.MutableRecordBatch;
import org.apache.kafka.common.record.internal.Record;
import org.apache.kafka.common.record.internal.SimpleRecord;

public class Golden {
    private static final HexFormat HEX = HexFormat.of();
    private static final ObjectMapper JSON = new ObjectMapper();

    public static void main(String[] args) throws Exception {
        // Whatever libraries print must not mix with the answers.
        PrintStream out = new PrintStream(new FileOutputStream(FileDescriptor.out), false, StandardCharsets.UTF_8);
        System.setOut(System.err);
        BufferedReader in = new BufferedReader(new InputStreamReader(System.in, StandardCharsets.UTF_8));
        for (String line = in.readLine(); line != null; line = in.readLine()) {
            try {
                List<String> answer = answer(line.split("\t", -1));
                out.println("ok " + answer.size());
                answer.forEach(out::println);
            } catch (Throwable error) {
                Throwable cause = error instanceof InvocationTargetException ? error.getCause() : error;
                out.println("error " + cause.toString().replaceAll("\\s+", " "));
            }
            out.flush();
        }
    }

    private static List<String> answer(String[] q) throws Exception {
        return switch (q[0]) {
            case "encode" -> List.of(encode(q[1], Short.parseShort(q[2]), q[3]));
            case "decode" -> List.of(decode(q[1], Short.parseShort(q[2]), unhex(q[3])));
            case "through" -> through(q[1], Short.parseShort(q[2]), unhex(q[3]));
            case "samples" -> samples(Long.parseLong(q[1]));
            case "batch" -> List.of(batch(q));
            case "read" -> read(ByteBuffer.wrap(unhex(q[1])));
            default -> throw new IllegalArgumentException("unknown question " + q[0]);
        };
    }

    // Messages.

    /** Requests, responses and headers are generated with "Data" at the end of their names, other messages without. */
    private static Class<?> type(String name, String suffix) throws ClassNotFoundException {
        String full = "org.apache.kafka.common.message." + name;
        try {
            return Class.forName(full + "Data" + suffix);
        } catch (ClassNotFoundException notThat) {
            return Class.forName(full + suffix);
        }
    }

    private static String encode(String name, short version, String json) throws Exception {
        Method read = type(name, "JsonConverter").getMethod("read", JsonNode.class, short.class);
        return hex((Message) read.invoke(null, JSON.readTree(json), version), version);
    }

    private static String decode(String name, short version, byte[] bytes) throws Exception {
        ByteBufferAccessor readable = new ByteBufferAccessor(ByteBuffer.wrap(bytes));
        Message message = parse(name, version, readable);
        if (readable.remaining() > 0) {
            throw new IllegalArgumentException(readable.remaining() + " bytes are left over");
        }
        return json(name, message, version);
    }

    /** The content of a message as JSON, and the bytes of the message that is read from that JSON. */
    private static List<String> through(String name, short version, byte[] bytes) throws Exception {
        String json = decode(name, version, bytes);
        return List.of(json, encode(name, version, json));
    }

    private static Message parse(String name, short version, ByteBufferAccessor readable) throws Exception {
        Message message = (Message) type(name, "").getConstructor().newInstance();
        message.read(readable, version);
        return message;
    }

    private static String json(String name, Message message, short version) throws Exception {
        Class<?> type = type(name, "");
        Method write = type(name, "JsonConverter").getMethod("write", type, short.class, boolean.class);
        JsonNode json = (JsonNode) write.invoke(null, message, version, true);
        putRecords(message, json);
        return JSON.writeValueAsString(json);
    }

    /** Kafka's converter reads records but writes them as empty, whatever they hold. */
    private static void putRecords(Object message, JsonNode json) throws Exception {
        for (java.lang.reflect.Field field : message.getClass().getDeclaredFields()) {
            if (Modifier.isStatic(field.getModifiers()) || !json.has(field.getName())) {
                continue;
            }
            field.setAccessible(true);
            Object value = field.get(message);
            JsonNode part = json.get(field.getName());
            if (value instanceof MemoryRecords records) {
                byte[] bytes = new byte[records.sizeInBytes()];
                records.buffer().get(bytes);
                ((ObjectNode) json).put(field.getName(), bytes);
            } else if (value instanceof Message) {
                putRecords(value, part);
            } else if (value instanceof Collection<?> items && part.isArray()) {
                int i = 0;
                for (Object item : items) {
                    if (item instanceof Message) {
                        putRecords(item, part.get(i));
                    }
                    i++;
                }
            }
        }
    }

    private static String hex(Message message, short version) {
        return hex(MessageUtil.toByteBufferAccessor(message, version).buffer());
    }

    /** One message of every type and version with random content: name, key, version, header's version, bytes, JSON. */
    private static List<String> samples(long seed) throws Exception {
        List<String> all = new ArrayList<>();
        for (ApiMessageType api : ApiMessageType.values()) {
            short high = api.highestSupportedVersion(true);
            for (short version = api.lowestSupportedVersion(); version <= high; version++) {
                for (boolean request : new boolean[] {true, false}) {
                    String name = name(request ? api.newRequest() : api.newResponse());
                    short header = request ? api.requestHeaderVersion(version) : api.responseHeaderVersion(version);
                    all.add(sample(name, api.apiKey(), version, header, seed));
                }
            }
        }
        String[] others = {"RequestHeader", "ResponseHeader", "ConsumerProtocolSubscription", "ConsumerProtocolAssignment"};
        for (String name : others) {
            Message message = (Message) type(name, "").getConstructor().newInstance();
            for (short version = message.lowestSupportedVersion(); version <= message.highestSupportedVersion(); version++) {
                all.add(sample(name, -1, version, -1, seed));
            }
        }
        return all;
    }

    private static String name(Message message) {
        String name = message.getClass().getSimpleName();
        return name.substring(0, name.length() - "Data".length());
    }

    private static String sample(String name, int key, short version, int header, long seed) throws Exception {
        Random random = new Random(seed ^ (name.hashCode() * 31L + version));
        Schema schema = ((Schema[]) type(name, "").getField("SCHEMAS").get(null))[version];
        Struct struct = struct(schema, random);
        ByteBuffer buffer = ByteBuffer.allocate(schema.sizeOf(struct));
        schema.write(buffer, struct);
        buffer.flip();
        // Written again from the message, since that leaves out tagged fields that have their defaults.
        Message message = parse(name, version, new ByteBufferAccessor(buffer));
        String hex = hex(message, version);
        String json = json(name, message, version);
        if (!encode(name, version, json).equals(hex)) {
            throw new IllegalStateException(name + " " + version + " is not the same through JSON: " + json);
        }
        return String.join("\t", name, "" + key, "" + version, "" + header, hex, json);
    }

    private static Struct struct(Schema schema, Random random) {
        Struct struct = new Struct(schema);
        for (BoundField field : schema.fields()) {
            struct.set(field, value(field.def.type, random));
        }
        return struct;
    }

    private static Object value(Type type, Random random) {
        if (type.isNullable() && random.nextInt(4) == 0) {
            return null;
        }
        if (type.arrayElementType().isPresent()) {
            Object[] items = new Object[random.nextInt(3)];
            for (int i = 0; i < items.length; i++) {
                items[i] = value(type.arrayElementType().get(), random);
            }
            return items;
        }
        if (type instanceof Schema schema) {
            return struct(schema, random);
        }
        if (type instanceof TaggedFields tagged) {
            Map<Integer, Object> values = new TreeMap<>();
            for (Map.Entry<Integer, Field> field : tagged.fields().entrySet()) {
                if (random.nextBoolean()) {
                    values.put(field.getKey(), value(field.getValue().type, random));
                }
            }
            return values;
        }
        String name = ((Type.DocumentedType) type).typeName();
        if (name.endsWith("STRING")) {
            return "Ōttla✓abcdefgh".substring(0, random.nextInt(15));
        }
        if (name.endsWith("BYTES")) {
            byte[] bytes = new byte[random.nextInt(20)];
            random.nextBytes(bytes);
            return ByteBuffer.wrap(bytes);
        }
        if (name.endsWith("RECORDS")) {
            byte[] bytes = new byte[random.nextInt(20)];
            random.nextBytes(bytes);
            return MemoryRecords.withRecords(Compression.NONE, new SimpleRecord(random.nextInt(1 << 30), bytes));
        }
        return switch (name) {
            case "BOOLEAN" -> random.nextBoolean();
            case "INT8" -> (byte) random.nextInt();
            case "INT16" -> (short) random.nextInt();
            case "UINT16" -> random.nextInt(1 << 16);
            case "INT32" -> random.nextInt();
            case "UINT32" -> random.nextLong(1L << 32);
            case "INT64" -> random.nextLong();
            case "UUID" -> new Uuid(random.nextLong(), random.nextLong());
            case "FLOAT64" -> random.nextDouble();
            default -> throw new IllegalArgumentException("no value of type " + name);
        };
    }

    // Record batches.

    /**
     * batch, magic, codec, first offset, timestamp type, log append time, producer id, epoch, sequence, transactional,
     * leader epoch, records.
     */
    private static String batch(String[] q) {
        ByteBuffer buffer = ByteBuffer.allocate(1024);
        TimestampType timestamps = TimestampType.forName(q[4]);
        MemoryRecordsBuilder builder = MemoryRecords.builder(buffer, Byte.parseByte(q[1]), Compression.of(q[2]).build(),
            timestamps, Long.parseLong(q[3]), Long.parseLong(q[5]), Long.parseLong(q[6]), Short.parseShort(q[7]),
            Integer.parseInt(q[8]), Boolean.parseBoolean(q[9]), false, Integer.parseInt(q[10]));
        for (int i = 11; i < q.length; i++) {
            String[] parts = q[i].split(",", -1);
            Header[] headers = new Header[parts.length - 3];
            for (int h = 0; h < headers.length; h++) {
                String[] header = parts[3 + h].split(":", -1);
                headers[h] = new RecordHeader(new String(unhex(header[0]), StandardCharsets.UTF_8), unhex(header[1]));
            }
            builder.append(Long.parseLong(parts[0]), unhex(parts[1]), unhex(parts[2]), headers);
        }
        return hex(builder.build().buffer());
    }

    /** Everything that Kafka sees in these bytes, which must be whole batches with sound checksums. */
    private static List<String> read(ByteBuffer bytes) {
        List<String> lines = new ArrayList<>();
        MemoryRecords records = MemoryRecords.readableRecords(bytes);
        int read = 0;
        for (MutableRecordBatch batch : records.batches()) {
            batch.ensureValid();
            read += batch.sizeInBytes();
            lines.add(String.join("\t", "batch", "" + batch.magic(), batch.compressionType().name, "" + batch.baseOffset(),
                "" + batch.lastOffset(), batch.timestampType().name, "" + batch.maxTimestamp(), "" + batch.producerId(),
                "" + batch.producerEpoch(), "" + batch.baseSequence(), "" + batch.isTransactional(),
                "" + batch.isControlBatch(), "" + batch.partitionLeaderEpoch(), "" + batch.sizeInBytes()));
            for (Record record : batch) {
                record.ensureValid();
                StringBuilder line = new StringBuilder("record\t" + record.offset() + "\t" + record.timestamp());
                line.append('\t').append(hex(record.key())).append('\t').append(hex(record.value()));
                for (Header header : record.headers()) {
                    byte[] name = header.key().getBytes(StandardCharsets.UTF_8);
                    byte[] value = header.value();
                    line.append('\t').append(HEX.formatHex(name)).append(':').append(value == null ? "-" : HEX.formatHex(value));
                }
                lines.add(line.toString());
            }
        }
        if (read != bytes.limit()) {
            throw new IllegalArgumentException("batches end after " + read + " of " + bytes.limit() + " bytes");
        }
        return lines;
    }

    private static byte[] unhex(String text) {
        return text.equals("-") ? null : HEX.parseHex(text);
    }

    private static String hex(ByteBuffer buffer) {
        if (buffer == null) {
            return "-";
        }
        byte[] bytes = new byte[buffer.remaining()];
        buffer.duplicate().get(bytes);
        return HEX.formatHex(bytes);
    }
}
