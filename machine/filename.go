package machine

import (
	"errors"
	"fmt"
	"strings"
	"unicode"
	"unicode/utf8"
)

const maxFileName = 63 // bytes; leaves room for an extension and a number on every file system, and is an ovf:diskId's limit

// FileName returns a base name for a file, without extension, made from a name
// that somebody else chose: of a machine, a disk. It has ASCII letters, digits,
// ".", "_" and "-" only, each run of anything else being one "-"; it begins
// with no dot or dash, ends with neither, is no device of Windows with or
// without extension, and has at most 63 bytes. Where nothing of s is left it is
// fallback. Two names can have one FileName.
func FileName(s, fallback string) string {
	var b strings.Builder
	gap := false
	for _, r := range s {
		switch {
		case r >= 'a' && r <= 'z', r >= 'A' && r <= 'Z', r >= '0' && r <= '9', r == '.', r == '_', r == '-':
			if gap {
				b.WriteByte('-')
			}
			b.WriteRune(r)
			gap = false
		default:
			gap = true
		}
	}
	name := strings.Trim(b.String(), ".-")
	if isWindowsDevice(name) {
		name = "_" + name
	}
	// Windows removes dots at the end: two names would be one.
	name = strings.TrimRight(name[:min(len(name), maxFileName)], ".-")
	if name == "" {
		return fallback
	}
	return name
}

// isWindowsDevice says whether Windows would open a device for a file of that
// name: it does so in every folder, whatever follows the first dot and the spaces
// before it.
func isWindowsDevice(name string) bool {
	base, _, _ := strings.Cut(strings.ToUpper(name), ".")
	switch base = strings.TrimRight(base, " "); base {
	case "CON", "PRN", "AUX", "NUL", "CONIN$", "CONOUT$":
		return true
	}
	number, numbered := strings.CutPrefix(base, "COM")
	if !numbered {
		number, numbered = strings.CutPrefix(base, "LPT")
	}
	return numbered && utf8.RuneCountInString(number) == 1 && strings.Contains("0123456789\u00b9\u00b2\u00b3", number) //nolint:gocritic // the order is right
}

// maxPlainName is the longest name that every file system takes, in bytes.
const maxPlainName = 255

// CheckName says why a name, which may come from anybody, is not that of a file
// in the folder where it is looked for or written, the same one on every system
// and what it looks like; nil if it is. A name that davit gives to files while it
// writes them is not: somebody else's file would take their place.
func CheckName(name string) error {
	lower := strings.ToLower(name)
	switch {
	case name == "":
		return errors.New("a file without a name")
	case len(name) > maxPlainName:
		return fmt.Errorf("%.60q...: a name of %d bytes, more than %d", name, len(name), maxPlainName)
	case !utf8.ValidString(name):
		return fmt.Errorf("%q: a name that is no UTF-8", name)
	case strings.ContainsAny(name, `/\<>:"|?*`):
		return fmt.Errorf(`%q: a file's name on every system has none of / \ < > : " | ? *`, name)
	case strings.ContainsFunc(name, isHidden):
		return fmt.Errorf("%q: a name with characters that do not show", name)
	case strings.HasSuffix(name, ".") || strings.HasSuffix(name, " "):
		return fmt.Errorf("%q: a file's name on every system ends with no dot and no space", name)
	case isWindowsDevice(name):
		return fmt.Errorf("%q: the name of a device on Windows", name)
	case strings.HasPrefix(lower, ".") && strings.Contains(lower, ".davit-"):
		return fmt.Errorf("%q: a name for the temporary files of davit", name)
	}
	return nil
}

// isHidden says whether a character is a control, or does not show: what orders
// text from right to left, fills no place, or chooses how another one looks.
func isHidden(r rune) bool {
	return !unicode.IsGraphic(r) || unicode.In(r, unicode.Other_Default_Ignorable_Code_Point, unicode.Variation_Selector)
}

// IsPlainName says whether [CheckName] has nothing against a name.
func IsPlainName(name string) bool { return CheckName(name) == nil }
