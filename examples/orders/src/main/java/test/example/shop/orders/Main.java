package test.example.shop.orders;

import com.google.gson.Gson;
import com.google.gson.JsonSyntaxException;
import com.sun.net.httpserver.HttpExchange;
import com.sun.net.httpserver.HttpServer;
import java.io.IOException;
import java.io.InputStreamReader;
import java.net.InetSocketAddress;
import java.nio.charset.StandardCharsets;
import java.util.List;
import java.util.Map;
import java.util.concurrent.CopyOnWriteArrayList;
import java.util.concurrent.Executors;

/** Takes orders as JSON: POST /orders, GET /orders, GET /health. */
public final class Main {
    record Order(int item, int count) {}

    private static final Gson GSON = new Gson();
    private static final List<Order> ORDERS = new CopyOnWriteArrayList<>();

    public static void main(String[] arguments) throws IOException {
        HttpServer server = HttpServer.create(new InetSocketAddress(8090), 0);
        server.setExecutor(Executors.newFixedThreadPool(4));
        server.createContext("/health", exchange -> answer(exchange, 200, Map.of("status", "ok", "user", System.getProperty("user.name"))));
        server.createContext("/orders", Main::orders);
        server.start();
        Runtime.getRuntime().addShutdownHook(new Thread(() -> server.stop(0)));
        System.out.println("orders: listening on 8090");
    }

    private static void orders(HttpExchange exchange) throws IOException {
        switch (exchange.getRequestMethod()) {
            case "GET" -> answer(exchange, 200, ORDERS);
            case "POST" -> {
                try (var reader = new InputStreamReader(exchange.getRequestBody(), StandardCharsets.UTF_8)) {
                    Order order = GSON.fromJson(reader, Order.class);
                    if (order == null || order.count() < 1) {
                        answer(exchange, 400, Map.of("error", "an order has an item and a count"));
                        return;
                    }
                    ORDERS.add(order);
                    answer(exchange, 201, order);
                } catch (JsonSyntaxException wrong) {
                    answer(exchange, 400, Map.of("error", "not JSON"));
                }
            }
            default -> answer(exchange, 405, Map.of("error", "GET or POST"));
        }
    }

    private static void answer(HttpExchange exchange, int status, Object value) throws IOException {
        byte[] body = GSON.toJson(value).getBytes(StandardCharsets.UTF_8);
        exchange.getResponseHeaders().set("Content-Type", "application/json");
        exchange.sendResponseHeaders(status, body.length);
        try (var out = exchange.getResponseBody()) {
            out.write(body);
        }
    }
}
