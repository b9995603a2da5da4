package machine

import (
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
// name: it does so in every folder, and whatever follows the first dot.
func isWindowsDevice(name string) bool {
	base, _, _ := strings.Cut(strings.ToUpper(name), ".")
	switch base {
	case "CON", "PRN", "AUX", "NUL":
		return true
	}
	return len(base) == 4 && (base[:3] == "COM" || base[:3] == "LPT") && base[3] >= '0' && base[3] <= '9'
}

// IsPlainName says whether a file's name is that of a file in the folder of its
// descriptor, on every system: no path, no device, and nothing in it that does
// not show.
func IsPlainName(name string) bool {
	return name != "" && name != "." && name != ".." && !strings.ContainsAny(name, `/\:`) && !isWindowsDevice(name) &&
		utf8.ValidString(name) && !strings.ContainsFunc(name, func(r rune) bool { return !unicode.IsGraphic(r) })
}
