// Load opens many watchers of uploads, sends paced uploads, and checks what each watcher has seen
// against what was sent: no snapshot goes back, and each watcher sees the end of its upload.
//
// It prints one JSON object, and exits with 1 if a check has failed. It connects to 127.0.0.1 only,
// and all numbers and times are bounded.
//
//	go run . -server http://127.0.0.1:8000 -user alice:alice -watchers 200 -uploads 20
package main

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"math/rand/v2"
	"os"
	"strings"
	"sync"
	"time"
)

const (
	maxWatchers = 100_000
	maxUploads  = 10_000
	maxTimeout  = 10 * time.Minute
)

// User is a name and a password for HTTP Basic authentication.
type User struct{ Name, Password string }

type users []User

func (u *users) String() string { return fmt.Sprint(len(*u), " users") }

func (u *users) Set(text string) error {
	name, password, found := strings.Cut(text, ":")
	if !found || name == "" {
		return errors.New("must be NAME:PASSWORD")
	}
	*u = append(*u, User{name, password})
	return nil
}

// Options are the arguments of the program.
type Options struct {
	Server, Watch, Mount, Files string
	Users                       users
	Watchers, WebSockets        int
	Edge                        bool
	Uploads                     int
	SizeBytes, BytesPerSecond   int64
	OpensPerSecond              int
	Sources                     int
	Timeout                     time.Duration
	Processes                   []int
}

func parseOptions(arguments []string) (*Options, error) {
	var processes string
	o := &Options{}
	flags := flag.NewFlagSet("load", flag.ContinueOnError)
	flags.StringVar(&o.Server, "server", "http://127.0.0.1:8000", "the application, which receives the uploads")
	flags.StringVar(&o.Watch, "watch", "", "where watchers connect, such as a proxy; by default the server")
	flags.StringVar(&o.Mount, "mount", "/uploads", "the path of the progress API")
	flags.StringVar(&o.Files, "files", "/files/", "the path that receives uploads; a name is added")
	flags.Var(&o.Users, "user", "NAME:PASSWORD; may be repeated: uploads are distributed over the users")
	flags.IntVar(&o.Watchers, "watchers", 100, "how many watchers")
	flags.IntVar(&o.WebSockets, "websockets", 0, "how many of the watchers use WebSockets; the others use SSE")
	flags.BoolVar(&o.Edge, "edge", false, "watchers get a token with a ticket, and connect to Centrifugo")
	flags.IntVar(&o.Uploads, "uploads", 10, "how many uploads; watchers are distributed over them")
	flags.Int64Var(&o.SizeBytes, "size", 1_000_000, "bytes of an upload")
	flags.Int64Var(&o.BytesPerSecond, "rate", 200_000, "bytes per second of an upload")
	flags.IntVar(&o.OpensPerSecond, "opens", 1000, "how many watchers are opened per second")
	flags.IntVar(&o.Sources, "sources", 1, "how many source addresses are used: 127.0.0.1, 127.0.0.2, ...")
	flags.DurationVar(&o.Timeout, "timeout", 2*time.Minute, "when the program ends at the latest")
	flags.StringVar(&processes, "pids", "", "processes whose resident memory is reported, separated by commas")
	if err := flags.Parse(arguments); err != nil {
		return nil, err
	}
	if o.Watch == "" {
		o.Watch = o.Server
	}
	for _, text := range strings.FieldsFunc(processes, func(r rune) bool { return r == ',' }) {
		var process int
		if _, err := fmt.Sscanf(text, "%d", &process); err != nil {
			return nil, fmt.Errorf("-pids: %q is not a number", text)
		}
		o.Processes = append(o.Processes, process)
	}
	return o, o.check()
}

func (o *Options) check() error {
	for _, address := range []string{o.Server, o.Watch} {
		if err := checkAddress(address); err != nil {
			return err
		}
	}
	switch {
	case len(o.Users) == 0:
		return errors.New("-user: at least one is needed")
	case o.Watchers < 1 || o.Watchers > maxWatchers:
		return fmt.Errorf("-watchers: must be 1 to %d", maxWatchers)
	case o.WebSockets < 0 || o.WebSockets > o.Watchers:
		return errors.New("-websockets: must be 0 to the number of watchers")
	case o.Edge && o.WebSockets > 0:
		return errors.New("-edge: there is no WebSocket then")
	case o.Uploads < 1 || o.Uploads > maxUploads:
		return fmt.Errorf("-uploads: must be 1 to %d", maxUploads)
	case o.SizeBytes < 1 || o.BytesPerSecond < 1 || o.OpensPerSecond < 1:
		return errors.New("-size, -rate and -opens: must be at least 1")
	case o.Sources < 1 || o.Sources > 250:
		return errors.New("-sources: must be 1 to 250")
	case o.Timeout <= 0 || o.Timeout > maxTimeout:
		return fmt.Errorf("-timeout: must be at most %s", maxTimeout)
	}
	return nil
}

func main() {
	options, err := parseOptions(os.Args[1:])
	if err != nil {
		if !errors.Is(err, flag.ErrHelp) {
			fmt.Fprintln(os.Stderr, err)
		}
		os.Exit(2)
	}
	report, err := run(options)
	encoder := json.NewEncoder(os.Stdout)
	encoder.SetIndent("", "  ")
	if encodeErr := encoder.Encode(report); encodeErr != nil || err != nil || !report.OK {
		if err != nil {
			fmt.Fprintln(os.Stderr, err)
		}
		os.Exit(1)
	}
}

// run announces the uploads, opens the watchers, sends the uploads, and waits for the watchers.
func run(o *Options) (*Report, error) {
	ctx, cancel := context.WithTimeout(context.Background(), o.Timeout)
	defer cancel()
	started := time.Now()
	report := &Report{Watchers: o.Watchers, WebSockets: o.WebSockets, UploadCount: o.Uploads}
	report.measure("before", o.Processes)
	client := newClient()

	uploads := make([]*Upload, o.Uploads)
	run := rand.Uint64()
	for i := range uploads {
		uploads[i] = &Upload{
			Owner: o.Users[i%len(o.Users)],
			Name:  fmt.Sprintf("load-%016x-%d", run, i),
			Size:  o.SizeBytes,
		}
		if err := uploads[i].announce(ctx, client, o); err != nil {
			return report, err
		}
	}

	watchers := make([]*Watcher, o.Watchers)
	var open, closed sync.WaitGroup
	pace := time.NewTicker(time.Second / time.Duration(o.OpensPerSecond))
	defer pace.Stop()
	for i := range watchers {
		select {
		case <-pace.C:
		case <-ctx.Done():
			return report, errors.New("the timeout has passed before all watchers were opened")
		}
		watchers[i] = newWatcher(o, uploads[i%len(uploads)], i)
		open.Add(1)
		closed.Add(1)
		go func() {
			defer closed.Done()
			watchers[i].watch(ctx, sync.OnceFunc(open.Done))
		}()
	}
	open.Wait()
	report.SecondsToOpen = time.Since(started).Seconds()
	report.measure("held", o.Processes)

	var sent sync.WaitGroup
	for _, upload := range uploads {
		sent.Add(1)
		go func() {
			defer sent.Done()
			upload.send(ctx, client, o)
		}()
	}
	sent.Wait()
	report.measure("sent", o.Processes)
	closed.Wait()
	report.measure("after", o.Processes)
	report.Seconds = time.Since(started).Seconds()
	report.summarize(uploads, watchers)
	return report, nil
}
