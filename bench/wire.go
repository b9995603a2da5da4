//go:build ignore

// A proxy that counts what goes through it: bytes of the connections of clients, headers and all, and requests.
//
//	go run bench/wire.go --to http://HOST:PORT [--listen 127.0.0.1:0] [--count 127.0.0.1:0]
//
// The first line of output is the address to use instead of the registry's, and the address of the counters: whoever connects to
// that one is sent one line, the bytes to the registry, the bytes from it, and the requests, all since the start.
package main

import (
	"flag"
	"fmt"
	"net"
	"net/http"
	"net/http/httputil"
	"net/url"
	"os"
	"sync"
	"sync/atomic"
)

var up, down, requests atomic.Int64

func main() {
	listen := flag.String("listen", "127.0.0.1:0", "`ADDRESS` of the proxy")
	count := flag.String("count", "127.0.0.1:0", "`ADDRESS` of the counters")
	to := flag.String("to", "", "`URL` of the registry")
	flag.Parse()
	if err := run(*listen, *count, *to); err != nil {
		fmt.Fprintln(os.Stderr, "bench/wire.go:", err)
		os.Exit(1)
	}
}

func run(listen, count, to string) error {
	target, err := url.Parse(to)
	if err != nil {
		return err
	}
	front, err := net.Listen("tcp", listen)
	if err != nil {
		return err
	}
	counters, err := net.Listen("tcp", count)
	if err != nil {
		return err
	}
	go func() {
		for {
			c, err := counters.Accept()
			if err != nil {
				return
			}
			fmt.Fprintln(c, up.Load(), down.Load(), requests.Load())
			c.Close()
		}
	}()
	fmt.Println(front.Addr(), counters.Addr())

	proxy := &httputil.ReverseProxy{
		// The client's Host stays, so that the places a registry names for uploads are behind the proxy, too.
		Rewrite: func(r *httputil.ProxyRequest) {
			host := r.Out.Host
			r.SetURL(target)
			r.Out.Host = host
		},
		// Not to be slower than need be; and nothing is added to what the client asked for.
		Transport:  &http.Transport{MaxIdleConnsPerHost: 64, DisableCompression: true, ReadBufferSize: 1 << 18, WriteBufferSize: 1 << 18},
		BufferPool: &buffers{sync.Pool{New: func() any { return make([]byte, 1<<18) }}},
	}
	return http.Serve(listener{front}, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		requests.Add(1)
		proxy.ServeHTTP(w, r)
	}))
}

type buffers struct{ pool sync.Pool }

func (b *buffers) Get() []byte  { return b.pool.Get().([]byte) }
func (b *buffers) Put(p []byte) { b.pool.Put(p) } //nolint:staticcheck // a slice header on the heap is nothing beside 256 KiB

type listener struct{ net.Listener }

func (l listener) Accept() (net.Conn, error) {
	c, err := l.Listener.Accept()
	if err != nil {
		return nil, err
	}
	return conn{c}, nil
}

type conn struct{ net.Conn }

func (c conn) Read(p []byte) (int, error) {
	n, err := c.Conn.Read(p)
	up.Add(int64(n))
	return n, err
}

func (c conn) Write(p []byte) (int, error) {
	n, err := c.Conn.Write(p)
	down.Add(int64(n))
	return n, err
}
