package main

import (
	"testing"
)

func TestSize(t *testing.T) {
	for in, want := range map[string]size{"1": 1, "4096": 4096, "1K": 1 << 10, "256M": 256 << 20, "2g": 2 << 30, "3T": 3 << 40} {
		got, err := parseSize(in)
		if err != nil || got != want {
			t.Errorf("parseSize(%q) = %d, %v; want %d", in, got, err, want)
		}
		if again, err := parseSize(got.String()); err != nil || again != got {
			t.Errorf("%d is printed as %q, which reads as %d, %v", got, got.String(), again, err)
		}
	}
	for _, in := range []string{"", "0", "K", "1.5G", "-1", "1KB", "1P", " 1", "8388608T", "99999999999999999999"} {
		if got, err := parseSize(in); err == nil {
			t.Errorf("parseSize(%q) = %d, want an error", in, got)
		}
	}
}
