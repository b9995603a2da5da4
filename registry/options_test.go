package registry

import (
	"reflect"
	"testing"
	"time"
)

// Every setting reaches the protocol.
func TestOptionsAreHandedOn(t *testing.T) {
	o := Options{
		PlainHTTP: []string{"a"}, Insecure: []string{"b"}, CAFile: "c", Hosts: map[string]HostOptions{"d": {Mirrors: []string{"e"}}},
		AuthFile: "f", OnLogin: func(user, secret string) {}, Jobs: 1, IdleTimeout: time.Second, Retries: 2, Backoff: time.Minute, UserAgent: "g",
	}
	given, got := reflect.ValueOf(o), reflect.ValueOf(o.remote())
	if given.NumField() != got.NumField() {
		t.Errorf("%d settings are known, and %d are handed on", given.NumField(), got.NumField())
	}
	for i := range given.NumField() {
		name := given.Type().Field(i).Name
		if given.Field(i).IsZero() {
			t.Errorf("%s is not tested", name)
		}
		if f := got.FieldByName(name); !f.IsValid() || f.IsZero() {
			t.Errorf("%s is lost", name)
		}
	}
	if got := o.remote().Hosts["d"].Mirrors; len(got) != 1 || got[0] != "e" {
		t.Errorf("of a host: %v", got)
	}
}
