package test.example.shop.orders;

import java.net.HttpURLConnection;
import java.net.URI;

/** Asks the running service for its health; the exit code is the answer. */
public final class Check {
    public static void main(String[] arguments) throws Exception {
        var connection = (HttpURLConnection) URI.create("http://127.0.0.1:8090/health").toURL().openConnection();
        connection.setConnectTimeout(2000);
        connection.setReadTimeout(2000);
        System.exit(connection.getResponseCode() == 200 ? 0 : 1);
    }
}
