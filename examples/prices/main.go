// Prices serves the shop's prices as JSON: /health, /prices and /prices/{id}.
package main

import (
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"log"
	"net"
	"net/http"
	"os"
	"os/signal"
	"strconv"
	"syscall"
	"time"

	"github.com/google/uuid"
	"github.com/gorilla/mux"

	"example.test/shop/prices/internal/table"
)

var version = "dev"

func main() {
	listen := flag.String("listen", ":8080", "address to listen on")
	file := flag.String("file", "prices.csv", "the table of prices")
	check := flag.Bool("check", false, "ask a running service for its health and exit")
	flag.Parse()
	if *check {
		os.Exit(health(*listen))
	}
	prices, err := table.Load(*file)
	if err != nil {
		log.Fatal(err)
	}
	server := &http.Server{Addr: *listen, Handler: routes(prices), ReadHeaderTimeout: 5 * time.Second}
	go func() {
		stop := make(chan os.Signal, 1)
		signal.Notify(stop, syscall.SIGTERM, syscall.SIGINT)
		<-stop
		server.Close()
	}()
	log.Printf("prices %s: %d prices, listening on %s", version, len(prices), *listen)
	if err := server.ListenAndServe(); !errors.Is(err, http.ErrServerClosed) {
		log.Fatal(err)
	}
}

func routes(prices table.Table) http.Handler {
	router := mux.NewRouter()
	router.HandleFunc("/health", func(w http.ResponseWriter, _ *http.Request) {
		answer(w, http.StatusOK, map[string]any{"status": "ok", "version": version, "uid": os.Getuid()})
	})
	router.HandleFunc("/prices", func(w http.ResponseWriter, _ *http.Request) { answer(w, http.StatusOK, prices) })
	router.HandleFunc("/prices/{id:[0-9]+}", func(w http.ResponseWriter, request *http.Request) {
		id, _ := strconv.Atoi(mux.Vars(request)["id"])
		price, found := prices[id]
		if !found {
			answer(w, http.StatusNotFound, map[string]any{"error": "no price"})
			return
		}
		answer(w, http.StatusOK, price)
	})
	return router
}

func answer(w http.ResponseWriter, status int, value any) {
	w.Header().Set("Content-Type", "application/json")
	w.Header().Set("X-Request-Id", uuid.NewString())
	w.WriteHeader(status)
	_ = json.NewEncoder(w).Encode(value)
}

func health(listen string) int {
	_, port, err := net.SplitHostPort(listen)
	if err != nil {
		return 1
	}
	response, err := http.Get(fmt.Sprintf("http://127.0.0.1:%s/health", port))
	if err != nil || response.StatusCode != http.StatusOK {
		return 1
	}
	return 0
}
