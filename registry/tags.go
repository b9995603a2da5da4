package registry

import (
	"regexp"
	"slices"
	"strings"
)

// Tags that tools keep for themselves: the referrers tag schema of the distribution spec (sha256-HEX), davit's own tag per referrer
// where that schema is all there is (sha256-HEX.16HEX), and cosign's older tags (sha256-HEX.sig, .att, .sbom).
var toolTagPattern = regexp.MustCompile(`^sha256-[0-9a-f]{64}(\.[0-9a-zA-Z._-]*)?$`)

func toolTag(tag string) bool { return toolTagPattern.MatchString(tag) }

// SortTags sorts in natural order: numbers in tags by value, so that v9 is before v10. The newest by that order is last.
func SortTags(tags []string) { slices.SortFunc(tags, CompareTags) }

// CompareTags is the order of [SortTags]: negative when a is before b. Only equal strings compare as 0.
func CompareTags(a, b string) int {
	x, y := a, b
	for x != "" && y != "" {
		if isDigit(x[0]) && isDigit(y[0]) {
			var m, n string
			m, x = cutNumber(x)
			n, y = cutNumber(y)
			if len(m) != len(n) {
				return len(m) - len(n)
			}
			if c := strings.Compare(m, n); c != 0 {
				return c
			}
			continue
		}
		if x[0] != y[0] {
			return int(x[0]) - int(y[0])
		}
		x, y = x[1:], y[1:]
	}
	if len(x) != len(y) {
		return len(x) - len(y)
	}
	return strings.Compare(a, b) // they differ in leading zeros only
}

func isDigit(c byte) bool { return '0' <= c && c <= '9' }

// cutNumber takes the digits s begins with, without leading zeros: as strings of one length they compare as numbers, of any size.
func cutNumber(s string) (number, rest string) {
	n := 0
	for n < len(s) && isDigit(s[n]) {
		n++
	}
	return strings.TrimLeft(s[:n], "0"), s[n:]
}
