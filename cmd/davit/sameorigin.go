package main

import (
	"fmt"
	"net"
	"net/http"
	"net/netip"
	"strings"
)

// fromPrograms lets requests of programs through to h, and refuses those that a
// web page makes a browser send: the registry knows no users, and a page could
// push to it and read it.
//
// A page of another origin is told by the headers that browsers add and no page
// can leave out (Fetch Metadata; Origin, RFC 6454). A page whose name was moved
// to this address after it was loaded is of the same origin, and is told by its
// name in Host: DNS rebinding. With a public address nobody can say which names
// it has, and only the former is checked.
func fromPrograms(listen string, address netip.Addr, h http.Handler) http.Handler {
	asked, _, _ := net.SplitHostPort(listen)
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		site := r.Header.Get("Sec-Fetch-Site")
		switch {
		case r.Header.Get("Origin") != "":
			refuse(w, http.StatusForbidden, "it comes from a web page: its Origin is %q", r.Header.Get("Origin"))
		case site != "" && site != "none" && site != "same-origin":
			refuse(w, http.StatusForbidden, "it comes from a web page: Sec-Fetch-Site is %q", site)
		case address.IsLoopback() && !isLocal(r.Host, asked):
			refuse(w, http.StatusMisdirectedRequest, "its Host is %q, and this registry listens at %s", r.Host, address)
		default:
			h.ServeHTTP(w, r)
		}
	})
}

// isLocal says whether host, as in a request, is this machine: a name or an
// address of loopback, or what was given to --listen.
func isLocal(host, asked string) bool {
	name := host
	if h, _, err := net.SplitHostPort(host); err == nil {
		name = h
	}
	name = strings.TrimSuffix(strings.ToLower(strings.TrimSuffix(strings.TrimPrefix(name, "["), "]")), ".")
	if addr, err := netip.ParseAddr(name); err == nil {
		return addr.Unmap().IsLoopback()
	}
	// RFC 6761: no resolver may ask the network for localhost.
	return name == "localhost" || strings.HasSuffix(name, ".localhost") || asked != "" && name == strings.ToLower(asked)
}

// refuse answers as the distribution spec has errors.
func refuse(w http.ResponseWriter, status int, format string, args ...any) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	message := "the request is refused: " + fmt.Sprintf(format, args...)
	_ = writeJSON(w, map[string]any{"errors": []map[string]string{{"code": "DENIED", "message": message}}})
}
