package main

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"strings"
	"sync/atomic"
	"time"
)

const chunkBytes = 16_384

// Upload is one upload, and what was sent of it.
type Upload struct {
	Owner  User
	Name   string
	ID     string
	Size   int64
	sent   atomic.Int64 // bytes that were passed to the connection
	lastAt atomic.Int64 // when the last byte was, in nanoseconds
	status int
	err    error
}

// announce creates the upload, so that watchers can open before it begins.
func (u *Upload) announce(ctx context.Context, client *http.Client, o *Options) error {
	body := strings.NewReader(fmt.Sprintf(`{"total_bytes": %d, "filename": %q}`, u.Size, u.Name))
	request, err := http.NewRequestWithContext(ctx, http.MethodPost, o.Server+o.Mount, body)
	if err != nil {
		return err
	}
	request.SetBasicAuth(u.Owner.Name, u.Owner.Password)
	request.Header.Set("Content-Type", "application/json")
	response, err := client.Do(request)
	if err != nil {
		return err
	}
	defer response.Body.Close()
	var snapshot Snapshot
	if response.StatusCode != http.StatusCreated {
		return fmt.Errorf("an upload cannot be announced: %s", response.Status)
	}
	if err := json.NewDecoder(response.Body).Decode(&snapshot); err != nil {
		return err
	}
	u.ID = snapshot.UploadID
	return nil
}

// send sends the upload at its rate.
func (u *Upload) send(ctx context.Context, client *http.Client, o *Options) {
	body := &pacedBody{upload: u, context: ctx, perSecond: o.BytesPerSecond, started: time.Now()}
	request, err := http.NewRequestWithContext(ctx, http.MethodPut, o.Server+o.Files+u.Name, body)
	if err != nil {
		u.err = err
		return
	}
	request.ContentLength = u.Size
	request.SetBasicAuth(u.Owner.Name, u.Owner.Password)
	request.Header.Set("Upload-Id", u.ID)
	response, err := client.Do(request)
	if err != nil {
		u.err = err
		return
	}
	defer response.Body.Close()
	_, u.err = io.Copy(io.Discard, response.Body)
	u.status = response.StatusCode
}

func (u *Upload) isAccepted() bool { return u.err == nil && u.status >= 200 && u.status < 300 }

// pacedBody is a body of zero bytes that can be read at a rate.
type pacedBody struct {
	upload    *Upload
	context   context.Context
	perSecond int64
	started   time.Time
}

func (b *pacedBody) Read(buffer []byte) (int, error) {
	sent := b.upload.sent.Load()
	left := b.upload.Size - sent
	if left == 0 {
		return 0, io.EOF
	}
	due := b.started.Add(time.Duration(float64(sent) / float64(b.perSecond) * float64(time.Second)))
	select {
	case <-time.After(time.Until(due)):
	case <-b.context.Done():
		return 0, b.context.Err()
	}
	n := int(min(left, chunkBytes, int64(len(buffer))))
	clear(buffer[:n])
	if left == int64(n) {
		b.upload.lastAt.Store(time.Now().UnixNano())
	}
	b.upload.sent.Add(int64(n))
	return n, nil
}
