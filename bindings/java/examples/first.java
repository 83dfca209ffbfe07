import io.ferrite.client.Options;
import io.ferrite.client.RawClient;
import io.ferrite.client.Scan;
import io.ferrite.client.ScanOptions;
import java.time.Duration;

/** The first program: {@code java -cp ferrite-client.jar first.java [ENDPOINTS]}. */
public final class first {
    public static void main(String[] args) throws Exception {
        String endpoints = args.length > 0 ? args[0] : "127.0.0.1:2379";
        try (RawClient client = RawClient.connect(endpoints, Options.none().deadline(Duration.ofSeconds(10)))) {
            client.put("greeting".getBytes(), "hello".getBytes());
            System.out.println(new String(client.get("greeting".getBytes())));
            try (Scan scan = client.scan(ScanOptions.range("a".getBytes(), "z".getBytes()))) {
                while (scan.hasNext()) {
                    System.out.println(new String(scan.next().key()));
                }
            }
        }
    }
}
