package main

import (
	"bufio"
	"context"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"

	"github.com/coder/websocket"
)

const (
	maxSnapshotBytes = 1 << 20
	firstRetry       = 500 * time.Millisecond
	maxRetry         = 10 * time.Second
)

// Snapshot has the fields of a snapshot that are checked.
type Snapshot struct {
	UploadID string `json:"upload_id"`
	Attempt  int    `json:"attempt"`
	Sequence int    `json:"sequence"`
	State    string `json:"state"`
	Bytes    int64  `json:"bytes_transferred"`
}

func (s *Snapshot) isFinal() bool {
	return s.State == "completed" || s.State == "failed" || s.State == "cancelled"
}

// Watcher follows one upload until its end, and checks each snapshot.
type Watcher struct {
	options   *Options
	upload    *Upload
	socket    bool
	source    int
	retry     time.Duration
	eventID   string
	last      *Snapshot
	endedAt   time.Time
	snapshots int
	connects  int
	refused   map[int]int
	problems  []string
}

func newWatcher(o *Options, upload *Upload, number int) *Watcher {
	// WebSockets are spread evenly over the uploads.
	socket := (number+1)*o.WebSockets/o.Watchers > number*o.WebSockets/o.Watchers
	return &Watcher{
		options: o,
		upload:  upload,
		socket:  socket,
		source:  number % o.Sources,
		retry:   firstRetry + time.Duration(rand.Int64N(int64(firstRetry))),
		refused: map[int]int{},
	}
}

// watch connects, and connects again when the connection ends, until the end of the upload.
func (w *Watcher) watch(ctx context.Context, opened func()) {
	defer opened() // also if it never opens
	for {
		follow := w.followStream
		if w.socket {
			follow = w.followSocket
		} else if w.options.Edge {
			follow = w.followEdge
		}
		w.connects++
		// A connection may break at any time: the next one shows the newest snapshot.
		status, _ := follow(ctx, opened)
		if status >= 400 {
			w.refused[status]++
		}
		isRefused := status >= 400 && status < 500 && status != http.StatusTooManyRequests
		isOver := !w.endedAt.IsZero() || status == http.StatusNoContent
		if isRefused || isOver || ctx.Err() != nil {
			return
		}
		if status == 0 || status >= 500 {
			w.retry = min(2*w.retry, maxRetry)
		}
		select {
		case <-time.After(w.retry):
		case <-ctx.Done():
			return
		}
	}
}

func (w *Watcher) path() string {
	return w.options.Mount + "/" + w.upload.ID + "/progress"
}

// followStream follows an event stream. It keeps one goroutine and small buffers.
func (w *Watcher) followStream(ctx context.Context, opened func()) (int, error) {
	address, err := url.Parse(w.options.Watch)
	if err != nil {
		return 0, err
	}
	connection, err := dial(ctx, address.Host, w.source)
	if err != nil {
		return 0, err
	}
	defer connection.Close()
	defer context.AfterFunc(ctx, func() { connection.Close() })()
	if _, err := io.WriteString(connection, w.request(address.Host)); err != nil {
		return 0, err
	}
	reader := bufio.NewReaderSize(connection, 2048)
	response, err := http.ReadResponse(reader, nil)
	if err != nil {
		return 0, err
	}
	defer response.Body.Close()
	if response.StatusCode != http.StatusOK {
		w.wait(response)
		return response.StatusCode, nil
	}
	return response.StatusCode, w.readEvents(response.Body, opened)
}

func (w *Watcher) request(host string) string {
	credentials := w.credentials()
	resume := ""
	if w.eventID != "" {
		resume = "Last-Event-ID: " + w.eventID + "\r\n"
	}
	return fmt.Sprintf("GET %s HTTP/1.1\r\nHost: %s\r\nAuthorization: Basic %s\r\n"+
		"Accept: text/event-stream\r\n%s\r\n", w.path(), host, credentials, resume)
}

func (w *Watcher) credentials() string {
	return base64.StdEncoding.EncodeToString([]byte(w.upload.Owner.Name + ":" + w.upload.Owner.Password))
}

