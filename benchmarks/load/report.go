package main

import (
	"fmt"
	"os"
	"slices"
	"strconv"
	"strings"
)

const maxProblems = 10

// Report is what the program prints.
type Report struct {
	OK              bool             `json:"ok"`
	Watchers        int              `json:"watchers"`
	WebSockets      int              `json:"websockets"`
	UploadCount     int              `json:"uploads"`
	UploadsAccepted int              `json:"uploads_accepted"`
	WatchersOpened  int              `json:"watchers_opened"`
	EndsSeen        int              `json:"ends_seen"`
	Snapshots       int              `json:"snapshots"`
	Connections     int              `json:"connections"`
	Refused         map[string]int   `json:"refused"`
	SecondsToOpen   float64          `json:"seconds_to_open"`
	Seconds         float64          `json:"seconds"`
	EndLatency      *Latency         `json:"end_latency_ms"`
	Resident        map[string][]int `json:"resident_bytes,omitempty"`
	Phases          []string         `json:"resident_bytes_at,omitempty"`
	ProblemCount    int              `json:"problem_count"`
	Problems        []string         `json:"problems"`
}

// Latency is the time from the last byte of an upload until its watchers have its end.
type Latency struct {
	Median float64 `json:"p50"`
	P99    float64 `json:"p99"`
	Max    float64 `json:"max"`
}

func (r *Report) summarize(uploads []*Upload, watchers []*Watcher) {
	r.Refused, r.Problems = map[string]int{}, []string{}
	for _, upload := range uploads {
		if upload.isAccepted() {
			r.UploadsAccepted++
		} else {
			r.add(fmt.Sprintf("the upload %s was not accepted: %d %v", upload.ID, upload.status, upload.err))
		}
	}
	var latencies []float64
	for _, watcher := range watchers {
		r.Snapshots += watcher.snapshots
		r.Connections += watcher.connects
		if watcher.snapshots > 0 {
			r.WatchersOpened++
		}
		for status, count := range watcher.refused {
			r.Refused[strconv.Itoa(status)] += count
		}
		for _, problem := range watcher.problems {
			r.add(problem)
		}
		if watcher.endedAt.IsZero() {
			r.add(fmt.Sprintf("a watcher of %s has not seen its end", watcher.upload.ID))
			continue
		}
		r.EndsSeen++
		nanoseconds := watcher.endedAt.UnixNano() - watcher.upload.lastAt.Load()
		latencies = append(latencies, float64(nanoseconds)/1e6)
	}
	r.EndLatency = latencyOf(latencies)
	r.OK = r.ProblemCount == 0
}

func (r *Report) add(problem string) {
	r.ProblemCount++
	if len(r.Problems) < maxProblems {
		r.Problems = append(r.Problems, problem)
	}
}

func latencyOf(values []float64) *Latency {
	if len(values) == 0 {
		return nil
	}
	slices.Sort(values)
	at := func(share float64) float64 { return values[int(share*float64(len(values)-1))] }
	return &Latency{at(0.5), at(0.99), at(1)}
}

// measure adds the resident memory of the processes at this moment.
func (r *Report) measure(phase string, processes []int) {
	if len(processes) == 0 {
		return
	}
	if r.Resident == nil {
		r.Resident = map[string][]int{}
	}
	r.Phases = append(r.Phases, phase)
	for _, process := range processes {
		key := strconv.Itoa(process)
		r.Resident[key] = append(r.Resident[key], residentBytes(process))
	}
}

// residentBytes returns the resident memory of a process, 0 if it is not known.
func residentBytes(process int) int {
	status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", process))
	if err != nil {
		return 0
	}
	_, rest, _ := strings.Cut(string(status), "VmRSS:")
	var kilobytes int
	if _, err := fmt.Sscan(rest, &kilobytes); err != nil {
		return 0
	}
	return 1024 * kilobytes
}
