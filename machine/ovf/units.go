package ovf

import (
	"fmt"
	"math"
	"strconv"
	"strings"

	"github.com/davit-oci/davit/machine"
)

// parseCapacity returns a number of units in bytes. A capacity that is a
// property of the machine ("${size}") has no number here and is an error.
func parseCapacity(capacity, units string) (int64, error) {
	n, err := parseDecimal(capacity)
	if err != nil {
		return 0, fmt.Errorf("capacity %q is not a number of bytes", capacity)
	}
	factor, err := parseUnits(units)
	if err != nil {
		if words, other := parseMemoryUnits(units); other == nil {
			factor, err = words, nil
		}
	}
	if err != nil {
		return 0, err
	}
	if n > machine.MaxCapacity/factor {
		return 0, fmt.Errorf("capacity %s of %q is more than 2^58 bytes", capacity, units)
	}
	return n * factor, nil
}

// parseUnits reads a programmatic unit of DSP0004, annex C, as far as it can
// be about bytes: "byte", "byte * 2^30", "byte * 10^9", "byte * 1024 * 1024".
func parseUnits(units string) (int64, error) {
	factors := strings.Split(units, "*")
	if strings.TrimSpace(factors[0]) != "byte" {
		return 0, fmt.Errorf("units %q are not bytes", units)
	}
	bytes := int64(1)
	for _, f := range factors[1:] {
		base, exponent, power := strings.Cut(strings.TrimSpace(f), "^")
		b, err := parseDecimal(strings.TrimSpace(base))
		e := int64(1)
		if err == nil && power {
			e, err = parseDecimal(strings.TrimSpace(exponent))
		}
		if err != nil || b == 0 {
			return 0, fmt.Errorf("units %q cannot be read", units)
		}
		for range min(e, 64) { // 2^64 is too much already; 1^e is 1
			if b > machine.MaxCapacity/bytes {
				return 0, fmt.Errorf("units %q are more than 2^58 bytes", units)
			}
			bytes *= b
		}
	}
	return bytes, nil
}

// memoryUnits are the words of products for units of memory, and of disks: VMware
// before OVF 1.0 and VirtualBox wrote MegaBytes, by which all mean 2^20.
var memoryUnits = map[string]int64{
	"byte":     1,
	"kilobyte": 1 << 10, "kb": 1 << 10, "kib": 1 << 10, "kibibyte": 1 << 10,
	"megabyte": 1 << 20, "mb": 1 << 20, "mib": 1 << 20, "mebibyte": 1 << 20,
	"gigabyte": 1 << 30, "gb": 1 << 30, "gib": 1 << 30, "gibibyte": 1 << 30,
	"terabyte": 1 << 40, "tb": 1 << 40, "tib": 1 << 40, "tebibyte": 1 << 40,
}

// parseMemoryUnits reads units of memory.
func parseMemoryUnits(units string) (int64, error) {
	word := strings.ToLower(strings.TrimSpace(units))
	if n, ok := memoryUnits[strings.TrimSuffix(word, "s")]; ok {
		return n, nil
	}
	if n, err := parseUnits(strings.Replace(word, "bytes", "byte", 1)); err == nil {
		return n, nil
	}
	return 0, fmt.Errorf("units %q are not bytes", units)
}

// parseDecimal reads digits and nothing else: no sign, no "_", no spaces.
func parseDecimal(s string) (int64, error) {
	if strings.ContainsFunc(s, func(r rune) bool { return r < '0' || r > '9' }) {
		return 0, strconv.ErrSyntax
	}
	n, err := strconv.ParseUint(s, 10, 64)
	if err != nil || n > math.MaxInt64 {
		return 0, strconv.ErrRange
	}
	return int64(n), nil
}
