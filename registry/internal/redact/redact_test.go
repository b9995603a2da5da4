package redact

import (
	"strings"
	"testing"
)

// What is a secret is not shown, and what is none stays as it was written.
func TestRedact(t *testing.T) {
	for _, s := range []string{
		"basic credential not found",
		"Basic authentication failed: bearer tokens are required",
		"missing username or password for basic auth",
		"Basic HTTP authentication is disabled, bearer authorization is not",
		`Basic realm="Artifactory Realm"`,
		`Bearer realm="https://auth.example/token",service="x"`,
		"unknown scheme Bearer realm=x",
		"basic user/password, bearer user.name and basic access-control.",
		"the basic unauthorized",
		"Negotiate, Basic",
		"authorization: denied",
		"authorization failed: basic credentials expired",
	} {
		if got := text(s); got != s {
			t.Errorf("%q became %q", s, got)
		}
	}
	for _, form := range []string{
		"Authorization: Basic %",
		"authorization=Bearer %",
		`{"Authorization":"Bearer %"}`,
		`{\"authorization\":\"Bearer %\"}`,
		"Proxy-Authorization: Basic %, and more",
		"Authorization: %",
		"Authorization: Negotiate %",
		"token refused: Bearer %",
		"bearer % is expired",
		"Basic %.",
		"BASIC\t%",
	} {
		for _, value := range []string{"YWxpY2U6aHVudGVyMg==", "dTpw", "YTpi=", "eyJhbGciOi.eyJzdWIi.c2ln_-", "hunter2hunter2", "0123456789abcdef", "a2V5LWE/b+c="} {
			s := strings.ReplaceAll(form, "%", value)
			if got := text(s); strings.Contains(got, value) || !strings.Contains(got, hidden) {
				t.Errorf("%q became %q", s, got)
			}
		}
	}
	// Where the field is named, no guess is made from the looks.
	for _, s := range []string{"Authorization: Bearer wonderland", `"authorization": "Basic abcdefgh"`} {
		if got := text(s); strings.Contains(got, "wonderland") || strings.Contains(got, "abcdefgh") {
			t.Errorf("%q became %q", s, got)
		}
	}
	for s, want := range map[string]string{
		"GET https://alice:pw@a.example/x?sig=1#f no": "GET https://a.example/x no",
		"wss://t0ken@a.example:5000/":                 "wss://a.example:5000/",
	} {
		if got := text(s); got != want {
			t.Errorf("%q became %q, want %q", s, got, want)
		}
	}
}
