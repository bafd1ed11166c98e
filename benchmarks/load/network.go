package main

import (
	"context"
	"fmt"
	"net"
	"net/http"
	"net/url"
	"time"
)

const dialTimeout = 20 * time.Second

// checkAddress refuses everything but http://127.0.0.1, so that no other machine gets load.
func checkAddress(text string) error {
	address, err := url.Parse(text)
	if err != nil {
		return err
	}
	if address.Scheme != "http" || address.Hostname() != "127.0.0.1" || address.Port() == "" {
		return fmt.Errorf("%q: only http://127.0.0.1:PORT is allowed", text)
	}
	return nil
}

// dial connects to 127.0.0.1 from one of the source addresses: each has its own ports.
func dial(ctx context.Context, address string, source int) (net.Conn, error) {
	host, _, err := net.SplitHostPort(address)
	if err != nil || host != "127.0.0.1" {
		return nil, fmt.Errorf("%q: only 127.0.0.1 is allowed", address)
	}
	dialer := net.Dialer{
		Timeout:   dialTimeout,
		LocalAddr: &net.TCPAddr{IP: net.IPv4(127, 0, 0, byte(1+source))},
	}
	return dialer.DialContext(ctx, "tcp4", address)
}

// clientFrom returns a client whose connections have that source address.
func clientFrom(source int) *http.Client {
	return &http.Client{
		Transport: &http.Transport{
			DialContext: func(ctx context.Context, _, address string) (net.Conn, error) {
				return dial(ctx, address, source)
			},
			Proxy:           nil,
			ReadBufferSize:  2048,
			WriteBufferSize: 2048,
		},
		// A redirect is an answer like any other: it is not followed.
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
}

func newClient() *http.Client { return clientFrom(0) }
