// A receiver that costs little: it answers 204 and counts, by the first part of the path.
//
//	go run main.go [-certificate FILE -key FILE]
//
// Prints its port. GET /counts says how many requests came for each part; GET /ages, how long after it was appended to its log
// an event came, in milliseconds, of all since it was asked last.
package main

import (
	"bytes"
	"encoding/json"
	"flag"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"slices"
	"strings"
	"sync"
	"time"
)

type counter struct {
	lock   sync.Mutex
	counts map[string]int
	ages   []float64
}

var member = []byte(`"timestamp":"`)

// age tells how old the event of a body is, in milliseconds. The envelope's own time comes first in it.
func age(body []byte, now time.Time) (float64, bool) {
	_, rest, found := bytes.Cut(body, member)
	end := bytes.IndexByte(rest, '"')
	if !found || end < 0 {
		return 0, false
	}
	appended, err := time.Parse(time.RFC3339Nano, string(rest[:end]))
	return float64(now.Sub(appended).Microseconds()) / 1000, err == nil
}

func (c *counter) take(answer http.ResponseWriter, request *http.Request) {
	now := time.Now()
	body, err := io.ReadAll(request.Body)
	if err != nil {
		return
	}
	part, _, _ := strings.Cut(strings.TrimPrefix(request.URL.Path, "/"), "/")
	old, known := age(body, now)
	c.lock.Lock()
	c.counts[part]++
	if known {
		c.ages = append(c.ages, old)
	}
	c.lock.Unlock()
	answer.WriteHeader(http.StatusNoContent)
}

func (c *counter) told(answer http.ResponseWriter, request *http.Request) {
	c.lock.Lock()
	defer c.lock.Unlock()
	if request.URL.Path == "/counts" {
		json.NewEncoder(answer).Encode(c.counts)
		return
	}
	slices.Sort(c.ages)
	at := func(share float64) float64 {
		if len(c.ages) == 0 {
			return 0
		}
		return c.ages[int(share*float64(len(c.ages)-1))]
	}
	json.NewEncoder(answer).Encode(map[string]float64{
		"count": float64(len(c.ages)), "p50": at(0.5), "p99": at(0.99), "max": at(1),
	})
	c.ages = nil
}

func (c *counter) ServeHTTP(answer http.ResponseWriter, request *http.Request) {
	if request.Method == http.MethodPost {
		c.take(answer, request)
	} else {
		c.told(answer, request)
	}
}

func main() {
	certificate := flag.String("certificate", "", "what is shown, for TLS")
	key := flag.String("key", "", "its key")
	flag.Parse()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println(listener.Addr().(*net.TCPAddr).Port)
	server := &http.Server{Handler: &counter{counts: map[string]int{}}}
	if *certificate == "" {
		log.Fatal(server.Serve(listener))
	}
	log.Fatal(server.ServeTLS(listener, *certificate, *key))
}
