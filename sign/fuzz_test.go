package sign_test

import (
	"bytes"
	"errors"
	"os"
	"testing"

	"github.com/davit-oci/davit/sign"
)

// FuzzLoadKey wants of any file that it is refused, or that it is a key whose
// public half can be written, the same each time. Nobody is asked for the
// passphrase of a file that is broken elsewhere, and at most once.
func FuzzLoadKey(f *testing.F) {
	for _, key := range plainKeys() {
		f.Add(key)
	}
	encrypted, err := os.ReadFile("testdata/cosign.key")
	if err != nil {
		f.Fatal(err)
	}
	f.Add(encrypted)
	f.Add(append(bytes.Clone(encrypted), encrypted...))

	errNoPassphrase := errors.New("no passphrase today")
	f.Fuzz(func(t *testing.T, data []byte) {
		asked := 0
		key, err := sign.LoadKey(data, func() ([]byte, error) {
			asked++
			return nil, errNoPassphrase
		})
		switch {
		case asked > 1:
			t.Errorf("asked for the passphrase %d times", asked)
		case (asked == 1) != errors.Is(err, errNoPassphrase):
			t.Errorf("asked %d times, and then: %v", asked, err)
		}
		if err != nil {
			return
		}
		public, err := key.PublicPEM()
		if err != nil {
			t.Fatalf("the key was read, and its public half cannot be written: %v", err)
		}
		again, err := sign.LoadKey(data, nil)
		if err != nil {
			t.Fatalf("read once, and not a second time: %v", err)
		}
		if p, err := again.PublicPEM(); err != nil || !bytes.Equal(p, public) || again.Hint() != key.Hint() {
			t.Errorf("read twice, it is two keys: %v", err)
		}
	})
}
