package main

import (
	"errors"
	"fmt"
	"math"
	"os"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// clock measures the timed part: real time, and this process's CPU time, user and system.
type clock struct {
	started time.Time
	cpu     time.Duration
}

func startClock() clock { return clock{time.Now(), cpu()} }

// stop ends the timed part, once all results of these records have arrived.
func (c clock) stop(client, version string, records uint64) outcome {
	return outcome{client: client, version: version, records: records, time: time.Since(c.started), cpu: cpu() - c.cpu}
}

// outcome is the result of a run.
type outcome struct {
	client, version string
	records         uint64
	time, cpu       time.Duration
	latencies       []time.Duration
	// tally has the sums over the values that a reader has read.
	tally *tally
}

func (o outcome) line() (string, error) {
	rss, err := rssPeakMB()
	if err != nil {
		return "", err
	}
	records := float64(o.records)
	line := fmt.Sprintf(
		`{"client":"%s","version":"%s","records":%d,"seconds":%.6f,"records_per_s":%.1f,"cpu_us_per_record":%.5f,"rss_peak_mb":%.1f`,
		o.client, o.version, o.records, o.time.Seconds(), records/o.time.Seconds(), o.cpu.Seconds()*1e6/records, rss)
	if len(o.latencies) > 0 {
		slices.Sort(o.latencies)
		for _, at := range []struct {
			name  string
			share float64
		}{{"p50_us", 0.5}, {"p99_us", 0.99}, {"p999_us", 0.999}} {
			place := int(math.Round(float64(len(o.latencies)-1) * at.share))
			line += fmt.Sprintf(`,"%s":%.1f`, at.name, o.latencies[place].Seconds()*1e6)
		}
	}
	if o.tally != nil {
		line += fmt.Sprintf(`,"bytes":%d,"firsts":%d`, o.tally.bytes, o.tally.firsts)
	}
	return line + "}", nil
}

func cpu() time.Duration {
	var usage syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &usage); err != nil {
		// It fails only for a wrong argument.
		panic(err)
	}
	return time.Duration(usage.Utime.Nano() + usage.Stime.Nano())
}

// rssPeakMB returns the peak of the resident memory.
func rssPeakMB() (float64, error) {
	status, err := os.ReadFile("/proc/self/status")
	if err != nil {
		return 0, err
	}
	for line := range strings.Lines(string(status)) {
		if rest, found := strings.CutPrefix(line, "VmHWM:"); found {
			kib, err := strconv.ParseFloat(strings.TrimSpace(strings.TrimSuffix(strings.TrimSpace(rest), "kB")), 64)
			return kib / 1024, err
		}
	}
	return 0, errors.New("no VmHWM in /proc/self/status")
}
