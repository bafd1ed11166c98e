package main

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strings"
)

const maxTicketBytes = 16_384

// access is the part of a ticket with which a watcher connects to Centrifugo.
type access struct {
	URL   string `json:"url"`
	Token string `json:"token"`
}

type publication struct {
	Data json.RawMessage `json:"data"`
}

// push is a message of Centrifugo on a unidirectional HTTP stream, a line of JSON.
type push struct {
	Connect *struct {
		Subs map[string]struct {
			Publications []publication `json:"publications"`
		} `json:"subs"`
	} `json:"connect"`
	Pub *publication `json:"pub"`
}

// followEdge gets a token, and follows the upload through Centrifugo. The upload was announced
// before, so that Centrifugo has its newest snapshot.
func (w *Watcher) followEdge(ctx context.Context, opened func()) (int, error) {
	status, found, err := w.buyAccess(ctx)
	if err != nil || status != http.StatusCreated {
		return status, err
	}
	if err := checkAddress(found.URL); err != nil {
		return 0, err
	}
	address, err := url.Parse(found.URL)
	if err != nil {
		return 0, err
	}
	body := fmt.Sprintf(`{"token": %q}`, found.Token)
	response, closeAll, err := w.post(ctx, address, "", body)
	if err != nil {
		return 0, err
	}
	defer closeAll()
	if response.StatusCode != http.StatusOK {
		return response.StatusCode, nil
	}
	return response.StatusCode, w.readPushes(response.Body, opened)
}

// buyAccess buys a ticket for the upload, and returns the access that comes with it.
func (w *Watcher) buyAccess(ctx context.Context) (int, *access, error) {
	address, err := url.Parse(w.options.Watch + w.options.Mount + "/tickets")
	if err != nil {
		return 0, nil, err
	}
	body := fmt.Sprintf(`{"targets": [{"upload_id": %q}]}`, w.upload.ID)
	response, closeAll, err := w.post(ctx, address, w.credentials(), body)
	if err != nil {
		return 0, nil, err
	}
	defer closeAll()
	var ticket struct {
		Edge *access `json:"edge"`
	}
	if response.StatusCode != http.StatusCreated {
		w.wait(response)
		return response.StatusCode, nil, nil
	}
	if err := json.NewDecoder(io.LimitReader(response.Body, maxTicketBytes)).Decode(&ticket); err != nil {
		return 0, nil, err
	}
	if ticket.Edge == nil {
		w.problem("cannot be followed: the server has no Centrifugo")
		return http.StatusNotFound, nil, nil
	}
	return response.StatusCode, ticket.Edge, nil
}

// post sends a request on a connection of its own, with small buffers.
func (w *Watcher) post(
	ctx context.Context, address *url.URL, credentials string, body string,
) (*http.Response, func(), error) {
	connection, err := dial(ctx, address.Host, w.source)
	if err != nil {
		return nil, nil, err
	}
	stop := context.AfterFunc(ctx, func() { connection.Close() })
	closeAll := func() {
		stop()
		connection.Close()
	}
	if credentials != "" {
		credentials = "Authorization: Basic " + credentials + "\r\n"
	}
	request := fmt.Sprintf("POST %s HTTP/1.1\r\nHost: %s\r\n%sContent-Type: application/json\r\n"+
		"Content-Length: %d\r\n\r\n%s", address.Path, address.Host, credentials, len(body), body)
	if _, err := io.WriteString(connection, request); err != nil {
		closeAll()
		return nil, nil, err
	}
	response, err := http.ReadResponse(bufio.NewReaderSize(connection, 2048), nil)
	if err != nil {
		closeAll()
		return nil, nil, err
	}
	return response, closeAll, nil
}

func (w *Watcher) readPushes(body io.Reader, opened func()) error {
	lines := bufio.NewReaderSize(body, 2048)
	for w.endedAt.IsZero() {
		line, err := lines.ReadString('\n')
		if err != nil {
			return err
		}
		if line = strings.TrimSpace(line); line == "" {
			continue
		}
		var message push
		if err := json.Unmarshal([]byte(line), &message); err != nil {
			w.problem("is not JSON: %s", err)
			return err
		}
		if message.Connect != nil {
			for _, subscription := range message.Connect.Subs {
				for _, each := range subscription.Publications {
					w.check(each.Data)
				}
			}
			opened()
		}
		if message.Pub != nil {
			w.check(message.Pub.Data)
		}
	}
	return nil
}
