// Package charset reads the encodings that descriptors are in beside UTF-8: of
// the code page that the host had on which they were written.
package charset

import (
	"github.com/davit-oci/davit/machine"
	"golang.org/x/text/encoding"
	"golang.org/x/text/encoding/htmlindex"
	"golang.org/x/text/encoding/ianaindex"
)

// Find returns the encoding of a name, as browsers understand it or as IANA has
// it. What has no meaning in an encoding becomes U+FFFD. ISO-8859-1 is taken for
// windows-1252, since nobody means its control characters. An unknown name is
// [machine.ErrUnsupported].
func Find(name string) (encoding.Encoding, error) {
	e, err := htmlindex.Get(name)
	if err != nil {
		e, err = ianaindex.IANA.Encoding(name)
	}
	if err != nil || e == nil || e == encoding.Replacement {
		return nil, machine.Unsupported("encoding %.40q is not read: save it as UTF-8", name)
	}
	return e, nil
}
