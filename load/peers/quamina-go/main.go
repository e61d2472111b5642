// Times quamina on files of rules and events; prints one JSON object (see load/README.md).
package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"log"
	"os"
	"sort"
	"strconv"
	"strings"
	"time"

	"quamina.net/go/quamina/v2"
)

func lines(path string) [][]byte {
	text, err := os.ReadFile(path)
	if err != nil {
		log.Fatal(err)
	}
	return bytes.Split(bytes.TrimSpace(text), []byte("\n"))
}

func pass(q *quamina.Quamina, events [][]byte) (matches int) {
	for _, event := range events {
		found, err := q.MatchesForEvent(event)
		if err != nil {
			log.Fatal(err)
		}
		matches += len(found)
	}
	return matches
}

func peak() (kilobytes int) {
	status, _ := os.ReadFile("/proc/self/status")
	for _, line := range strings.Split(string(status), "\n") {
		if strings.HasPrefix(line, "VmHWM:") {
			fmt.Sscanf(strings.TrimPrefix(line, "VmHWM:"), "%d", &kilobytes)
		}
	}
	return kilobytes
}

func main() {
	rules, events := lines(os.Args[1]), lines(os.Args[2])
	repeat, err := strconv.Atoi(os.Args[3])
	if err != nil {
		log.Fatal(err)
	}
	begin := time.Now()
	q, err := quamina.New()
	if err != nil {
		log.Fatal(err)
	}
	for number, line := range rules {
		var rule struct{ Pattern json.RawMessage }
		if err := json.Unmarshal(line, &rule); err != nil {
			log.Fatal(err)
		}
		if err := q.AddPattern(number, string(rule.Pattern)); err != nil {
			log.Fatal(err)
		}
	}
	build := time.Since(begin).Seconds()
	matches := pass(q, events)
	nanos := make([]float64, repeat)
	for n := range nanos {
		from := time.Now()
		pass(q, events)
		nanos[n] = float64(time.Since(from).Nanoseconds()) / float64(len(events))
	}
	sort.Float64s(nanos)
	fmt.Printf(`{"build_seconds":%.6f,"matches":%d,"ns_per_event":[%.1f,%.1f,%.1f],"peak_rss_bytes":%d}`+"\n",
		build, matches, nanos[0], nanos[repeat/2], nanos[repeat-1], peak()*1024)
}
