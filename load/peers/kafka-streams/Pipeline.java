import com.fasterxml.jackson.databind.JsonNode;
import com.fasterxml.jackson.databind.ObjectMapper;
import java.nio.charset.StandardCharsets;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.List;
import java.util.Properties;
import java.util.concurrent.atomic.AtomicLong;
import org.apache.kafka.clients.consumer.ConsumerConfig;
import org.apache.kafka.clients.producer.ProducerConfig;
import org.apache.kafka.common.serialization.Serdes;
import org.apache.kafka.streams.KafkaStreams;
import org.apache.kafka.streams.StreamsBuilder;
import org.apache.kafka.streams.StreamsConfig;
import org.apache.kafka.streams.kstream.Consumed;
import org.apache.kafka.streams.kstream.Produced;
import org.apache.kafka.streams.processor.api.ContextualProcessor;
import org.apache.kafka.streams.processor.api.Record;
import software.amazon.event.ruler.Machine;

/** Kafka Streams with event-ruler from one topic to another, at least once (see load/README.md). */
public final class Pipeline {
    public static void main(String[] arguments) throws Exception {
        String brokers = arguments[0];
        String from = arguments[1];
        String to = arguments[2];
        String group = arguments[3];
        Machine machine = machine(Path.of(arguments[4]));
        long events = Long.parseLong(arguments[5]);
        AtomicLong consumed = new AtomicLong();
        StreamsBuilder builder = new StreamsBuilder();
        builder.stream(from, Consumed.with(Serdes.ByteArray(), Serdes.ByteArray()))
                .process(() -> new Match(machine, consumed, events))
                .to(to, Produced.with(Serdes.ByteArray(), Serdes.ByteArray()));
        KafkaStreams streams = new KafkaStreams(builder.build(), settings(brokers, group));
        streams.setStateListener((now, before) -> {
            if (now == KafkaStreams.State.ERROR) {
                // Whoever waits for the group's offsets must not wait in vain.
                Runtime.getRuntime().halt(1);
            }
        });
        streams.start();
    }

    private static Machine machine(Path rules) throws Exception {
        ObjectMapper mapper = new ObjectMapper();
        Machine machine = Machine.builder().build();
        for (String line : Files.readAllLines(rules)) {
            JsonNode rule = mapper.readTree(line);
            machine.addRule(rule.get("name").asText(), rule.get("pattern").toString());
        }
        return machine;
    }

    private static Properties settings(String brokers, String group) {
        Properties settings = new Properties();
        settings.put(StreamsConfig.BOOTSTRAP_SERVERS_CONFIG, brokers);
        settings.put(StreamsConfig.APPLICATION_ID_CONFIG, group);
        settings.put(StreamsConfig.PROCESSING_GUARANTEE_CONFIG, StreamsConfig.AT_LEAST_ONCE);
        settings.put(StreamsConfig.NUM_STREAM_THREADS_CONFIG, Runtime.getRuntime().availableProcessors());
        // The default of 30 s would have the end of a run wait for its commit.
        settings.put(StreamsConfig.COMMIT_INTERVAL_MS_CONFIG, 200);
        settings.put(StreamsConfig.STATE_DIR_CONFIG, "state");
        settings.put(ConsumerConfig.AUTO_OFFSET_RESET_CONFIG, "earliest");
        // As the loop and Sluice do.
        settings.put(ProducerConfig.COMPRESSION_TYPE_CONFIG, "lz4");
        settings.put(ProducerConfig.LINGER_MS_CONFIG, 5);
        return settings;
    }

    /** Sends an event on once for each rule that matches. */
    private static final class Match extends ContextualProcessor<byte[], byte[], byte[], byte[]> {
        private final Machine machine;
        private final AtomicLong consumed;
        private final long events;

        Match(Machine machine, AtomicLong consumed, long events) {
            this.machine = machine;
            this.consumed = consumed;
            this.events = events;
        }

        @Override
        public void process(Record<byte[], byte[]> event) {
            List<String> rules;
            try {
                rules = machine.rulesForJSONEvent(new String(event.value(), StandardCharsets.UTF_8));
            } catch (Exception broken) {
                throw new IllegalArgumentException("not an event", broken);
            }
            for (int n = 0; n < rules.size(); n++) {
                context().forward(event);
            }
            if (consumed.incrementAndGet() == events) {
                System.err.println("consumed " + events + " events");
            }
        }
    }
}
