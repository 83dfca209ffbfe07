package io.ferrite.client;

import java.io.IOException;
import java.io.InputStream;
import java.nio.ByteBuffer;
import java.nio.file.Files;
import java.nio.file.Path;
import java.nio.file.StandardCopyOption;

/** The native library; see bindings/java/native/src/lib.rs. */
final class Native {
    static {
        load();
    }

    private Native() {}

    /** From the path in the property {@code ferrite.client.library}, else out of the jar. */
    private static void load() {
        String given = System.getProperty("ferrite.client.library");
        if (given != null) {
            System.load(Path.of(given).toAbsolutePath().toString());
            return;
        }
        String name = System.mapLibraryName("ferrite_client_java");
        String within = "/native/" + platform() + "/" + name;
        try (InputStream library = Native.class.getResourceAsStream(within)) {
            if (library == null) {
                throw new UnsatisfiedLinkError(
                        "this jar holds no library for " + platform() + ": build one and set -Dferrite.client.library=<path>");
            }
            Path copy = Files.createTempFile("ferrite-client-", name);
            copy.toFile().deleteOnExit();
            Files.copy(library, copy, StandardCopyOption.REPLACE_EXISTING);
            System.load(copy.toString());
        } catch (IOException error) {
            throw new UnsatisfiedLinkError("the library cannot be copied out of the jar: " + error);
        }
    }

    private static String platform() {
        String os = System.getProperty("os.name").toLowerCase().startsWith("linux") ? "linux" : System.getProperty("os.name");
        String arch = System.getProperty("os.arch").equals("amd64") ? "x86_64" : System.getProperty("os.arch");
        return os + "-" + arch;
    }

    static native byte[] submit(long handle, byte operation, long id, ByteBuffer arguments, int length, boolean cancellable);

    static native void submitAll(ByteBuffer operations, int length);

    static native byte[] call(long handle, byte operation, ByteBuffer arguments, int length);

    static native byte[] poll();

    static native void cancel(long id);

    static native void free(long handle);

    static native long handles();
}