func (w *Watcher) wait(response *http.Response) {
	if seconds, err := strconv.Atoi(response.Header.Get("Retry-After")); err == nil {
		w.retry = time.Duration(seconds) * time.Second
	}
}

func (w *Watcher) readEvents(body io.Reader, opened func()) error {
	lines := bufio.NewReaderSize(body, 2048)
	for w.endedAt.IsZero() {
		line, err := lines.ReadString('\n')
		if err != nil {
			return err
		}
		field, value, _ := strings.Cut(strings.TrimRight(line, "\r\n"), ":")
		value = strings.TrimPrefix(value, " ")
		switch field {
		case "id":
			w.eventID = value
		case "retry":
			if milliseconds, err := strconv.Atoi(value); err == nil && milliseconds > 0 {
				w.retry = time.Duration(milliseconds) * time.Millisecond
			}
		case "data":
			w.check([]byte(value))
			opened()
		}
	}
	return nil
}

// followSocket follows a WebSocket.
func (w *Watcher) followSocket(ctx context.Context, opened func()) (int, error) {
	client := clientFrom(w.source)
	defer client.CloseIdleConnections()
	header := http.Header{}
	request := http.Request{Header: header}
	request.SetBasicAuth(w.upload.Owner.Name, w.upload.Owner.Password)
	address := "ws" + strings.TrimPrefix(w.options.Watch, "http") + w.path()
	options := &websocket.DialOptions{HTTPClient: client, HTTPHeader: header}
	socket, response, err := websocket.Dial(ctx, address, options)
	if err != nil {
		if response != nil {
			w.wait(response)
			return response.StatusCode, nil
		}
		return 0, err
	}
	defer socket.CloseNow()
	socket.SetReadLimit(maxSnapshotBytes)
	for w.endedAt.IsZero() {
		_, data, err := socket.Read(ctx)
		if err != nil {
			return 0, err
		}
		var message struct {
			Type   string          `json:"type"`
			Upload json.RawMessage `json:"upload"`
		}
		if err := json.Unmarshal(data, &message); err != nil {
			w.problem("is not JSON: %s", err)
			return 0, err
		}
		if message.Type == "progress" {
			w.check(message.Upload)
			opened()
		}
	}
	return http.StatusOK, nil
}

// check compares a snapshot with the one before, and with what was sent.
func (w *Watcher) check(data []byte) {
	at := time.Now()
	sent := w.upload.sent.Load()
	snapshot := &Snapshot{}
	if err := json.Unmarshal(data, snapshot); err != nil {
		w.problem("is not a snapshot: %s", err)
		return
	}
	w.snapshots++
	if last := w.last; last != nil {
		sameAttempt := snapshot.Attempt == last.Attempt
		switch {
		case snapshot.Attempt < last.Attempt, sameAttempt && snapshot.Sequence < last.Sequence:
			w.problem("goes back from version %d.%d to %d.%d",
				last.Attempt, last.Sequence, snapshot.Attempt, snapshot.Sequence)
		case sameAttempt && snapshot.Bytes < last.Bytes:
			w.problem("goes back from %d to %d bytes", last.Bytes, snapshot.Bytes)
		}
	}
	if snapshot.UploadID != w.upload.ID {
		w.problem("is of the upload %q", snapshot.UploadID)
	}
	if snapshot.Bytes > sent {
		w.problem("shows %d bytes when %d were sent", snapshot.Bytes, sent)
	}
	w.last = snapshot
	if snapshot.isFinal() {
		w.endedAt = at
		if snapshot.State != "completed" || snapshot.Bytes != w.upload.Size {
			w.problem("ends as %s with %d of %d bytes", snapshot.State, snapshot.Bytes, w.upload.Size)
		}
	}
}

func (w *Watcher) problem(format string, values ...any) {
	if len(w.problems) < maxProblems {
		w.problems = append(w.problems, "a snapshot of "+w.upload.ID+" "+fmt.Sprintf(format, values...))
	}
}
