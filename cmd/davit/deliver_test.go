package main

import (
	"testing"

	"github.com/davit-oci/davit/machine/delivery"
)

// The help names all targets there are.
func TestTargetNames(t *testing.T) {
	var all []string
	for _, target := range delivery.Targets() {
		all = append(all, target.Name)
	}
	if got := joined(all...); got != targetNames || "ova, "+descriptorNames != targetNames {
		t.Errorf("the targets are %s", got)
	}
}
