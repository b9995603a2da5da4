package machine_test

import (
	"fmt"
	"slices"
	"testing"

	"github.com/davit-oci/davit/machine"
)

// What is said of all machines is not lost without a word where one is written.
func TestCommonLosses(t *testing.T) {
	e := machine.Envelope{
		Product:    &machine.Product{Name: "Shop"},
		EULAs:      []string{"long"},
		Properties: []machine.Property{{Key: "password", Value: "s3cret", Password: true}},
	}
	var got []string
	for _, l := range e.CommonLosses() {
		got = append(got, fmt.Sprint(l.Field, "=", l.Value))
	}
	if want := []string{"envelope.product=Shop", "envelope.eulas[0]=", "envelope.properties[0]=password"}; !slices.Equal(got, want) {
		t.Errorf("%q, want %q", got, want)
	}
	if losses := (&machine.Envelope{Product: new(machine.Product)}).CommonLosses(); losses != nil {
		t.Errorf("%v of nothing", losses)
	}
}
