import com.fasterxml.jackson.databind.JsonNode;
import com.fasterxml.jackson.databind.ObjectMapper;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.Arrays;
import java.util.List;
import java.util.Locale;
import software.amazon.event.ruler.Machine;

/** Times event-ruler on files of rules and events; prints one JSON object (see load/README.md). */
public final class Peer {
    /** The compiler of the virtual machine has done its work by then. */
    private static final long WARM_NANOS = 3_000_000_000L;

    public static void main(String[] arguments) throws Exception {
        List<String> rules = Files.readAllLines(Path.of(arguments[0]));
        List<String> events = Files.readAllLines(Path.of(arguments[1]));
        int repeat = Integer.parseInt(arguments[2]);
        ObjectMapper mapper = new ObjectMapper();
        String[] patterns = new String[rules.size()];
        for (int n = 0; n < patterns.length; n++) {
            JsonNode rule = mapper.readTree(rules.get(n));
            patterns[n] = rule.get("pattern").toString();
        }
        long begin = System.nanoTime();
        Machine machine = new Machine();
        for (int n = 0; n < patterns.length; n++) {
            machine.addRule("r" + n, patterns[n]);
        }
        double build = (System.nanoTime() - begin) / 1e9;
        long matches = pass(machine, events);
        for (long warm = System.nanoTime(); System.nanoTime() - warm < WARM_NANOS; ) {
            pass(machine, events);
        }
        double[] nanos = new double[repeat];
        for (int n = 0; n < repeat; n++) {
            long from = System.nanoTime();
            pass(machine, events);
            nanos[n] = (System.nanoTime() - from) / (double) events.size();
        }
        Arrays.sort(nanos);
        System.out.printf(
                Locale.ROOT,
                "{\"build_seconds\":%.6f,\"matches\":%d,\"ns_per_event\":[%.1f,%.1f,%.1f],\"peak_rss_bytes\":%d}%n",
                build, matches, nanos[0], nanos[repeat / 2], nanos[repeat - 1], peak());
    }

    private static long pass(Machine machine, List<String> events) throws Exception {
        long matches = 0;
        for (String event : events) {
            matches += machine.rulesForJSONEvent(event).size();
        }
        return matches;
    }

    private static long peak() throws Exception {
        for (String line : Files.readAllLines(Path.of("/proc/self/status"))) {
            if (line.startsWith("VmHWM:")) {
                return Long.parseLong(line.replaceAll("[^0-9]", "")) * 1024;
            }
        }
        return 0;
    }
}
