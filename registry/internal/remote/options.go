package remote

import (
	"time"
)

// Options are those of package registry, which says what each of them is for.
type Options struct {
	PlainHTTP   []string // HOST[:PORT], or "*"
	Insecure    []string // HOST[:PORT], or "*"
	CAFile      string
	Hosts       map[string]HostOptions // by HOST[:PORT]
	AuthFile    string
	OnLogin     func(user, secret string)
	Jobs        int
	IdleTimeout time.Duration
	Retries     int // negative: never
	Backoff     time.Duration
	UserAgent   string
}

// HostOptions are settings of one host.
type HostOptions struct {
	PlainHTTP     bool
	Insecure      bool
	CAFile        string
	ClientCert    string
	ClientKey     string
	TokenServices []string
	Mirrors       []string
}

const (
	defaultJobs        = 8
	defaultIdleTimeout = 60 * time.Second
	defaultRetries     = 5
	defaultBackoff     = 250 * time.Millisecond
)

func (o Options) withDefaults() Options {
	if o.Jobs <= 0 {
		o.Jobs = defaultJobs
	}
	if o.IdleTimeout <= 0 {
		o.IdleTimeout = defaultIdleTimeout
	}
	switch {
	case o.Retries == 0:
		o.Retries = defaultRetries
	case o.Retries < 0:
		o.Retries = 0
	}
	if o.UserAgent == "" {
		o.UserAgent = "davit"
	}
	if o.Backoff <= 0 {
		o.Backoff = defaultBackoff
	}
	return o
}

func (o Options) host(host string) HostOptions { return o.Hosts[host] }
